//! Rates: a number of requests in a time.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::units::Scalar;

/// Requests in a second, a minute or an hour: `"100/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests.
    pub count: u32,
    /// The time in which they may come.
    pub period: Duration,
}

const PERIODS: [(&str, Duration); 3] = [
    ("s", Duration::from_secs(1)),
    ("m", Duration::from_secs(60)),
    ("h", Duration::from_secs(3600)),
];

impl Rate {
    /// The time between two requests.
    pub fn interval(self) -> Duration {
        self.period / self.count.max(1)
    }
}

impl Scalar for Rate {
    const EXPECTED: &'static str = "a rate such as \"100/s\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "\"{text}\" is not a rate; write a whole number and its time (/s, /m, /h), such as \
                 \"100/s\""
            )
        };
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        let period = PERIODS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1;
        Ok(Self { count, period })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = PERIODS.iter().find(|(_, period)| *period == self.period);
        write!(f, "{}/{}", self.count, unit.map_or("s", |(name, _)| name))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
