//! The pace of the schedule. While the process serves requests, each step in the background is
//! followed by a rest, so that a backlog of unknown outcomes takes a part of the processor and of
//! the store only. Without requests, and for the steps of retries, there is none.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Rest after a step, as a multiple of the time that the step took.
const REST_FACTOR: u32 = 3;
/// Longest rest: a step that took longer waited for its backend.
const LONGEST_REST: Duration = Duration::from_millis(4);
/// Time for which the process counts as serving after it has served a request.
const SERVING: Duration = Duration::from_secs(5);
/// Time between two looks at the number of requests.
const LOOK: Duration = Duration::from_millis(100);

/// The pace of all routes' schedules.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<PaceState>);

#[derive(Debug, Default)]
struct PaceState {
    looked: Option<Instant>,
    requests: u64,
    served: Option<Instant>,
}

impl Pace {
    /// The rest after a step that took so long and ended now. `requests`: the number of requests
    /// that were served so far.
    pub(super) fn rest(
        &self,
        took: Duration,
        now: Instant,
        requests: impl FnOnce() -> u64,
    ) -> Duration {
        // No change of the state can panic halfway but for the count, which leaves it as it was.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_none_or(|looked| now >= looked + LOOK) {
            let (requests, is_first) = (requests(), state.looked.is_none());
            state.looked = Some(now);
            if requests != state.requests && !is_first {
                state.served = Some(now);
            }
            state.requests = requests;
        }
        let is_serving = state.served.is_some_and(|served| now < served + SERVING);
        if is_serving { (took * REST_FACTOR).min(LONGEST_REST) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn steps_rest_while_requests_are_served_and_at_no_other_time() {
        let (pace, start) = (Pace::default(), Instant::now());
        // The requests before the first look say nothing of the present.
        assert_eq!(pace.rest(MS, start, || 7), Duration::ZERO);
        assert_eq!(pace.rest(MS, start + LOOK, || 7), Duration::ZERO);
        let served = start + 2 * LOOK;
        assert_eq!(pace.rest(MS, served, || 8), 3 * MS);
        assert_eq!(pace.rest(Duration::from_secs(1), served, || 8), LONGEST_REST);
        // Between two looks nothing is counted.
        let unread = || -> u64 { panic!("counted") };
        assert_eq!(pace.rest(MS, served + LOOK / 2, unread), 3 * MS);
        assert_eq!(pace.rest(MS, served + SERVING - MS, || 8), 3 * MS);
        assert_eq!(pace.rest(MS, served + SERVING + LOOK, || 8), Duration::ZERO);
    }
}
