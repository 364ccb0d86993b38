//! The table: the records' layout in the key-value engine, and how it is read.
//!
//! Five keyspaces: `records` (id → record), `open` (ids in flight or unknown), `expiry` (time of
//! expiry, big endian milliseconds, then id), `subject` (digest, then id) and `meta`. The last three
//! indexes have empty values. Nothing here writes except [`stage`], which puts a record and exactly
//! the index entries that change with it into a batch.

use std::cmp::Ordering;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::config::{
    BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy, PinningPolicy,
};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, Slice};

use crate::clock::Timestamp;
use crate::idempotency::{Record, RecordId};
use crate::store::codec::{Codec, DecodeError, Head};
use crate::store::{Query, StoreError};

/// Bytes of journal that call for flushing what holds it; the engine's smallest.
const JOURNAL: u64 = 64 << 20;
/// One thread flushes and compacts. With two, the engine hands a compaction that is under way to
/// and fro between them, which costs a processor for as long as it lasts. One is enough because
/// the writer rotates the memtables itself, see [`Table::rotate`].
const WORKERS: usize = 1;
/// Open table files.
const FILES: usize = 128;
/// Files of the records that are gathered before they are merged into the first level. Each merge
/// rewrites what of that level it meets, all of it, since ids are spread evenly: the more is
/// gathered, the less often. Each file that is gathered is one more to look into for a record, but most claims
/// know without it that there is none, see `absent`. From 20 files on the engine takes some microseconds
/// longer over what takes its own way into the records, and from 30 on lets it wait until it has merged; so
/// there is room for what comes meanwhile.
/// The size of a merged file stays at the engine's 64 MiB: it makes one step of merging
/// for each file that is added, which with smaller ones is less than what is added.
const GATHERED: u8 = 16;

/// Bits of the filters for each record, once it was merged: one in some two thousand that are not there
/// is looked for in vain.
const FILTER_BITS: f32 = 16.0;

const ID: usize = 16;

/// A key that sorts before all others, for the parts of the table that get files past the journal.
///
/// When the engine is opened it reads into each part what its journal has and its files have not: all
/// above the highest sequence number in those. Removals vanish from files together with what they
/// remove, and that number with them; what the journal put once would be back. This entry has the
/// number of the newest file that removed something, and never vanishes.
pub(super) const REACHED: &[u8] = &[0];

/// The keyspaces of an open store. Cheap to clone.
#[derive(Clone)]
pub(super) struct Table {
    pub(super) db: Database,
    pub(super) records: Keyspace,
    pub(super) open: Keyspace,
    pub(super) expiry: Keyspace,
    pub(super) subject: Keyspace,
    pub(super) meta: Keyspace,
    pub(super) codec: Codec,
}

const NAMES: [&str; 5] = ["records", "open", "expiry", "subject", "meta"];

impl Table {
    /// Opens the engine's directory; `create` makes what is missing.
    pub(super) fn open(
        dir: &Path,
        codec: Codec,
        cache: u64,
        create: bool,
    ) -> Result<Self, TableError> {
        let open = || -> Result<Self, TableError> {
            let db = Database::builder(dir)
                .cache_size(cache)
                .worker_threads(WORKERS)
                .max_cached_files(Some(FILES))
                .max_journaling_size(JOURNAL)
                .manual_journal_persist(true)
                .open()?;
            if !create {
                let present = db.list_keyspace_names();
                let missing = NAMES
                    .into_iter()
                    .find(|name| !present.iter().any(|have| have.as_ref() == *name));
                if let Some(name) = missing {
                    return Err(TableError::Damaged(format!("its part `{name}` is missing")));
                }
            }
            let keyspace = |name: &str| db.keyspace(name, options);
            Ok(Self {
                records: db.keyspace("records", of_records)?,
                open: keyspace("open")?,
                expiry: keyspace("expiry")?,
                subject: keyspace("subject")?,
                meta: keyspace("meta")?,
                codec,
                db,
            })
        };
        // The engine asserts some things of its files; a damaged one must not end the program
        // without a word to the operator.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(open))
            .unwrap_or_else(|_| Err(TableError::Damaged("the engine gave up on it".to_owned())))
    }

    /// Hands what is in memory to the worker, to be sorted into tables, so that the journals which
    /// hold it can go.
    ///
    /// The engine would do this by itself at a size, but then sends its worker one message for each
    /// commit while a memtable is full, through a queue that the worker also posts to: when a flush
    /// outlasts a thousand commits the worker waits for itself, for ever.
    pub(super) fn rotate(&self) -> Result<(), String> {
        for keyspace in [&self.records, &self.open, &self.expiry, &self.subject, &self.meta] {
            keyspace.rotate_memtable().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Rotates when there is more than that in memory: what was read from the journals and what a
    /// crash left in the log. Otherwise each crash would leave its share in the journals.
    pub(super) fn relieve(&self, most: u64) -> Result<(), String> {
        if self.db.write_buffer_size() > most { self.rotate() } else { Ok(()) }
    }

    /// All entries of a part of the table, in order. Not by the engine's own iterator: that shows only what
    /// its counter of changes has reached, which begins anew where its journal is gone.
    pub(super) fn entries(keyspace: &Keyspace) -> fjall::Iter {
        keyspace.range::<&[u8], _>(..)
    }

    /// Where an index is.
    pub(super) fn index(&self, index: Index) -> &Keyspace {
        match index {
            Index::Open => &self.open,
            Index::Expiry => &self.expiry,
            Index::Subject => &self.subject,
        }
    }

    /// The stored bytes of a record.
    pub(super) fn raw(&self, id: &RecordId) -> Result<Option<Slice>, StoreError> {
        self.records.get(id.as_bytes()).map_err(|error| unreadable(&error))
    }

    /// The record with this id.
    pub(super) fn get(&self, id: &RecordId) -> Result<Option<Record>, StoreError> {
        self.raw(id)?.map(|bytes| decode(&self.codec, id, &bytes)).transpose()
    }

    /// A page of records. Those that cannot be read back are left out: `verify` names them, and one
    /// of them must not keep the sweeper or an operator from all others.
    pub(super) fn list(&self, query: &Query) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let mut page = Vec::new();
        if query.limit == 0 {
            return Ok(page);
        }
        let after = query.after.map_or([0; ID], |id| *id.as_bytes());
        let from = |prefix: &[u8]| {
            let key = [prefix, &after].concat();
            if query.after.is_some() { Bound::Excluded(key) } else { Bound::Included(key) }
        };
        let to = |prefix: &[u8]| Bound::Included([prefix, &[0xff; ID]].concat());
        let entries = if let Some(at) = query.expired_at {
            let until = at.as_millis().to_be_bytes();
            self.expiry.range::<Vec<u8>, _>((Bound::Unbounded, to(&until)))
        } else if let Some(subject) = &query.subject {
            self.subject.range((from(subject), to(subject)))
        } else if query.open {
            self.open.range((from(&[]), to(&[])))
        } else {
            self.records.range((from(&[]), to(&[])))
        };
        for entry in entries {
            let key = entry.key().map_err(|error| unreadable(&error))?;
            let Some(id) = id_of(&key) else { continue };
            match self.get(&id) {
                Ok(Some(record)) if matches(&record, query) => page.push((id, record)),
                // Gone or changed since the index was read.
                Ok(Some(_) | None) => {}
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                Err(StoreError::Corrupt { id, reason }) => {
                    tracing::error!(record.id = ?id, reason, "a corrupt record was left out");
                }
            }
            if page.len() == query.limit {
                break;
            }
        }
        Ok(page)
    }
}

/// Why the engine could not be opened.
pub(super) enum TableError {
    Locked,
    Io(std::io::Error),
    Damaged(String),
}

impl From<fjall::Error> for TableError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::Locked,
            fjall::Error::Io(error) => Self::Io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

fn options() -> KeyspaceCreateOptions {
    // Only what was just flushed keeps its index and filter in memory; the rest goes through the
    // cache, so that the number of records costs no memory.
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        // Never by the engine: see [`Table::rotate`].
        .max_memtable_size(u64::MAX)
        .index_block_pinning_policy(PinningPolicy::new([true, false]))
        .filter_block_pinning_policy(PinningPolicy::new([true, false]))
}

/// As [`options`]. Nearly every claim asks for a record that is not there, so that a filter that says
/// "perhaps" in vain costs a read. The filters of the first level stay in memory: mostly 1 GiB of
/// records are in it. Those below are read in parts.
fn of_records() -> KeyspaceCreateOptions {
    let bloom = FilterPolicyEntry::Bloom;
    let filters = [
        bloom(BloomConstructionPolicy::FalsePositiveRate(0.0001)),
        bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS)),
    ];
    let merging = Leveled::default().with_l0_threshold(GATHERED);
    options()
        .compaction_strategy(Arc::new(merging))
        .filter_policy(FilterPolicy::new(filters))
        .filter_block_pinning_policy(PinningPolicy::new([true, true, false]))
        .filter_block_partitioning_policy(PartitioningPolicy::new([false, false, true]))
}

/// The indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    Open,
    Expiry,
    Subject,
}

impl Index {
    pub(super) const ALL: [Self; 3] = [Self::Open, Self::Expiry, Self::Subject];
}

/// The key of an index entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexKey {
    /// What does not belong to it is zero: keys of one index are equally long.
    bytes: [u8; 2 * ID],
    length: u8,
}

impl IndexKey {
    fn new(prefix: &[u8], id: &RecordId) -> Self {
        let mut bytes = [0; 2 * ID];
        let length = prefix.len() + ID;
        bytes[..prefix.len()].copy_from_slice(prefix);
        bytes[prefix.len()..length].copy_from_slice(id.as_bytes());
        Self { bytes, length: length as u8 }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// A number for each half of the bytes: the order of the keys of one index.
    fn halves(&self) -> [Option<u128>; 2] {
        let number = |half: &[u8]| half.first_chunk().copied().map(u128::from_be_bytes);
        [number(&self.bytes[..ID]), number(&self.bytes[ID..])]
    }
}

impl Ord for IndexKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.halves().cmp(&other.halves()).then(self.length.cmp(&other.length))
    }
}

impl PartialOrd for IndexKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The key of a record's entry in `open`.
fn open_key(id: &RecordId) -> IndexKey {
    IndexKey::new(&[], id)
}

/// The key of a record's entry in `expiry`.
pub(super) fn expiry_key(at: Timestamp, id: &RecordId) -> IndexKey {
    IndexKey::new(&at.as_millis().to_be_bytes(), id)
}

/// The key of a record's entry in `subject`.
pub(super) fn subject_key(subject: &[u8; 16], id: &RecordId) -> IndexKey {
    IndexKey::new(subject, id)
}

/// The id at the end of any key of this layout.
pub(super) fn id_of(key: &[u8]) -> Option<RecordId> {
    key.last_chunk().copied().map(RecordId::from_bytes)
}

/// A record and its head, written down. Cheap to clone.
#[derive(Clone)]
pub(super) struct EncodedRecord {
    pub(super) bytes: Bytes,
    pub(super) head: Head,
}

impl EncodedRecord {
    pub(super) fn of(codec: &Codec, id: &RecordId, record: &Record) -> Self {
        Self { bytes: codec.encode(id, record).into(), head: Head::of(record) }
    }
}

/// The index entries that differ between two states of a record; `true`: there is one now.
pub(super) fn differences(
    id: &RecordId,
    before: Option<Head>,
    after: Option<Head>,
    mut differs: impl FnMut(Index, IndexKey, bool),
) {
    let open = |head: Option<Head>| head.is_some_and(|head| head.open);
    if open(before) != open(after) {
        differs(Index::Open, open_key(id), open(after));
    }
    let mut keys = |index, old: Option<IndexKey>, new: Option<IndexKey>| {
        if old == new {
            return;
        }
        if let Some(old) = old {
            differs(index, old, false);
        }
        if let Some(new) = new {
            differs(index, new, true);
        }
    };
    let expiry = |head: Option<Head>| Some(expiry_key(head?.expires?, id));
    keys(Index::Expiry, expiry(before), expiry(after));
    let subject = |head: Option<Head>| Some(subject_key(&head?.subject?, id));
    keys(Index::Subject, subject(before), subject(after));
}

/// Puts a change into a batch: the record, and the index entries that differ between the two.
/// A batch may hold one change of each record only.
pub(super) fn stage(
    engine: &Table,
    batch: &mut OwnedWriteBatch,
    id: &RecordId,
    before: Option<Head>,
    after: Option<EncodedRecord>,
) {
    let head = after.as_ref().map(|written| written.head);
    differences(id, before, head, |index, key, there| {
        let keyspace = engine.index(index);
        if there {
            batch.insert(keyspace, key.as_bytes(), []);
        } else {
            batch.remove(keyspace, key.as_bytes());
        }
    });
    match after {
        Some(written) => {
            batch.insert(&engine.records, *id.as_bytes(), Slice::from(&*written.bytes))
        }
        None => batch.remove(&engine.records, *id.as_bytes()),
    }
}

/// Puts a record into a batch with every index entry it has, whatever the indexes hold: after a crash
/// the table may have the record and not the entries.
pub(super) fn restage(
    engine: &Table,
    batch: &mut OwnedWriteBatch,
    id: &RecordId,
    before: Option<Head>,
    after: Option<EncodedRecord>,
) {
    let head = after.as_ref().map(|written| written.head);
    if !head.is_some_and(|head| head.open) {
        batch.remove(&engine.open, *id.as_bytes());
    }
    // An entry that both have is put by hand, and one that only `before` has is removed by `stage`.
    let both = before.filter(|before| head.is_some_and(|head| head.expires == before.expires));
    if let Some(at) = both.and_then(|head| head.expires) {
        batch.insert(&engine.expiry, expiry_key(at, id).as_bytes(), []);
    }
    let both = before.filter(|before| head.is_some_and(|head| head.subject == before.subject));
    if let Some(digest) = both.and_then(|head| head.subject) {
        batch.insert(&engine.subject, subject_key(&digest, id).as_bytes(), []);
    }
    let before = before.map(|before| Head { open: false, ..before });
    stage(engine, batch, id, before, after);
}

/// Whether a record is what the query asks for.
fn matches(record: &Record, query: &Query) -> bool {
    let head = Head::of(record);
    (!query.open || head.open)
        && (query.subject.is_none() || query.subject == head.subject)
        && query.expired_at.is_none_or(|at| head.expires.is_some_and(|expires| expires <= at))
}

pub(super) fn decode(codec: &Codec, id: &RecordId, bytes: &[u8]) -> Result<Record, StoreError> {
    codec.decode(id, bytes).map_err(|error| corrupt(id, error))
}

pub(super) fn corrupt(id: &RecordId, error: DecodeError) -> StoreError {
    StoreError::Corrupt { id: *id, reason: error.to_string() }
}

fn unreadable(error: &fjall::Error) -> StoreError {
    StoreError::Unavailable(format!(
        "reading failed ({error}); check the disk, then run `oncegate store verify`"
    ))
}
