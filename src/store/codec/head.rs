//! Head of an encoded record: everything that comparing and indexing needs, without the body.

use super::error::DecodeError;
use super::layout::{
    ALL_FLAGS, CHECKSUM, FIXED_HEAD, HAS_EXPIRES, HAS_HISTORY, HAS_SETTLING, HAS_SUBJECT,
    IN_FLIGHT, ITEM, ITEM_IN_FLIGHT, ITEM_UNKNOWN, KEPT, LOCK, NOT_RETAINED, RELEASED, SCHEMA_BYTE,
    SEALED_BYTE, TOMBSTONE, UNKNOWN, UNREPORTED,
};
use super::primitives::FieldReader;
use crate::clock::Timestamp;
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId, State};

/// Fields of a record by which stores compare and index.
///
/// A head is readable without the [`Codec`](super::Codec) of its store, so that a compare-and-swap
/// never decodes an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Version of the record.
    pub version: u64,
    /// Set for records that are in flight or unknown.
    pub open: bool,
    /// Set for records in flight.
    pub in_flight: bool,
    /// Time of the first claim, which orders listings.
    pub first_seen: Timestamp,
    /// Time at which the record is due for expiry.
    pub expires: Option<Timestamp>,
    /// Digest under which operators find the record.
    pub subject: Option<[u8; 16]>,
}

impl Head {
    /// The head of a record.
    pub fn of(record: &Record) -> Self {
        let (open, in_flight) = match record.state {
            State::InFlight => (true, true),
            State::Unknown { .. } => (true, false),
            // The reaper removes locks of ended processes; no operator has to settle them.
            State::SerializeLock => (false, true),
            State::Final { .. } | State::Tombstone { .. } | State::Released { .. } => {
                (false, false)
            }
            State::Item { ref ledger, .. } => (ledger.is_open(), ledger.in_flight > 0),
        };
        let (expires, subject) = (record.expires(), record.subject);
        let (version, first_seen) = (record.version, record.first_seen);
        Self { version, open, in_flight, first_seen, expires, subject }
    }

    /// Decodes the head alone, after checking the checksum of the whole record.
    ///
    /// # Errors
    /// When the bytes are not a record that was encoded for this id.
    pub fn decode(id: &RecordId, bytes: &[u8]) -> Result<Self, DecodeError> {
        let content = verified(id, bytes)?;
        FieldReader(content).head().map(|fields| fields.head)
    }
}

/// Head, and the fields beside the head that decoding the rest needs.
pub(super) struct HeadFields {
    pub(super) head: Head,
    pub(super) owner: Nonce,
    pub(super) tag: u8,
    pub(super) flags: u8,
}

impl FieldReader<'_> {
    pub(super) fn head(&mut self) -> Result<HeadFields, DecodeError> {
        let _schema = self.u8("schema")?;
        let tag = self.u8("state")?;
        let flags = self.u8("flags")?;
        let version = self.u64("version")?;
        let owner = self.array("owner")?;
        let first_seen = Timestamp::from_millis(self.u64("first seen")?);
        let has = |flag: u8| flags & flag != 0;
        let expires = if has(HAS_EXPIRES) { Some(self.u64("expires")?) } else { None };
        let subject = if has(HAS_SUBJECT) { Some(self.array("subject")?) } else { None };
        let (open, in_flight) = match tag {
            IN_FLIGHT | ITEM_IN_FLIGHT => (true, true),
            UNKNOWN | ITEM_UNKNOWN => (true, false),
            LOCK => (false, true),
            KEPT | NOT_RETAINED | TOMBSTONE | ITEM | RELEASED => (false, false),
            _ => return Err(DecodeError::Invalid("state")),
        };
        // Only a kept answer waits for its first client, and only after an operator's decision.
        let unreported = has(UNREPORTED) && (tag != KEPT || !has(HAS_HISTORY));
        // The data of a settlement ends with the uncertainty.
        let settled = has(HAS_SETTLING) && !open;
        if flags > ALL_FLAGS || unreported || settled {
            return Err(DecodeError::Invalid("flags"));
        }
        if (open || in_flight) && expires.is_some() {
            return Err(DecodeError::Invalid("expires"));
        }
        let expires = expires.map(Timestamp::from_millis);
        let head = Head { version, open, in_flight, first_seen, expires, subject };
        Ok(HeadFields { head, owner, tag, flags })
    }
}

/// The bytes before the checksum, provided that the checksum matches and the layout is supported.
pub(super) fn verified<'a>(id: &RecordId, bytes: &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let short = DecodeError::TooShort(bytes.len());
    let (content, written) = bytes.split_last_chunk::<CHECKSUM>().ok_or(short)?;
    if content.len() < FIXED_HEAD {
        return Err(short);
    }
    if checksum(id, content) != u32::from_le_bytes(*written) {
        return Err(DecodeError::Checksum);
    }
    match content[0] {
        SCHEMA_BYTE | SEALED_BYTE => Ok(content),
        other => Err(DecodeError::Schema(other)),
    }
}

/// CRC-32 over the record's id and content, so that a record under another id is corrupt.
pub(super) fn checksum(id: &RecordId, content: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(id.as_bytes());
    hash.update(content);
    hash.finalize()
}
