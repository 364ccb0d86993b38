//! The writer: the one thread that takes waiting swaps, compares, writes one frame of the log, and
//! then replies. Another thread checkpoints what was written, see `checkpoint`.
//!
//! Each comparison sees what is stored and what earlier swaps of the same batch did. No reply leaves
//! before the frame is durable, so neither a `Done` nor a `Lost` ever reports something that a power
//! failure could undo. Alone, a swap waits for no other; under load, all that arrive during one sync
//! share the next.

use std::collections::HashMap;
use std::collections::hash_map;
use std::mem;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::checkpoint::Checkpoints;
use super::disk::Disk;
use super::health::Health;
use super::id_filter::IdFilter;
use super::layout::{StoredRecord, corrupt, decode};
use super::memtable::Memtable;
use super::replies::Replies;
use super::table::Table;
use super::wal::Wal;
use crate::failpoint::{self, Point};
use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;
use crate::store::codec::Head;
use crate::store::{StoreError, Swap};

/// Largest number of compare-and-swaps that share one sync.
const MAX_BATCH: usize = 1024;
/// Bytes of records after which a batch takes no more.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// Largest number of changes of a batch whose memory is kept for the next batch.
const KEPT_CHANGES: usize = 4096;
/// Largest number of times the writer yields before it writes, while that brings more swaps.
const MAX_YIELDS: usize = 8;

/// A compare-and-swap, and the place for its result.
pub(super) struct SwapRequest {
    pub(super) changes: Vec<QueuedChange>,
    pub(super) reply: oneshot::Sender<Result<Swap, StoreError>>,
}

/// A change whose record was encoded by the thread that asked for it.
pub(super) struct QueuedChange {
    pub(super) id: RecordId,
    pub(super) expect: Option<u64>,
    pub(super) put: Option<StoredRecord>,
}

impl SwapRequest {
    fn bytes(&self) -> usize {
        let puts = self.changes.iter().filter_map(|change| change.put.as_ref());
        puts.map(|encoded| encoded.bytes.len()).sum()
    }

    /// True if the swap begins a call rather than ending one.
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

/// Records that change in a batch.
pub(super) type PendingChanges = HashMap<RecordId, PendingChange, BuildIdHasher>;

/// A record that changes in a batch.
pub(super) struct PendingChange {
    /// State without this batch.
    before: Option<Head>,
    /// State after this batch.
    after: Option<StoredRecord>,
}

/// Swaps that were taken from the queue to share one sync.
#[derive(Default)]
struct GroupCommit {
    requests: Vec<SwapRequest>,
    bytes: usize,
}

impl GroupCommit {
    fn add(&mut self, request: SwapRequest) {
        self.bytes += request.bytes();
        self.requests.push(request);
    }

    fn is_full(&self) -> bool {
        self.requests.len() >= MAX_BATCH || self.bytes >= MAX_BATCH_BYTES
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
            // A failure has been logged by the thread that failed.
            let _ = self.checkpoints.finish(self.wal.last());
        }
    }

    /// Takes what is waiting. After a batch of several, threads that are about to ask for more run
    /// first, for as long as that brings something: a sync costs far more than a time slice, and
    /// where requests share a processor with this thread they could not ask otherwise.
    fn gather(&mut self, first: SwapRequest, last_size: usize) -> GroupCommit {
        let mut group = GroupCommit::default();
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
        for request in requests {
            let result = match self.refusal(&request) {
                Some(error) => Err(error),
                None => self.compare(request.changes, &mut pending),
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

    /// Compares every change, then makes all of them part of the batch, or none.
    fn compare(
        &self,
        changes: Vec<QueuedChange>,
        pending: &mut PendingChanges,
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
            // Head of the current record, and its bytes if it is not what was expected.
            let look = |current: Option<&StoredRecord>| {
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
                let bytes = self.table.raw(id)?;
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

    /// Makes the batch durable, then visible. A failure is final: what the disk then holds is not
    /// known, and a second sync could report success for pages that the first one lost.
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

    /// Lets the log go on in its other file.
    fn rotate(&mut self) -> Result<(), String> {
        self.checkpoints.rotate(self.wal.last())?;
        self.wal.rotate(&*self.disk).map_err(|error| error.to_string())?;
        failpoint::point(Point::AfterRotation);
        Ok(())
    }
}
