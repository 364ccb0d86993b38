//! The record: what the store holds for one (tenant, key), and the transitions between its states.
//!
//! Every transition is a function from a record to its successor with the version raised by one;
//! a store makes it happen with a compare-and-swap on that version. So the version is the fencing
//! token: whoever lost a swap holds an old version and can change nothing any more.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::fingerprint::Fingerprint;
use super::history::HistoryEntry;
use super::ledger::Ledger;
use super::outcome::UnknownReason;
use super::retention::{Keep, Retention};
use super::tenant::TenantId;
use crate::clock::Timestamp;

/// What the store holds for one (tenant, key).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The fencing token: raised by every transition. A new claim starts at a random number, so
    /// that a claim made after a release never repeats an old token.
    pub version: u64,
    /// Whose key it is.
    pub tenant: TenantId,
    /// The name of the route that claimed it.
    pub route: Arc<str>,
    /// The client's idempotency key.
    pub key: Arc<str>,
    /// Digest of the business id the body named, for look-up; see `[route.record] subject`.
    pub subject: Option<[u8; 16]>,
    /// What must not change between retries.
    pub fingerprint: Fingerprint,
    /// When the key was first claimed.
    pub first_seen: Timestamp,
    /// When the record last changed.
    pub updated: Timestamp,
    /// How many attempts were dispatched, the present one included.
    pub attempts: u32,
    /// Names the present attempt; a write whose result was lost recognizes itself by it.
    pub attempt: Nonce,
    /// Names the process that made the present attempt.
    pub owner: Nonce,
    /// Where the record stands.
    pub state: State,
    /// An operator settled it, and no client was told yet: the first one is told `recovered`. Only
    /// of what is final.
    pub settlement_unreported: bool,
    /// What operators decided about it, oldest first; at most [`MAX_HISTORY`](super::history::MAX_HISTORY).
    pub history: Vec<HistoryEntry>,
}

/// Sixteen random bytes that name one attempt or one process.
pub type Nonce = [u8; 16];

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Claimed; the backend may be working on it.
    InFlight,
    /// Dispatched, and nobody knows whether the backend acted.
    Unknown {
        /// Since when nobody knows.
        since: Timestamp,
        /// What happened.
        reason: UnknownReason,
    },
    /// Answered; replayed until `expires`.
    Final {
        /// What every client of this key is told.
        answer: Answer,
        /// When the outcome became known.
        completed: Timestamp,
        /// When the answer may be dropped; `None` keeps it for ever.
        expires: Option<Timestamp>,
        /// How long the tombstone stays after that.
        tombstone: Keep,
    },
    /// The answer is gone; the fact that the key was used is kept.
    Tombstone {
        /// The status the answer had.
        status: u16,
        /// When the outcome became known.
        completed: Timestamp,
        /// When the key may be forgotten; `None` keeps it for ever.
        expires: Option<Timestamp>,
    },
    /// An operator found that it was not carried out: the key is free. For requests this is as good
    /// as no record; it is there for its history.
    Released {
        /// When it may be forgotten; `None` keeps it for ever.
        expires: Option<Timestamp>,
    },
    /// A turn: batches with one `serialize_by` value go one after the other, and this one's turn it
    /// is. It is there while its batch is sent, and says nothing of any request.
    SerializeLock,
    /// One item of batches; the record's key is its id.
    Item {
        /// How much of it was asked for, issued, sent.
        ledger: Box<Ledger>,
        /// When it is due; `None` while anything is missing or open, and where it is kept for ever.
        expires: Option<Timestamp>,
        /// How long the quantities stay once the outcomes are gone; `None`: those are gone.
        tombstone: Option<Keep>,
    },
}

impl State {
    /// The state of an item with this ledger entry.
    pub fn item(ledger: Ledger, retention: Retention, now: Timestamp) -> Self {
        let expires = if ledger.is_done() { retention.answer.end(now) } else { None };
        Self::Item { ledger: Box::new(ledger), expires, tombstone: Some(retention.tombstone) }
    }
}

/// A final answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Kept whole.
    Kept(Arc<StoredResponse>),
    /// Larger than `max_stored_body`: only the status was kept.
    NotRetained {
        /// The backend's status.
        status: u16,
    },
}

impl Answer {
    /// The backend's status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Kept(response) => response.status,
            Self::NotRetained { status } => *status,
        }
    }
}

/// A response as it is kept and replayed: end-to-end headers in their order, the body as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Name and value of each header line.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

impl Record {
    /// The successor in which the outcome is known.
    pub fn completed(&self, answer: Answer, retention: Retention, now: Timestamp) -> Self {
        let state = State::Final {
            answer,
            completed: now,
            expires: retention.answer.end(now),
            tombstone: retention.tombstone,
        };
        self.next(state, now)
    }

    /// The successor in which nobody knows the outcome.
    ///
    /// Of an item, only the units in flight become unknown; one without any stays as it is.
    pub fn lost(&self, reason: UnknownReason, now: Timestamp) -> Self {
        let state = match &self.state {
            State::SerializeLock => State::SerializeLock,
            State::InFlight
            | State::Unknown { .. }
            | State::Final { .. }
            | State::Released { .. }
            | State::Tombstone { .. } => State::Unknown { since: now, reason },
            State::Item { ledger, tombstone, .. } => match ledger.lose(reason) {
                Ok(ledger) => {
                    State::Item { ledger: Box::new(ledger), expires: None, tombstone: *tombstone }
                }
                Err(_) => self.state.clone(),
            },
        };
        self.next(state, now)
    }

    /// What becomes of this record when the process that has it in flight is gone: what it sent is
    /// unknown, and its turns are over.
    pub fn abandoned(&self, now: Timestamp) -> Option<Self> {
        match self.state {
            State::SerializeLock => None,
            State::InFlight
            | State::Unknown { .. }
            | State::Final { .. }
            | State::Tombstone { .. }
            | State::Released { .. }
            | State::Item { .. } => Some(self.lost(UnknownReason::ProcessEnded, now)),
        }
    }

    /// The successor with this ledger entry. Retention is counted from when the item is done.
    pub fn with_ledger(&self, ledger: Ledger, retention: Retention, now: Timestamp) -> Self {
        self.next(State::item(ledger, retention, now), now)
    }

    /// Whether a process has it in flight.
    pub fn is_in_flight(&self) -> bool {
        match &self.state {
            State::InFlight | State::SerializeLock => true,
            State::Item { ledger, .. } => ledger.in_flight > 0,
            State::Unknown { .. }
            | State::Final { .. }
            | State::Released { .. }
            | State::Tombstone { .. } => false,
        }
    }

    /// Whether this record still waits for the outcome of this attempt: it is open, and nobody has
    /// decided since.
    pub fn awaits(&self, attempt: &Nonce) -> bool {
        let open = match &self.state {
            State::Unknown { .. } => true,
            State::Item { ledger, .. } => ledger.is_open(),
            State::InFlight
            | State::SerializeLock
            | State::Final { .. }
            | State::Released { .. }
            | State::Tombstone { .. } => false,
        };
        open && self.attempt == *attempt
    }

    /// The ledger entry, if this is the record of an item.
    pub fn ledger(&self) -> Option<&Ledger> {
        match &self.state {
            State::Item { ledger, .. } => Some(ledger),
            State::InFlight
            | State::SerializeLock
            | State::Unknown { .. }
            | State::Final { .. }
            | State::Released { .. }
            | State::Tombstone { .. } => None,
        }
    }

    /// When this record is due for [`Record::expired`]; `None` while it must stay as it is.
    pub fn expires(&self) -> Option<Timestamp> {
        match self.state {
            State::InFlight | State::Unknown { .. } | State::SerializeLock => None,
            State::Final { expires, .. }
            | State::Released { expires }
            | State::Tombstone { expires, .. }
            | State::Item { expires, .. } => expires,
        }
    }

    /// What becomes of this record at `now`.
    pub fn expired(&self, now: Timestamp) -> Expiry {
        match &self.state {
            State::Final { answer, completed, expires: Some(at), tombstone } if *at <= now => {
                let expires = tombstone.end(*at);
                if expires.is_some_and(|end| end <= now) {
                    return Expiry::Forget;
                }
                let status = answer.status();
                let state = State::Tombstone { status, completed: *completed, expires };
                Expiry::Bury(Box::new(self.next(state, now)))
            }
            State::Tombstone { expires: Some(at), .. } | State::Released { expires: Some(at) }
                if *at <= now =>
            {
                Expiry::Forget
            }
            State::Item { ledger, expires: Some(at), tombstone } if *at <= now => {
                let Some(keep) = tombstone else { return Expiry::Forget };
                let expires = keep.end(*at);
                if expires.is_some_and(|end| end <= now) {
                    return Expiry::Forget;
                }
                let ledger = Box::new(ledger.bare());
                Expiry::Bury(Box::new(
                    self.next(State::Item { ledger, expires, tombstone: None }, now),
                ))
            }
            State::InFlight
            | State::Unknown { .. }
            | State::SerializeLock
            | State::Final { .. }
            | State::Tombstone { .. }
            | State::Released { .. }
            | State::Item { .. } => Expiry::Keep,
        }
    }

    pub(super) fn next(&self, state: State, now: Timestamp) -> Self {
        // Not `..self.clone()`: the present state, which may be large, would be copied to be dropped.
        Self {
            version: self.version.wrapping_add(1),
            tenant: self.tenant,
            route: self.route.clone(),
            key: self.key.clone(),
            subject: self.subject,
            fingerprint: self.fingerprint.clone(),
            first_seen: self.first_seen,
            updated: now,
            attempts: self.attempts,
            attempt: self.attempt,
            owner: self.owner,
            state,
            settlement_unreported: false,
            history: self.history.clone(),
        }
    }
}

/// What time makes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    /// Nothing: it is not due, or may never expire.
    Keep,
    /// Its answer goes; this tombstone stays.
    Bury(Box<Record>),
    /// It is forgotten; the key would run again.
    Forget,
}
