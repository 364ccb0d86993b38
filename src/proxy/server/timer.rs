//! The deadline of a connection, at the cost of a single runtime timer per connection instead of
//! per request.
//!
//! A deadline is set whenever a connection waits for a request. Nearly all of these waits end long
//! before, so the runtime's timer stays armed unchanged, and is moved only on firing before the
//! current deadline.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of one connection.
#[derive(Debug, Default)]
pub(super) struct DeadlineTimer(Option<Pin<Box<Sleep>>>);

impl DeadlineTimer {
    /// Completes once `deadline` has passed.
    pub(super) fn poll_until(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<()> {
        let armed = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    /// Waits for `first` until `given_up`, then for `second` (all in milliseconds from the start);
    /// returns the elapsed time.
    async fn waited(first: u64, given_up: u64, second: u64) -> Duration {
        let mut timer = DeadlineTimer::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let first = poll_fn(|context| timer.poll_until(at(first), context));
        let _ = tokio::time::timeout(Duration::from_millis(given_up), first).await;
        tokio::time::sleep(Duration::from_millis(given_up)).await;
        let second = poll_fn(|context| timer.poll_until(at(second), context));
        assert!(tokio::time::timeout(Duration::from_secs(60), second).await.is_ok());
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
