//! The meaning of a backend's complete answer for the record (`[route.outcome]`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The meaning of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The backend decided; the answer is kept and replayed.
    Final,
    /// The backend asserts that it did not execute; the claim is released.
    Released,
    /// The answer does not show whether the backend acted.
    Unknown,
}

/// The reason an outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownReason {
    /// The backend answered with a status that does not show whether the request was executed.
    Status(u16),
    /// The upstream `timeout` ran out.
    Timeout,
    /// The connection failed after the request, or a part of it, was written.
    ConnectionLost,
    /// The answer ended early.
    Truncated,
    /// The answer arrived and is no HTTP response that can be trusted.
    BadResponse,
    /// The backend answered 101 Switching Protocols.
    Upgraded,
    /// The process ended while the call was in flight.
    ProcessEnded,
    /// The answer arrived but could not be stored.
    NotRecorded,
    /// The backend accepted the request and has not decided yet; holds its status.
    Pending(u16),
}

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => {
                write!(f, "the backend answered {status}, which does not say whether it acted")
            }
            Self::Timeout => f.write_str("the backend did not answer in time"),
            Self::ConnectionLost => f.write_str("the connection failed after the request was sent"),
            Self::Truncated => f.write_str("the backend's answer ended early"),
            Self::BadResponse => f.write_str("the backend's answer could not be read"),
            Self::Upgraded => f.write_str("the backend answered 101 Switching Protocols"),
            Self::ProcessEnded => f.write_str("the gateway ended while the call was in flight"),
            Self::NotRecorded => f.write_str("the answer arrived but could not be stored"),
            Self::Pending(status) => {
                write!(f, "the backend answered {status}: accepted, and not decided yet")
            }
        }
    }
}

/// The statuses named by an entry of `[route.outcome]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusPattern {
    /// A single status, 100 to 599; more specific than a class.
    Exact(u16),
    /// A class, the first digit of `"2xx"`: 1 to 5.
    Class(u8),
}

impl fmt::Display for StatusPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(status) => write!(f, "{status}"),
            Self::Class(digit) => write!(f, "{digit}xx"),
        }
    }
}

/// The mapping from status to verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutcomeRules {
    entries: Vec<(StatusPattern, Verdict)>,
}

/// An entry with two verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcomeConflict(pub StatusPattern);

impl OutcomeRules {
    /// Creates the rules from entries; a status without entry is unknown.
    ///
    /// # Errors
    /// The same entry has two verdicts.
    pub fn new(entries: Vec<(StatusPattern, Verdict)>) -> Result<Self, OutcomeConflict> {
        for (at, (pattern, verdict)) in entries.iter().enumerate() {
            let twice = |(other, meaning): &(StatusPattern, Verdict)| {
                other == pattern && meaning != verdict
            };
            if entries[..at].iter().any(twice) {
                return Err(OutcomeConflict(*pattern));
            }
        }
        Ok(Self { entries })
    }

    /// The verdict on a complete answer: the entry of the exact status, else of its class. Status
    /// 101 is always unknown, because the backend left HTTP.
    pub fn verdict(&self, status: u16) -> Verdict {
        if status < 200 {
            return Verdict::Unknown;
        }
        let find = |pattern: StatusPattern| {
            self.entries.iter().find(|(entry, _)| *entry == pattern).map(|(_, verdict)| *verdict)
        };
        find(StatusPattern::Exact(status))
            .or_else(|| find(StatusPattern::Class(u8::try_from(status / 100).unwrap_or(0))))
            .unwrap_or(Verdict::Unknown)
    }

    /// The entries, in the order given.
    pub fn entries(&self) -> &[(StatusPattern, Verdict)] {
        &self.entries
    }
}
