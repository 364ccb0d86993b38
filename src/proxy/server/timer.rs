//! The time a client has for a request's head, and a backend for an answer that is passed through,
//! at the cost of one timer for a connection instead of two for each request.
//!
//! hyper asks for a new deadline each time it waits for a head. Nearly all of these waits end long
//! before it, so the runtime's timer is left where it is and only moved when it goes off too early
//! for the present deadline.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt;
use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of one connection. Only one deadline is waited for at a time, always by the task of the
/// connection: no head is read while the request before it is being answered.
#[derive(Debug, Clone, Default)]
pub(in crate::proxy) struct ClientTimer(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

/// Waits for one deadline.
struct Until {
    deadline: Instant,
    timer: ClientTimer,
}

impl ClientTimer {
    /// What comes of `future`; `None` when that takes longer than `limit`.
    pub(in crate::proxy) async fn within<F>(
        &self,
        limit: Duration,
        mut future: F,
    ) -> Option<F::Output>
    where
        F: Future + Unpin,
    {
        let mut deadline = None;
        poll_fn(|context| {
            if let Poll::Ready(output) = Pin::new(&mut future).poll(context) {
                return Poll::Ready(Some(output));
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
            self.poll_until(deadline, context).map(|()| None)
        })
        .await
    }

    fn poll_until(&self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let armed = armed.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if armed.deadline() > deadline {
            armed.as_mut().reset(deadline);
        }
        ready!(armed.as_mut().poll(context));
        if armed.deadline() < deadline && Instant::now() < deadline {
            armed.as_mut().reset(deadline);
            return armed.as_mut().poll(context);
        }
        Poll::Ready(())
    }
}

impl rt::Timer for ClientTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Until { deadline: Instant::now() + duration, timer: self.clone() })
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Until { deadline: deadline.into(), timer: self.clone() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

impl rt::Sleep for Until {}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.timer.poll_until(self.deadline, context)
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Timer as _;

    use super::*;

    /// Begins to wait for `first`, gives up, then waits for `second` (milliseconds from the start);
    /// says how long that took in all.
    async fn waited(first: u64, given_up: u64, second: u64) -> Duration {
        let timer = ClientTimer::default();
        let start = Instant::now();
        let at = |millis| (start + Duration::from_millis(millis)).into();
        let first =
            tokio::time::timeout(Duration::from_millis(given_up), timer.sleep_until(at(first)));
        let _ = first.await;
        tokio::time::sleep(Duration::from_millis(given_up)).await;
        let second = tokio::time::timeout(Duration::from_secs(60), timer.sleep_until(at(second)));
        assert!(second.await.is_ok());
        start.elapsed()
    }

    #[tokio::test]
    async fn no_deadline_comes_too_early_whatever_the_one_before_was() {
        for (first, given_up, second) in [(20, 5, 60), (20, 20, 60), (5, 20, 60), (50, 1, 50)] {
            let waited = waited(first, given_up, second).await;
            assert!(waited >= Duration::from_millis(second), "{first} {given_up}: {waited:?}");
        }
    }

    #[tokio::test]
    async fn what_is_in_time_is_not_cut_off_by_an_earlier_deadline_of_the_connection() {
        let timer = ClientTimer::default();
        let head = timer.sleep_until((Instant::now() + Duration::from_millis(10)).into());
        let gave_up = tokio::time::timeout(Duration::from_millis(1), head).await;
        assert!(gave_up.is_err());
        let (in_time, late) = (Duration::from_millis(40), Duration::from_secs(3600));
        let answer = Box::pin(tokio::time::sleep(in_time));
        assert!(timer.within(Duration::from_secs(60), answer).await.is_some());
        let start = Instant::now();
        let answer = Box::pin(tokio::time::sleep(late));
        assert!(timer.within(in_time, answer).await.is_none());
        assert!(start.elapsed() >= in_time);
    }

    #[tokio::test]
    async fn an_earlier_deadline_than_the_one_before_is_not_missed() {
        let waited = waited(3_600_000, 1, 20).await;
        assert!(waited >= Duration::from_millis(20), "{waited:?}");
    }
}
