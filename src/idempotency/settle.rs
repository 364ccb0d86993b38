//! Decisions of operators about records: an unknown outcome was executed or not, or an answer is
//! purged. Time, author and reason are kept in the record's history.
//!
//! A decision is a transition like every other: of two concurrent decisions, or of a decision and
//! a late answer of the attempt, the first swap wins.

use std::sync::Arc;

use super::history::{self, HistoryEntry, HistoryEvent, Note};
use super::ledger::{ItemOutcome, Ledger};
use super::record::{Answer, Record, State, StoredResponse};
use super::retention::Retention;
use crate::clock::Timestamp;

/// The result an operator found for an unknown outcome.
#[derive(Debug, Clone)]
pub enum Settlement {
    /// Executed; the response is replayed from now on.
    Executed(Arc<StoredResponse>),
    /// Number of the item's unknown units that were issued; `None`: all.
    Issued(Option<u64>),
    /// Not executed: the key is free, the units of an item may be sent again.
    NotExecuted,
}

/// The reason a decision does not fit the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettlementError {
    /// A call is in flight.
    InFlight,
    /// The outcome is unknown; a purge would leave the key without a decision.
    Unknown,
    /// The outcome is known.
    Known,
    /// The record has no answer to purge.
    NoAnswer,
    /// The record has no final answer that could be taken back.
    NotFinal,
    /// The decision is for the other kind of record (request or item).
    Kind,
    /// The number of issued units is zero or exceeds the unknown units.
    Units {
        /// Number of unknown units.
        unknown: u64,
    },
}

impl Record {
    /// The successor with the unknown outcome settled by an operator.
    ///
    /// An executed request becomes final, with retention counted from `now`, and the first client
    /// that asks receives `recovered`. A request that was not executed becomes
    /// [`State::Released`]; the units of an item become issued or missing.
    ///
    /// # Errors
    /// The outcome is not unknown, or `how` is for another kind of record.
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
        next.note(HistoryEntry { at: now, what, times: 1, attempt: self.attempts, units, note });
        Ok(next)
    }

    /// The successor without the answer; `None` when the answer is gone already.
    ///
    /// The tombstone keeps the record's full retention, so that a purge never lets a key run
    /// again sooner. Of an item the outcomes are dropped and the quantities kept.
    ///
    /// # Errors
    /// A call is in flight, the outcome is unknown, or the record never had an answer.
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
        let (attempt, what) = (self.attempts, HistoryEvent::Purged);
        next.note(HistoryEntry { at: now, what, times: 1, attempt, units: None, note });
        Ok(Some(next))
    }

    /// The successor with a free key and the history of decisions.
    pub(super) fn released(&self, retention: Retention, now: Timestamp) -> Self {
        let expires = match (retention.answer.end(now), retention.tombstone.end(now)) {
            (Some(answer), Some(tombstone)) => Some(answer.max(tombstone)),
            (None, _) | (_, None) => None,
        };
        self.next(State::Released { expires }, now)
    }

    /// The record that replaces a claim whose request was certainly not executed: none, or the
    /// released key when an operator has ever decided about it.
    pub fn freed(&self, retention: Retention, now: Timestamp) -> Option<Self> {
        (!self.history.is_empty()).then(|| self.released(retention, now))
    }

    /// Turns this claim into the successor of `before`. A key released by an operator keeps its
    /// history and its count of attempts.
    ///
    /// `random` may be any number: no other claim may have the same version, because an
    /// unconfirmed claim is withdrawn by its version and must not take another claim with it.
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

    /// The successor after a client has received the settled answer.
    pub fn settlement_reported(&self) -> Self {
        Self { version: self.version.wrapping_add(1), settlement_unreported: false, ..self.clone() }
    }

    pub(super) fn note(&mut self, entry: HistoryEntry) {
        history::add(&mut self.history, entry);
    }
}

/// The entry with `issued` of the unknown units issued and the others missing.
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
