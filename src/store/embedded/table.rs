//! The table: all checkpointed records and indexes, in a single log-structured merge tree.
//!
//! The tree (`lsm-tree`) has no log of its own and receives sorted runs only, added completely or
//! not at all, see `ingest`. Every run carries a [`Marker`], so the table is always the exact state
//! after some frame of the write-ahead log. The tree syncs every file and its directory before
//! replacing the file `current`, the name of the tree's valid version.

use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use lsm_tree::compaction::Leveled;
use lsm_tree::config::{
    BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PartitioningPolicy, PinningPolicy,
};
use lsm_tree::{
    AbstractTree as _, AnyTree, Cache, Config, DescriptorTable, SeqNo, SequenceNumberCounter, Slice,
};

use super::directory::DirectoryLock;
use super::disk::io_error;
use super::layout::{IDENTITY, Keyspace, MARKER, Marker, TableKey, decode, decode_identity};
use super::read::RecordReadError;
use crate::idempotency::{Record, RecordId};
use crate::machine;
use crate::store::Identity;
use crate::store::codec::Codec;

/// Open table files, at most; fewer where few files may be open.
const FILES: u64 = 128;
/// Share of all descriptors for table files.
const SHARE: u64 = 32;
/// Number of runs collected before a merge into the first level. Ids are spread evenly, so every
/// merge rewrites the whole level: more runs mean fewer merges. A lookup searches every run, but
/// most claims skip the table thanks to `id_filter`. A merged file keeps the tree's default size of
/// 64 MiB.
const MERGE_AT_RUNS: u64 = 16;
/// Memory limit for each run of a merge, in bytes. A merge holds the current block of every run,
/// and a large record is a block of its own: 16 runs of answers of 1 MB take 16 MB and more.
const MEMORY_PER_RUN: u64 = 16 << 20;
/// Number of runs in the smallest merge.
const FEWEST_RUNS: u64 = 2;
/// Filter bits per key: a false positive rate of about 1 in 2000.
const FILTER_BITS: f32 = 16.0;
/// Every read sees the newest state.
const NEWEST: SeqNo = SeqNo::MAX;
/// The tree's file with the name of its current version.
const CURRENT: &str = "current";
/// A folder specific to the layout before the first release.
const EARLIER_LAYOUT: &str = "keyspaces";

/// The open table. Cheap to clone.
#[derive(Clone)]
pub(super) struct Table {
    tree: AnyTree,
    pub(super) codec: Codec,
    /// Numbers the versions of the tree.
    versions: SequenceNumberCounter,
    /// Keeps the directory locked for as long as the tree may write or remove files; so declared
    /// after the tree.
    lock: Arc<DirectoryLock>,
}

/// Reason why a table could not be opened.
pub(super) enum TableError {
    Io(io::Error),
    Damaged(String),
    EarlierLayout,
}

impl From<lsm_tree::Error> for TableError {
    fn from(error: lsm_tree::Error) -> Self {
        match error {
            lsm_tree::Error::Io(error) => match error.kind() {
                // A file is missing, or ends too soon: the tree also looks before the start of one
                // that is empty.
                ErrorKind::NotFound
                | ErrorKind::UnexpectedEof
                | ErrorKind::InvalidData
                | ErrorKind::InvalidInput => Self::Damaged(damaged_file(&error)),
                _ => Self::Io(error),
            },
            other => Self::Damaged(damaged_file(&other)),
        }
    }
}

fn damaged_file(error: &dyn std::fmt::Display) -> String {
    format!("a file of its table is missing, cut off or changed ({error})")
}

impl Table {
    /// Creates an empty table in a directory of its own.
    pub(super) fn create(
        dir: &Path,
        codec: Codec,
        cache: u64,
        lock: Arc<DirectoryLock>,
    ) -> Result<Self, TableError> {
        Self::open_tree(dir, codec, cache, lock)
    }

    /// Opens an existing table.
    pub(super) fn open(
        dir: &Path,
        codec: Codec,
        cache: u64,
        lock: Arc<DirectoryLock>,
    ) -> Result<Self, TableError> {
        if dir.join(EARLIER_LAYOUT).exists() {
            return Err(TableError::EarlierLayout);
        }
        // Without this file the tree would start empty, and every key would be forgotten.
        if !dir.join(CURRENT).exists() {
            return Err(TableError::Damaged(format!("the file `{CURRENT}` of its table is gone")));
        }
        Self::open_tree(dir, codec, cache, lock)
    }

    fn open_tree(
        dir: &Path,
        codec: Codec,
        cache: u64,
        lock: Arc<DirectoryLock>,
    ) -> Result<Self, TableError> {
        let open = || -> Result<Self, TableError> {
            let versions = SequenceNumberCounter::default();
            let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS));
            // Runs stay in memory with their whole index and filter. Below them an index is read in
            // parts, through the cache: the whole index of a file of 64 MiB is nearly a megabyte,
            // and would be read for every record that is read. Filters of the first level stay in
            // memory as well, unless memory is scarce: the level mostly holds 1 GiB of records.
            // Those of lower levels are read in parts, so the number of records costs no memory.
            // Every whole filter is kept: a file that was written for the first level may stand in
            // a lower one after a restart.
            let whole_filters = !machine::is_scarce();
            let tree = Config::new(dir, versions.clone(), SequenceNumberCounter::default())
                .use_cache(Arc::new(Cache::with_capacity_bytes(cache)))
                .use_descriptor_table(Some(Arc::new(DescriptorTable::new(open_files()))))
                .index_block_pinning_policy(PinningPolicy::new([true, false]))
                .index_block_partitioning_policy(PartitioningPolicy::new([false, true]))
                .filter_policy(FilterPolicy::all(filter))
                .filter_block_pinning_policy(PinningPolicy::new([true, whole_filters]))
                .filter_block_partitioning_policy(PartitioningPolicy::new([
                    false,
                    !whole_filters,
                    true,
                ]))
                .open()?;
            // The tree keeps no count across a restart; a number that was used before would let an
            // older state of a key win.
            versions.fetch_max(tree.get_highest_persisted_seqno().map_or(1, |newest| newest + 1));
            Ok(Self { tree, codec, versions, lock })
        };
        // The tree panics on some kinds of damaged files. Damage must not end the program without a
        // message to the operator.
        catch_unwind(AssertUnwindSafe(open))
            .unwrap_or_else(|_| Err(TableError::Damaged("its table cannot be opened".to_owned())))
    }

    /// The locks of the directory.
    pub(super) fn lock(&self) -> Arc<DirectoryLock> {
        self.lock.clone()
    }

    /// The tree, for adding runs.
    pub(super) fn tree(&self) -> &AnyTree {
        &self.tree
    }

    /// Encoded bytes of a record.
    pub(super) fn raw(&self, id: &RecordId) -> Result<Option<Slice>, RecordReadError> {
        self.value(TableKey::record(id).as_bytes()).map_err(RecordReadError::from)
    }

    /// Record with the given id.
    pub(super) fn get(&self, id: &RecordId) -> Result<Option<Record>, RecordReadError> {
        Ok(self.raw(id)?.map(|bytes| decode(&self.codec, id, &bytes)).transpose()?)
    }

    /// Returns true if an entry with the key exists.
    pub(super) fn contains(&self, key: &TableKey) -> Result<bool, lsm_tree::Error> {
        self.tree.contains_key(key.as_bytes(), NEWEST)
    }

    /// Marker of the newest checkpoint.
    pub(super) fn marker(&self) -> Result<Marker, String> {
        self.newest_marker().map_err(|error| error.to_string())
    }

    /// Marker of the newest checkpoint, or the system's error.
    pub(super) fn newest_marker(&self) -> io::Result<Marker> {
        let marker = self.value(MARKER).map_err(io_error)?;
        let marker = marker.and_then(|bytes| Marker::decode(&bytes));
        marker.ok_or_else(|| io::Error::other("the checkpoint marker in its table is missing"))
    }

    /// Identity of the store.
    pub(super) fn identity(&self) -> Result<Identity, String> {
        let identity = self.value(IDENTITY).map_err(|error| error.to_string())?;
        let identity = identity.and_then(|bytes| decode_identity(&bytes));
        identity.ok_or_else(|| "its identity is missing".to_owned())
    }

    /// Entries between two keys, in order, in their current state.
    pub(super) fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = Result<(Slice, Slice), lsm_tree::Error>> + use<> {
        let entries = self.tree.range::<&[u8], _>((from, to), NEWEST, None);
        entries.map(lsm_tree::Guard::into_inner)
    }

    /// All entries of a keyspace, in order.
    pub(super) fn entries(
        &self,
        keyspace: Keyspace,
    ) -> impl Iterator<Item = Result<(Slice, Slice), lsm_tree::Error>> + use<> {
        let (first, end) = ([keyspace as u8], [keyspace as u8 + 1]);
        self.range(Bound::Included(&first), Bound::Excluded(&end))
    }

    /// Records behind an id, in the order of the table; `None`: from the start.
    pub(super) fn records(
        &self,
        after: Option<RecordId>,
    ) -> impl Iterator<Item = Result<(Slice, Slice), lsm_tree::Error>> + use<> {
        let after = after.map(|id| TableKey::record(&id));
        let first = [Keyspace::Records as u8];
        let from = match &after {
            Some(key) => Bound::Excluded(key.as_bytes()),
            None => Bound::Included(&first[..]),
        };
        self.range(from, Bound::Excluded(&[Keyspace::Records as u8 + 1]))
    }

    /// Number of unmerged runs; every read searches every run.
    pub(super) fn unmerged_runs(&self) -> usize {
        self.tree.l0_run_count()
    }

    /// Merges files in a single step if necessary; returns false without work to do.
    pub(super) fn compact(&self) -> Result<bool, lsm_tree::Error> {
        let before = self.tree.current_version().id();
        let merging = Leveled::default().with_l0_threshold(merge_at_runs());
        // Reads need the newest state only, so older versions may be removed.
        self.tree.compact(Arc::new(merging), self.versions.get())?;
        Ok(self.tree.current_version().id() != before)
    }

    fn value(&self, key: &[u8]) -> Result<Option<Slice>, lsm_tree::Error> {
        self.tree.get(key, NEWEST)
    }
}

/// The number of runs from which they are merged: fewer where memory is limited.
fn merge_at_runs() -> u8 {
    let most = MERGE_AT_RUNS * MEMORY_PER_RUN;
    let runs = machine::part_of_memory(1, most) / MEMORY_PER_RUN;
    u8::try_from(runs.max(FEWEST_RUNS)).unwrap_or(u8::MAX)
}

/// The number of unmerged runs from which a checkpoint waits for a merge: every read searches every
/// run, and the next merge reads them all at once. Above the number that starts a merge, so that
/// checkpoints go on while a merge works.
pub(super) fn most_runs() -> usize {
    let merged = usize::from(merge_at_runs());
    merged + merged * 5 / 8
}

/// The number of table files that are kept open.
fn open_files() -> usize {
    let share = (machine::descriptors() / SHARE).clamp(16, FILES);
    usize::try_from(share).unwrap_or(16)
}
