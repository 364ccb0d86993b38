//! How a record is written down: a layout of fixed order, little endian, with a checksum at its end.
//!
//! ```text
//! schema   u8        3
//! state    u8        1 in flight, 2 unknown, 3 final and kept, 4 final and not kept, 5 tombstone,
//!                    6 item at rest, 7 item in flight, 8 item unknown, 9 turn, 10 released
//! flags    u8        bit 0: expires is set, bit 1: subject is set, bit 2: there is a history,
//!                    bit 3: settled, and no client was told
//! version  u64
//! owner    16 bytes
//! expires  u64       milliseconds, where it is set
//! subject  16 bytes  where it is set
//! tenant 16, fingerprint 32, first seen, updated, attempts: a number each, attempt 16, route, key,
//! members: count, each a name and 4 bytes
//! what belongs to the state, history where there is one
//! crc32    u32       over the record's id and everything before
//! ```
//! Records are small and many: numbers, counts and lengths take a byte for each 7 bits, see `primitives`;
//! when it was updated is told from when it was first seen, the sign in the lowest bit. Texts and
//! bytes stand behind their length. The head, up to the subject, tells a store all it needs for a
//! compare-and-swap and its indexes ([`peek`]), so that an answer is not read to be compared; Redis
//! reads it too, see `redis/scripts/commit.lua`. The id counts in the checksum: a record that ended up under another id
//! is corrupt.
//!
//! It is written by hand because the derived form costs a call for each byte of a body. Reading
//! never panics, whatever the bytes are, and accepts nothing that [`encode`] does not write.

use std::fmt;

use crate::clock::Timestamp;
use http::{HeaderName, HeaderValue};

use crate::idempotency::fingerprint::{Fingerprint, MemberDigest};
use crate::idempotency::record::Nonce;
use crate::idempotency::{Answer, Record, RecordId, State, TenantId};
use ledger::ledger_tag;
use primitives::{Reader, Writer};

/// The version of the layout this program writes and reads.
pub const SCHEMA: u32 = 3;

const SCHEMA_BYTE: u8 = 3;
const HAS_EXPIRES: u8 = 1;
const HAS_SUBJECT: u8 = 2;
const HAS_HISTORY: u8 = 4;
const UNTOLD: u8 = 8;
const ALL_FLAGS: u8 = HAS_EXPIRES | HAS_SUBJECT | HAS_HISTORY | UNTOLD;
const IN_FLIGHT: u8 = 1;
const UNKNOWN: u8 = 2;
const KEPT: u8 = 3;
const NOT_RETAINED: u8 = 4;
const TOMBSTONE: u8 = 5;
const ITEM: u8 = 6;
const ITEM_IN_FLIGHT: u8 = 7;
const ITEM_UNKNOWN: u8 = 8;
const TURN: u8 = 9;
const RELEASED: u8 = 10;
/// In the place of an item's tombstone: its outcomes are gone already.
const GONE: u8 = 2;
/// Schema, state, flags, version and owner.
const HEAD: usize = 27;
/// About what everything takes that is not of some length of its own.
const FIXED: usize = 160;
const CHECKSUM: usize = 4;

/// What a store needs to know of a record to compare and to index it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The record's version.
    pub version: u64,
    /// Whether it is in flight or unknown.
    pub open: bool,
    /// Whether it is in flight.
    pub in_flight: bool,
    /// When it is due for expiry.
    pub expires: Option<Timestamp>,
    /// The digest it can be found by.
    pub subject: Option<[u8; 16]>,
}

impl Head {
    /// The head of a record.
    pub fn of(record: &Record) -> Self {
        let (open, in_flight) = match record.state {
            State::InFlight => (true, true),
            State::Unknown { .. } => (true, false),
            // Nobody has to settle it.
            State::SerializeLock => (false, true),
            State::Final { .. } | State::Tombstone { .. } | State::Released { .. } => {
                (false, false)
            }
            State::Item { ref ledger, .. } => (ledger.is_open(), ledger.in_flight > 0),
        };
        let (expires, subject) = (record.expires(), record.subject);
        Self { version: record.version, open, in_flight, expires, subject }
    }
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than any record.
    TooShort(usize),
    /// Written by another version of this program.
    Schema(u8),
    /// The checksum is wrong: some byte changed after it was written.
    Checksum,
    /// A value that no record has; names the field.
    Invalid(&'static str),
    /// The bytes end inside this field.
    EndsIn(&'static str),
    /// This many bytes too many.
    TooLong(usize),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(bytes) => write!(f, "{bytes} bytes are no record"),
            Self::Schema(schema) => {
                write!(f, "it has layout {schema}, this version knows {SCHEMA}")
            }
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Invalid(field) => write!(f, "its {field} has an impossible value"),
            Self::EndsIn(field) => write!(f, "it ends within its {field}"),
            Self::TooLong(bytes) => write!(f, "{bytes} bytes follow its end"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Writes a record down.
pub fn encode(id: &RecordId, record: &Record) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(&mut out, id, record);
    out
}

/// Writes a record down behind what `out` holds already.
pub fn encode_into(out: &mut Vec<u8>, id: &RecordId, record: &Record) {
    out.reserve(room(record));
    let start = out.len();
    let mut out = Writer(out);
    let tag = match &record.state {
        State::InFlight => IN_FLIGHT,
        State::Unknown { .. } => UNKNOWN,
        State::Final { answer: Answer::Kept(_), .. } => KEPT,
        State::Final { answer: Answer::NotRetained { .. }, .. } => NOT_RETAINED,
        State::Tombstone { .. } => TOMBSTONE,
        State::SerializeLock => TURN,
        State::Released { .. } => RELEASED,
        State::Item { ledger, .. } => ledger_tag(ledger),
    };
    let expires = record.expires();
    let mut flags = 0;
    if expires.is_some() {
        flags |= HAS_EXPIRES;
    }
    if record.subject.is_some() {
        flags |= HAS_SUBJECT;
    }
    if !record.history.is_empty() {
        flags |= HAS_HISTORY;
    }
    if record.settlement_unreported {
        flags |= UNTOLD;
    }
    out.raw(&[SCHEMA_BYTE, tag, flags]);
    out.u64(record.version);
    out.raw(&record.owner);
    if let Some(at) = expires {
        out.u64(at.as_millis());
    }
    if let Some(subject) = &record.subject {
        out.raw(subject);
    }
    out.raw(record.tenant.as_bytes());
    out.raw(&record.fingerprint.digest);
    out.number(record.first_seen.as_millis());
    out.number(since(record.first_seen, record.updated));
    out.number(record.attempts.into());
    out.raw(&record.attempt);
    out.bytes(record.route.as_bytes());
    out.bytes(record.key.as_bytes());
    out.number(record.fingerprint.members.len() as u64);
    for member in record.fingerprint.members.iter() {
        out.bytes(member.name.as_bytes());
        out.raw(&member.digest);
    }
    out.state(&record.state);
    if !record.history.is_empty() {
        out.history(&record.history);
    }
    let checksum = checksum(id, &out.0[start..]);
    out.raw(&checksum.to_le_bytes());
}

/// Reads what a compare-and-swap needs; checks the checksum of the whole.
///
/// # Errors
/// When the bytes are not what [`encode`] wrote for this id.
pub fn peek(id: &RecordId, bytes: &[u8]) -> Result<Head, DecodeError> {
    let content = verified(id, bytes)?;
    Reader(content).head().map(|(head, ..)| head)
}

/// Reads a record back.
///
/// # Errors
/// When the bytes are not what [`encode`] wrote for this id.
pub fn decode(id: &RecordId, bytes: &[u8]) -> Result<Record, DecodeError> {
    let mut from = Reader(verified(id, bytes)?);
    let (head, owner, tag, flags) = from.head()?;
    let tenant = TenantId::from_bytes(from.array("tenant")?);
    let digest = from.array("fingerprint")?;
    let first_seen = from.time("first seen")?;
    let updated = after(first_seen, from.number("updated")?);
    let attempts = from.small("attempts")?;
    let attempt: Nonce = from.array("attempt")?;
    let route = from.text("route")?;
    let key = from.text("key")?;
    let members = from.list("members", |from| {
        Ok(MemberDigest { name: from.text("member")?.into(), digest: from.array("member")? })
    })?;
    let state = from.state(tag, head.expires)?;
    let history = if flags & HAS_HISTORY != 0 { from.history()? } else { Vec::new() };
    if !from.0.is_empty() {
        return Err(DecodeError::TooLong(from.0.len()));
    }
    let fingerprint = Fingerprint { digest, members: members.into() };
    Ok(Record {
        version: head.version,
        tenant,
        route: route.into(),
        key: key.into(),
        subject: head.subject,
        fingerprint,
        first_seen,
        updated,
        attempts,
        attempt,
        owner,
        state,
        settlement_unreported: flags & UNTOLD != 0,
        history,
    })
}

/// The bytes before the checksum, when that is right and the layout is known.
fn verified<'a>(id: &RecordId, bytes: &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let short = DecodeError::TooShort(bytes.len());
    let (content, written) = bytes.split_last_chunk::<CHECKSUM>().ok_or(short)?;
    if content.len() < HEAD {
        return Err(short);
    }
    if checksum(id, content) != u32::from_le_bytes(*written) {
        return Err(DecodeError::Checksum);
    }
    match content[0] {
        SCHEMA_BYTE => Ok(content),
        other => Err(DecodeError::Schema(other)),
    }
}

/// How long after `first` it is, the sign in the lowest bit: a clock may have been set back.
fn since(first: Timestamp, then: Timestamp) -> u64 {
    let passed = then.as_millis().wrapping_sub(first.as_millis()).cast_signed();
    ((passed << 1) ^ (passed >> 63)).cast_unsigned()
}

/// The other way round.
fn after(first: Timestamp, since: u64) -> Timestamp {
    let passed = (since >> 1) ^ (since & 1).wrapping_neg();
    Timestamp::from_millis(first.as_millis().wrapping_add(passed))
}

fn checksum(id: &RecordId, content: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(id.as_bytes());
    hash.update(content);
    hash.finalize()
}

/// About how many bytes a record takes, written down: seldom less.
pub fn room(record: &Record) -> usize {
    let members = record.fingerprint.members.iter().map(|member| member.name.len() + 8);
    let names = record.route.len() + record.key.len();
    let answer = match &record.state {
        State::Final { answer: Answer::Kept(response), .. } => {
            let header =
                |(name, value): &(HeaderName, HeaderValue)| name.as_str().len() + value.len() + 8;
            response.body.len() + response.headers.iter().map(header).sum::<usize>()
        }
        State::Item { ledger, .. } => ledger.bytes(),
        State::Final { .. }
        | State::InFlight
        | State::Unknown { .. }
        | State::SerializeLock
        | State::Released { .. }
        | State::Tombstone { .. } => 0,
    };
    FIXED + members.sum::<usize>() + names + answer + history::size_hint(&record.history)
}

impl Reader<'_> {
    /// The head, the owner, the state's byte and the flags.
    fn head(&mut self) -> Result<(Head, Nonce, u8, u8), DecodeError> {
        let _schema = self.u8("schema")?;
        let tag = self.u8("state")?;
        let flags = self.u8("flags")?;
        let version = self.u64("version")?;
        let owner = self.array("owner")?;
        let has = |flag: u8| flags & flag != 0;
        let expires = if has(HAS_EXPIRES) { Some(self.u64("expires")?) } else { None };
        let subject = if has(HAS_SUBJECT) { Some(self.array("subject")?) } else { None };
        let (open, in_flight) = match tag {
            IN_FLIGHT | ITEM_IN_FLIGHT => (true, true),
            UNKNOWN | ITEM_UNKNOWN => (true, false),
            TURN => (false, true),
            KEPT | NOT_RETAINED | TOMBSTONE | ITEM | RELEASED => (false, false),
            _ => return Err(DecodeError::Invalid("state")),
        };
        // Only a kept answer waits for its first client, and only after a decision.
        let settlement_unreported = has(UNTOLD) && (tag != KEPT || !has(HAS_HISTORY));
        if flags > ALL_FLAGS || settlement_unreported {
            return Err(DecodeError::Invalid("flags"));
        }
        if (open || in_flight) && expires.is_some() {
            return Err(DecodeError::Invalid("expires"));
        }
        let expires = expires.map(Timestamp::from_millis);
        Ok((Head { version, open, in_flight, expires, subject }, owner, tag, flags))
    }
}

mod history;
mod ledger;
mod primitives;
mod state;
#[cfg(test)]
mod tests;
