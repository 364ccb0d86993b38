//! The history of a record: the steps of its settlement, and the decisions about it.

use std::fmt;

use crate::clock::Timestamp;

/// Entries of a history; a further entry replaces the oldest step, else the oldest entry.
pub const MAX_HISTORY: usize = 16;
/// Characters of a reason.
pub const MAX_WHY: usize = 1000;
/// Characters of a name.
pub const MAX_BY: usize = 100;

/// A step or a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryEvent {
    /// The backend was asked about the request.
    Probe,
    /// The request was sent again.
    Resend,
    /// A reversal of the request was sent.
    Reversal,
    /// A result arrived that lost against an earlier decision.
    Contradiction,
    /// A final record was released by an operator.
    Reopened,
    /// The backend executed the request.
    Executed,
    /// The backend did not execute the request.
    NotExecuted,
    /// The answer, or the outcomes of an item, were purged.
    Purged,
}

impl HistoryEvent {
    /// Name of the event in the records API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Resend => "resend",
            Self::Reversal => "reversal",
            Self::Contradiction => "contradiction",
            Self::Reopened => "reopened",
            Self::Executed => "executed",
            Self::NotExecuted => "not-executed",
            Self::Purged => "purged",
        }
    }

    /// Reports a step, which is no decision: steps leave a full history first.
    pub const fn is_step(self) -> bool {
        match self {
            Self::Probe | Self::Resend | Self::Reversal => true,
            Self::Contradiction
            | Self::Reopened
            | Self::Executed
            | Self::NotExecuted
            | Self::Purged => false,
        }
    }
}

/// A step or a decision about a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Time by the store's clock; of several equal steps in a row, of the last.
    pub at: Timestamp,
    /// The step or the decision.
    pub what: HistoryEvent,
    /// Number of equal steps in a row that the entry stands for; at least 1.
    pub times: u32,
    /// Attempt the decision was made about, counted from 1.
    pub attempt: u32,
    /// Units of the item found issued; only for an executed item.
    pub units: Option<u64>,
    /// Author and reason.
    pub note: Note,
}

/// Author and reason of a step or a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    by: String,
    why: String,
}

impl Note {
    /// Creates a note by `by` (at most [`MAX_BY`] characters) with a reason of at most
    /// [`MAX_WHY`].
    ///
    /// # Errors
    /// A text is too long or holds a control character, or the name is empty.
    pub fn new(by: String, why: String) -> Result<Self, NoteError> {
        let fits = |text: &str, most: usize| text.chars().nth(most).is_none();
        let clean = |text: &str| !text.chars().any(char::is_control);
        if by.trim().is_empty() || !fits(&by, MAX_BY) || !clean(&by) {
            return Err(NoteError::By);
        }
        if !fits(&why, MAX_WHY) || !clean(&why) {
            return Err(NoteError::Why);
        }
        Ok(Self { by, why })
    }

    /// Note of a step that the gateway took itself; texts are cut to their limits.
    pub fn gateway(by: &str, why: String) -> Self {
        Self::new(by.to_owned(), why)
            .unwrap_or_else(|_| Self { by: "gateway".to_owned(), why: String::new() })
    }

    /// Author of the decision.
    pub fn by(&self) -> &str {
        &self.by
    }

    /// Reason of the decision; empty where no reason is required.
    pub fn why(&self) -> &str {
        &self.why
    }
}

/// The mistake in a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteError {
    /// The name is empty, too long or holds a control character.
    By,
    /// The reason is too long or holds a control character.
    Why,
}

impl fmt::Display for NoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By => write!(f, "`by` takes 1 to {MAX_BY} characters, none a control character"),
            Self::Why => {
                write!(f, "`reason` takes at most {MAX_WHY} characters, none a control character")
            }
        }
    }
}

impl std::error::Error for NoteError {}

/// Adds an entry. An entry equal to the last, but for its time, is counted there.
pub(super) fn add(history: &mut Vec<HistoryEntry>, entry: HistoryEntry) {
    if let Some(last) = history.last_mut()
        && entry.what.is_step()
        && (last.what, last.attempt, &last.note) == (entry.what, entry.attempt, &entry.note)
    {
        last.times = last.times.saturating_add(entry.times);
        last.at = entry.at;
        return;
    }
    if history.len() >= MAX_HISTORY {
        let oldest = history.iter().position(|entry| entry.what.is_step()).unwrap_or(0);
        history.remove(oldest);
    }
    history.push(entry);
}
