//! Data that the settlement of an unknown outcome needs, kept in the record from its claim on: the
//! values of templates, the last answer, and the schedule of the next step.
//!
//! Records of routes that need none of it have none. The data ends with the uncertainty: a record
//! with a known outcome keeps its history only.

use std::sync::Arc;

use super::response::StoredResponse;
use crate::clock::Timestamp;

/// Name of the kept body of a request, with `[route.record] keep_request`.
pub const REQUEST: &str = "request";
/// Values of a record, at most.
pub const MAX_VALUES: usize = 64;
/// Bytes of all names and values of a record.
pub const MAX_VALUES_BYTES: usize = 64 << 10;

/// Data for the settlement of an open record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settling {
    /// Time of the first dispatch of the present attempt: of its claim, which is durable
    /// immediately before the dispatch.
    pub dispatched: Timestamp,
    /// Values that templates need from the request.
    pub values: Arc<[KeptValue]>,
    /// The last answer that arrived, shown to retries while the outcome is pending.
    pub answer: Option<Arc<StoredResponse>>,
    /// Progress of the policy.
    pub schedule: Schedule,
}

/// A value of the request, as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptValue {
    /// The place of the value, as templates name the place.
    pub name: Arc<str>,
    /// The value as JSON text; text from outside of a JSON body as a JSON string.
    pub json: Arc<str>,
}

/// Progress of a policy about one record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Time of the next step; `None`: not planned yet, or never. While a step is running, the end
    /// of its lease.
    pub next: Option<Timestamp>,
    /// Start of the last step.
    pub last: Option<Timestamp>,
    /// A step is running: until `next` no other process takes over.
    pub running: bool,
    /// Steps without a decision so far; decides the pause before the next.
    pub tries: u32,
    /// Sightings of absence, and the time of the last.
    pub absent: Option<Sightings>,
    /// Repetitions of the request so far.
    pub resent: u32,
    /// The reversal of the call has begun: a later answer of the call is a contradiction.
    pub reversing: bool,
    /// The policy gave up; the record waits for an operator.
    pub gave_up: bool,
    /// Several rows matched once; told once.
    pub several: bool,
}

/// Complete looks at the backend in which the call was absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sightings {
    /// Number of sightings that counted; at least 1.
    pub count: u32,
    /// Time of the last.
    pub last: Timestamp,
}

impl Settling {
    /// Data of a claim that is dispatched at `dispatched`. Values beyond the limits are left out,
    /// and templates that need them find none.
    pub fn new(dispatched: Timestamp, values: Vec<KeptValue>) -> Self {
        let mut left = MAX_VALUES_BYTES;
        let mut kept: Vec<KeptValue> = Vec::new();
        for value in values {
            let bytes = value.name.len() + value.json.len();
            let known = kept.iter().any(|other| other.name == value.name);
            if !known && kept.len() < MAX_VALUES && bytes <= left {
                left -= bytes;
                kept.push(value);
            }
        }
        Self { dispatched, values: kept.into(), answer: None, schedule: Schedule::default() }
    }

    /// The kept value of a place.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|value| &*value.name == name).map(|value| &*value.json)
    }

    /// Approximate bytes of values and answer.
    pub fn bytes(&self) -> usize {
        let values = self.values.iter().map(|value| value.name.len() + value.json.len() + 4);
        let answer = self.answer.as_ref().map_or(0, |answer| answer.bytes());
        values.sum::<usize>() + answer
    }
}
