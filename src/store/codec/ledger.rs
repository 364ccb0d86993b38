//! Layout of an item's ledger entry inside a record, and of the reasons and periods that ledger
//! entries share with other states.
//!
//! ```text
//! requested, fulfilled, in flight, unknown   a number each
//! flags     u8   bit 0: closed; presence of bit 1: row, bit 2: evidence, bit 3: doubt,
//!                bit 4: outcomes, bit 5: envelope, bit 6: array of the row, bit 7: its group
//! doubt     u8   1 lost, then u8 and u16: reason and status of an unknown record; 2 and above
//! outcomes  count, each: place, count, elements
//! row, array of the row, group of the row, evidence
//! envelope  time, u16: status, body, count of header lines, each: name, value
//! ```
//! A period is one byte, 0 for "forever" or 1, then seconds and nanoseconds, a number each.

use std::time::Duration;

use super::error::DecodeError;
use super::layout::{ITEM, ITEM_IN_FLIGHT, ITEM_UNKNOWN};
use super::primitives::{FieldReader, FieldWriter};
use crate::clock::Timestamp;
use crate::idempotency::ledger::{Doubt, Envelope, KeptRow, Ledger, OutcomeList};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::retention::Keep;

const CLOSED: u8 = 1;
const HAS_ROW: u8 = 2;
const HAS_EVIDENCE: u8 = 4;
const HAS_DOUBT: u8 = 8;
const HAS_OUTCOMES: u8 = 16;
const HAS_ENVELOPE: u8 = 32;
const HAS_ROW_ARRAY: u8 = 64;
const HAS_ROW_GROUP: u8 = 128;

const LOST: u8 = 1;

/// State tag of an item's record. Stores index by the tag, without reading the ledger.
pub(super) fn ledger_tag(ledger: &Ledger) -> u8 {
    if ledger.in_flight > 0 {
        ITEM_IN_FLIGHT
    } else if ledger.is_open() {
        ITEM_UNKNOWN
    } else {
        ITEM
    }
}

impl FieldWriter<'_> {
    pub(super) fn keep(&mut self, keep: Keep) {
        match keep {
            Keep::Forever => self.raw(&[0]),
            Keep::For(period) => {
                self.raw(&[1]);
                self.number(period.as_secs());
                self.number(period.subsec_nanos().into());
            }
        }
    }

    pub(super) fn ledger(&mut self, ledger: &Ledger) {
        for units in [ledger.requested, ledger.fulfilled, ledger.in_flight, ledger.unknown] {
            self.number(units);
        }
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let row = ledger.row.as_ref();
        let array = row.and_then(|row| row.array.as_ref());
        let group = row.and_then(|row| row.group.as_ref());
        self.raw(&[flag(ledger.closed, CLOSED)
            | flag(row.is_some(), HAS_ROW)
            | flag(array.is_some(), HAS_ROW_ARRAY)
            | flag(group.is_some(), HAS_ROW_GROUP)
            | flag(ledger.evidence.is_some(), HAS_EVIDENCE)
            | flag(ledger.doubt.is_some(), HAS_DOUBT)
            | flag(!ledger.outcomes.is_empty(), HAS_OUTCOMES)
            | flag(ledger.envelope.is_some(), HAS_ENVELOPE)]);
        if let Some(doubt) = ledger.doubt {
            self.doubt(doubt);
        }
        if !ledger.outcomes.is_empty() {
            self.number(ledger.outcomes.len() as u64);
        }
        for list in &ledger.outcomes {
            self.bytes(list.at.as_bytes());
            self.number(list.elements.len() as u64);
            list.elements.iter().for_each(|element| self.bytes(element.as_bytes()));
        }
        let row = row.map(|row| &row.text);
        for text in row.into_iter().chain(array).chain(group).chain(&ledger.evidence) {
            self.bytes(text.as_bytes());
        }
        if let Some(envelope) = &ledger.envelope {
            self.number(envelope.at.as_millis());
            self.u16(envelope.status);
            self.bytes(envelope.body.as_bytes());
            self.number(envelope.headers.len() as u64);
            for (name, value) in &envelope.headers {
                self.bytes(name.as_bytes());
                self.bytes(value);
            }
        }
    }

    fn doubt(&mut self, doubt: Doubt) {
        let tag = match doubt {
            Doubt::Lost(reason) => {
                let (reason, status) = reason_to_tag(reason);
                self.raw(&[LOST, reason]);
                return self.u16(status);
            }
            Doubt::Unreadable => 2,
            Doubt::Missing => 3,
            Doubt::Duplicated => 4,
            Doubt::Declared => 5,
            Doubt::CountMissing => 6,
            Doubt::Contradicting => 7,
            Doubt::OverIssued => 8,
            Doubt::Divided => 9,
            Doubt::Repeated => 10,
        };
        self.raw(&[tag]);
    }
}

impl FieldReader<'_> {
    pub(super) fn keep(&mut self) -> Result<Keep, DecodeError> {
        match self.u8("tombstone")? {
            0 => Ok(Keep::Forever),
            1 => {
                let seconds = self.number("tombstone")?;
                match self.small("tombstone")? {
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
            *units = self.number("quantities")?;
        }
        let [requested, fulfilled, in_flight, unknown] = units;
        let flags = self.u8("item flags")?;
        let has = |flag: u8| flags & flag != 0;
        if !has(HAS_ROW) && has(HAS_ROW_ARRAY | HAS_ROW_GROUP) {
            return Err(DecodeError::Invalid("item flags"));
        }
        let doubt = if has(HAS_DOUBT) { Some(self.doubt()?) } else { None };
        let outcomes = if has(HAS_OUTCOMES) { self.outcomes()? } else { Vec::new() };
        let row = match has(HAS_ROW) {
            false => None,
            true => Some(KeptRow {
                text: self.text("row")?,
                array: if has(HAS_ROW_ARRAY) { Some(self.text("array")?) } else { None },
                group: if has(HAS_ROW_GROUP) { Some(self.text("group")?) } else { None },
            }),
        };
        let evidence = if has(HAS_EVIDENCE) { Some(self.text("evidence")?) } else { None };
        let envelope = if has(HAS_ENVELOPE) { Some(self.envelope()?.into()) } else { None };
        let closed = has(CLOSED);
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
            envelope,
        };
        match ledger.check() {
            Ok(()) => Ok(ledger),
            Err(_) => Err(DecodeError::Invalid("quantities")),
        }
    }

    fn envelope(&mut self) -> Result<Envelope, DecodeError> {
        let at = Timestamp::from_millis(self.number("envelope")?);
        let status = self.u16("envelope")?;
        let body = self.text("envelope")?;
        let headers = self.list("envelope", |reader| {
            Ok((reader.text("envelope")?, reader.bytes("envelope")?.to_vec()))
        })?;
        Ok(Envelope { at, status, body, headers })
    }

    fn doubt(&mut self) -> Result<Doubt, DecodeError> {
        match self.u8("doubt")? {
            LOST => {
                let reason = self.u8("doubt")?;
                Ok(Doubt::Lost(reason_of(reason, self.u16("doubt")?)?))
            }
            2 => Ok(Doubt::Unreadable),
            3 => Ok(Doubt::Missing),
            4 => Ok(Doubt::Duplicated),
            5 => Ok(Doubt::Declared),
            6 => Ok(Doubt::CountMissing),
            7 => Ok(Doubt::Contradicting),
            8 => Ok(Doubt::OverIssued),
            9 => Ok(Doubt::Divided),
            10 => Ok(Doubt::Repeated),
            _ => Err(DecodeError::Invalid("doubt")),
        }
    }

    /// Decodes at least one list. The vectors grow while decoding, so that a corrupt count
    /// allocates no memory.
    fn outcomes(&mut self) -> Result<Vec<OutcomeList>, DecodeError> {
        let mut lists = Vec::new();
        let count = self.number("outcomes")?;
        if count == 0 {
            return Err(DecodeError::Invalid("outcomes"));
        }
        for _ in 0..count {
            let at = self.text("place")?;
            let mut elements = Vec::new();
            for _ in 0..self.number("elements")? {
                elements.push(self.text("elements")?);
            }
            lists.push(OutcomeList { at, elements });
        }
        Ok(lists)
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
        (8, 0) => Ok(UnknownReason::BadResponse),
        (9, status) => Ok(UnknownReason::Pending(status)),
        (10, status) => Ok(UnknownReason::AlreadyDone(status)),
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
        UnknownReason::BadResponse => (8, 0),
        UnknownReason::Pending(status) => (9, status),
        UnknownReason::AlreadyDone(status) => (10, status),
    }
}
