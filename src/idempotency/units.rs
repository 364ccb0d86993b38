//! Steps about the unknown units of an item: a repetition, and a reversal.

use super::history::{HistoryEntry, HistoryEvent, Note};
use super::ledger::{Doubt, ItemOutcome, Ledger, LedgerError};
use super::record::{Record, State};
use super::retention::Retention;
use crate::clock::Timestamp;

impl Ledger {
    /// The successor in which the unknown units are about to be sent again.
    pub(super) fn resent(&self) -> Self {
        let (in_flight, unknown) = (self.unknown, 0);
        Self { in_flight, unknown, doubt: None, evidence: None, ..self.clone() }
    }

    /// The entry of an item that was sent more than once, after a try with the outcome `after`.
    /// An answer with all the units settles every try. Any other says nothing of the other tries:
    /// the units stay unknown when the `last` try ends, and as they are when an earlier one does.
    ///
    /// # Errors
    /// The quantities do not add up.
    pub fn after_try(&self, after: Self, is_last: bool) -> Result<Self, LedgerError> {
        let open = self.in_flight.saturating_add(self.unknown);
        let is_settled = after.fulfilled == self.fulfilled.saturating_add(open);
        match is_last {
            _ if is_settled => Ok(after),
            true if after.unknown == open => Ok(after),
            true => self.conclude(&ItemOutcome::Unknown { doubt: Doubt::Repeated, row: None }),
            false => Ok(self.clone()),
        }
    }
}

impl Record {
    /// The successor after an acknowledged reversal of an item's call: the unknown units were not
    /// issued. With `closed` no more units will ever be sent, else the next batch sends them.
    ///
    /// # Errors
    /// The record is no item, or no unit is unknown.
    pub fn units_reversed(
        &self,
        closed: bool,
        note: Note,
        retention: Retention,
        now: Timestamp,
    ) -> Result<Self, LedgerError> {
        let ledger = self.ledger().ok_or(LedgerError::Idle)?;
        let outcome = ItemOutcome::Issued { units: 0, appended: Vec::new(), row: None, closed };
        let mut next = self.with_ledger(ledger.settle(&outcome)?, retention, now);
        next.step(HistoryEvent::NotExecuted, note, now);
        Ok(next)
    }

    /// Adds the decision that so many units were issued to the history.
    pub fn note_issued(&mut self, units: u64, note: Note, now: Timestamp) {
        let (what, attempt) = (HistoryEvent::Executed, self.attempts);
        self.note(HistoryEntry { at: now, what, times: 1, attempt, units: Some(units), note });
    }

    /// Reports an item with units that were issued by an earlier call.
    pub fn is_partly_issued(&self) -> bool {
        self.ledger().is_some_and(|ledger| ledger.fulfilled > 0)
    }

    /// The state of a record whose request is about to be sent again.
    pub(super) fn state_resent(&self) -> State {
        match &self.state {
            State::Item { ledger, expires, tombstone } => {
                let ledger = Box::new(ledger.resent());
                State::Item { ledger, expires: *expires, tombstone: *tombstone }
            }
            State::InFlight
            | State::SerializeLock
            | State::Unknown { .. }
            | State::Final { .. }
            | State::Released { .. }
            | State::Tombstone { .. } => State::InFlight,
        }
    }
}
