//! Layout of a record's history, behind the state and the data of a settlement.
//!
//! ```text
//! count, 1 to 16, each: at         a number
//!                       what u8    1 executed, 2 not executed, 3 purged, 4 executed, with units,
//!                                  5 probe, 6 resend, 7 reversal, 8 contradiction, 9 reopened
//!                       times      a number, of 5 to 7 only
//!                       attempt    a number
//!                       units      a number, of 4 only
//!                       by, why    each after its length
//! ```

use super::error::DecodeError;
use super::primitives::{FieldReader, FieldWriter};
use crate::idempotency::history::{HistoryEntry, HistoryEvent, MAX_HISTORY, Note};

const EXECUTED: u8 = 1;
const NOT_EXECUTED: u8 = 2;
const PURGED: u8 = 3;
const ISSUED: u8 = 4;
const PROBE: u8 = 5;
const RESEND: u8 = 6;
const REVERSAL: u8 = 7;
const CONTRADICTION: u8 = 8;
const REOPENED: u8 = 9;

/// Approximate bytes of an encoded history.
pub(super) fn size_hint(history: &[HistoryEntry]) -> usize {
    history.iter().map(|entry| 32 + entry.note.by().len() + entry.note.why().len()).sum()
}

impl FieldWriter<'_> {
    pub(super) fn history(&mut self, history: &[HistoryEntry]) {
        self.number(history.len() as u64);
        for HistoryEntry { at, what, times, attempt, units, note } in history {
            let tag = match (what, units) {
                (HistoryEvent::Executed, Some(_)) => ISSUED,
                (HistoryEvent::Executed, None) => EXECUTED,
                (HistoryEvent::NotExecuted, _) => NOT_EXECUTED,
                (HistoryEvent::Purged, _) => PURGED,
                (HistoryEvent::Probe, _) => PROBE,
                (HistoryEvent::Resend, _) => RESEND,
                (HistoryEvent::Reversal, _) => REVERSAL,
                (HistoryEvent::Contradiction, _) => CONTRADICTION,
                (HistoryEvent::Reopened, _) => REOPENED,
            };
            self.number(at.as_millis());
            self.raw(&[tag]);
            if what.is_step() {
                self.number((*times).into());
            }
            self.number((*attempt).into());
            if let (ISSUED, Some(units)) = (tag, units) {
                self.number(*units);
            }
            self.bytes(note.by().as_bytes());
            self.bytes(note.why().as_bytes());
        }
    }
}

impl FieldReader<'_> {
    pub(super) fn history(&mut self) -> Result<Vec<HistoryEntry>, DecodeError> {
        const FIELD: &str = "history";
        let count = self.number(FIELD)?;
        if count == 0 || count > MAX_HISTORY as u64 {
            return Err(DecodeError::Invalid(FIELD));
        }
        let mut history = Vec::new();
        for _ in 0..count {
            let at = self.time(FIELD)?;
            let tag = self.u8(FIELD)?;
            let what = match tag {
                EXECUTED | ISSUED => HistoryEvent::Executed,
                NOT_EXECUTED => HistoryEvent::NotExecuted,
                PURGED => HistoryEvent::Purged,
                PROBE => HistoryEvent::Probe,
                RESEND => HistoryEvent::Resend,
                REVERSAL => HistoryEvent::Reversal,
                CONTRADICTION => HistoryEvent::Contradiction,
                REOPENED => HistoryEvent::Reopened,
                _ => return Err(DecodeError::Invalid(FIELD)),
            };
            let times = if what.is_step() { self.small(FIELD)? } else { 1 };
            let attempt = self.small(FIELD)?;
            let units = if tag == ISSUED { Some(self.number(FIELD)?) } else { None };
            let (by, why) = (self.text(FIELD)?, self.text(FIELD)?);
            let note = Note::new(by, why).map_err(|_| DecodeError::Invalid(FIELD))?;
            history.push(HistoryEntry { at, what, times, attempt, units, note });
        }
        Ok(history)
    }
}
