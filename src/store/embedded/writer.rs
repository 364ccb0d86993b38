//! The one thread that writes: takes what is waiting, compares, writes one frame of the log, then
//! answers. What it wrote, another thread folds into the table, see `fold`.
//!
//! Each compare sees what is stored and what earlier changes of the same batch did. No answer leaves
//! before the frame is durable, so neither a `Done` nor a `Lost` ever tells of something that a
//! power failure could undo. Alone, a change waits for no one; under load, whatever arrives during
//! one sync shares the next.

use std::collections::HashMap;
use std::collections::hash_map;
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::sync::{mpsc, oneshot};

use super::checkpoint::Checkpoints;
use super::disk::{Disk, FREE_SPACE_MARGIN, Space};
use super::id_filter::IdFilter;
use super::memtable::Memtable;
use super::replies::Replies;
use super::table::{EncodedRecord, Table, corrupt, decode};
use super::wal::Wal;
use crate::failpoint::{self, Point};
use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;
use crate::store::codec::Head;
use crate::store::{StoreError, Swap};

/// Compare-and-swaps that share one fsync, at most.
const MAX_BATCH: usize = 1024;
/// Bytes of records after which a batch takes no more.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// Changes of a batch whose memory is kept for the next one, at most.
const KEPT_CHANGES: usize = 4096;
/// How often the writer lets others run before it writes, while that brings more changes.
const MAX_YIELDS: usize = 8;

/// What the writer is asked to do.
pub(super) enum WriterMessage {
    Swap(SwapRequest),
    /// To put all that was changed before into the table, where it can be listed.
    Checkpoint(oneshot::Sender<Result<(), StoreError>>),
}

/// One compare-and-swap, and where its result goes.
pub(super) struct SwapRequest {
    pub(super) changes: Vec<EncodedChange>,
    pub(super) answer: oneshot::Sender<Result<Swap, StoreError>>,
}

/// A change with its record written down already, by the thread that asked for it.
pub(super) struct EncodedChange {
    pub(super) id: RecordId,
    pub(super) expect: Option<u64>,
    pub(super) put: Option<EncodedRecord>,
}

impl SwapRequest {
    fn bytes(&self) -> usize {
        let puts = self.changes.iter().filter_map(|change| change.put.as_ref());
        puts.map(|written| written.bytes.len()).sum()
    }

    /// Whether it begins something new rather than ending what was begun.
    fn claims(&self) -> bool {
        self.changes.iter().any(|change| {
            change
                .put
                .as_ref()
                .is_some_and(|written| change.expect.is_none() || written.head.in_flight)
        })
    }
}

/// What the threads of a store share.
pub(super) struct Health {
    pub(super) space: Space,
    pub(super) path: PathBuf,
    /// Why nothing can be written any more; set once, for good.
    pub(super) failed: OnceLock<String>,
}

impl Health {
    /// The error of a store that can write nothing any more.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failed.get().map(|reason| StoreError::Unavailable(reason.clone()))
    }

    /// From now on nothing is written any more.
    pub(super) fn fail(&self, error: &str) -> StoreError {
        let path = self.path.display();
        let reason = self.failed.get_or_init(|| {
            tracing::error!(path = %path, error, "the store failed and takes no more writes");
            format!(
                "writing to {path} failed ({error}); nothing more is written until a restart: \
                 check the disk and its free space, then restart oncegate"
            )
        });
        StoreError::Unavailable(reason.clone())
    }

    /// The error of a file system without room for new claims.
    pub(super) fn no_room(&self) -> Option<StoreError> {
        self.space.short().map(|free| {
            StoreError::Unavailable(format!(
                "only {} MiB are free on the store's file system and new claims need {} MiB; \
                 free some space, claims resume by themselves",
                free >> 20,
                FREE_SPACE_MARGIN >> 20
            ))
        })
    }
}

/// The writing half of a store.
pub(super) struct Writer {
    pub(super) engine: Table,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) shared: Arc<Health>,
    pub(super) queue: mpsc::Receiver<WriterMessage>,
    pub(super) answers: Replies,
    pub(super) log: Wal,
    pub(super) recent: Arc<Memtable>,
    pub(super) absent: IdFilter,
    pub(super) folding: Checkpoints,
    /// The memory of a batch, for the next one.
    pub(super) pending: PendingChanges,
}

/// The records that changed in this batch.
pub(super) type PendingChanges = HashMap<RecordId, PendingChange, BuildIdHasher>;

/// A record that changes in this batch.
pub(super) struct PendingChange {
    /// What it is without this batch.
    before: Option<Head>,
    /// As it will be.
    after: Option<EncodedRecord>,
}

/// What is taken from the queue at once.
#[derive(Default)]
struct GroupCommit {
    requests: Vec<SwapRequest>,
    bytes: usize,
    folds: Vec<oneshot::Sender<Result<(), StoreError>>>,
}

impl GroupCommit {
    fn add(&mut self, asked: WriterMessage) {
        match asked {
            WriterMessage::Swap(request) => {
                self.bytes += request.bytes();
                self.requests.push(request);
            }
            WriterMessage::Checkpoint(answer) => self.folds.push(answer),
        }
    }

    fn is_full(&self) -> bool {
        self.requests.len() + self.folds.len() >= MAX_BATCH || self.bytes >= MAX_BATCH_BYTES
    }
}

impl Writer {
    /// Writes until every sender is gone.
    pub(super) fn run(mut self) {
        let mut last = 0;
        while let Some(first) = self.queue.blocking_recv() {
            let gathered = self.gather(first, last);
            last = gathered.requests.len();
            self.write(gathered.requests);
            for answer in gathered.folds {
                match self.shared.failure() {
                    Some(failure) => drop(answer.send(Err(failure))),
                    None => self.folding.ask(answer),
                }
            }
        }
        if self.shared.failed.get().is_none() {
            // It has been told by whoever failed.
            let _ = self.folding.end(self.log.last());
        }
    }

    /// Takes what is waiting. After a batch of several, whoever is about to ask for more is let run
    /// first, for as long as that brings something: a sync costs far more than a turn, and where
    /// requests share a processor with this thread they could not ask otherwise.
    fn gather(&mut self, first: WriterMessage, last: usize) -> GroupCommit {
        let mut gathered = GroupCommit::default();
        gathered.add(first);
        for _ in 0..MAX_YIELDS {
            let before = gathered.requests.len();
            while !gathered.is_full() {
                let Ok(next) = self.queue.try_recv() else { break };
                gathered.add(next);
            }
            let grows = before == 1 || gathered.requests.len() > before;
            if gathered.is_full() || last.max(gathered.requests.len()) < 2 || !grows {
                break;
            }
            std::thread::yield_now();
        }
        gathered
    }

    fn write(&mut self, requests: Vec<SwapRequest>) {
        self.absent.advance();
        let mut pending = mem::take(&mut self.pending);
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let result = match self.refusal(&request) {
                Some(error) => Err(error),
                None => self.compare(request.changes, &mut pending),
            };
            answers.push((request.answer, result));
        }
        if let Err(failure) = self.commit(&mut pending) {
            for (_, result) in &mut answers {
                *result = Err(failure.clone());
            }
        }
        pending.clear();
        if pending.capacity() <= KEPT_CHANGES {
            self.pending = pending;
        }
        self.answers.send(answers);
    }

    fn refusal(&self, request: &SwapRequest) -> Option<StoreError> {
        let no_room = || request.claims().then(|| self.shared.no_room()).flatten();
        self.shared.failure().or_else(no_room)
    }

    /// Compares every change, then makes all of them part of the batch, or none.
    fn compare(
        &self,
        changes: Vec<EncodedChange>,
        pending: &mut PendingChanges,
    ) -> Result<Swap, StoreError> {
        let mut found = Vec::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            let id = &change.id;
            let lost = |bytes: Option<&[u8]>| {
                let winner = bytes
                    .map(|bytes| decode(&self.engine.codec, id, bytes).map(Box::new))
                    .transpose()?;
                Ok(Swap::Lost { index, winner })
            };
            // What the record is now, and its bytes if that is not what was expected.
            let look = |now: Option<&EncodedRecord>| {
                let head = now.map(|written| written.head);
                let wrong = head.map(|head| head.version) != change.expect;
                (head, wrong.then(|| now.map(|written| written.bytes.clone())))
            };
            let now = match pending.get(id) {
                Some(earlier) => Some(look(earlier.after.as_ref())),
                None if self.absent.is_certain(id) => Some(look(None)),
                None => self.recent.get(id, look),
            };
            if let Some((head, wrong)) = now {
                if let Some(winner) = wrong {
                    return lost(winner.as_deref());
                }
                found.push(head);
            } else {
                let bytes = self.engine.raw(id)?;
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
        self.log.begin();
        for (id, change) in &*pending {
            self.log.add(id, change.after.as_ref().map(|written| &*written.bytes));
        }
        let disk = self.disk.clone();
        let room = if self.log.fits(&*disk) { Ok(()) } else { self.turn() };
        let written = room.and_then(|()| self.log.write(changes, &*disk));
        written.map_err(|error| self.shared.fail(&error))?;
        let part = self.folding.part();
        for (id, change) in pending.drain() {
            if change.before.is_none() {
                self.absent.add(&id);
            }
            if self.recent.put(id, change.before, change.after, part) {
                self.folding.add(id);
            }
        }
        Ok(())
    }

    /// The log goes on in its other file.
    fn turn(&mut self) -> Result<(), String> {
        self.folding.turn(self.log.last())?;
        self.log.switch(&*self.disk).map_err(|error| error.to_string())?;
        failpoint::point(Point::AfterTurn);
        Ok(())
    }
}
