//! Folding: what the log holds goes into the table, a little between frames, so that the log stays
//! short and nothing ever waits for all of it.
//!
//! A record that changes several times before its turn comes is put there once, as it is then; a
//! claim that is completed soon never reaches the table. When all that stands in a file of the log
//! has been folded, the table is made durable, then a mark in it that says up to which frame it
//! reaches, and the file may be written over. The mark is written after what it vouches for is
//! durable: where a mark stands in the engine's journal, all before it was.

use std::collections::VecDeque;
use std::collections::vec_deque::Drain;

use tokio::sync::oneshot;

use super::disk::Disk;
use super::engine::{Engine, stage};
use super::writer::Writer;
use crate::crash::{self, Point};
use crate::idempotency::RecordId;
use crate::store::StoreError;

/// Records put into the table at once while nothing else is to be done.
pub(super) const AT_ONCE: usize = 64;
/// Records put into the table between two frames, at least.
const BETWEEN: usize = 8;
/// Bytes after which a part takes no more.
const AT_ONCE_BYTES: usize = 1 << 20;
/// The key of the mark.
pub(super) const MARK: &[u8] = b"folded";

/// What is to be folded, in the order in which it came.
#[derive(Default)]
pub(super) struct Folding {
    /// Every record that is recent, once.
    ids: VecDeque<RecordId>,
    /// How many have left the queue, ever.
    gone: u64,
    /// How many came since some were last folded.
    grown: usize,
    /// The frame up to which the table reaches, by its mark.
    marked: u64,
    /// What happens when so many have.
    goals: VecDeque<(u64, Goal)>,
}

/// What waits for a part of the queue.
enum Goal {
    /// A file of the log that ends with this frame can be written over.
    Turn(u64),
    /// Somebody wants to list.
    Asked(oneshot::Sender<Result<(), StoreError>>),
}

impl Folding {
    /// For a table that reaches up to this frame.
    pub(super) fn new(marked: u64) -> Self {
        Self { marked, ..Self::default() }
    }

    /// A record became recent.
    pub(super) fn add(&mut self, id: RecordId) {
        self.ids.push_back(id);
        self.grown += 1;
    }

    /// Whether anything waits for folding to go on.
    pub(super) fn is_due(&self) -> bool {
        !self.goals.is_empty()
    }

    /// A goal that is reached when all that is queued now is folded.
    fn aim(&mut self, goal: Goal) {
        self.goals.push_back((self.gone + self.ids.len() as u64, goal));
    }

    fn take(&mut self, most: usize) -> Drain<'_, RecordId> {
        let count = most.min(self.ids.len());
        self.grown = 0;
        self.gone += count as u64;
        self.ids.drain(..count)
    }

    fn reached(&mut self) -> Option<Goal> {
        let reached = self.goals.front().is_some_and(|(at, _)| *at <= self.gone);
        reached.then(|| self.goals.pop_front()).flatten().map(|(_, goal)| goal)
    }

    fn turn_waits(&self) -> bool {
        self.goals.iter().any(|(_, goal)| matches!(goal, Goal::Turn(_)))
    }

    /// The store has failed: nothing is folded any more.
    pub(super) fn give_up(&mut self, failure: &StoreError) {
        for (_, goal) in self.goals.drain(..) {
            if let Goal::Asked(answer) = goal {
                let _ = answer.send(Err(failure.clone()));
            }
        }
    }
}

impl Writer {
    /// Folds for somebody who wants to list.
    pub(super) fn fold_for(&mut self, answer: oneshot::Sender<Result<(), StoreError>>) {
        match self.shared.failure() {
            Some(failure) => drop(answer.send(Err(failure))),
            None => self.folding.aim(Goal::Asked(answer)),
        }
    }

    /// The log goes on in its other file.
    pub(super) fn turn(&mut self) -> Result<(), String> {
        // Normally folded long ago.
        while self.folding.turn_waits() {
            self.fold_some(AT_ONCE)?;
        }
        self.folding.aim(Goal::Turn(self.log.last()));
        self.log.switch(&*self.disk).map_err(|error| error.to_string())?;
        crash::point(Point::AfterTurn);
        Ok(())
    }

    /// Folds a part between two frames: more than has come since the last one, so that it ends.
    pub(super) fn fold_between(&mut self) {
        if self.folding.is_due() {
            self.fold(BETWEEN.max(2 * self.folding.grown));
        }
    }

    /// Folds some records, or fails the store.
    pub(super) fn fold(&mut self, most: usize) {
        if let Err(error) = self.fold_some(most) {
            self.fail(&error);
        }
    }

    fn fold_some(&mut self, most: usize) -> Result<(), String> {
        let mut batch = self.engine.db.batch();
        let mut folded = Vec::with_capacity(most);
        let mut bytes = 0;
        while folded.len() < most && bytes < AT_ONCE_BYTES {
            let Some(id) = self.folding.take(1).next() else { break };
            self.recent.get(&id, |entry| {
                bytes += entry.after.as_ref().map_or(0, |written| written.bytes.len());
                if entry.stored.is_some() || entry.after.is_some() {
                    stage(&self.engine, &mut batch, &id, entry.stored, entry.after.clone());
                }
            });
            folded.push(id);
        }
        if !batch.is_empty() {
            self.disk.fold(batch)?;
            crash::point(Point::AfterFold);
        }
        for id in folded {
            self.recent.remove(&id);
        }
        while let Some(goal) = self.folding.reached() {
            match goal {
                Goal::Asked(answer) => drop(answer.send(Ok(()))),
                Goal::Turn(last) => {
                    mark(&self.engine, &*self.disk, last)?;
                    self.folding.marked = last;
                    self.engine.rotate()?;
                }
            }
        }
        Ok(())
    }

    /// At the end: a log that is folded whole need not be read at the next start.
    pub(super) fn fold_all(&mut self) {
        if self.shared.failed.get().is_some() || self.folding.marked == self.log.last() {
            return;
        }
        self.folding.aim(Goal::Turn(self.log.last()));
        while self.folding.is_due() {
            self.fold(AT_ONCE);
        }
    }
}

/// Makes the table durable, and then that it reaches up to this frame.
pub(super) fn mark(engine: &Engine, disk: &dyn Disk, last: u64) -> Result<(), String> {
    disk.persist(&engine.db)?;
    crash::point(Point::BeforeMark);
    let mut batch = engine.db.batch();
    batch.insert(&engine.meta, MARK, last.to_le_bytes());
    disk.fold(batch)?;
    disk.persist(&engine.db)?;
    crash::point(Point::AfterMark);
    Ok(())
}
