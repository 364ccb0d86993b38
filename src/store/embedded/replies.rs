//! Replies of the writer to the waiting requests.
//!
//! The writer's thread could wake each waiting request directly. On a processor shared with the
//! requests, the first request would run before the second is woken, and the runtime would sleep
//! and wake for every further reply, at the cost of a system call and two context switches. All
//! replies of a batch therefore go to a single task of the runtime, for distribution within the
//! runtime.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::store::{StoreError, Swap};

/// Maximum number of batches in the task's queue; the writer distributes further batches directly.
const BATCHES: usize = 64;

/// Result of a swap, and its recipient.
pub(super) type SwapReply = (oneshot::Sender<Result<Swap, StoreError>>, Result<Swap, StoreError>);

/// The writer's side.
pub(super) struct Replies {
    batches: mpsc::Sender<Vec<SwapReply>>,
    task_runs: Arc<AtomicBool>,
}

/// The requesting side: holds the queue of the distributing task until the task runs.
pub(super) struct ReplyTask {
    batches: Mutex<Option<mpsc::Receiver<Vec<SwapReply>>>>,
    running: Arc<AtomicBool>,
}

/// Creates both sides.
pub(super) fn replies() -> (Replies, ReplyTask) {
    let (sender, receiver) = mpsc::channel(BATCHES);
    let running = Arc::new(AtomicBool::new(false));
    let batches = Mutex::new(Some(receiver));
    (Replies { batches: sender, task_runs: running.clone() }, ReplyTask { batches, running })
}

impl Replies {
    /// Sends the replies of a batch.
    pub(super) fn send(&self, batch: Vec<SwapReply>) {
        // A single reply gains no advantage from the task.
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
        // The recipient may be gone; the change stands regardless.
        let _ = to.send(reply);
    }
}
