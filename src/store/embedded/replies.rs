//! Replies of the writer to those who asked.
//!
//! The writer's thread could wake each waiting request. Where requests share a processor with it,
//! the first would run before the second is woken, and the runtime would go to sleep and be woken
//! again for the next, a system call and two switches each time. So all replies of a batch go to one
//! task of the runtime, which hands them out from within.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::store::{StoreError, Swap};

/// Batches that may wait for the task; the writer hands out further ones itself.
const BATCHES: usize = 64;

/// Result of a swap, and the place it goes to.
pub(super) type SwapReply = (oneshot::Sender<Result<Swap, StoreError>>, Result<Swap, StoreError>);

/// The writer's side.
pub(super) struct Replies {
    batches: mpsc::Sender<Vec<SwapReply>>,
    task_runs: Arc<AtomicBool>,
}

/// The asking side: holds the queue of the task that hands out, until the task runs.
pub(super) struct ReplyTask {
    batches: Mutex<Option<mpsc::Receiver<Vec<SwapReply>>>>,
    running: Arc<AtomicBool>,
}

/// Makes both sides.
pub(super) fn replies() -> (Replies, ReplyTask) {
    let (sender, receiver) = mpsc::channel(BATCHES);
    let running = Arc::new(AtomicBool::new(false));
    let batches = Mutex::new(Some(receiver));
    (Replies { batches: sender, task_runs: running.clone() }, ReplyTask { batches, running })
}

impl Replies {
    /// Sends the replies of a batch.
    pub(super) fn send(&self, batch: Vec<SwapReply>) {
        // A single reply has nothing to gain from the task.
        if batch.len() < 2 || !self.task_runs.load(Ordering::Acquire) {
            return hand_out(batch);
        }
        match self.batches.try_send(batch) {
            Ok(()) => {}
            // The runtime is overloaded, or gone with the task.
            Err(TrySendError::Full(batch) | TrySendError::Closed(batch)) => hand_out(batch),
        }
    }
}

impl ReplyTask {
    /// Starts the task on the runtime of the first caller.
    pub(super) fn run(&self) {
        if self.running.load(Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut batches) = batches else { return };
        runtime.spawn(async move {
            while let Some(batch) = batches.recv().await {
                hand_out(batch);
            }
        });
        self.running.store(true, Ordering::Release);
    }
}

fn hand_out(batch: Vec<SwapReply>) {
    for (to, reply) in batch {
        // The asking task may be gone; the change stands all the same.
        let _ = to.send(reply);
    }
}
