//! Ending well: the signal that stops accepting, and the tasks a drain waits for.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, watch};

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

    /// Whether the end has started since this was cloned; costs no lock.
    pub fn changed(&self) -> bool {
        // An error means that the trigger is gone, which is an end as well.
        self.0.has_changed().unwrap_or(true)
    }

    /// Waits for the end to start; also returns when nobody can start it any more.
    pub async fn wait(&mut self) {
        // An error means that the trigger is gone, which is an end as well.
        let _ = self.0.wait_for(|started| *started).await;
    }
}

/// Tasks that outlive whoever started them and that a drain waits for. Cheap to clone; clones count
/// together.
#[derive(Debug, Clone, Default)]
pub struct Tasks(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    count: AtomicUsize,
    /// Told when the count falls to zero.
    none_left: Notify,
}

/// A task and its place among the running ones. The task is boxed at once: an `async` block around
/// it would hold it twice, and the runtime moves what it is given several times.
struct Tracked {
    /// There until it is dropped.
    task: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    running: Arc<Running>,
}

impl Future for Tracked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.task.as_mut().map_or(Poll::Ready(()), |task| task.as_mut().poll(context))
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // First: whoever waits for its end may rely on what it held being let go.
        drop(self.task.take());
        if self.running.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.running.none_left.notify_waiters();
        }
    }
}

impl Tasks {
    /// Starts a task of its own; also while a drain waits, which then waits for this one too.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_boxed(Box::pin(task));
    }

    /// The same for a task that was boxed where it was made: a large one is then not moved.
    #[expect(clippy::disallowed_methods, reason = "this is the tracked spawn")]
    pub fn spawn_boxed(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(Tracked { task: Some(task), running: self.0.clone() });
    }

    /// How many are running.
    pub fn running(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Waits until all have ended, for `limit` at most; says whether they have.
    pub async fn ended(&self, limit: Duration) -> bool {
        let all_ended = async {
            loop {
                let mut none_left = pin!(self.0.none_left.notified());
                // Listens before it looks, so that an end in between is not missed.
                none_left.as_mut().enable();
                if self.running() == 0 {
                    return;
                }
                none_left.await;
            }
        };
        tokio::time::timeout(limit, all_ended).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_drain_waits_for_tasks_that_start_while_it_waits() {
        let tasks = Tasks::default();
        let (first, ended) = oneshot::channel::<()>();
        let (second, also_ended) = oneshot::channel::<()>();
        let within = tasks.clone();
        tasks.spawn(async move {
            let _ = ended.await;
            within.spawn(async move {
                let _ = also_ended.await;
            });
        });
        assert!(!tasks.ended(Duration::ZERO).await);
        let drained = tasks.ended(Duration::from_secs(60));
        let story = async {
            first.send(()).unwrap();
            while tasks.running() != 1 {
                tokio::task::yield_now().await;
            }
            second.send(()).unwrap();
        };
        let (drained, ()) = tokio::join!(drained, story);
        assert!(drained);
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn a_task_that_panics_has_ended() {
        let tasks = Tasks::default();
        tasks.spawn(async { panic!("on purpose") });
        assert!(tasks.ended(Duration::from_secs(60)).await);
    }
}
