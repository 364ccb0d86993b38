//! Times in rows: RFC 3339, or seconds or milliseconds since 1970.

use crate::clock::Timestamp;

/// Numbers from here on are milliseconds: as seconds this would be the year 5138.
const FIRST_MILLIS: u64 = 100_000_000_000;

/// Numbers from here on are no milliseconds (the year 5138 again), but microseconds or finer, which
/// are not guessed.
const FIRST_UNREADABLE: u64 = 100_000_000_000_000;

/// The time of a text or number; `None`: not readable.
pub(crate) fn row_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let whole = text.split('.').next().unwrap_or_default();
    if !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(whole, text.get(whole.len() + 1..).unwrap_or_default());
    }
    rfc3339(text)
}

fn number(whole: &str, fraction: &str) -> Option<Timestamp> {
    let whole: u64 = whole.parse().ok()?;
    if whole >= FIRST_UNREADABLE {
        return None;
    }
    if whole >= FIRST_MILLIS {
        return Some(Timestamp::from_millis(whole));
    }
    Some(Timestamp::from_millis(whole * 1000 + millis(fraction)?))
}

/// Milliseconds of the digits behind a point.
fn millis(fraction: &str) -> Option<u64> {
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let padded: String = fraction.chars().chain("000".chars()).take(3).collect();
    padded.parse().ok()
}

/// A time such as `2026-01-31T23:59:59.5+08:00`; a blank may stand for the `T`. A time without an
/// offset could be in any zone, so it is not readable.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        let all = part.bytes().all(|byte| byte.is_ascii_digit());
        if all { part.parse().ok() } else { None }
    };
    let bytes = text.as_bytes();
    let separators = [(4, "-"), (7, "-"), (10, "Tt "), (13, ":"), (16, ":")];
    let separated = separators
        .iter()
        .all(|(at, allowed)| bytes.get(*at).is_some_and(|byte| allowed.as_bytes().contains(byte)));
    if !separated {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24;
    if !in_range || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|at: char| !at.is_ascii_digit())?),
        None => ("", rest),
    };
    let offset = offset(zone)?;
    let days = days_since_epoch(year, month, day);
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    let millis = u64::try_from(seconds).ok()?.checked_mul(1000)? + millis(fraction)?;
    Some(Timestamp::from_millis(millis))
}

/// Seconds east of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = match zone.get(1..)?.split_once(':') {
        Some(parts) => parts,
        None => zone.get(1..)?.split_at_checked(2)?,
    };
    let number = |text: &str| -> Option<i64> {
        let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        if two { text.parse().ok() } else { None }
    };
    Some(sign * (number(hours)? * 3600 + number(minutes)? * 60))
}

/// Days of a date since 1970-01-01, by years that start in March.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, millis: Option<u64>) {
        assert_eq!(row_time(text).map(Timestamp::as_millis), millis, "{text}");
    }

    #[test]
    fn times_of_many_apis_are_read() {
        check("1700000000", Some(1_700_000_000_000));
        check("1700000000.25", Some(1_700_000_000_250));
        check("1700000000123", Some(1_700_000_000_123));
        check("2023-11-14T22:13:20Z", Some(1_700_000_000_000));
        check("2023-11-14T22:13:20.5z", Some(1_700_000_000_500));
        check("2023-11-15 06:13:20.123456+08:00", Some(1_700_000_000_123));
        check("2023-11-14T14:13:20-0800", Some(1_700_000_000_000));
        check("2024-02-29T00:00:00Z", Some(1_709_164_800_000));
    }

    #[test]
    fn what_is_no_time_is_not_guessed() {
        for text in [
            "",
            "yesterday",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-13-14T22:13:20Z",
            "2023-11-14T25:13:20Z",
            "2023-11-14T22:13:20+8",
            "14/11/2023 22:13:20Z",
            "1700000000x",
            "-5",
            "1.2.3",
            // Microseconds and nanoseconds.
            "1700000000000000",
            "1700000000000000000",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn every_day_is_the_one_that_is_written() {
        for day in (0..40_000).step_by(13) {
            let at = Timestamp::from_millis(day * 86_400_000 + 123);
            assert_eq!(row_time(&crate::clock::rfc3339(at)), Some(at));
        }
    }
}
