//! The writer: a single thread that takes queued swaps, compares, writes a frame of the log, and
//! then replies. A second thread checkpoints the written frames, see `checkpoint`.
//!
//! Every comparison sees the stored state and the effects of earlier swaps in the same batch. No
//! reply is sent before the frame is durable, so neither a `Done` nor a `Lost` ever reports a state
//! undone by a power failure. A lone swap waits for no further swap; under load, the swaps arriving
//! during a sync share the next.

use std::collections::HashMap;
use std::collections::hash_map;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use lsm_tree::Slice;
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::Checkpoints;
use super::disk::Disk;
use super::health::Health;
use super::id_filter::IdFilter;
use super::layout::{IndexedRecord, corrupt, decode};
use super::memtable::Memtable;
use super::read::{PAUSE, Pauses};
use super::replies::Replies;
use super::table::Table;
use super::wal::Wal;
use crate::failpoint::{self, Point};
use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;
use crate::machine;
use crate::observe::metrics::record_commit;
use crate::store::codec::{Codec, Head};
use crate::store::{Change, StoreError, Swap};

/// Maximum number of compare-and-swaps per sync.
const MAX_BATCH: usize = 1024;
/// Bytes of records from which a batch is full, and their part of a memory limit: a batch is held
/// as records, as a frame of the log, and in the memtable.
const MAX_BATCH_BYTES: u64 = 8 << 20;
const BATCH_PART: u64 = 64;
/// Number of changes up to which a batch's memory is kept for the next batch.
const KEPT_CHANGES: usize = 4096;
/// Maximum number of yields before a write, as long as every yield brings further swaps.
const MAX_YIELDS: usize = 8;

/// A compare-and-swap, and the recipient of its result.
pub(super) struct SwapRequest {
    pub(super) changes: Vec<QueuedChange>,
    pub(super) reply: oneshot::Sender<Result<Swap, StoreError>>,
}

/// A change with its record encoded on the requesting thread.
pub(super) struct QueuedChange {
    pub(super) id: RecordId,
    pub(super) expect: Option<u64>,
    pub(super) put: Option<IndexedRecord>,
}

/// Encodes the records of all changes into a single buffer: their lifetimes are about equal, and a
/// single allocation is handed to the writer's thread instead of many.
pub(super) fn encoded(codec: &Codec, changes: &[Change]) -> Vec<QueuedChange> {
    let puts = changes.iter().filter_map(|change| change.put.as_deref());
    let mut bytes = Vec::with_capacity(puts.map(|record| codec.size_hint(record)).sum());
    let ends: Vec<usize> = changes
        .iter()
        .map(|change| {
            if let Some(record) = &change.put {
                codec.encode_into(&mut bytes, &change.id, record);
            }
            bytes.len()
        })
        .collect();
    let bytes = Bytes::from(bytes);
    let mut start = 0;
    let encoded = changes.iter().zip(ends).map(|(change, end)| {
        let put = change
            .put
            .as_ref()
            .map(|record| IndexedRecord { bytes: bytes.slice(start..end), head: Head::of(record) });
        start = end;
        QueuedChange { id: change.id, expect: change.expect, put }
    });
    encoded.collect()
}

impl SwapRequest {
    fn bytes(&self) -> usize {
        let puts = self.changes.iter().filter_map(|change| change.put.as_ref());
        puts.map(|encoded| encoded.bytes.len()).sum()
    }

    /// Returns true if the swap begins a call rather than ending one.
    fn claims(&self) -> bool {
        self.changes.iter().any(|change| {
            change
                .put
                .as_ref()
                .is_some_and(|encoded| change.expect.is_none() || encoded.head.in_flight)
        })
    }
}

/// The writing half of a store.
pub(super) struct StoreWriter {
    pub(super) table: Table,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) health: Arc<Health>,
    pub(super) queue: mpsc::Receiver<SwapRequest>,
    pub(super) replies: Replies,
    pub(super) wal: Wal,
    pub(super) memtable: Arc<Memtable>,
    pub(super) id_filter: IdFilter,
    pub(super) checkpoints: Checkpoints,
    /// Memory of the batch, kept for the next batch.
    pub(super) pending: PendingChanges,
}

/// Records changed in a batch.
pub(super) type PendingChanges = HashMap<RecordId, PendingChange, BuildIdHasher>;

/// A record changed in a batch.
pub(super) struct PendingChange {
    /// State without the batch.
    before: Option<Head>,
    /// State after the batch.
    after: Option<IndexedRecord>,
}

/// Swaps taken from the queue to share a sync.
struct GroupCommit {
    requests: Vec<SwapRequest>,
    bytes: usize,
    /// Bytes from which the group is full.
    most_bytes: u64,
}

impl GroupCommit {
    fn new() -> Self {
        let most_bytes = machine::part_of_memory(BATCH_PART, MAX_BATCH_BYTES);
        Self { requests: Vec::new(), bytes: 0, most_bytes }
    }

    fn add(&mut self, request: SwapRequest) {
        self.bytes += request.bytes();
        self.requests.push(request);
    }

    fn is_full(&self) -> bool {
        self.requests.len() >= MAX_BATCH || self.bytes as u64 >= self.most_bytes
    }
}

impl StoreWriter {
    /// Writes until every sender is gone.
    pub(super) fn run(mut self) {
        let mut last_size = 0;
        while let Some(first) = self.queue.blocking_recv() {
            let group = self.gather(first, last_size);
            last_size = group.requests.len();
            self.write(group.requests);
        }
        if !self.health.has_failed() {
            // A failure was already logged by the failed thread.
            let _ = self.checkpoints.finish(self.wal.last());
        }
    }

    /// Takes the queued swaps. After a batch of several, threads about to queue further swaps run
    /// first, as long as every yield brings more: a sync costs far more than a time slice, and on a
    /// processor shared with this thread requests could not be queued otherwise.
    fn gather(&mut self, first: SwapRequest, last_size: usize) -> GroupCommit {
        let mut group = GroupCommit::new();
        group.add(first);
        for _ in 0..MAX_YIELDS {
            let before = group.requests.len();
            while !group.is_full() {
                let Ok(next) = self.queue.try_recv() else { break };
                group.add(next);
            }
            let grows = before == 1 || group.requests.len() > before;
            if group.is_full() || last_size.max(group.requests.len()) < 2 || !grows {
                break;
            }
            std::thread::yield_now();
        }
        group
    }

    fn write(&mut self, requests: Vec<SwapRequest>) {
        self.id_filter.advance();
        let mut pending = mem::take(&mut self.pending);
        let mut replies = Vec::with_capacity(requests.len());
        let mut pauses = Pauses::default();
        let left = self.health.left();
        for request in requests {
            let result = match left.clone().or_else(|| self.refusal(&request)) {
                Some(error) => Err(error),
                None => self.compare(request.changes, &mut pending, &mut pauses),
            };
            replies.push((request.reply, result));
        }
        if let Err(failure) = self.commit(&mut pending) {
            for (_, result) in &mut replies {
                *result = Err(failure.clone());
            }
        }
        pending.clear();
        if pending.capacity() <= KEPT_CHANGES {
            self.pending = pending;
        }
        self.replies.send(replies);
    }

    fn refusal(&self, request: &SwapRequest) -> Option<StoreError> {
        let no_room = || request.claims().then(|| self.health.no_room()).flatten();
        self.health.failure().or_else(no_room)
    }

    /// Compares every change, then adds all changes to the batch, or none.
    fn compare(
        &self,
        changes: Vec<QueuedChange>,
        pending: &mut PendingChanges,
        pauses: &mut Pauses,
    ) -> Result<Swap, StoreError> {
        let mut found = Vec::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            let id = &change.id;
            let lost = |bytes: Option<&[u8]>| {
                let winner = bytes
                    .map(|bytes| decode(&self.table.codec, id, bytes).map(Box::new))
                    .transpose()?;
                Ok(Swap::Lost { index, winner })
            };
            // Head of the current record, and its bytes if unexpected.
            let look = |current: Option<&IndexedRecord>| {
                let head = current.map(|encoded| encoded.head);
                let lost = head.map(|head| head.version) != change.expect;
                (head, lost.then(|| current.map(|encoded| encoded.bytes.clone())))
            };
            let current = match pending.get(id) {
                Some(earlier) => Some(look(earlier.after.as_ref())),
                None if self.id_filter.is_absent(id) => Some(look(None)),
                None => self.memtable.get(id, look),
            };
            if let Some((head, winner)) = current {
                if let Some(winner) = winner {
                    return lost(winner.as_deref());
                }
                found.push(head);
            } else {
                let bytes = self.raw(id, pauses)?;
                let head = bytes.as_ref().map(|bytes| Head::decode(id, bytes)).transpose();
                let head = head.map_err(|error| corrupt(id, error))?;
                if head.map(|head| head.version) != change.expect {
                    return lost(bytes.as_deref());
                }
                found.push(head);
            }
        }
        for (change, before) in changes.into_iter().zip(found) {
            match pending.entry(change.id) {
                hash_map::Entry::Occupied(mut earlier) => earlier.get_mut().after = change.put,
                hash_map::Entry::Vacant(place) => {
                    place.insert(PendingChange { before, after: change.put });
                }
            }
        }
        Ok(Swap::Done)
    }

    /// Encoded bytes of a record of the table.
    fn raw(&self, id: &RecordId, pauses: &mut Pauses) -> Result<Option<Slice>, StoreError> {
        loop {
            let read = self.table.raw(id);
            if !pauses.permit(&read) {
                return Ok(read?);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Makes the batch durable, then visible. A failure is final: afterwards the contents of the
    /// disk are uncertain, and a second sync could report success for pages lost by the first.
    fn commit(&mut self, pending: &mut PendingChanges) -> Result<(), StoreError> {
        pending.retain(|_, change| change.before.is_some() || change.after.is_some());
        let Some(changes) = u32::try_from(pending.len()).ok().filter(|changes| *changes > 0) else {
            return Ok(());
        };
        self.wal.begin();
        for (id, change) in &*pending {
            self.wal.add(id, change.after.as_ref().map(|encoded| &*encoded.bytes));
        }
        let disk = self.disk.clone();
        let room = if self.wal.fits(&*disk) { Ok(()) } else { self.rotate() };
        let written = room.and_then(|()| self.wal.write(changes, &*disk));
        written.map_err(|error| self.health.fail(&error))?;
        record_commit(changes as usize);
        let generation = self.checkpoints.generation();
        for (id, change) in pending.drain() {
            if change.before.is_none() {
                self.id_filter.add(&id);
            }
            if self.memtable.put(id, change.before, change.after, generation) {
                self.checkpoints.add(id);
            }
        }
        Ok(())
    }

    /// Switches the log to its second file.
    fn rotate(&mut self) -> Result<(), String> {
        self.checkpoints.rotate(self.wal.last())?;
        self.wal.rotate(&*self.disk).map_err(|error| error.to_string())?;
        failpoint::point(Point::AfterRotation);
        Ok(())
    }
}
