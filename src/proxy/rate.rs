//! The rate of requests of each caller: a generic cell rate algorithm, a number for each caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use super::reply;
use crate::idempotency::TenantId;
use crate::problem::{Problem, Slug};

/// Callers in memory. Beyond, the least recent is forgotten, and begins anew with a full burst.
const MAX_CALLERS: u64 = 100_000;

/// Requests in a time, with a burst, for each caller.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// Time that each request takes from the allowance, in nanoseconds.
    interval: u64,
    /// Allowance of a caller that has not asked for long, in nanoseconds.
    burst: u64,
    started: Instant,
    /// Time at which each caller's allowance is whole again, in nanoseconds since the start.
    callers: Cache<TenantId, Arc<AtomicU64>>,
}

impl RateLimit {
    /// A limit of a request in each `interval`, and of `burst` requests at once.
    pub(crate) fn new(interval: Duration, burst: usize) -> Self {
        let interval = nanoseconds(interval).max(1);
        let burst = interval.saturating_mul(burst.try_into().unwrap_or(u64::MAX)).max(interval);
        // A caller that has been away for a whole burst has the same allowance as a new one.
        let idle = Duration::from_nanos(burst) + Duration::from_secs(1);
        let callers = Cache::builder().max_capacity(MAX_CALLERS).time_to_idle(idle).build();
        Self { interval, burst, started: Instant::now(), callers }
    }

    /// Reports whether the limit is this one.
    pub(crate) fn is(&self, interval: Duration, burst: usize) -> bool {
        let other = Self::new(interval, burst);
        (self.interval, self.burst) == (other.interval, other.burst)
    }

    /// Counts a request of a caller.
    ///
    /// # Errors
    /// 429 with the time after which the caller may ask again; the request is not counted.
    pub(crate) fn take(&self, caller: &TenantId) -> Result<(), Problem> {
        self.take_at(caller, nanoseconds(self.started.elapsed())).map_err(|wait| {
            Problem::new(
                Slug::QuotaExceeded,
                "You send more requests than are accepted in this time. Nothing was sent; please \
                 try again later.",
            )
            .retry_after(wait.max(reply::RETRY_LATER))
            .close()
        })
    }

    fn take_at(&self, caller: &TenantId, now: u64) -> Result<(), Duration> {
        let whole = match self.callers.get(caller) {
            Some(whole) => whole,
            None => self.callers.get_with(*caller, Arc::default),
        };
        let counted = whole.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole| {
            let next = whole.max(now).saturating_add(self.interval);
            (next - now <= self.burst).then_some(next)
        });
        counted.map(drop).map_err(|whole| {
            let wait =
                whole.saturating_add(self.interval).saturating_sub(now.saturating_add(self.burst));
            Duration::from_nanos(wait)
        })
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        let limit = RateLimit::new(Duration::from_millis(100), 3);
        let (one, other) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        let now = 5 * SECOND;
        for _ in 0..3 {
            assert_eq!(limit.take_at(&one, now), Ok(()));
        }
        assert_eq!(limit.take_at(&one, now), Err(Duration::from_millis(100)));
        assert_eq!(limit.take_at(&one, now + SECOND / 20), Err(Duration::from_millis(50)));
        // Refused requests are not counted, and others have an allowance of their own.
        assert_eq!(limit.take_at(&one, now + SECOND / 10), Ok(()));
        assert!(limit.take_at(&one, now + SECOND / 10).is_err());
        assert_eq!(limit.take_at(&other, now), Ok(()));
        for _ in 0..3 {
            assert_eq!(limit.take_at(&one, now + 2 * SECOND), Ok(()));
        }
        assert!(limit.take_at(&one, now + 2 * SECOND).is_err());
    }

    #[test]
    fn over_a_long_time_the_rate_is_exact() {
        let limit = RateLimit::new(Duration::from_millis(10), 1);
        let caller = TenantId::from_bytes([1; 16]);
        let passed = (0..10_000)
            .filter(|step| limit.take_at(&caller, SECOND + step * SECOND / 1000).is_ok());
        assert_eq!(passed.count(), 1000);
    }
}
