//! Statuses and classes of statuses.

use std::fmt;

/// The statuses named by an entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusPattern {
    /// A single status, 100 to 599; more specific than a class.
    Exact(u16),
    /// A class, the first digit of `"2xx"`: 1 to 5.
    Class(u8),
}

impl StatusPattern {
    /// Reports whether the pattern names this status.
    pub fn covers(self, status: u16) -> bool {
        match self {
            Self::Exact(exact) => exact == status,
            Self::Class(digit) => u16::from(digit) == status / 100,
        }
    }

    /// The pattern as a value of a configuration.
    pub(super) fn shown(self) -> serde_json::Value {
        match self {
            Self::Exact(status) => status.into(),
            Self::Class(_) => self.to_string().into(),
        }
    }

    /// Reports whether the pattern names a status of success.
    pub fn is_success(self) -> bool {
        match self {
            Self::Exact(status) => status < 300,
            Self::Class(digit) => digit == 2,
        }
    }
}

impl fmt::Display for StatusPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(status) => write!(f, "{status}"),
            Self::Class(digit) => write!(f, "{digit}xx"),
        }
    }
}
