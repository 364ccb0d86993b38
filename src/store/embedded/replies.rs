//! How answers get back to those who asked.
//!
//! The writer's thread could wake each of them. Where they share a processor with it, the first would
//! run before the second is woken, and the runtime would go to sleep and be woken again for the next,
//! a system call and two switches each time. So all answers of a batch go to one task of the
//! runtime, which hands them out from within.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::store::{StoreError, Swap};

/// Batches of answers that wait for the task; the writer hands out the next ones itself.
const BATCHES: usize = 64;

/// Who asked, and what came of it.
pub(super) type SwapReply = (oneshot::Sender<Result<Swap, StoreError>>, Result<Swap, StoreError>);

/// The writer's side.
pub(super) struct Replies {
    batches: mpsc::Sender<Vec<SwapReply>>,
    handed_out: Arc<AtomicBool>,
}

/// The asking side: the task that hands out, until it runs.
pub(super) struct ReplyTask {
    batches: Mutex<Option<mpsc::Receiver<Vec<SwapReply>>>>,
    running: Arc<AtomicBool>,
}

/// Both sides.
pub(super) fn replies() -> (Replies, ReplyTask) {
    let (sender, receiver) = mpsc::channel(BATCHES);
    let running = Arc::new(AtomicBool::new(false));
    let batches = Mutex::new(Some(receiver));
    (Replies { batches: sender, handed_out: running.clone() }, ReplyTask { batches, running })
}

impl Replies {
    /// Sends the answers of a batch on their way.
    pub(super) fn send(&self, batch: Vec<SwapReply>) {
        // A single one has nothing to gain.
        if batch.len() < 2 || !self.handed_out.load(Ordering::Acquire) {
            return hand_out(batch);
        }
        match self.batches.try_send(batch) {
            Ok(()) => {}
            // The runtime is busy, or gone with the task.
            Err(TrySendError::Full(batch) | TrySendError::Closed(batch)) => hand_out(batch),
        }
    }
}

impl ReplyTask {
    /// Starts the task on the runtime of whoever asks first.
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
    for (to, answer) in batch {
        // Whoever asked may be gone; the change stands all the same.
        let _ = to.send(answer);
    }
}
