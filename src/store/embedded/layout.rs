//! Layout of the table: the keys of records and index entries, and the entries
//! affected by a change of a record.
//!
//! ```text
//! 00 · "identity"                       schema u32 · store id [16] · created u64
//! 00 · "marker"                         frame u64 · records u64 · newest, longest, lag, lag left
//! 01 · record id [16]                   open: the record is in flight or unknown
//! 02 · expiry u64, big endian · id      expiry
//! 03 · subject digest [16] · id         subject
//! 04 · record id [16]                   the record, encoded by `codec`
//! ```
//!
//! The first byte is the keyspace. Entries of the three indexes have no value. All keyspaces share
//! a tree, so that a checkpoint adds records, index entries and marker in one atomic step.

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::idempotency::{Record, RecordId};
use crate::store::StoreError;
use crate::store::codec::{Codec, DecodeError, Head};
use crate::store::{Identity, Query};

const ID: usize = 16;

/// First byte of the keys of records and index entries. Zero stands before the store's own entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyspace {
    Open = 1,
    Expiry = 2,
    Subject = 3,
    Records = 4,
}

/// Key of a record or of an index entry in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TableKey {
    /// Bytes behind `length` are zero. Keys of the same keyspace have equal lengths, so the derived
    /// order is the order of the keys.
    bytes: [u8; 1 + 2 * ID],
    length: u8,
}

impl TableKey {
    fn new(keyspace: Keyspace, prefix: &[u8], id: &RecordId) -> Self {
        let mut bytes = [0; 1 + 2 * ID];
        let length = 1 + prefix.len() + ID;
        bytes[0] = keyspace as u8;
        bytes[1..=prefix.len()].copy_from_slice(prefix);
        bytes[1 + prefix.len()..length].copy_from_slice(id.as_bytes());
        Self { bytes, length: length as u8 }
    }

    /// Key of a record.
    pub(super) fn record(id: &RecordId) -> Self {
        Self::new(Keyspace::Records, &[], id)
    }

    /// Key of the index entry of a record in flight or unknown.
    pub(super) fn open(id: &RecordId) -> Self {
        Self::new(Keyspace::Open, &[], id)
    }

    /// Key of a record's entry in the index by expiry.
    pub(super) fn expiry(at: Timestamp, id: &RecordId) -> Self {
        Self::new(Keyspace::Expiry, &at.as_millis().to_be_bytes(), id)
    }

    /// Key of a record's entry in the index by subject.
    pub(super) fn subject(digest: &[u8; 16], id: &RecordId) -> Self {
        Self::new(Keyspace::Subject, digest, id)
    }

    /// Reads back a key of a record or an index entry; `None` if the bytes are no such key.
    pub(super) fn parse(key: &[u8]) -> Option<Self> {
        let expected = match key.first()? {
            1 | 4 => 1 + ID,
            2 => 1 + size_of::<u64>() + ID,
            3 => 1 + 2 * ID,
            _ => return None,
        };
        let mut bytes = [0; 1 + 2 * ID];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        (key.len() == expected).then_some(Self { bytes, length: key.len() as u8 })
    }

    /// Id of the record that the key belongs to.
    pub(super) fn id(&self) -> RecordId {
        // No key is shorter than a keyspace and an id.
        RecordId::from_bytes(self.as_bytes().last_chunk().copied().unwrap_or_default())
    }

    /// Time of expiry in a key of the expiry index.
    pub(super) fn expires(&self) -> Timestamp {
        let millis = self.bytes[1..].first_chunk().copied().unwrap_or_default();
        Timestamp::from_millis(u64::from_be_bytes(millis))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Key of the entry with the last frame of the log contained in the table.
pub(super) const MARKER: &[u8] = b"\0marker";
/// Key of the store's identity.
pub(super) const IDENTITY: &[u8] = b"\0identity";

/// Checkpoint marker: written in the same atomic step as the covered entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Marker {
    /// Newest frame of the log with all its changes in the table.
    pub(super) frame: u64,
    /// Number of records in the table.
    pub(super) records: u64,
    /// The store's clock at that time.
    pub(super) clock: ClockState,
}

/// State of the store's clock, for the next process. Durations are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClockState {
    /// Newest time with which a record may be stamped.
    pub(super) newest: Timestamp,
    /// Longest retention of a record, tombstone included.
    pub(super) longest: u64,
    /// Difference between stamps and the time of expiry, after a step forward of the clock.
    pub(super) lag: u64,
    /// Time for which the difference lasts.
    pub(super) lag_left: u64,
}

impl Default for ClockState {
    fn default() -> Self {
        Self { newest: Timestamp::from_millis(0), longest: 0, lag: 0, lag_left: 0 }
    }
}

impl Marker {
    pub(super) fn encode(&self) -> [u8; 48] {
        let Self { frame, records, clock } = *self;
        let ClockState { newest, longest, lag, lag_left } = clock;
        let mut bytes = [0; 48];
        let numbers = [frame, records, newest.as_millis(), longest, lag, lag_left];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 48] = bytes.try_into().ok()?;
        let number = |at: usize| Some(u64::from_le_bytes(*bytes[8 * at..].first_chunk()?));
        let clock = ClockState {
            newest: Timestamp::from_millis(number(2)?),
            longest: number(3)?,
            lag: number(4)?,
            lag_left: number(5)?,
        };
        Some(Self { frame: number(0)?, records: number(1)?, clock })
    }
}

/// Encodes the store's identity for the table.
pub(super) fn encode_identity(identity: &Identity) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..4].copy_from_slice(&identity.schema.to_le_bytes());
    bytes[4..20].copy_from_slice(identity.store_id.as_bytes());
    bytes[20..].copy_from_slice(&identity.created.as_millis().to_le_bytes());
    bytes
}

/// Reads the store's identity back.
pub(super) fn decode_identity(bytes: &[u8]) -> Option<Identity> {
    let bytes: &[u8; 28] = bytes.try_into().ok()?;
    Some(Identity {
        schema: u32::from_le_bytes(*bytes.first_chunk()?),
        store_id: uuid::Uuid::from_bytes(*bytes[4..].first_chunk()?),
        created: Timestamp::from_millis(u64::from_le_bytes(*bytes.last_chunk()?)),
    })
}

/// An encoded record with its head. Cheap to clone.
#[derive(Clone)]
pub(super) struct IndexedRecord {
    pub(super) bytes: Bytes,
    pub(super) head: Head,
}

impl IndexedRecord {
    pub(super) fn of(codec: &Codec, id: &RecordId, record: &Record) -> Self {
        Self { bytes: codec.encode(id, record).into(), head: Head::of(record) }
    }
}

/// A record with a newer state than in the table.
pub(super) struct DirtyRecord {
    pub(super) id: RecordId,
    /// State in the table; `None`: absent there.
    pub(super) stored: Option<Head>,
    /// Newest state; `None`: the record was removed.
    pub(super) current: Option<IndexedRecord>,
}

/// Calls `differs` for every index entry that differs between two states of a record: with `true`
/// for an addition, `false` for a removal.
pub(super) fn index_differences(
    id: &RecordId,
    before: Option<Head>,
    after: Option<Head>,
    mut differs: impl FnMut(TableKey, bool),
) {
    let mut keys = |old: Option<TableKey>, new: Option<TableKey>| {
        if old == new {
            return;
        }
        if let Some(old) = old {
            differs(old, false);
        }
        if let Some(new) = new {
            differs(new, true);
        }
    };
    let open = |head: Option<Head>| head?.open.then(|| TableKey::open(id));
    keys(open(before), open(after));
    let expiry = |head: Option<Head>| Some(TableKey::expiry(head?.expires?, id));
    keys(expiry(before), expiry(after));
    let subject = |head: Option<Head>| Some(TableKey::subject(&head?.subject?, id));
    keys(subject(before), subject(after));
}

/// Key of a record in the index of a query; `None`: the query does not select the record.
pub(super) fn query_key(query: &Query, id: &RecordId, head: &Head) -> Option<TableKey> {
    let due = || query.expired_at.is_none_or(|at| head.expires.is_some_and(|due| due <= at));
    let fits = (!query.open || head.open)
        && (query.subject.is_none() || query.subject == head.subject)
        && due();
    if !fits {
        return None;
    }
    Some(match (query.expired_at, &query.subject, query.open) {
        (Some(_), _, _) => TableKey::expiry(head.expires?, id),
        (None, Some(subject), _) => TableKey::subject(subject, id),
        (None, None, true) => TableKey::open(id),
        (None, None, false) => TableKey::record(id),
    })
}

/// Decodes a stored record.
pub(super) fn decode(codec: &Codec, id: &RecordId, bytes: &[u8]) -> Result<Record, StoreError> {
    codec.decode(id, bytes).map_err(|error| corrupt(id, error))
}

pub(super) fn corrupt(id: &RecordId, error: DecodeError) -> StoreError {
    StoreError::Corrupt { id: *id, reason: error.to_string() }
}
