//! How the history of a record is written down, behind its state: what operators decided about it.
//!
//! ```text
//! count, 1 to 16, each: at         a number
//!                       what u8    1 executed, 2 not executed, 3 purged, 4 executed, with units
//!                       attempt    a number
//!                       units      a number, of 4 only
//!                       by, why    each behind its length
//! ```

use super::DecodeError;
use super::parts::{Reader, Writer};
use crate::idempotency::settle::{Entry, MAX_HISTORY, Note, What};

const EXECUTED: u8 = 1;
const NOT_EXECUTED: u8 = 2;
const PURGED: u8 = 3;
const ISSUED: u8 = 4;

/// About how many bytes it takes.
pub(super) fn size_hint(history: &[Entry]) -> usize {
    history.iter().map(|entry| 32 + entry.note.by().len() + entry.note.why().len()).sum()
}

impl Writer<'_> {
    pub(super) fn history(&mut self, history: &[Entry]) {
        self.number(history.len() as u64);
        for Entry { at, what, attempt, units, note } in history {
            let tag = match (what, units) {
                (What::Executed, Some(_)) => ISSUED,
                (What::Executed, None) => EXECUTED,
                (What::NotExecuted, _) => NOT_EXECUTED,
                (What::Purged, _) => PURGED,
            };
            self.number(at.as_millis());
            self.raw(&[tag]);
            self.number((*attempt).into());
            if let (ISSUED, Some(units)) = (tag, units) {
                self.number(*units);
            }
            self.bytes(note.by().as_bytes());
            self.bytes(note.why().as_bytes());
        }
    }
}

impl Reader<'_> {
    pub(super) fn history(&mut self) -> Result<Vec<Entry>, DecodeError> {
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
                EXECUTED | ISSUED => What::Executed,
                NOT_EXECUTED => What::NotExecuted,
                PURGED => What::Purged,
                _ => return Err(DecodeError::Invalid(FIELD)),
            };
            let attempt = self.small(FIELD)?;
            let units = if tag == ISSUED { Some(self.number(FIELD)?) } else { None };
            let (by, why) = (self.text(FIELD)?, self.text(FIELD)?);
            let note = Note::new(by, why).map_err(|_| DecodeError::Invalid(FIELD))?;
            history.push(Entry { at, what, attempt, units, note });
        }
        Ok(history)
    }
}
