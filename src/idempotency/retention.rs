//! Retention: how long answers and tombstones are kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// How long something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// For this long; zero means not at all.
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

/// How long the answer and the tombstone of a route's records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The answer, counted from the outcome.
    pub answer: Keep,
    /// The tombstone, counted from the end of the answer.
    pub tombstone: Keep,
}

impl Retention {
    /// Without end: for what belongs to no route that is configured.
    pub const FOREVER: Self = Self { answer: Keep::Forever, tombstone: Keep::Forever };
}
