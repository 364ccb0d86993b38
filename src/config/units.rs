//! Durations, sizes, counts and secrets as they are written in TOML.
//!
//! Every type also takes its value from a string, because what `${NAME}` puts in is always one.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use crate::idempotency::outcome::StatusPattern;
use crate::idempotency::retention::Keep;

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

/// A duration: whole numbers with the units `ms`, `s`, `m`, `h` and `d`, as in `"500ms"` or
/// `"1h30m"`. Resolution: milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

/// A duration, or `"forever"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(pub Keep);

/// Bytes: a whole number, with the unit `B`, `KiB`, `MiB`, `GiB` or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A whole number, zero or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

/// `true` or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub bool);

/// A status (`408`) or a class of them (`"4xx"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub StatusPattern);

const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The longest duration that can be written: a hundred years. Anything beyond is a slip.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

impl Time {
    fn parse(text: &str) -> Result<Self, String> {
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

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Keep::For(duration) => Time(duration).fmt(f),
            Keep::Forever => f.write_str("forever"),
        }
    }
}

impl Size {
    fn parse(text: &str) -> Result<Self, String> {
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
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, bytes): &&(&str, u64)| self.0 >= *bytes && self.0.is_multiple_of(*bytes);
        let (unit, bytes) = SIZE_UNITS.iter().find(whole).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn status_number(number: u64) -> Result<Status, String> {
    match u16::try_from(number) {
        Ok(status @ 200..=599) => Ok(Status(StatusPattern::Exact(status))),
        Ok(_) | Err(_) => Err(format!("{number} is not the status of an answer (200 to 599)")),
    }
}

fn status_text(text: &str) -> Result<Status, String> {
    if let Ok(number) = text.parse() {
        return status_number(number);
    }
    match text {
        "2xx" => Ok(Status(StatusPattern::Class(2))),
        "3xx" => Ok(Status(StatusPattern::Class(3))),
        "4xx" => Ok(Status(StatusPattern::Class(4))),
        "5xx" => Ok(Status(StatusPattern::Class(5))),
        other => {
            Err(format!("\"{other}\" is not a status; write 408, or \"4xx\" for a whole class"))
        }
    }
}

/// Reads a value that stands as a string or a whole number.
struct Scalar<T> {
    expecting: &'static str,
    text: fn(&str) -> Result<T, String>,
    number: Option<fn(u64) -> Result<T, String>>,
}

impl<T> Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        match self.number {
            Some(read) => read(number).map_err(E::custom),
            None => Err(E::invalid_type(serde::de::Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(serde::de::Unexpected::Signed(number), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let expecting = "a duration such as \"5s\"";
        source.deserialize_any(Scalar { expecting, text: Self::parse, number: None })
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = |text: &str| match text {
            "forever" => Ok(Self(Keep::Forever)),
            other => Time::parse(other).map(|time| Self(Keep::For(time.0))),
        };
        let expecting = "a duration such as \"7d\", or \"forever\"";
        source.deserialize_any(Scalar { expecting, text, number: None })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let expecting = "a size such as \"1MiB\"";
        let number = Some((|bytes| Ok(Self(bytes))) as fn(u64) -> _);
        source.deserialize_any(Scalar { expecting, text: Self::parse, number })
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = |text: &str| {
            text.parse().map(Self).map_err(|_| format!("\"{text}\" is not a whole number"))
        };
        let number = Some((|count| Ok(Self(count))) as fn(u64) -> _);
        source.deserialize_any(Scalar { expecting: "a whole number, zero or more", text, number })
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let expecting = "a status such as 408 or \"4xx\"";
        let number = Some(status_number as fn(u64) -> _);
        source.deserialize_any(Scalar { expecting, text: status_text, number })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        // A number is taken too: an error about its type would have to be kept from showing it.
        let text = |text: &str| Ok(Self::new(text.to_owned()));
        let number = Some((|number: u64| Ok(Self::new(number.to_string()))) as fn(u64) -> _);
        source.deserialize_any(Scalar { expecting: "a string", text, number })
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct TrueOrFalse;
        impl Visitor<'_> for TrueOrFalse {
            type Value = Flag;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Flag, E> {
                Ok(Flag(flag))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Flag, E> {
                text.parse()
                    .map(Flag)
                    .map_err(|_| E::custom(format!("\"{text}\" is neither true nor false")))
            }
        }
        source.deserialize_any(TrueOrFalse)
    }
}
