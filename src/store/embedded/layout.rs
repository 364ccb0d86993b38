//! Layout of the table: the keys of records and index entries, and the entries
//! affected by a change of a record.
//!
//! ```text
//! 00 · "identity"                       schema u32 · store id [16] · created u64
//! 00 · "marker"                         frame u64 · records u64 · newest, longest, lag, lag left
//! 01 · first seen · id                  open: the record is in flight or unknown
//! 02 · expiry · id                      expiry
//! 03 · subject digest [16] · first seen · id
//! 04 · first seen · id                  all records
//! 05 · rotated id [16]                  the record, encoded by `codec`
//! ```
//!
//! Times are u64 in big endian. The first byte is the keyspace. Entries of the four indexes have no
//! value. Listings read an index from its end, newest first. A rotated id has its first byte, the
//! shard, at the end, so that records of one key stand together and need no index. All keyspaces
//! share a tree, so that a checkpoint adds records, index entries and marker in one atomic step.

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::idempotency::id::KeyDigest;
use crate::idempotency::{Record, RecordId};
use crate::store::StoreError;
use crate::store::codec::{Codec, DecodeError, Head};
use crate::store::{Identity, ListPosition, Query};

const ID: usize = 16;

/// First byte of the keys of records and index entries. Zero stands before the store's own entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyspace {
    Open = 1,
    Expiry = 2,
    Subject = 3,
    Times = 4,
    Records = 5,
}

/// Largest length of a key: keyspace, subject, time and id.
const LONGEST: usize = 1 + 16 + TIME + ID;
const TIME: usize = size_of::<u64>();

/// Key of a record or of an index entry in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TableKey {
    /// Bytes behind `length` are zero. Keys of the same keyspace have equal lengths, so the derived
    /// order is the order of the keys.
    bytes: [u8; LONGEST],
    length: u8,
}

impl TableKey {
    fn new(keyspace: Keyspace, parts: [&[u8]; 3]) -> Self {
        let mut bytes = [0; LONGEST];
        bytes[0] = keyspace as u8;
        let mut length = 1;
        for part in parts {
            bytes[length..length + part.len()].copy_from_slice(part);
            length += part.len();
        }
        Self { bytes, length: length as u8 }
    }

    /// Key of a record.
    pub(super) fn record(id: &RecordId) -> Self {
        let [shard, rest @ ..] = id.as_bytes();
        Self::new(Keyspace::Records, [rest, &[*shard], &[]])
    }

    /// First and last key that a record of a client's key can have.
    pub(super) fn records_of(key: &KeyDigest) -> (Self, Self) {
        let bound = |byte: u8| {
            Self::new(Keyspace::Records, [key, &[byte; ID - size_of::<KeyDigest>()], &[]])
        };
        (bound(0), bound(0xff))
    }

    /// Key of the index entry of a record in flight or unknown.
    pub(super) fn open(at: ListPosition) -> Self {
        Self::at(Keyspace::Open, &[], at.first_seen, &at.id)
    }

    /// Key of a record's entry in the index by expiry.
    pub(super) fn expiry(at: Timestamp, id: &RecordId) -> Self {
        Self::at(Keyspace::Expiry, &[], at, id)
    }

    /// Key of a record's entry in the index by subject.
    pub(super) fn subject(digest: &[u8; 16], at: ListPosition) -> Self {
        Self::at(Keyspace::Subject, digest, at.first_seen, &at.id)
    }

    /// Key of a record's entry in the index by time.
    pub(super) fn time(at: ListPosition) -> Self {
        Self::at(Keyspace::Times, &[], at.first_seen, &at.id)
    }

    fn at(keyspace: Keyspace, prefix: &[u8], time: Timestamp, id: &RecordId) -> Self {
        Self::new(keyspace, [prefix, &time.as_millis().to_be_bytes(), id.as_bytes()])
    }

    /// Reads back a key of a record or an index entry; `None` if the bytes are no such key.
    pub(super) fn parse(key: &[u8]) -> Option<Self> {
        let expected = match key.first()? {
            1 | 2 | 4 => 1 + TIME + ID,
            3 => LONGEST,
            5 => 1 + ID,
            _ => return None,
        };
        let mut bytes = [0; LONGEST];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        (key.len() == expected).then_some(Self { bytes, length: key.len() as u8 })
    }

    /// Id of the record that the key belongs to.
    pub(super) fn id(&self) -> RecordId {
        // No key is shorter than a keyspace and an id.
        let mut id: [u8; ID] = self.as_bytes().last_chunk().copied().unwrap_or_default();
        if self.bytes[0] == Keyspace::Records as u8 {
            id.rotate_right(1);
        }
        RecordId::from_bytes(id)
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
    let at = |head: Head| ListPosition { first_seen: head.first_seen, id: *id };
    let open =
        |head: Option<Head>| head.filter(|head| head.open).map(|head| TableKey::open(at(head)));
    keys(open(before), open(after));
    let expiry = |head: Option<Head>| Some(TableKey::expiry(head?.expires?, id));
    keys(expiry(before), expiry(after));
    let subject = |head: Option<Head>| Some(TableKey::subject(&head?.subject?, at(head?)));
    keys(subject(before), subject(after));
    let time = |head: Option<Head>| Some(TableKey::time(at(head?)));
    keys(time(before), time(after));
}

/// Key of a record in the index of a query; `None`: the query does not select the record.
pub(super) fn query_key(query: &Query, id: &RecordId, head: &Head) -> Option<TableKey> {
    if !query.selects(id, head) {
        return None;
    }
    let at = ListPosition { first_seen: head.first_seen, id: *id };
    Some(match (query.expired_at, &query.subject, query.open) {
        (Some(_), _, _) => TableKey::expiry(head.expires?, id),
        (None, Some(subject), _) => TableKey::subject(subject, at),
        (None, None, _) if !query.keys.is_empty() => TableKey::record(id),
        (None, None, true) => TableKey::open(at),
        (None, None, false) => TableKey::time(at),
    })
}

/// Decodes a stored record.
pub(super) fn decode(codec: &Codec, id: &RecordId, bytes: &[u8]) -> Result<Record, StoreError> {
    codec.decode(id, bytes).map_err(|error| corrupt(id, error))
}

pub(super) fn corrupt(id: &RecordId, error: DecodeError) -> StoreError {
    StoreError::Corrupt { id: *id, reason: error.to_string() }
}
