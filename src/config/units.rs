//! Kinds of values: durations, sizes, counts, statuses and secrets, as they are written and shown.
//!
//! Every kind is also read from a string, because the environment provides nothing else.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::idempotency::retention::Keep;
use crate::matcher::StatusPattern;

/// A kind of value that a key may have.
pub(super) trait Scalar: Sized {
    /// The kind with an example, for messages: "… must be" this.
    const EXPECTED: &'static str;

    /// The value of a string.
    ///
    /// # Errors
    /// A sentence about the text.
    fn from_text(text: &str) -> Result<Self, String>;

    /// The value of a whole number; `None`: numbers are another kind.
    fn from_integer(_number: i128) -> Option<Result<Self, String>> {
        None
    }

    /// The value of a number with a fraction; `None`: such numbers are another kind.
    fn from_fraction(_number: f64) -> Option<Result<Self, String>> {
        None
    }

    /// The value of a boolean; `None`: booleans are another kind.
    fn from_flag(_flag: bool) -> Option<Self> {
        None
    }
}

/// A share of a whole, from 0.0 to 1.0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SampleShare(pub(super) f64);

impl Scalar for SampleShare {
    const EXPECTED: &'static str = "a share from 0.0 to 1.0";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .and_then(Self::from_fraction)
            .unwrap_or_else(|| Err(format!("\"{text}\" is not {}", Self::EXPECTED)))
    }

    fn from_integer(number: i128) -> Option<Result<Self, String>> {
        match number {
            0 => Some(Ok(Self(0.0))),
            1 => Some(Ok(Self(1.0))),
            _ => Some(Err(format!("{number} is not {}", Self::EXPECTED))),
        }
    }

    fn from_fraction(number: f64) -> Option<Result<Self, String>> {
        Some(match (0.0..=1.0).contains(&number) {
            true => Ok(Self(number)),
            false => Err(format!("{number} is not {}", Self::EXPECTED)),
        })
    }
}

impl Scalar for String {
    const EXPECTED: &'static str = "a string";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

/// A string, a whole number or a boolean, as text.
#[derive(Debug, Clone)]
pub(super) struct ScalarText(pub(super) String);

impl Scalar for ScalarText {
    const EXPECTED: &'static str = "a string, a whole number, true or false";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }

    fn from_integer(number: i128) -> Option<Result<Self, String>> {
        Some(Ok(Self(number.to_string())))
    }

    fn from_flag(flag: bool) -> Option<Self> {
        Some(Self(flag.to_string()))
    }
}

/// A secret: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("…")
    }
}

impl Scalar for Secret {
    const EXPECTED: &'static str = "a string";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self::new(text.to_owned()))
    }

    fn from_integer(number: i128) -> Option<Result<Self, String>> {
        // A token may consist of digits.
        Some(Ok(Self::new(number.to_string())))
    }
}

/// A duration: whole numbers with the units `ms`, `s`, `m`, `h` and `d`, as in `"500ms"` or
/// `"1h30m"`. Resolution: milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

/// The duration written in `text`, as in a configuration; `None`: it is none.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    Time::from_text(text).ok().filter(|_| !text.is_empty()).map(|time| time.0)
}

const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The longest duration that can be written: a hundred years. Anything beyond is a slip.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

impl Scalar for Time {
    const EXPECTED: &'static str = "a duration such as \"5s\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is not a duration; write a whole number and its unit (ms, s, m, h, \
                 d), such as \"5s\""
            )
        };
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (number, after) = leading(rest, |c| c.is_ascii_digit());
            let (unit, after) = leading(after, |c| c.is_ascii_alphabetic());
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let (_, millis) =
                TIME_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            total = number
                .checked_mul(*millis)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(wrong)?;
            rest = after;
        }
        let duration = Duration::from_millis(total);
        if text.is_empty() {
            return Err(wrong());
        }
        if duration > LONGEST {
            return Err(format!("\"{text}\" is longer than a hundred years (36500d)"));
        }
        Ok(Self(duration))
    }
}

fn leading(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|character| !belongs(character)).unwrap_or(text.len()))
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = crate::clock::millis(self.0);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, millis) in TIME_UNITS {
            if rest >= millis {
                write!(f, "{}{unit}", rest / millis)?;
                rest %= millis;
            }
        }
        Ok(())
    }
}

/// A duration, or `"forever"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(pub Keep);

impl Scalar for Period {
    const EXPECTED: &'static str = "a duration such as \"7d\", or \"forever\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "forever" => Ok(Self(Keep::Forever)),
            other => Time::from_text(other).map(|time| Self(Keep::For(time.0))),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Keep::For(duration) => Time(duration).fmt(f),
            Keep::Forever => f.write_str("forever"),
        }
    }
}

/// Bytes: a whole number, with the unit `B`, `KiB`, `MiB`, `GiB` or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Scalar for Size {
    const EXPECTED: &'static str = "a size such as \"1MiB\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is not a size; write a whole number and its unit (B, KiB, MiB, \
                 GiB), such as \"1MiB\""
            )
        };
        let (number, unit) = leading(text, |character| character.is_ascii_digit());
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        number.checked_mul(*bytes).map(Self).ok_or_else(wrong)
    }

    fn from_integer(number: i128) -> Option<Result<Self, String>> {
        u64::try_from(number).ok().map(|bytes| Ok(Self(bytes)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, bytes): &&(&str, u64)| self.0 >= *bytes && self.0.is_multiple_of(*bytes);
        let (unit, bytes) = SIZE_UNITS.iter().find(whole).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl Scalar for u64 {
    const EXPECTED: &'static str = "a whole number, zero or more";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("\"{text}\" is not a whole number"))
    }

    fn from_integer(number: i128) -> Option<Result<Self, String>> {
        Self::try_from(number).ok().map(Ok)
    }
}

impl Scalar for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("\"{text}\" is neither true nor false"))
    }

    fn from_flag(flag: bool) -> Option<Self> {
        Some(flag)
    }
}

/// A status (`408`) or a class of them (`"4xx"`).
impl Scalar for StatusPattern {
    const EXPECTED: &'static str = "a status such as 408 or \"4xx\"";

    fn from_text(text: &str) -> Result<Self, String> {
        if let Some(status) = text.parse().ok().and_then(<Self as Scalar>::from_integer) {
            return status;
        }
        match text {
            "2xx" => Ok(Self::Class(2)),
            "3xx" => Ok(Self::Class(3)),
            "4xx" => Ok(Self::Class(4)),
            "5xx" => Ok(Self::Class(5)),
            other => {
                Err(format!("\"{other}\" is not a status; write 408, or \"4xx\" for a whole class"))
            }
        }
    }

    fn from_integer(number: i128) -> Option<Result<Self, String>> {
        let status = match u16::try_from(number) {
            Ok(status @ 200..=599) => Ok(Self::Exact(status)),
            Err(_) if number < 0 => return None,
            Ok(_) | Err(_) => Err(format!("{number} is not the status of an answer (200 to 599)")),
        };
        Some(status)
    }
}
