//! Compaction: merges the table's runs on a separate thread, after a checkpoint has added a run.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::disk::{io_error, lacks_descriptors};
use super::health::Health;
use super::read::PAUSE;
use super::table::Table;
use crate::failpoint::{self, Point};

/// Handle of the compaction thread. A drop waits for the current step.
pub(super) struct Compactor {
    wake: Option<SyncSender<()>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Compactor {
    /// Starts the thread, with an immediate check for runs left unmerged by the last process.
    pub(super) fn start(table: Table, health: Arc<Health>) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let stopping = Arc::new(AtomicBool::new(false));
        let worker = Worker { table, health, stopping: stopping.clone() };
        let thread = std::thread::Builder::new().name("oncegate-compact".to_owned());
        let thread = thread.spawn(move || worker.run(&woken))?;
        let compactor = Self { wake: Some(wake), stopping, thread: Some(thread) };
        compactor.wake();
        Ok(compactor)
    }

    /// Asks the thread to check for runs to merge.
    pub(super) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // A full queue holds the same request already.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    table: Table,
    health: Arc<Health>,
    stopping: Arc<AtomicBool>,
}

impl Worker {
    fn run(&self, woken: &Receiver<()>) {
        while woken.recv().is_ok() {
            if self.health.has_failed() {
                continue;
            }
            // The tree panics on some kinds of damaged files.
            let merged = catch_unwind(AssertUnwindSafe(|| self.merge_all()))
                .unwrap_or_else(|_| Err("the table gave up merging its files".to_owned()));
            if let Err(error) = merged {
                self.health.fail(&error);
            }
        }
    }

    /// Merges step by step, until no step is left or the store closes.
    fn merge_all(&self) -> Result<(), String> {
        while !self.stopping.load(Ordering::Relaxed) {
            match self.table.compact().map_err(io_error) {
                Ok(true) => self.health.has_descriptors(),
                Ok(false) => break,
                Err(error) if lacks_descriptors(&error) => {
                    self.health.wait_for_descriptors(&error);
                    continue;
                }
                // The merge begins anew when the files are back, or ends with the process.
                Err(_) if self.health.left_lately() => std::thread::sleep(PAUSE),
                Err(error) => return Err(format!("merging the table's files: {error}")),
            }
            failpoint::point(Point::AfterCompaction);
        }
        Ok(())
    }
}
