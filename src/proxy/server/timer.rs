//! The deadline for request heads on one connection, at the cost of one runtime timer for the
//! connection instead of one for each request.
//!
//! hyper sets a new deadline each time it waits for a head. Nearly all of these waits end long
//! before, so the runtime's timer stays armed as it is, and is moved only when it fires before the
//! current deadline.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt;
use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of one HTTP/1.1 connection. hyper waits for one head at a time, always in the task of
/// the connection, so one deadline is enough.
#[derive(Debug, Clone, Default)]
pub(super) struct HeaderTimer(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

/// A wait for a head.
struct HeaderDeadline {
    deadline: Instant,
    timer: HeaderTimer,
}

impl HeaderTimer {
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

impl rt::Timer for HeaderTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(HeaderDeadline { deadline: Instant::now() + duration, timer: self.clone() })
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(HeaderDeadline { deadline: deadline.into(), timer: self.clone() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

impl rt::Sleep for HeaderDeadline {}

impl Future for HeaderDeadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.timer.poll_until(self.deadline, context)
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Timer as _;

    use super::*;

    /// Waits for `first` until `given_up`, then for `second` (all in milliseconds from the start);
    /// returns the elapsed time.
    async fn waited(first: u64, given_up: u64, second: u64) -> Duration {
        let timer = HeaderTimer::default();
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
    async fn an_earlier_deadline_than_the_one_before_is_not_missed() {
        let waited = waited(3_600_000, 1, 20).await;
        assert!(waited >= Duration::from_millis(20), "{waited:?}");
    }
}
