//! The record of one (tenant, key), and the transitions between its states.
//!
//! Every transition is a function from a record to its successor with the version raised by one;
//! a store makes the transition durable with a compare-and-swap on that version. So the version
//! is the fencing token: a process that lost a swap holds an old version and can change nothing.

use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::history::HistoryEntry;
use super::ledger::Ledger;
use super::outcome::UnknownReason;
pub use super::response::StoredResponse;
use super::retention::{ExpiryTime, Keep, Retention};
use super::settling::Settling;
use super::tenant::TenantId;
use crate::clock::Timestamp;

/// The durable state of one (tenant, key).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Fencing token, raised by every transition. A new claim starts at a random number, so that
    /// a claim made after a release never repeats an old token.
    pub version: u64,
    /// Owner of the key.
    pub tenant: TenantId,
    /// Name of the owner; `None`: it is known by its credentials only.
    pub caller: Option<Arc<str>>,
    /// Name of the route that claimed the key.
    pub route: Arc<str>,
    /// The client's idempotency key.
    pub key: Arc<str>,
    /// Digest of the business id the body named, for look-up; see `[route.record] subject`.
    pub subject: Option<[u8; 16]>,
    /// Fingerprint of the request, equal for all retries.
    pub fingerprint: Fingerprint,
    /// Time of the first claim.
    pub first_seen: Timestamp,
    /// Time of the last change.
    pub updated: Timestamp,
    /// Number of dispatched attempts, the present attempt included.
    pub attempts: u32,
    /// Name of the present attempt. A write without confirmation recognizes its own record by
    /// this nonce.
    pub attempt: Nonce,
    /// Name of the process that made the present attempt.
    pub owner: Nonce,
    /// The state of a record.
    pub state: State,
    /// An operator settled the record, and no client has received the result yet: the first
    /// receives `recovered`. Set on final records only.
    pub settlement_unreported: bool,
    /// Steps and decisions about the record, oldest first; at most
    /// [`MAX_HISTORY`](super::history::MAX_HISTORY).
    pub history: Vec<HistoryEntry>,
    /// Data for the settlement of an unknown outcome, on open records of routes that need it.
    pub settling: Option<Box<Settling>>,
}

/// Sixteen random bytes that name one attempt or one process.
pub type Nonce = [u8; 16];

/// The state of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Claimed; the backend may be executing the request.
    InFlight,
    /// Dispatched, with unknown outcome.
    Unknown {
        /// Start of the uncertainty.
        since: Timestamp,
        /// The reason.
        reason: UnknownReason,
    },
    /// Answered; replayed until `expires`.
    Final {
        /// The answer for every client of this key.
        answer: Answer,
        /// Time of the outcome.
        completed: Timestamp,
        /// End of the answer's retention; `None`: no end.
        expires: Option<Timestamp>,
        /// Retention of the tombstone, counted from `expires`.
        tombstone: Keep,
    },
    /// The key was used, and the answer is no longer kept.
    Tombstone {
        /// Status of the answer.
        status: u16,
        /// Time of the outcome.
        completed: Timestamp,
        /// End of the tombstone's retention; `None`: no end.
        expires: Option<Timestamp>,
    },
    /// An operator found the request not executed: the key is free. Requests treat this state
    /// like no record; the record is kept for its history.
    Released {
        /// End of the record's retention; `None`: no end.
        expires: Option<Timestamp>,
    },
    /// A lock: batches with the same `serialize_by` value run one after the other. The lock
    /// exists while its batch is sent and describes no request.
    SerializeLock,
    /// An item of batches; the record's key is the item's id.
    Item {
        /// Quantities and outcomes of the item.
        ledger: Box<Ledger>,
        /// End of the outcomes' retention; `None` while the item is incomplete or open, or
        /// without end.
        expires: Option<Timestamp>,
        /// Retention of the quantities after the outcomes; `None`: the outcomes are purged
        /// already.
        tombstone: Option<Keep>,
    },
}

impl State {
    /// Creates the state of an item from its ledger entry.
    pub fn item(ledger: Ledger, retention: Retention, now: Timestamp) -> Self {
        let expires = if ledger.is_done() { retention.answer.end(now) } else { None };
        Self::Item { ledger: Box::new(ledger), expires, tombstone: Some(retention.tombstone) }
    }
}

/// A final answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The whole response is kept.
    Kept(Arc<StoredResponse>),
    /// The body exceeded `max_stored_body`; only the status is kept.
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

impl Record {
    /// The successor with a known outcome.
    pub fn completed(&self, answer: Answer, retention: Retention, now: Timestamp) -> Self {
        let state = State::Final {
            answer,
            completed: now,
            expires: retention.answer.end(now),
            tombstone: retention.tombstone,
        };
        self.next(state, now)
    }

    /// The successor with an unknown outcome.
    ///
    /// Of an item, only the units in flight become unknown; an item without such units is
    /// unchanged.
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

    /// The successor of this record after its process has ended: sent work becomes unknown, a
    /// lock is removed (`None`).
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

    /// Reports a call in flight for this record.
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

    /// The ledger entry, for the record of an item.
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

    /// Approximate bytes of the answers in the record, and of the request kept for its settlement.
    pub fn body_bytes(&self) -> usize {
        let kept = match &self.state {
            State::Final { answer: Answer::Kept(response), .. } => response.bytes(),
            State::Item { ledger, .. } => ledger.bytes(),
            State::Final { .. }
            | State::InFlight
            | State::SerializeLock
            | State::Unknown { .. }
            | State::Released { .. }
            | State::Tombstone { .. } => 0,
        };
        let settling = self.settling.as_ref().map_or(0, |settling| {
            let values = settling.values.iter().map(|value| value.json.len());
            values.sum::<usize>() + settling.answer.as_ref().map_or(0, |answer| answer.bytes())
        });
        kept + settling
    }

    /// The time at which [`Record::expired`] applies; `None`: never in this state.
    pub fn expires(&self) -> Option<Timestamp> {
        match self.state {
            State::InFlight | State::Unknown { .. } | State::SerializeLock => None,
            State::Final { expires, .. }
            | State::Released { expires }
            | State::Tombstone { expires, .. }
            | State::Item { expires, .. } => expires,
        }
    }

    /// End of the whole retention, tombstone included; `None`: no end, or not counted yet. Of an
    /// answer with an endless tombstone, the end of the answer.
    pub fn end(&self) -> Option<Timestamp> {
        let expires = self.expires()?;
        let tombstone = match &self.state {
            State::Final { tombstone, .. } => Some(*tombstone),
            State::Item { tombstone, .. } => *tombstone,
            State::InFlight
            | State::Unknown { .. }
            | State::SerializeLock
            | State::Released { .. }
            | State::Tombstone { .. } => None,
        };
        Some(tombstone.and_then(|keep| keep.end(expires)).unwrap_or(expires))
    }

    /// The effect of time on this record at `time`.
    pub fn expired(&self, time: impl Into<ExpiryTime>) -> Expiry {
        let ExpiryTime { at: now, deletes } = time.into();
        match &self.state {
            State::Final { answer, completed, expires: Some(at), tombstone } if *at <= now => {
                let expires = tombstone.end(*at);
                if deletes && expires.is_some_and(|end| end <= now) {
                    return Expiry::Forget;
                }
                let status = answer.status();
                let state = State::Tombstone { status, completed: *completed, expires };
                Expiry::Bury(Box::new(self.next(state, now)))
            }
            State::Tombstone { expires: Some(at), .. } | State::Released { expires: Some(at) }
                if *at <= now && deletes =>
            {
                Expiry::Forget
            }
            State::Item { ledger, expires: Some(at), tombstone } if *at <= now => {
                let Some(keep) = tombstone else {
                    return if deletes { Expiry::Forget } else { Expiry::Keep };
                };
                let expires = keep.end(*at);
                if deletes && expires.is_some_and(|end| end <= now) {
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
        let is_open = match &state {
            State::InFlight | State::Unknown { .. } => true,
            State::Item { ledger, .. } => ledger.is_open(),
            State::SerializeLock
            | State::Final { .. }
            | State::Released { .. }
            | State::Tombstone { .. } => false,
        };
        // Not `..self.clone()`: the present state may be large, and its copy would be dropped.
        Self {
            settling: if is_open { self.settling.clone() } else { None },
            version: self.version.wrapping_add(1),
            tenant: self.tenant,
            caller: self.caller.clone(),
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

/// The effect of time on a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expiry {
    /// The record is not due, or never expires.
    Keep,
    /// The answer is dropped; this tombstone replaces the record.
    Bury(Box<Record>),
    /// The record is removed; its key is free again.
    Forget,
}
