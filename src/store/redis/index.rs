//! The indexes of a shard, their entries, and the entries of several shards in one order.

use ::redis::Value;

use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::store::{ListPosition, Query};

/// Bytes of a time and of a subject in an entry.
pub(super) const TIME: usize = size_of::<u64>();
const SUBJECT: usize = 16;

/// An index by which records are listed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Ids,
    Times,
    Open,
    Expiry,
    Subjects,
}

impl Index {
    pub(super) fn of(query: &Query) -> Self {
        match query {
            Query { expired_at: Some(_), .. } => Self::Expiry,
            Query { abandoned: true, .. } | Query { open: true, .. } => Self::Open,
            Query { subject: Some(_), .. } => Self::Subjects,
            _ => Self::Times,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ids => "ids",
            Self::Times => "times",
            Self::Open => "open",
            Self::Expiry => "expiry",
            Self::Subjects => "subjects",
        }
    }

    /// True for an index that is read from its end: newest first.
    pub(super) const fn is_reversed(self) -> bool {
        matches!(self, Self::Times | Self::Open | Self::Subjects)
    }

    /// Reads an entry.
    pub(super) fn entry(self, value: Value) -> Option<IndexEntry> {
        let Value::BulkString(bytes) = value else { return None };
        let at = match self {
            Self::Ids => 0,
            Self::Times | Self::Open | Self::Expiry => TIME,
            Self::Subjects => SUBJECT + TIME,
        };
        let id = RecordId::from_bytes(*bytes.get(at..)?.first_chunk()?);
        let first_seen = match self {
            Self::Ids | Self::Expiry => ListPosition::NEWEST.first_seen,
            Self::Times | Self::Open | Self::Subjects => {
                let time = bytes.get(at - TIME..)?.first_chunk()?;
                Timestamp::from_millis(u64::from_be_bytes(*time))
            }
        };
        Some(IndexEntry { bytes, id, first_seen })
    }
}

/// An entry of an index.
pub(super) struct IndexEntry {
    /// Sort key within the index.
    pub(super) bytes: Vec<u8>,
    /// Record id within the bytes.
    pub(super) id: RecordId,
    /// Time of the first claim within the bytes; of an index without the time that of
    /// [`ListPosition::NEWEST`].
    pub(super) first_seen: Timestamp,
}

impl IndexEntry {
    pub(super) fn position(&self) -> ListPosition {
        ListPosition { first_seen: self.first_seen, id: self.id }
    }
}

/// An unread part of an index.
#[derive(Clone)]
pub(super) struct IndexRange {
    pub(super) shard: u8,
    /// Lower bound in the form of `ZRANGE … BYLEX`: `-`, or `[` or `(` and bytes.
    pub(super) from: Vec<u8>,
    /// Upper bound in the same form.
    pub(super) to: Vec<u8>,
}

impl IndexRange {
    /// The part behind an entry.
    pub(super) fn behind(self, last: &IndexEntry, index: Index) -> Self {
        let bound = [b"(".as_slice(), &last.bytes].concat();
        if index.is_reversed() { Self { to: bound, ..self } } else { Self { from: bound, ..self } }
    }
}

/// The entries of a shard that were read and not used yet.
pub(super) struct ShardEntries {
    pub(super) entries: Vec<IndexEntry>,
    /// The part behind the entries.
    pub(super) range: IndexRange,
    pub(super) has_more: bool,
}

impl ShardEntries {
    pub(super) fn new(range: IndexRange) -> Self {
        Self { entries: Vec::new(), range, has_more: true }
    }
}

/// Takes the entries whose order is final, in that order. A shard with more entries may continue
/// before the last entries of other shards, so only entries up to the first such end are.
pub(super) fn next_candidates(index: Index, shards: &mut [ShardEntries]) -> Vec<IndexEntry> {
    let precedes = |one: &[u8], other: &[u8]| {
        if index.is_reversed() { one > other } else { one < other }
    };
    let ends = shards.iter().filter(|shard| shard.has_more);
    let bound = ends.filter_map(|shard| shard.entries.last()).map(|entry| &*entry.bytes);
    let bound = bound.reduce(|one, other| if precedes(other, one) { other } else { one });
    let bound = bound.map(<[u8]>::to_vec);
    let mut candidates = Vec::new();
    for shard in shards {
        let is_final =
            |entry: &IndexEntry| bound.as_ref().is_none_or(|bound| !precedes(bound, &entry.bytes));
        let count = shard.entries.partition_point(is_final);
        candidates.extend(shard.entries.drain(..count));
    }
    candidates.sort_by(|one, other| one.bytes.cmp(&other.bytes));
    if index.is_reversed() {
        candidates.reverse();
    }
    candidates
}
