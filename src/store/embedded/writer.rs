//! The one thread that writes: takes what is waiting, compares, writes one frame of the log, then
//! answers. Between frames it folds what the log holds into the table, see `fold`.
//!
//! Each compare sees what is stored and what earlier changes of the same batch did. No answer leaves
//! before the frame is durable, so neither a `Done` nor a `Lost` ever tells of something that a
//! power failure could undo. Alone, a change waits for no one; under load, whatever arrives during
//! one sync shares the next.

use std::collections::HashMap;
use std::collections::hash_map;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::disk::{Disk, FREE_SPACE_MARGIN, Space};
use super::engine::{Engine, Written, corrupt, decode};
use super::fold::{self, Folding};
use super::log::Log;
use super::recent::{Entry, Recent};
use crate::idempotency::RecordId;
use crate::idempotency::record::BuildIdHasher;
use crate::store::codec;
use crate::store::{StoreError, Swap};

/// Compare-and-swaps that share one fsync, at most.
const MAX_BATCH: usize = 1024;
/// Bytes of records after which a batch takes no more.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// How often the writer lets others run before it writes, while that brings more changes.
const MAX_YIELDS: usize = 8;

/// What the writer is asked to do.
pub(super) enum Asked {
    Swap(Request),
    /// To put all that was changed before into the table, where it can be listed.
    Fold(oneshot::Sender<Result<(), StoreError>>),
}

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
    pub(super) queue: mpsc::Receiver<Asked>,
    pub(super) log: Log,
    pub(super) recent: Arc<Recent>,
    pub(super) folding: Folding,
}

/// The records that changed in this batch.
type Changed = HashMap<RecordId, Pending, BuildIdHasher>;

/// A record that changes in this batch.
struct Pending {
    /// Whether it is there without this batch.
    existed: bool,
    /// As it will be.
    entry: Entry,
}

/// What is taken from the queue at once.
#[derive(Default)]
struct Gathered {
    requests: Vec<Request>,
    bytes: usize,
    folds: Vec<oneshot::Sender<Result<(), StoreError>>>,
}

impl Gathered {
    fn add(&mut self, asked: Asked) {
        match asked {
            Asked::Swap(request) => {
                self.bytes += request.bytes();
                self.requests.push(request);
            }
            Asked::Fold(answer) => self.folds.push(answer),
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
        while let Some(first) = self.next() {
            let gathered = self.gather(first, last);
            last = gathered.requests.len();
            self.write(gathered.requests);
            for answer in gathered.folds {
                self.fold_for(answer);
            }
            self.fold_between();
        }
        self.fold_all();
    }

    /// The next thing that is asked for. What waits to be folded is, meanwhile.
    fn next(&mut self) -> Option<Asked> {
        while self.folding.is_due() {
            match self.queue.try_recv() {
                Ok(asked) => return Some(asked),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => self.fold(fold::AT_ONCE),
            }
        }
        self.queue.blocking_recv()
    }

    /// Takes what is waiting. After a batch of several, whoever is about to ask for more is let run
    /// first, for as long as that brings something: a sync costs far more than a turn, and where
    /// requests share a processor with this thread they could not ask otherwise.
    fn gather(&mut self, first: Asked, last: usize) -> Gathered {
        let mut gathered = Gathered::default();
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
    }

    fn refusal(&self, request: &Request) -> Option<StoreError> {
        let no_room = || request.claims().then(|| self.shared.no_room()).flatten();
        self.shared.failure().or_else(no_room)
    }

    /// Compares every change, then makes all of them part of the batch, or none.
    fn compare(&self, changes: Vec<Planned>, pending: &mut Changed) -> Result<Swap, StoreError> {
        let mut found = Vec::with_capacity(changes.len());
        for (index, change) in changes.iter().enumerate() {
            let id = &change.id;
            let lost = |bytes: Option<&[u8]>| {
                let winner = bytes.map(|bytes| decode(id, bytes).map(Box::new)).transpose()?;
                Ok(Swap::Lost { index, winner })
            };
            // What the record is now: its version and, if that is not the one expected, its bytes.
            let look = |after: &Option<Written>| {
                let version = after.as_ref().map(|written| written.head.version);
                let wrong = version != change.expect;
                wrong.then(|| after.as_ref().map(|written| written.bytes.clone()))
            };
            let now = match pending.get(id) {
                Some(earlier) => Some((None, look(&earlier.entry.after))),
                None => self.recent.get(id, |entry| (Some(entry.stored), look(&entry.after))),
            };
            if let Some((stored, wrong)) = now {
                if let Some(winner) = wrong {
                    return lost(winner.as_deref());
                }
                found.push(stored);
            } else {
                let bytes = self.engine.raw(id)?;
                let head = bytes.as_ref().map(|bytes| codec::peek(id, bytes)).transpose();
                let head = head.map_err(|error| corrupt(id, error))?;
                if head.map(|head| head.version) != change.expect {
                    return lost(bytes.as_deref());
                }
                found.push(Some(head));
            }
        }
        for (change, stored) in changes.into_iter().zip(found) {
            match (pending.entry(change.id), stored) {
                (hash_map::Entry::Occupied(mut earlier), _) => {
                    earlier.get_mut().entry.after = change.put;
                }
                (hash_map::Entry::Vacant(place), stored) => {
                    let existed = change.expect.is_some();
                    let entry = Entry { after: change.put, stored: stored.flatten() };
                    place.insert(Pending { existed, entry });
                }
            }
        }
        Ok(Swap::Done)
    }

    /// Makes the batch durable, then visible. A failure is final: what the disk then holds is not
    /// known, and a second sync could report success for pages that the first one lost.
    fn commit(&mut self, mut pending: Changed) -> Result<(), StoreError> {
        pending.retain(|_, change| change.existed || change.entry.after.is_some());
        let Some(changes) = u32::try_from(pending.len()).ok().filter(|changes| *changes > 0) else {
            return Ok(());
        };
        self.log.begin();
        for (id, change) in &pending {
            self.log.add(id, change.entry.after.as_ref().map(|written| &*written.bytes));
        }
        let disk = self.disk.clone();
        let room = if self.log.fits(&*disk) { Ok(()) } else { self.turn() };
        let written = room.and_then(|()| self.log.write(changes, &*disk));
        written.map_err(|error| self.fail(&error))?;
        for (id, change) in pending {
            if self.recent.put(id, change.entry) {
                self.folding.add(id);
            }
        }
        Ok(())
    }

    /// From now on nothing is written any more.
    pub(super) fn fail(&mut self, error: &str) -> StoreError {
        let path = self.path.display();
        let reason = format!(
            "writing to {path} failed ({error}); nothing more is written until a restart: \
             check the disk and its free space, then restart oncegate"
        );
        tracing::error!(path = %path, error, "the store failed and takes no more writes");
        let reason = self.shared.failed.get_or_init(|| reason).clone();
        let failure = StoreError::Unavailable(reason);
        self.folding.give_up(&failure);
        failure
    }
}
