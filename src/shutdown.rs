//! Ending well: the signal that stops accepting, and the tasks a drain waits for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Tells everybody that the process is ending. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// Sends the signal.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// A signal and what sends it.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Starts the end. Doing it twice changes nothing.
    pub fn fire(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether the end has started.
    pub fn started(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the end to start; also returns when nobody can start it any more.
    pub async fn wait(&mut self) {
        // An error means that the trigger is gone, which is an end as well.
        let _ = self.0.wait_for(|started| *started).await;
    }
}

/// Tasks that outlive whoever started them and that a drain waits for.
#[derive(Debug, Clone)]
pub struct Tasks(Arc<Semaphore>);

/// More tasks than can ever run at once: the count is bounded by connections and claims.
const MOST: u32 = 1 << 28;

impl Default for Tasks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST as usize)))
    }
}

/// A task and its place among the running ones. The task is boxed at once: an `async` block around
/// it would hold it twice, and the runtime moves what it is given several times.
struct Tracked {
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
    _running: Option<OwnedSemaphorePermit>,
}

impl Future for Tracked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.task.as_mut().poll(context)
    }
}

impl Tasks {
    /// Starts a task of its own.
    #[expect(clippy::disallowed_methods, reason = "this is the tracked spawn")]
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = self.0.clone().try_acquire_owned().ok();
        tokio::spawn(Tracked { task: Box::pin(task), _running: running });
    }

    /// How many are running.
    pub fn running(&self) -> usize {
        MOST as usize - self.0.available_permits()
    }

    /// Waits until all have ended, for `limit` at most; says whether they have.
    pub async fn ended(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.0.acquire_many(MOST)).await.is_ok()
    }
}
