//! Checkpoints: the log's changes are moved into the table, a generation at a time, on a separate
//! thread.
//!
//! A generation holds the records changed while a single file of the log grew. A record changed
//! again before the checkpoint of its generation is left to the later generation: a claim with an
//! early outcome never reaches the table.
//!
//! A file of the log may only be overwritten once the table has its generation, durably and with a
//! marker. After a crash before that point the next start reads the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, mem};

use super::clock::StoreClock;
use super::compaction::Compactor;
use super::disk::{Disk, lacks_descriptors};
use super::health::Health;
use super::ingest::ingest;
use super::layout::DirtyRecord;
use super::memtable::Memtable;
use super::table::{Table, most_runs};
use crate::failpoint::{self, Point};
use crate::idempotency::RecordId;

/// Longest wait of the writer for a free file of the log. A table needing more time for a single
/// file's changes is considered failed.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest wait for compaction. Afterwards the run is added regardless, at the price of slower
/// reads.
const COMPACTION_WAIT: Duration = Duration::from_secs(10);
const COMPACTION_POLL: Duration = Duration::from_millis(10);

/// A generation to be checkpointed.
struct Generation {
    number: u64,
    /// The generation's records, without duplicates.
    ids: Vec<RecordId>,
    /// Last frame in the generation's file of the log.
    frame: u64,
}

/// The writer's side: collects the current generation and hands over finished generations.
pub(super) struct Checkpoints {
    ids: Vec<RecordId>,
    generation: u64,
    /// `None` once the writer has ended.
    queue: Option<SyncSender<Generation>>,
    results: Receiver<Result<u64, String>>,
    /// Set while a generation is handed over and its result is outstanding.
    running: bool,
    /// Frame of the table's marker.
    marker: u64,
    health: Arc<Health>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread, for a table complete up to the frame `marker`.
    pub(super) fn start(checkpointer: Checkpointer, marker: u64) -> io::Result<Self> {
        // At most a single file of the log is checkpointed at a time.
        let (queue, generations) = sync_channel(1);
        let (sender, results) = sync_channel(1);
        let health = checkpointer.health.clone();
        let thread = std::thread::Builder::new().name("oncegate-checkpoint".to_owned());
        let thread = thread.spawn(move || {
            for generation in generations {
                // The writer may have ended.
                let _ = sender.send(checkpointer.checkpoint(generation));
            }
        })?;
        let (queue, thread) = (Some(queue), Some(thread));
        let (ids, generation, running) = (Vec::new(), 0, false);
        Ok(Self { ids, generation, queue, results, running, marker, health, thread })
    }

    /// Number of the current generation.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds a record to the current generation.
    pub(super) fn add(&mut self, id: RecordId) {
        self.ids.push(id);
    }

    /// Ends the generation of the file ending with `frame`. Waits for the checkpoint of the
    /// previous generation, so that the previous file can be overwritten; mostly the checkpoint
    /// ended long ago.
    pub(super) fn rotate(&mut self, frame: u64) -> Result<(), String> {
        self.wait()?;
        let ids = mem::take(&mut self.ids);
        // The next generation is about as large.
        self.ids.reserve(ids.len());
        let generation = Generation { number: self.generation, ids, frame };
        self.generation += 1;
        let queue = self.queue.as_ref().ok_or("the store is closed")?;
        queue.send(generation).map_err(|_| thread_ended())?;
        self.running = true;
        Ok(())
    }

    /// Checkpoints the rest: the next start then has no frame to read.
    pub(super) fn finish(&mut self, frame: u64) -> Result<(), String> {
        self.wait()?;
        if self.marker != frame {
            self.rotate(frame)?;
            self.wait()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), String> {
        if mem::take(&mut self.running) {
            self.marker = loop {
                match self.results.recv_timeout(CHECKPOINT_TIMEOUT) {
                    Ok(marker) => break marker?,
                    Err(RecvTimeoutError::Timeout) if self.health.lacks_descriptors() => {}
                    Err(RecvTimeoutError::Timeout) => {
                        let seconds = CHECKPOINT_TIMEOUT.as_secs();
                        return Err(format!("a checkpoint of its log took more than {seconds} s"));
                    }
                    Err(RecvTimeoutError::Disconnected) => return Err(thread_ended()),
                }
            };
        }
        Ok(())
    }
}

fn thread_ended() -> String {
    "the thread that checkpoints its log has ended".to_owned()
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
pub(super) struct Checkpointer {
    pub(super) table: Table,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) memtable: Arc<Memtable>,
    pub(super) health: Arc<Health>,
    pub(super) clock: Arc<StoreClock>,
    pub(super) compactor: Compactor,
}

impl Checkpointer {
    /// Puts a generation into the table, or fails the store. Gives the frame the table reaches.
    fn checkpoint(&self, generation: Generation) -> Result<u64, String> {
        if self.health.has_failed() {
            return Err("the store has failed".to_owned());
        }
        let frame = generation.frame;
        // The tree panics on some kinds of damaged files.
        catch_unwind(AssertUnwindSafe(|| self.put(generation)))
            .unwrap_or_else(|_| Err("the table gave up adding records".to_owned()))
            .inspect_err(|error| drop(self.health.fail(error)))?;
        self.compactor.wake();
        Ok(frame)
    }

    fn put(&self, generation: Generation) -> Result<(), String> {
        let Generation { number, mut ids, frame } = generation;
        // In the order of the table, so that `ingest` finds nothing to sort.
        ids.sort_unstable_by_key(RecordId::rotated);
        let dirty = ids.into_iter().filter_map(|id| self.memtable.dirty(id, number));
        let mut dirty: Vec<_> = dirty.collect();
        self.wait_for_compaction();
        failpoint::point(Point::BeforeCheckpoint);
        self.ingest(&mut dirty, frame)?;
        failpoint::point(Point::AfterCheckpoint);
        for record in &dirty {
            self.memtable.checkpointed(record, number);
        }
        Ok(())
    }

    /// Adds records to the table. A lack of file descriptors says nothing about the disk, and ends
    /// when connections close: the same records are added again until then.
    fn ingest(&self, dirty: &mut [DirtyRecord], frame: u64) -> Result<(), String> {
        loop {
            let added = ingest(&self.table, &*self.disk, dirty, (frame, self.clock.state()));
            match added {
                Err(error) if lacks_descriptors(&error) => {
                    self.health.wait_for_descriptors(&error);
                }
                added => {
                    self.health.has_descriptors();
                    return added.map_err(|error| error.to_string());
                }
            }
        }
    }

    fn wait_for_compaction(&self) {
        let end = Instant::now() + COMPACTION_WAIT;
        let most = most_runs();
        while self.table.unmerged_runs() >= most && Instant::now() < end {
            std::thread::sleep(COMPACTION_POLL);
        }
    }
}
