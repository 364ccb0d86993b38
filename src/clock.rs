//! The only reader of the wall clock.
//!
//! Wall-clock time decides retention only, so a jump can at worst keep an answer too long or too
//! short. Waits and timeouts use `tokio::time::Instant`, which cannot jump.

use std::cell::RefCell;
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

    /// Sum of this time and `duration`, stopping at the end of time instead of wrapping.
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Duration from this time until `later`; zero if `later` is in the past.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }

    /// Conversion to the standard library's type, for formatting.
    pub fn to_system_time(self) -> SystemTime {
        // Year 9999 is the last representable in an HTTP-date; later times are printed as the last.
        const LAST_HTTP_DATE: u64 = 253_402_300_799;
        UNIX_EPOCH + Duration::from_secs((self.0 / 1000).min(LAST_HTTP_DATE))
    }

    /// Formats as an HTTP-date (RFC 9110 section 5.6.7).
    pub fn to_http_date(self) -> String {
        thread_local! {
            /// The last formatted second: under load, many requests share a second.
            static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
        }
        LAST.with_borrow_mut(|(second, text)| {
            if *second != self.0 / 1000 {
                *second = self.0 / 1000;
                *text = httpdate::fmt_http_date(self.to_system_time());
            }
            text.clone()
        })
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

/// Time since a fixed point in the past, continuing while the machine sleeps, without jumps. Leases
/// are measured in this time.
pub fn uptime() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }
    // On other systems a machine waking from sleep may consider itself alive for a moment too long.
    #[cfg(not(target_os = "linux"))]
    {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }
}

/// Formats as RFC 3339 in UTC with milliseconds, such as `2026-01-31T23:59:59.000Z`.
pub fn rfc3339(at: Timestamp) -> String {
    let (days, rest) = (at.0 / 86_400_000, at.0 % 86_400_000);
    let (year, month, day) = civil(days.min(LAST_DAY));
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, milli) = (rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Reads a time of RFC 3339 section 5.6, such as `2026-01-31T23:59:59.5+08:00`; `None`: the text is
/// no such time. Times before 1970 read as 1970, and a leap second as the second after.
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let number = |at: std::ops::Range<usize>| -> Option<u64> {
        let digits = text.get(at)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let is = |at: usize, wanted: &str| text.get(at..at + 1).is_some_and(|it| wanted.contains(it));
    let separators = [(4, "-"), (7, "-"), (10, "Tt"), (13, ":"), (16, ":")];
    if !separators.iter().all(|(at, wanted)| is(*at, wanted)) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let in_month = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_month || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let zone_at = rest.find(|at: char| !at.is_ascii_digit() && at != '.')?;
    let (fraction, zone) = rest.split_at(zone_at);
    let millis = match fraction.strip_prefix('.') {
        None if fraction.is_empty() => 0,
        Some(digits) if !digits.is_empty() && !digits.contains('.') => {
            format!("{digits:0<3}").get(..3)?.parse().ok()?
        }
        Some(_) | None => return None,
    };
    let days = days_from_civil(year, month, day)?;
    let local = days * 86_400_000 + hour * 3_600_000 + minute * 60_000 + second * 1000 + millis;
    let utc = match zone.as_bytes() {
        [b'Z' | b'z'] => Some(local),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = 19 + zone_at;
            let (hours, minutes) = (number(at + 1..at + 3)?, number(at + 4..at + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3_600_000 + minutes * 60_000;
            Some(if *sign == b'+' { local.saturating_sub(offset) } else { local + offset })
        }
        _ => None,
    };
    utc.map(|utc| Timestamp(if year < 1970 { 0 } else { utc }))
}

/// Days since 1970-01-01 of a day in the proleptic Gregorian calendar; `None`: there is no such
/// day. Days before 1970 read as 0.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let (march_year, march_month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let (era, year_of_era) = (march_year / 400, march_year % 400);
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).saturating_sub(719_468);
    (year < 1970 || civil(days) == (year, month, day)).then_some(days)
}

/// 9999-12-31 in days since the epoch: RFC 3339 has four digits for the year.
const LAST_DAY: u64 = 2_932_896;

/// Year, month and day of a day counted from 1970-01-01 in the proleptic Gregorian calendar,
/// computed in years starting in March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_agrees_with_http_dates() {
        for seconds in [0, 951_782_399, 951_782_400, 951_868_800, 1_709_251_199, 4_102_444_800] {
            let at = Timestamp::from_millis(seconds * 1000);
            let text = rfc3339(at);
            let http = at.to_http_date();
            let (day, year) = (&http[5..7], &http[12..16]);
            assert_eq!((&text[0..4], &text[8..10], &text[11..19]), (year, day, &http[17..25]));
            let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = months.find(&http[8..11]).map(|at| at / 3 + 1);
            assert_eq!(text[5..7].parse().ok(), month);
        }
        for days in [0, 1, 58, 59, 60, 11_016, 19_782, 19_783, 20_000, LAST_DAY] {
            let at = Timestamp::from_millis(days * 86_400_000 + 86_399_123);
            assert_eq!(parse_rfc3339(&rfc3339(at)), Some(at));
        }
        assert_eq!(rfc3339(Timestamp::from_millis(1)), "1970-01-01T00:00:00.001Z");
        assert!(rfc3339(Timestamp::from_millis(u64::MAX)).starts_with("9999-12-31T"));
    }

    #[test]
    fn times_of_rfc3339_are_read_in_every_zone_and_nothing_else_is() {
        let noon = parse_rfc3339("2026-01-31T12:00:00Z").unwrap();
        for same in [
            "2026-01-31t12:00:00z",
            "2026-01-31T12:00:00.000Z",
            "2026-01-31T12:00:00.0009Z",
            "2026-01-31T20:00:00+08:00",
            "2026-01-31T06:30:00-05:30",
        ] {
            assert_eq!(parse_rfc3339(same), Some(noon), "{same}");
        }
        assert_eq!(parse_rfc3339("1969-12-31T23:59:59Z"), Some(Timestamp(0)));
        for wrong in [
            "",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31 12:00:00Z",
            "2026-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00.1.2Z",
            "2026-01-31T12:00:00+8:00",
            "2026-01-31T12:00:00+08:60",
            "2026-01-31T12:00:00Z ",
            "+026-01-31T12:00:00Z",
            "2026-01-31T12:00:0é",
        ] {
            assert_eq!(parse_rfc3339(wrong), None, "{wrong}");
        }
    }
}
