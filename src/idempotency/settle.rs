//! What operators decide about records: that an unknown outcome was executed or was not, and that an
//! answer is to go. Who, when and why stays with the record.
//!
//! A decision is a transition like every other, so of two that are made at once, or of a decision
//! and a late answer of the attempt itself, the first one stands.

use std::sync::Arc;

use super::history::{HistoryEntry, HistoryEvent, MAX_HISTORY, Note};
use super::ledger::{ItemOutcome, Ledger};
use super::record::{Answer, Record, State, StoredResponse};
use super::retention::Retention;
use crate::clock::Timestamp;

/// How an unknown outcome is settled.
#[derive(Debug, Clone)]
pub enum Settlement {
    /// It was carried out, and this is its answer from now on.
    Executed(Arc<StoredResponse>),
    /// So many of an item's unknown units were issued, the others were not; `None`: all of them.
    Issued(Option<u64>),
    /// It was not carried out: the key is free, the units of an item are missing again.
    NotExecuted,
}

/// Why a decision does not fit the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettlementError {
    /// A call is in flight.
    InFlight,
    /// Its outcome is unknown: to purge it would leave the key without a decision.
    Unknown,
    /// Its outcome is known.
    Known,
    /// There is no answer to purge, and none will come.
    NoAnswer,
    /// The record is an item's, which has no answer of its own, or the other way round.
    Kind,
    /// More units were issued than are unknown, or none at all.
    Units {
        /// How many are unknown.
        unknown: u64,
    },
}

impl Record {
    /// The successor in which an operator has settled the unknown outcome.
    ///
    /// What was executed is final from now on, with the retention counted from `now`, and the first
    /// client that asks is told `recovered`. What was not is [`State::Released`]; the units of an
    /// item are issued or missing.
    ///
    /// # Errors
    /// When its outcome is not unknown, or `how` is for another kind of record.
    pub fn settled(
        &self,
        how: &Settlement,
        note: Note,
        retention: Retention,
        now: Timestamp,
    ) -> Result<Self, SettlementError> {
        let mut units = None;
        let mut next = match (&self.state, how) {
            (State::InFlight | State::SerializeLock, _) => return Err(SettlementError::InFlight),
            (State::Final { .. } | State::Tombstone { .. } | State::Released { .. }, _) => {
                return Err(SettlementError::Known);
            }
            (State::Unknown { .. }, Settlement::Executed(response)) => {
                let next = self.completed(Answer::Kept(response.clone()), retention, now);
                Self { settlement_unreported: true, ..next }
            }
            (State::Unknown { .. }, Settlement::NotExecuted) => self.released(retention, now),
            (State::Unknown { .. }, Settlement::Issued(_))
            | (State::Item { .. }, Settlement::Executed(_)) => return Err(SettlementError::Kind),
            (State::Item { ledger, .. }, Settlement::Issued(issued)) => {
                let issued = issued.unwrap_or(ledger.unknown);
                units = Some(issued);
                self.with_ledger(settled_units(ledger, issued, true)?, retention, now)
            }
            (State::Item { ledger, .. }, Settlement::NotExecuted) => {
                self.with_ledger(settled_units(ledger, 0, false)?, retention, now)
            }
        };
        let what = match how {
            Settlement::Executed(_) | Settlement::Issued(_) => HistoryEvent::Executed,
            Settlement::NotExecuted => HistoryEvent::NotExecuted,
        };
        next.note(HistoryEntry { at: now, what, attempt: self.attempts, units, note });
        Ok(next)
    }

    /// The successor without the answer; `None` when that is gone already.
    ///
    /// The tombstone stays until the record would have been forgotten anyway, so that a purge never
    /// lets a key run again sooner. Of an item its outcomes go and its quantities stay.
    ///
    /// # Errors
    /// When a call is in flight, the outcome is unknown, or there was never an answer.
    pub fn purged(&self, note: Note, now: Timestamp) -> Result<Option<Self>, SettlementError> {
        let state = match &self.state {
            State::InFlight | State::SerializeLock => return Err(SettlementError::InFlight),
            State::Unknown { .. } => return Err(SettlementError::Unknown),
            State::Released { .. } => return Err(SettlementError::NoAnswer),
            State::Tombstone { .. } => return Ok(None),
            State::Final { answer, completed, expires, tombstone } => State::Tombstone {
                status: answer.status(),
                completed: *completed,
                expires: expires.and_then(|at| tombstone.end(at)),
            },
            State::Item { ledger, .. } if ledger.in_flight > 0 => {
                return Err(SettlementError::InFlight);
            }
            State::Item { ledger, .. } if ledger.unknown > 0 => {
                return Err(SettlementError::Unknown);
            }
            State::Item { ledger, expires, tombstone } => {
                let bare = ledger.bare();
                if bare == **ledger {
                    return Ok(None);
                }
                let ledger = Box::new(bare);
                match (expires, tombstone) {
                    (Some(at), Some(keep)) => {
                        State::Item { ledger, expires: keep.end(*at), tombstone: None }
                    }
                    (expires, tombstone) => {
                        State::Item { ledger, expires: *expires, tombstone: *tombstone }
                    }
                }
            }
        };
        let mut next = self.next(state, now);
        let attempt = self.attempts;
        next.note(HistoryEntry { at: now, what: HistoryEvent::Purged, attempt, units: None, note });
        Ok(Some(next))
    }

    /// The successor in which the key is free and what was decided about it is kept.
    fn released(&self, retention: Retention, now: Timestamp) -> Self {
        let expires = match (retention.answer.end(now), retention.tombstone.end(now)) {
            (Some(answer), Some(tombstone)) => Some(answer.max(tombstone)),
            (None, _) | (_, None) => None,
        };
        self.next(State::Released { expires }, now)
    }

    /// What takes the place of a claim for which certainly nothing was carried out: nothing, or the
    /// released key again when an operator has ever decided about it.
    pub fn freed(&self, retention: Retention, now: Timestamp) -> Option<Self> {
        (!self.history.is_empty()).then(|| self.released(retention, now))
    }

    /// This claim in the place of `before`; its version must be replaced. A key that an operator
    /// released carries its history and the number of its attempts on. `random` is any number: no
    /// other claim may have the same version, because one that was not confirmed is withdrawn by its
    /// version and must not take another's with it.
    pub fn renew(&mut self, before: Option<&Self>, random: u64) {
        // The upper bits are free for the raises to come.
        self.version = before.map_or(random >> 8, |before| {
            before.version.wrapping_add(1).wrapping_add(random >> 40)
        });
        self.attempts = 1;
        self.first_seen = self.updated;
        self.history.clear();
        if let Some(before) = before
            && let State::Released { expires } = before.state
            && expires.is_none_or(|at| at > self.updated)
        {
            self.attempts = before.attempts.saturating_add(1);
            self.first_seen = before.first_seen;
            self.history.clone_from(&before.history);
        }
    }

    /// The successor that says that a client was told of the settlement.
    pub fn settlement_reported(&self) -> Self {
        Self { version: self.version.wrapping_add(1), settlement_unreported: false, ..self.clone() }
    }

    fn note(&mut self, entry: HistoryEntry) {
        let over = (self.history.len() + 1).saturating_sub(MAX_HISTORY);
        self.history.drain(..over);
        self.history.push(entry);
    }
}

/// The entry in which `issued` of the unknown units were issued and the others were not.
fn settled_units(ledger: &Ledger, issued: u64, executed: bool) -> Result<Ledger, SettlementError> {
    if ledger.in_flight > 0 {
        return Err(SettlementError::InFlight);
    }
    if ledger.unknown == 0 {
        return Err(SettlementError::Known);
    }
    let wrong = SettlementError::Units { unknown: ledger.unknown };
    if executed && issued == 0 {
        return Err(wrong);
    }
    let units = issued;
    let outcome = ItemOutcome::Issued { units, appended: Vec::new(), row: None, closed: false };
    ledger.settle(&outcome).map_err(|_| wrong)
}
