//! The one place that reads the wall clock.
//!
//! Wall-clock time only ever decides retention (SPEC promise 14); waits and timeouts use
//! `tokio::time::Instant`, which cannot jump.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time, in whole milliseconds since the Unix epoch (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This time plus `duration`, stopping at the end of time instead of wrapping.
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// How long before `later` this time is; zero when it is not before.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }

    /// As the standard library's type, for formatting.
    pub fn to_system_time(self) -> SystemTime {
        // Year 9999 is the last an HTTP-date can name; later times print as that.
        const LAST_HTTP_DATE: u64 = 253_402_300_799;
        UNIX_EPOCH + Duration::from_secs((self.0 / 1000).min(LAST_HTTP_DATE))
    }

    /// As an HTTP-date (RFC 9110 section 5.6.7).
    pub fn to_http_date(self) -> String {
        httpdate::fmt_http_date(self.to_system_time())
    }
}

/// The duration in whole milliseconds, at most `u64::MAX`.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The wall-clock time now.
#[expect(clippy::disallowed_methods, reason = "this module is the one reader of the wall clock")]
pub fn now() -> Timestamp {
    // A clock before 1970 reads as 1970: retention then only gets longer.
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(millis(since_epoch))
}
