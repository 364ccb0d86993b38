//! What an existing record means for a new request with its key.

use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::record::{Answer, Record, State, StoredResponse};
use crate::clock::Timestamp;

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Claim the key and call the backend; the claim replaces the record of this version, or none.
    Forward {
        /// The version to replace; `None`: there must be no record.
        replacing: Option<u64>,
    },
    /// Answer with this.
    Replay {
        /// The stored answer.
        response: &'a Arc<StoredResponse>,
        /// Until when it is kept; `None`: for ever.
        expires: Option<Timestamp>,
        /// An operator settled it, and this is the first that a client hears of it.
        recovered: bool,
    },
    /// The answer was too large to keep.
    NotRetained {
        /// The status it had.
        status: u16,
        /// When the outcome became known.
        completed: Timestamp,
    },
    /// Another call with this key is in flight.
    InProgress,
    /// Nobody knows whether the backend acted.
    Unknown,
    /// The key belongs to another request.
    Reused {
        /// The top-level body members that differ, as far as can be told.
        differing: Vec<String>,
    },
    /// The answer's retention has ended.
    Expired,
}

/// What to do with a request whose key has the record `existing`, at `now`.
///
/// A record past all its retention counts as absent, whether or not it was swept yet; one past its
/// answer's retention as a tombstone; one that an operator released as absent. Another fingerprint is refused in every state.
pub fn decide<'a>(
    existing: Option<&'a Record>,
    fingerprint: &Fingerprint,
    now: Timestamp,
) -> Decision<'a> {
    let Some(record) = existing else { return Decision::Forward { replacing: None } };
    let due = |expires: &Option<Timestamp>| expires.is_some_and(|at| at <= now);
    let (expired, forgotten) = match &record.state {
        // Of no request: items have ids of their own, see `items`.
        State::InFlight | State::Unknown { .. } | State::SerializeLock | State::Item { .. } => {
            (false, false)
        }
        State::Final { expires, tombstone, .. } => {
            let end = expires.and_then(|at| tombstone.end(at));
            (due(expires), due(&end))
        }
        State::Tombstone { expires, .. } => (true, due(expires)),
        // The key is free, whatever it was used for.
        State::Released { .. } => (true, true),
    };
    if forgotten {
        return Decision::Forward { replacing: Some(record.version) };
    }
    if record.fingerprint.digest != fingerprint.digest {
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
