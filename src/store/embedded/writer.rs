//! The one thread that writes: takes what is waiting, compares, commits once, then answers.
//!
//! Each compare sees the database and what earlier changes of the same batch did. No answer leaves
//! before the batch is durable, so neither a `Done` nor a `Lost` ever tells of something that a
//! power failure could undo. Alone, a change waits for no one; under load, whatever arrives during
//! one fsync shares the next.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use fjall::OwnedWriteBatch;
use tokio::sync::{mpsc, oneshot};

use super::disk::{Disk, FREE_SPACE_MARGIN, Space};
use super::engine::{Engine, MEMTABLES, Written, corrupt, decode, stage};
use crate::idempotency::RecordId;
use crate::idempotency::record::BuildIdHasher;
use crate::store::codec::{self, Head};
use crate::store::{StoreError, Swap};

/// Compare-and-swaps that share one fsync, at most.
const MAX_BATCH: usize = 1024;
/// Bytes of records after which a batch takes no more.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// Records in flight whose heads are kept in memory, some 100 bytes each; those of further ones are
/// read back.
const MAX_KNOWN: usize = 16 << 10;

/// One compare-and-swap, and where its result goes.
pub(super) struct Request {
    pub(super) changes: Vec<Planned>,
    pub(super) answer: oneshot::Sender<Result<Swap, StoreError>>,
}

/// A change with its record written down already, by the thread that asked for it.
pub(super) struct Planned {
    pub(super) id: RecordId,
    pub(super) expect: Option<u64>,
    pub(super) put: Option<Written>,
}

impl Request {
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

/// What the writer shares with the asking side.
pub(super) struct Shared {
    pub(super) space: Space,
    /// Why nothing can be written any more; set once, for good.
    pub(super) failed: OnceLock<String>,
}

impl Shared {
    /// The error of a store that can write nothing any more.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failed.get().map(|reason| StoreError::Unavailable(reason.clone()))
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
    pub(super) engine: Engine,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) shared: Arc<Shared>,
    pub(super) path: PathBuf,
    pub(super) queue: mpsc::Receiver<Request>,
    /// Bytes put into memory since they were last handed to the engine's worker.
    pub(super) in_memory: usize,
    /// What this writer last made durable of records in flight: their next change follows soon, and
    /// nobody else writes.
    pub(super) in_flight: HashMap<RecordId, Head, BuildIdHasher>,
}

/// The records that changed in this batch.
type Changed = HashMap<RecordId, Pending, BuildIdHasher>;

/// A record that changed in this batch.
struct Pending {
    /// What the database has.
    before: Option<Head>,
    /// What takes its place.
    after: Option<Written>,
}

impl Writer {
    /// Writes until every sender is gone.
    pub(super) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let mut bytes = first.bytes();
            let mut requests = vec![first];
            while requests.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
                let Ok(next) = self.queue.try_recv() else { break };
                bytes += next.bytes();
                requests.push(next);
            }
            self.write(requests);
        }
    }

    fn write(&mut self, requests: Vec<Request>) {
        let mut pending = Changed::default();
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let result = match self.refusal(&request) {
                Some(error) => Err(error),
                None => self.compare(request.changes, &mut pending),
            };
            answers.push((request.answer, result));
        }
        let failure = self.commit(pending).err();
        for (answer, result) in answers {
            let result = match &failure {
                Some(error) => Err(error.clone()),
                None => result,
            };
            // Whoever asked may be gone; the change stands all the same.
            let _ = answer.send(result);
        }
        self.rotate();
    }

    /// Once enough has gathered in memory. A failure fails the store: without tables the journals
    /// would grow without bound.
    fn rotate(&mut self) {
        if self.in_memory < MEMTABLES || self.shared.failed.get().is_some() {
            return;
        }
        self.in_memory = 0;
        if let Err(error) = self.engine.rotate() {
            self.fail(&error);
        }
    }

    fn refusal(&self, request: &Request) -> Option<StoreError> {
        let no_room = || request.claims().then(|| self.shared.no_room()).flatten();
        self.shared.failure().or_else(no_room)
    }

    /// Compares every change, then makes all of them part of the batch, or none.
    fn compare(&self, changes: Vec<Planned>, pending: &mut Changed) -> Result<Swap, StoreError> {
        let mut stored = Vec::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            let id = &change.id;
            let lost = |bytes: Option<&[u8]>| {
                let winner = bytes.map(|bytes| decode(id, bytes).map(Box::new)).transpose()?;
                Ok(Swap::Lost { index, winner })
            };
            if let Some(earlier) = pending.get(id) {
                if earlier.after.as_ref().map(|written| written.head.version) != change.expect {
                    return lost(earlier.after.as_ref().map(|written| written.bytes.as_slice()));
                }
                stored.push(earlier.before);
            } else if let Some(head) =
                self.in_flight.get(id).filter(|head| Some(head.version) == change.expect)
            {
                stored.push(Some(*head));
            } else {
                let bytes = self.engine.raw(id)?;
                let head = bytes.as_ref().map(|bytes| codec::peek(id, bytes)).transpose();
                let head = head.map_err(|error| corrupt(id, error))?;
                if head.map(|head| head.version) != change.expect {
                    return lost(bytes.as_deref());
                }
                stored.push(head);
            }
        }
        for (change, before) in changes.into_iter().zip(stored) {
            match pending.entry(change.id) {
                Entry::Occupied(mut earlier) => earlier.get_mut().after = change.put,
                Entry::Vacant(place) => {
                    place.insert(Pending { before, after: change.put });
                }
            }
        }
        Ok(Swap::Done)
    }

    /// Makes the batch durable. A failure is final: what the disk then holds is not known, and a
    /// second fsync could report success for pages that the first one lost.
    fn commit(&mut self, pending: Changed) -> Result<(), StoreError> {
        if pending.is_empty() {
            return Ok(());
        }
        let mut batch = OwnedWriteBatch::with_capacity(self.engine.db.clone(), pending.len() * 4);
        let mut heads = Vec::with_capacity(pending.len());
        for (id, change) in pending {
            heads.push((id, change.after.as_ref().map(|written| written.head)));
            if change.before.is_some() || change.after.is_some() {
                self.in_memory += stage(&self.engine, &mut batch, &id, change.before, change.after);
            }
        }
        self.disk.commit(batch).map_err(|error| self.fail(&error))?;
        for (id, head) in heads {
            match head.filter(|head| head.in_flight) {
                Some(head) if self.in_flight.len() < MAX_KNOWN => {
                    self.in_flight.insert(id, head);
                }
                Some(_) | None => {
                    self.in_flight.remove(&id);
                }
            }
        }
        Ok(())
    }

    /// From now on nothing is written any more.
    fn fail(&self, error: &str) -> StoreError {
        let path = self.path.display();
        let reason = format!(
            "writing to {path} failed ({error}); nothing more is written until a restart: \
             check the disk and its free space, then restart oncegate"
        );
        tracing::error!(path = %path, error, "the store failed and takes no more writes");
        StoreError::Unavailable(self.shared.failed.get_or_init(|| reason).clone())
    }
}
