//! The ledger entry of one item of a batch, and its transitions. Every transition is a function
//! from an entry to its successor; versions, times and owners belong to the record around the
//! entry.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use super::kept_answer::{Envelope, KeptRow, OutcomeList, elements};
use super::outcome::UnknownReason;

/// Bytes of elements kept from tries that issued nothing. Tries that issued something are limited
/// by the units requested; the number of others is unlimited.
pub const MAX_IDLE_BYTES: usize = 64 << 10;

/// The entry of an item, with the invariant `fulfilled + in_flight + unknown <= requested`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Units the client asked for; at least 1.
    pub requested: u64,
    /// Units that were issued.
    pub fulfilled: u64,
    /// Units sent by the call in flight.
    pub in_flight: u64,
    /// Units sent with unknown outcome.
    pub unknown: u64,
    /// The reason units are unknown.
    pub doubt: Option<Doubt>,
    /// The backend declared that no more units will ever be issued.
    pub closed: bool,
    /// Issued elements for each `append` pointer, in order of arrival.
    pub outcomes: Vec<OutcomeList>,
    /// The last readable row.
    pub row: Option<KeptRow>,
    /// The unreadable row, or the start of an answer without rows, as evidence for an operator.
    pub evidence: Option<String>,
    /// The parts beside the rows of the last answer with rows.
    pub envelope: Option<Arc<Envelope>>,
}

/// The reason an item's outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doubt {
    /// No answer arrived.
    Lost(UnknownReason),
    /// The answer is not JSON, or has no rows where the rules expect rows.
    Unreadable,
    /// The answer has no row for the item, or only a row that may belong to another item.
    Missing,
    /// Two rows belong to the item.
    Duplicated,
    /// The row declares the outcome unknown (rule `unknown`).
    Declared,
    /// The row has no count of issued units.
    CountMissing,
    /// The row contradicts itself.
    Contradicting,
    /// The row reports more issued units than were sent.
    OverIssued,
    /// Part of an indivisible item was issued.
    Divided,
    /// The answer to a repetition does not say that all units were issued.
    Repeated,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost(reason) => return reason.fmt(f),
            Self::Unreadable => {
                "the answer has no rows that could be read, or was too large to read"
            }
            Self::Missing => "the answer has no row for this item",
            Self::Duplicated => "the answer has two rows for this item",
            Self::Declared => "the backend said that it does not know",
            Self::CountMissing => "the row does not say how many were issued",
            Self::Contradicting => "the row contradicts itself",
            Self::OverIssued => "the row says that more were issued than were sent",
            Self::Divided => "a part was issued of what cannot be divided",
            Self::Repeated => {
                "the answer to a repetition does not say that all was issued, and says nothing of \
                 the earlier tries"
            }
        })
    }
}

/// Fulfillment of an item or a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fulfillment {
    /// All requested units are issued.
    Complete,
    /// Some requested units are issued.
    Partial,
    /// No unit is issued.
    None,
    /// The outcome of some units is unknown.
    Unknown,
}

/// An invalid transition: the caller holds the wrong entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerError {
    /// More units than are left, or none.
    Units,
    /// Units are in flight or unknown already.
    Busy,
    /// Nothing is in flight, or nothing is unknown.
    Idle,
    /// The entry breaks `fulfilled + in_flight + unknown <= requested`.
    Broken,
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Units => "not that many units are left",
            Self::Busy => "units of this item are in flight or unknown",
            Self::Idle => "no unit of this item is in flight or unknown",
            Self::Broken => "the item's quantities do not add up",
        })
    }
}

impl std::error::Error for LedgerError {}

/// The outcome of the units sent for one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemOutcome {
    /// A number of units, possibly zero, was issued; the others were not.
    Issued {
        /// At most as many as were sent.
        units: u64,
        /// Elements issued with the units.
        appended: Vec<OutcomeList>,
        /// The row; `None`: the answer reports the units without one.
        row: Option<KeptRow>,
        /// No more units will ever be issued.
        closed: bool,
    },
    /// The outcome is unknown.
    Unknown {
        /// The reason.
        doubt: Doubt,
        /// The row as received, if any.
        row: Option<String>,
    },
}

impl ItemOutcome {
    /// The outcome without issued units and without a row.
    pub const NOTHING: Self =
        Self::Issued { units: 0, appended: Vec::new(), row: None, closed: false };
}

impl Ledger {
    /// Creates the entry of an item before its first call.
    ///
    /// # Errors
    /// `requested` is zero.
    pub fn new(requested: u64) -> Result<Self, LedgerError> {
        if requested == 0 {
            return Err(LedgerError::Units);
        }
        Ok(Self {
            requested,
            fulfilled: 0,
            in_flight: 0,
            unknown: 0,
            doubt: None,
            closed: false,
            outcomes: Vec::new(),
            row: None,
            evidence: None,
            envelope: None,
        })
    }

    /// Checks that the quantities add up.
    ///
    /// # Errors
    /// The quantities do not add up; the entry must not be acted on.
    pub fn check(&self) -> Result<(), LedgerError> {
        let held = self
            .fulfilled
            .checked_add(self.in_flight)
            .and_then(|held| held.checked_add(self.unknown));
        let holds = self.requested > 0 && held.is_some_and(|held| held <= self.requested);
        if holds { Ok(()) } else { Err(LedgerError::Broken) }
    }

    /// Reports units in flight or unknown; such an entry may not expire.
    pub fn is_open(&self) -> bool {
        self.in_flight > 0 || self.unknown > 0
    }

    /// Units that may be sent now, none while any is in flight or unknown.
    pub fn remaining(&self) -> u64 {
        if self.closed || self.is_open() {
            return 0;
        }
        self.requested.saturating_sub(self.fulfilled)
    }

    /// Fulfillment of the item.
    pub fn fulfillment(&self) -> Fulfillment {
        if self.is_open() {
            Fulfillment::Unknown
        } else if self.fulfilled >= self.requested {
            Fulfillment::Complete
        } else if self.fulfilled > 0 {
            Fulfillment::Partial
        } else {
            Fulfillment::None
        }
    }

    /// Reports an entry without any fact beyond the id. Such an entry may be forgotten when its
    /// call certainly did not reach the backend.
    pub fn is_blank(&self) -> bool {
        self.fulfilled == 0
            && !self.is_open()
            && !self.closed
            && self.row.is_none()
            && self.outcomes.is_empty()
    }

    /// The successor in which `units` are about to be sent.
    ///
    /// # Errors
    /// When not that many are left, or a call for the item is open.
    pub fn claim(&self, units: u64) -> Result<Self, LedgerError> {
        self.check()?;
        if self.is_open() {
            return Err(LedgerError::Busy);
        }
        if units == 0 || units > self.remaining() {
            return Err(LedgerError::Units);
        }
        Ok(Self { in_flight: units, ..self.clone() })
    }

    /// The successor in which the call in flight had this outcome.
    ///
    /// # Errors
    /// When nothing is in flight, or more was issued than was sent.
    pub fn complete(&self, outcome: &ItemOutcome) -> Result<Self, LedgerError> {
        let open = Self { in_flight: 0, ..self.clone() };
        self.resolve(open, self.in_flight, outcome)
    }

    /// The successor in which the call in flight got no answer.
    ///
    /// # Errors
    /// When nothing is in flight.
    pub fn lose(&self, reason: UnknownReason) -> Result<Self, LedgerError> {
        self.complete(&ItemOutcome::Unknown { doubt: Doubt::Lost(reason), row: None })
    }

    /// The successor in which the call in flight certainly did not reach the backend.
    ///
    /// # Errors
    /// When nothing is in flight.
    pub fn release(&self) -> Result<Self, LedgerError> {
        self.complete(&ItemOutcome::NOTHING)
    }

    /// The successor with a known outcome of the unknown units, by a late answer or an operator's
    /// decision. Units that were not issued may be sent again.
    ///
    /// # Errors
    /// No unit is unknown, or more was issued than is unknown.
    pub fn settle(&self, outcome: &ItemOutcome) -> Result<Self, LedgerError> {
        let open = Self { unknown: 0, doubt: None, evidence: None, ..self.clone() };
        self.resolve(open, self.unknown, outcome)
    }

    /// The successor in which the outcome of the last attempt is known, whether it is still in
    /// flight or was given up as unknown meanwhile.
    ///
    /// # Errors
    /// When nothing is open, or more was issued than was sent.
    pub fn conclude(&self, outcome: &ItemOutcome) -> Result<Self, LedgerError> {
        if self.in_flight > 0 { self.complete(outcome) } else { self.settle(outcome) }
    }

    fn resolve(
        &self,
        mut next: Self,
        sent: u64,
        outcome: &ItemOutcome,
    ) -> Result<Self, LedgerError> {
        self.check()?;
        if sent == 0 {
            return Err(LedgerError::Idle);
        }
        match outcome {
            ItemOutcome::Unknown { doubt, row } => {
                next.unknown += sent;
                next.doubt = Some(*doubt);
                next.evidence.clone_from(row);
            }
            ItemOutcome::Issued { units, appended, row, closed } => {
                if *units > sent {
                    return Err(LedgerError::Units);
                }
                next.fulfilled += units;
                next.closed |= closed;
                // The row of a try that issued nothing does not describe an issued item, and no row
                // of an item that was incomplete describes one that is complete.
                let is_outdated = self.fulfilled == 0 || next.fulfilled >= next.requested;
                if row.is_some() || (*units > 0 && is_outdated) {
                    next.row.clone_from(row);
                }
                if *units > 0 || next.outcome_bytes() < MAX_IDLE_BYTES {
                    next.append(appended);
                }
            }
        }
        next.check()?;
        Ok(next)
    }

    /// Reports an entry that is complete or closed, with nothing open. Only such an entry may
    /// expire.
    pub fn is_done(&self) -> bool {
        !self.is_open() && (self.closed || self.fulfilled >= self.requested)
    }

    /// The entry without outcomes, as kept after their retention: the quantities.
    pub fn bare(&self) -> Self {
        Self { outcomes: Vec::new(), row: None, evidence: None, envelope: None, ..self.clone() }
    }

    /// Approximate bytes of the texts.
    pub fn bytes(&self) -> usize {
        let row = self.row.as_ref().map_or(0, KeptRow::bytes);
        let texts = row + self.evidence.as_ref().map_or(0, String::len);
        let lists = self.outcomes.iter().map(|list| list.at.len() + 24 * list.elements.len());
        let envelope = self.envelope.as_ref().map_or(0, |envelope| envelope.bytes());
        texts + envelope + self.outcome_bytes() + lists.sum::<usize>()
    }

    fn append(&mut self, appended: &[OutcomeList]) {
        for more in appended.iter().filter(|more| !more.elements.is_empty()) {
            match self.outcomes.iter_mut().find(|list| list.at == more.at) {
                Some(list) => list.elements.extend_from_slice(&more.elements),
                None => self.outcomes.push(more.clone()),
            }
        }
    }

    fn outcome_bytes(&self) -> usize {
        self.outcomes.iter().flat_map(|list| &list.elements).map(String::len).sum()
    }
}
