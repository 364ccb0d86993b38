//! The decision about a request whose key may have a record.

use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::record::{Answer, Record, State, StoredResponse};
use super::retention::ExpiryTime;
use crate::clock::Timestamp;

/// The action for a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Claim the key and call the backend; the claim replaces the record of this version, or none.
    Forward {
        /// The version to replace; `None`: there must be no record.
        replacing: Option<u64>,
    },
    /// Replay the stored answer.
    Replay {
        /// The stored answer.
        response: &'a Arc<StoredResponse>,
        /// End of the answer's retention; `None`: no end.
        expires: Option<Timestamp>,
        /// The answer was settled by an operator, and no client has received it before.
        recovered: bool,
    },
    /// The answer was too large to keep.
    NotRetained {
        /// Status of the answer.
        status: u16,
        /// Time of the outcome.
        completed: Timestamp,
    },
    /// A call with this key is in flight.
    InProgress,
    /// The outcome of the call is unknown.
    Unknown,
    /// The key belongs to another request.
    Reused {
        /// Names of the top-level body members that differ, as far as known.
        differing: Vec<String>,
    },
    /// The answer's retention has ended.
    Expired,
}

/// The decision about a request whose key has the record `existing`, at `time`.
///
/// A record past its whole retention counts as absent, swept or not; a record past its answer's
/// retention counts as a tombstone; a record released by an operator counts as absent. Another
/// request is refused in every state.
pub fn decide<'a>(
    existing: Option<&'a Record>,
    fingerprint: &Fingerprint,
    time: impl Into<ExpiryTime>,
) -> Decision<'a> {
    let time = time.into();
    let Some(record) = existing else { return Decision::Forward { replacing: None } };
    let due = |expires: &Option<Timestamp>| expires.is_some_and(|at| at <= time.at);
    let (expired, forgotten) = match &record.state {
        // Of no request: items have ids of their own, see `items`.
        State::InFlight | State::Unknown { .. } | State::SerializeLock | State::Item { .. } => {
            (false, false)
        }
        State::Final { expires, tombstone, .. } => {
            let end = expires.and_then(|at| tombstone.end(at));
            (due(expires), due(&end) && time.deletes)
        }
        State::Tombstone { expires, .. } => (true, due(expires) && time.deletes),
        // The key is free, whatever it was used for.
        State::Released { .. } => (true, true),
    };
    if forgotten {
        return Decision::Forward { replacing: Some(record.version) };
    }
    if !record.fingerprint.is_same_request(fingerprint) {
        let differing = record.fingerprint.differing(fingerprint);
        return Decision::Reused { differing };
    }
    match &record.state {
        _ if expired => Decision::Expired,
        State::InFlight => Decision::InProgress,
        State::Unknown { .. } | State::SerializeLock | State::Item { .. } => Decision::Unknown,
        State::Tombstone { .. } | State::Released { .. } => Decision::Expired,
        State::Final { answer, expires, completed, .. } => match answer {
            Answer::Kept(response) => Decision::Replay {
                response,
                expires: *expires,
                recovered: record.settlement_unreported,
            },
            Answer::NotRetained { status } => {
                Decision::NotRetained { status: *status, completed: *completed }
            }
        },
    }
}
