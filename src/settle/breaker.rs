//! The breaker of a backend: after several failures in a row no step is taken for a while, then a
//! single one finds out. A step that is not taken changes no record.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open the breaker.
const FAILURES: u32 = 5;
/// The first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The breaker of one backend.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
struct BreakerState {
    failures: u32,
    /// Set while the breaker is open.
    closed_until: Option<Instant>,
    /// Length of the last pause.
    pause: Duration,
}

impl Breaker {
    /// Asks for a step; the error is the time to ask again. While the breaker is open, one step in
    /// each pause is admitted.
    pub(crate) fn admit(&self, now: Instant) -> Result<(), Instant> {
        let mut state = self.state();
        match state.closed_until {
            Some(until) if now < until => Err(until),
            Some(_) => {
                let pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                state.pause = pause;
                state.closed_until = Some(now + pause);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Reports a backend that is down as far as known.
    pub(crate) fn is_open(&self) -> bool {
        self.state().closed_until.is_some()
    }

    /// Notes a usable answer.
    pub(crate) fn succeeded(&self) {
        *self.state() = BreakerState::default();
    }

    /// Notes a step without a usable answer. Returns true when the breaker opens.
    pub(crate) fn failed(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES || state.closed_until.is_some() {
            return false;
        }
        state.pause = FIRST_PAUSE;
        state.closed_until = Some(now + FIRST_PAUSE);
        true
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        // No change of the state can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failures_in_a_row_pause_the_steps_and_one_success_ends_the_pause() {
        let breaker = Breaker::default();
        let start = Instant::now();
        for _ in 1..FAILURES {
            assert!(!breaker.failed(start));
            assert_eq!(breaker.admit(start), Ok(()));
        }
        assert!(breaker.failed(start), "the breaker opens");
        let end = breaker.admit(start).expect_err("open");
        assert_eq!(breaker.admit(end), Ok(()), "one finds out");
        let later = breaker.admit(end).expect_err("only one");
        assert!(later > end);
        assert!(!breaker.failed(end), "still open");
        breaker.succeeded();
        assert_eq!(breaker.admit(start), Ok(()));
    }
}
