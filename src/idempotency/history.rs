//! The history of a record: the decisions that operators made about it.

use std::fmt;

use crate::clock::Timestamp;

/// Entries of a history; a further entry replaces the oldest.
pub const MAX_HISTORY: usize = 16;
/// Characters of a reason.
pub const MAX_WHY: usize = 1000;
/// Characters of a name.
pub const MAX_BY: usize = 100;

/// HistoryEvent was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryEvent {
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
            Self::Executed => "executed",
            Self::NotExecuted => "not-executed",
            Self::Purged => "purged",
        }
    }
}

/// A decision about a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Time of the decision, by the store's clock.
    pub at: Timestamp,
    /// HistoryEvent was decided.
    pub what: HistoryEvent,
    /// Attempt the decision was made about, counted from 1.
    pub attempt: u32,
    /// Units of the item found issued; only for an executed item.
    pub units: Option<u64>,
    /// Author and reason.
    pub note: Note,
}

/// Author and reason of a decision.
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

    /// Author of the decision.
    pub fn by(&self) -> &str {
        &self.by
    }

    /// Reason of the decision; empty where no reason is required.
    pub fn why(&self) -> &str {
        &self.why
    }
}

/// HistoryEvent is wrong with a note.
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
