//! How the ledger entry of an item is written down, within its record; and what that
//! shares with other records, reasons and periods.
//!
//! ```text
//! requested, fulfilled, in flight, unknown   u64 each
//! flags     u8   bit 0: closed, bit 1: row is set, bit 2: evidence is set
//! doubt     u8, u8, u16   0 none, 1 lost with the reason and status of an unknown record, 2 and on
//! outcomes  count u32, each: place, count u32, elements
//! row, evidence, where they are set
//! ```

use std::time::Duration;

use super::{DecodeError, ITEM, ITEM_IN_FLIGHT, ITEM_UNKNOWN, Reader, Writer};
use crate::idempotency::ledger::{Appended, Doubt, Ledger};
use crate::idempotency::record::{Keep, UnknownReason};

const CLOSED: u8 = 1;
const HAS_ROW: u8 = 2;
const HAS_EVIDENCE: u8 = 4;

/// The state byte of an item's record, which the indexes are kept by.
pub(super) fn ledger_tag(ledger: &Ledger) -> u8 {
    if ledger.in_flight > 0 {
        ITEM_IN_FLIGHT
    } else if ledger.is_open() {
        ITEM_UNKNOWN
    } else {
        ITEM
    }
}

impl Writer {
    pub(super) fn keep(&mut self, keep: Keep) {
        match keep {
            Keep::Forever => self.raw(&[0]),
            Keep::For(period) => {
                self.raw(&[1]);
                self.u64(period.as_secs());
                self.u32(period.subsec_nanos());
            }
        }
    }

    pub(super) fn ledger(&mut self, ledger: &Ledger) {
        for units in [ledger.requested, ledger.fulfilled, ledger.in_flight, ledger.unknown] {
            self.u64(units);
        }
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        self.raw(&[flag(ledger.closed, CLOSED)
            | flag(ledger.row.is_some(), HAS_ROW)
            | flag(ledger.evidence.is_some(), HAS_EVIDENCE)]);
        let (doubt, (reason, status)) = match ledger.doubt {
            None => (0, (0, 0)),
            Some(Doubt::Lost(reason)) => (1, reason_to_tag(reason)),
            Some(Doubt::Unreadable) => (2, (0, 0)),
            Some(Doubt::Missing) => (3, (0, 0)),
            Some(Doubt::Twice) => (4, (0, 0)),
            Some(Doubt::Said) => (5, (0, 0)),
            Some(Doubt::Silent) => (6, (0, 0)),
            Some(Doubt::Contradicting) => (7, (0, 0)),
            Some(Doubt::OverIssued) => (8, (0, 0)),
            Some(Doubt::Divided) => (9, (0, 0)),
        };
        self.raw(&[doubt, reason]);
        self.u16(status);
        self.count(ledger.outcomes.len());
        for list in &ledger.outcomes {
            self.bytes(list.at.as_bytes());
            self.count(list.elements.len());
            list.elements.iter().for_each(|element| self.bytes(element.as_bytes()));
        }
        for text in ledger.row.iter().chain(&ledger.evidence) {
            self.bytes(text.as_bytes());
        }
    }
}

impl Reader<'_> {
    pub(super) fn keep(&mut self) -> Result<Keep, DecodeError> {
        match self.u8("tombstone")? {
            0 => Ok(Keep::Forever),
            1 => {
                let seconds = self.u64("tombstone")?;
                match self.u32("tombstone")? {
                    nanos @ 0..1_000_000_000 => Ok(Keep::For(Duration::new(seconds, nanos))),
                    _ => Err(DecodeError::Invalid("tombstone")),
                }
            }
            _ => Err(DecodeError::Invalid("tombstone")),
        }
    }

    pub(super) fn ledger(&mut self) -> Result<Ledger, DecodeError> {
        let mut units = [0; 4];
        for units in &mut units {
            *units = self.u64("quantities")?;
        }
        let [requested, fulfilled, in_flight, unknown] = units;
        let flags = self.u8("item flags")?;
        if flags > (CLOSED | HAS_ROW | HAS_EVIDENCE) {
            return Err(DecodeError::Invalid("item flags"));
        }
        let doubt = self.doubt()?;
        let outcomes = self.list("outcomes", |from| {
            Ok(Appended { at: from.text("place")?, elements: from.texts("elements")? })
        })?;
        let row = if flags & HAS_ROW == 0 { None } else { Some(self.text("row")?) };
        let evidence = if flags & HAS_EVIDENCE == 0 { None } else { Some(self.text("evidence")?) };
        let closed = flags & CLOSED != 0;
        let ledger = Ledger {
            requested,
            fulfilled,
            in_flight,
            unknown,
            doubt,
            closed,
            outcomes,
            row,
            evidence,
        };
        match ledger.check() {
            Ok(()) => Ok(ledger),
            Err(_) => Err(DecodeError::Invalid("quantities")),
        }
    }

    fn doubt(&mut self) -> Result<Option<Doubt>, DecodeError> {
        let tag = self.u8("doubt")?;
        let reason = self.u8("doubt")?;
        let status = self.u16("doubt")?;
        if tag == 1 {
            return Ok(Some(Doubt::Lost(reason_of(reason, status)?)));
        }
        if (reason, status) != (0, 0) {
            return Err(DecodeError::Invalid("doubt"));
        }
        match tag {
            0 => Ok(None),
            2 => Ok(Some(Doubt::Unreadable)),
            3 => Ok(Some(Doubt::Missing)),
            4 => Ok(Some(Doubt::Twice)),
            5 => Ok(Some(Doubt::Said)),
            6 => Ok(Some(Doubt::Silent)),
            7 => Ok(Some(Doubt::Contradicting)),
            8 => Ok(Some(Doubt::OverIssued)),
            9 => Ok(Some(Doubt::Divided)),
            _ => Err(DecodeError::Invalid("doubt")),
        }
    }

    fn texts(&mut self, field: &'static str) -> Result<Vec<String>, DecodeError> {
        let count = self.u32(field)? as usize;
        // Each takes 4 bytes at least, so a wrong count cannot ask for much memory.
        if count > self.0.len() / 4 {
            return Err(DecodeError::EndsIn(field));
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(self.text(field)?);
        }
        Ok(list)
    }
}

pub(super) fn reason_of(tag: u8, status: u16) -> Result<UnknownReason, DecodeError> {
    match (tag, status) {
        (1, status) => Ok(UnknownReason::Status(status)),
        (2, 0) => Ok(UnknownReason::Timeout),
        (3, 0) => Ok(UnknownReason::ConnectionLost),
        (4, 0) => Ok(UnknownReason::Truncated),
        (5, 0) => Ok(UnknownReason::Upgraded),
        (6, 0) => Ok(UnknownReason::ProcessEnded),
        (7, 0) => Ok(UnknownReason::NotRecorded),
        _ => Err(DecodeError::Invalid("reason")),
    }
}

pub(super) fn reason_to_tag(reason: UnknownReason) -> (u8, u16) {
    match reason {
        UnknownReason::Status(status) => (1, status),
        UnknownReason::Timeout => (2, 0),
        UnknownReason::ConnectionLost => (3, 0),
        UnknownReason::Truncated => (4, 0),
        UnknownReason::Upgraded => (5, 0),
        UnknownReason::ProcessEnded => (6, 0),
        UnknownReason::NotRecorded => (7, 0),
    }
}
