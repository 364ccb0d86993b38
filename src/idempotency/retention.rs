//! Retention: how long answers and tombstones are kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// A retention period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// For a duration; zero keeps nothing.
    For(Duration),
    /// Without end.
    Forever,
}

impl Keep {
    /// The end of a period that starts at `from`.
    pub fn end(self, from: Timestamp) -> Option<Timestamp> {
        match self {
            Self::For(period) => Some(from.saturating_add(period)),
            Self::Forever => None,
        }
    }
}

/// The time by which records expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiryTime {
    /// Time reached: a record whose end is not later is due.
    pub at: Timestamp,
    /// Records may be deleted. While they may not, because the clock may be wrong, a key past its
    /// tombstone reads as a tombstone.
    pub deletes: bool,
}

impl From<Timestamp> for ExpiryTime {
    fn from(at: Timestamp) -> Self {
        Self { at, deletes: true }
    }
}

/// Retention of the answers and tombstones of a route's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The answer, counted from the outcome.
    pub answer: Keep,
    /// The tombstone, counted from the end of the answer.
    pub tombstone: Keep,
}

impl Retention {
    /// Retention without end, for records of routes that are no longer configured.
    pub const FOREVER: Self = Self { answer: Keep::Forever, tombstone: Keep::Forever };
}
