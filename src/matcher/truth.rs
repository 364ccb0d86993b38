//! The truth of a condition on a message that may be unreadable.

/// The truth of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// The condition does not hold.
    No,
    /// The value cannot be read, so the condition holds neither way.
    Undecided,
    /// The condition holds.
    Yes,
}

impl Truth {
    /// The truth of the contrary.
    pub(super) fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Undecided => Self::Undecided,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}
