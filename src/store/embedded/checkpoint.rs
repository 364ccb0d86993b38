//! Checkpoints: what the log holds goes into the table, a part at a time, on a thread of its own.
//!
//! A part is the records that changed since the one before. One that changes again before its turn
//! comes is left to the next part: a claim that is completed soon never reaches the table. Large parts
//! are sorted and become files of the table at once, see `sorted`; small ones take the engine's way
//! through its journal and its memory.
//!
//! When all that stands in a file of the log has been folded, the table is made durable, then a mark
//! in it that says up to which frame it reaches, and the file may be written over. The mark is
//! written after what it vouches for is durable: where a mark stands in the engine's journal, all
//! before it was. Until then the log has everything, and a start folds it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, mem};

use tokio::sync::oneshot;

use super::disk::Disk;
use super::ingest;
use super::memtable::{DirtyRecord, Memtable};
use super::table::{Table, stage};
use super::writer::Health;
use crate::failpoint::{self, Point};
use crate::idempotency::RecordId;
use crate::store::StoreError;

/// Records of a part that is worth a file of its own in the table: always when a file of the log
/// ends, which is seldom, and when somebody wants to list, which may be often.
const MANY_AT_A_TURN: usize = 8;
const MANY_TO_LIST: usize = 4096;
/// Records, and bytes of them, that take the engine's way in one step.
const AT_ONCE: usize = 64;
const AT_ONCE_BYTES: usize = 1 << 20;
/// What a record takes up in the engine's memory and journals besides its bytes, or when it is removed:
/// keys and index entries.
pub(super) const ENTRIES: usize = 256;
/// Bytes that have taken the engine's way and stay in its memory and its journals, at most.
pub(super) const STAGED: usize = 4 << 20;
/// Parts that wait for the thread; with more, those who want to list are refused.
const PARTS: usize = 64;
/// How long the writer waits for a file of the log. A table that takes longer for what a file holds
/// is as good as gone.
const FREE_WITHIN: Duration = Duration::from_secs(120);
/// The key of the mark.
pub(super) const MARK: &[u8] = b"folded";

/// Who waits for a part.
enum CheckpointGoal {
    /// A file of the log that ends with this frame can be written over.
    Rotation(u64),
    /// Somebody wants to list.
    Listing(oneshot::Sender<Result<(), StoreError>>),
}

/// A part to be folded.
struct Generation {
    number: u64,
    /// Every record that became one of it, once.
    ids: Vec<RecordId>,
    goal: CheckpointGoal,
}

/// The writer's side: gathers the part that grows and hands it over.
pub(super) struct Checkpoints {
    ids: Vec<RecordId>,
    part: u64,
    /// `None` at the end.
    parts: Option<SyncSender<Generation>>,
    turned: Receiver<Result<u64, String>>,
    /// A file of the log is being folded.
    turning: bool,
    /// The frame up to which the table reaches, by its mark.
    marked: u64,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread, for a table that reaches up to this frame.
    pub(super) fn start(
        engine: Table,
        disk: Arc<dyn Disk>,
        recent: Arc<Memtable>,
        shared: Arc<Health>,
        marked: u64,
    ) -> io::Result<Self> {
        let (parts, queue) = sync_channel(PARTS);
        // One file at a time is being folded.
        let (turns, turned) = sync_channel(1);
        let mut folder = Checkpointer { engine, disk, recent, shared, turns, staged: 0 };
        let thread = std::thread::Builder::new().name("oncegate-fold".to_owned());
        let thread = thread.spawn(move || {
            for part in queue {
                folder.fold(part);
            }
        })?;
        let (ids, parts, thread) = (Vec::new(), Some(parts), Some(thread));
        Ok(Self { ids, part: 0, parts, turned, turning: false, marked, thread })
    }

    /// The number of the part that grows.
    pub(super) fn part(&self) -> u64 {
        self.part
    }

    /// The part that grows has this record as well.
    pub(super) fn add(&mut self, id: RecordId) {
        self.ids.push(id);
    }

    /// Lets all that changed so far be folded for somebody who wants to list.
    pub(super) fn ask(&mut self, answer: oneshot::Sender<Result<(), StoreError>>) {
        self.hand_over(CheckpointGoal::Listing(answer));
    }

    /// Lets all that changed so far be folded, after which the file of the log that ends with the
    /// frame `last` is free. Waits until the other one is, which it normally was long ago.
    pub(super) fn turn(&mut self, last: u64) -> Result<(), String> {
        self.until_free()?;
        self.hand_over(CheckpointGoal::Rotation(last));
        self.turning = true;
        Ok(())
    }

    /// Folds the rest: a log that is folded whole need not be read at the next start.
    pub(super) fn end(&mut self, last: u64) -> Result<(), String> {
        self.until_free()?;
        if self.marked != last {
            self.turn(last)?;
            self.until_free()?;
        }
        Ok(())
    }

    fn hand_over(&mut self, goal: CheckpointGoal) {
        let ids = mem::take(&mut self.ids);
        // The next part is about as large.
        self.ids.reserve(ids.len());
        let part = Generation { number: self.part, ids, goal };
        self.part += 1;
        // The thread takes parts for as long as this lives. Without it nobody is answered, and
        // waiting for a turn fails.
        let Some(parts) = &self.parts else { return };
        let Err(TrySendError::Full(part)) = parts.try_send(part) else { return };
        match part.goal {
            CheckpointGoal::Rotation(_) => drop(parts.send(part)),
            CheckpointGoal::Listing(answer) => {
                // Nothing has seen this part yet: it goes on growing.
                self.part = part.number;
                self.ids = part.ids;
                let busy = format!("{PARTS} listings wait already; the disk is too slow");
                let _ = answer.send(Err(StoreError::Unavailable(busy)));
            }
        }
    }

    fn until_free(&mut self) -> Result<(), String> {
        if mem::take(&mut self.turning) {
            self.marked =
                self.turned.recv_timeout(FREE_WITHIN).map_err(|error| match error {
                    RecvTimeoutError::Timeout => {
                        format!("its table took none of its log for {} s", FREE_WITHIN.as_secs())
                    }
                    RecvTimeoutError::Disconnected => {
                        "the thread that folds its log has ended".to_owned()
                    }
                })??;
        }
        Ok(())
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.parts.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Checkpointer {
    engine: Table,
    disk: Arc<dyn Disk>,
    recent: Arc<Memtable>,
    shared: Arc<Health>,
    turns: SyncSender<Result<u64, String>>,
    /// Bytes that took the engine's way since its memory was last emptied.
    staged: usize,
}

impl Checkpointer {
    /// Folds a part and says so, or fails the store.
    fn fold(&mut self, part: Generation) {
        let Generation { number, ids, goal } = part;
        let folded = match self.shared.failed.get() {
            Some(_) => Err(String::from("the store has failed")),
            // The engine asserts some things of its files.
            None => catch_unwind(AssertUnwindSafe(|| self.try_fold(number, ids, &goal)))
                .unwrap_or_else(|_| Err("the engine gave up".to_owned())),
        };
        let failed = folded.map_err(|error| (self.shared.fail(&error), error));
        // Whoever waited may be gone.
        match goal {
            CheckpointGoal::Listing(answer) => {
                let _ = answer.send(failed.map_err(|(failure, _)| failure));
            }
            CheckpointGoal::Rotation(last) => {
                let _ = self.turns.send(failed.map(|()| last).map_err(|(_, error)| error));
            }
        }
    }

    fn try_fold(
        &mut self,
        number: u64,
        mut ids: Vec<RecordId>,
        goal: &CheckpointGoal,
    ) -> Result<(), String> {
        let many = match goal {
            CheckpointGoal::Rotation(_) => MANY_AT_A_TURN,
            CheckpointGoal::Listing(_) => MANY_TO_LIST,
        };
        if ids.len() < many {
            for ids in ids.chunks(AT_ONCE) {
                self.stage(number, ids)?;
            }
        } else {
            ids.sort_unstable();
            let taken = ids.into_iter().filter_map(|id| self.recent.take(id, number));
            let taken: Vec<_> = taken.collect();
            ingest::put(&self.engine, &*self.disk, &taken)?;
            self.forget(number, &taken);
        }
        if let CheckpointGoal::Rotation(last) = goal {
            mark(&self.engine, &*self.disk, *last)?;
        }
        if self.staged > STAGED {
            self.staged = 0;
            self.engine.rotate()?;
        }
        Ok(())
    }

    /// Puts records into the table the engine's way, in steps of so many bytes.
    fn stage(&mut self, number: u64, ids: &[RecordId]) -> Result<(), String> {
        let mut batch = self.engine.db.batch();
        let (mut bytes, mut taken) = (0, Vec::with_capacity(ids.len()));
        for id in ids {
            let Some(record) = self.recent.take(*id, number) else { continue };
            bytes += ENTRIES + record.after.as_ref().map_or(0, |written| written.bytes.len());
            if record.before.is_some() || record.after.is_some() {
                stage(&self.engine, &mut batch, id, record.before, record.after.clone());
            }
            taken.push(record);
            if bytes > AT_ONCE_BYTES {
                self.staged += mem::take(&mut bytes);
                let full = mem::replace(&mut batch, self.engine.db.batch());
                self.disk.fold(full)?;
            }
        }
        self.staged += bytes;
        if !batch.is_empty() {
            self.disk.fold(batch)?;
            failpoint::point(Point::AfterFold);
        }
        self.forget(number, &taken);
        Ok(())
    }

    fn forget(&self, number: u64, taken: &[DirtyRecord]) {
        for taken in taken {
            self.recent.folded(taken, number);
        }
    }
}

/// Makes the table durable, and then that it reaches up to this frame.
pub(super) fn mark(engine: &Table, disk: &dyn Disk, last: u64) -> Result<(), String> {
    disk.persist(&engine.db)?;
    failpoint::point(Point::BeforeMark);
    let mut batch = engine.db.batch();
    batch.insert(&engine.meta, MARK, last.to_le_bytes());
    disk.fold(batch)?;
    disk.persist(&engine.db)?;
    failpoint::point(Point::AfterMark);
    Ok(())
}
