//! Reopening: an operator's decision that an answer which was stored as final was none.

use super::history::{HistoryEntry, HistoryEvent, Note};
use super::record::{Record, State};
use super::retention::Retention;
use super::settle::SettlementError;
use crate::clock::Timestamp;

impl Record {
    /// The successor with a free key: the answer is dropped, and a retry is sent again.
    ///
    /// # Errors
    /// The record has no final answer.
    pub fn reopened(
        &self,
        note: Note,
        retention: Retention,
        now: Timestamp,
    ) -> Result<Self, SettlementError> {
        match &self.state {
            State::Final { .. } => {}
            State::InFlight | State::SerializeLock => return Err(SettlementError::InFlight),
            State::Unknown { .. } => return Err(SettlementError::Unknown),
            State::Tombstone { .. } | State::Released { .. } | State::Item { .. } => {
                return Err(SettlementError::NotFinal);
            }
        }
        let mut next = self.released(retention, now);
        let (attempt, what) = (self.attempts, HistoryEvent::Reopened);
        next.note(HistoryEntry { at: now, what, times: 1, attempt, units: None, note });
        Ok(next)
    }
}
