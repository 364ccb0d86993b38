//! A store that several processes share: the port on top of an [`Engine`].
//!
//! `engine` says what a server has to offer; the rest is the same for all servers: `commits` gathers
//! changes, for as long as `batching` says, and takes them there until they have a result, `reads` gathers
//! questions, `lease` keeps the lease and the store's time, `notify` wakes those who wait for another
//! process.

mod batching;
mod commits;
pub(crate) mod engine;
mod lease;
pub(crate) mod message;
mod notify;
mod reads;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use self::commits::Queue;
use self::engine::{CasResult, Engine, EngineError, Group, ListedRecord};
use self::lease::Life;
use self::message::{EVERYONE, Message};
use self::notify::Wake;
use self::reads::Reads;
use super::watch::Watch;
use super::{Change, Identity, Query, Store, StoreError, StoreFuture, Swap, codec};
use crate::clock::Timestamp;
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId};
use crate::shutdown::{self, Tasks, Trigger};

/// How long a listing may take, in units of what a change may take.
const LISTING: u32 = 4;
/// Messages of other processes that may wait to be heard.
const HEARD: usize = 1024;

/// What a shared store is asked to bear.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a change or a question may take until it counts as failed.
    pub patience: Duration,
    /// How long a process lives on after it was last heard of.
    pub lease: Duration,
}

/// A store on a server that other processes use as well. Dropping it ends its connections.
pub(crate) struct SharedStore<E: Engine> {
    engine: Arc<E>,
    identity: Identity,
    timing: Timing,
    queue: Arc<Queue>,
    reads: Reads,
    life: Arc<Life>,
    wake: Arc<Wake>,
    /// Ends the tasks.
    end: Trigger,
}

impl<E: Engine> std::fmt::Debug for SharedStore<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedStore")
            .field("engine", &self.engine)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl<E: Engine> SharedStore<E> {
    /// The port on a server that was found to be the right store. This process is alive in it when
    /// this returns.
    ///
    /// # Errors
    /// When it cannot be made known there.
    pub(crate) async fn start(
        engine: Arc<E>,
        identity: Identity,
        timing: Timing,
    ) -> Result<Arc<Self>, String> {
        let owner = *uuid::Uuid::new_v4().as_bytes();
        let life = Arc::new(Life::new(owner, timing.lease));
        life.heartbeat(&*engine).await?;
        let (end, ended) = shutdown::channel();
        let tasks = Tasks::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let queue = Arc::new(Queue::new(cores));
        for lane in 0..engine.connections() {
            tasks.spawn(commits::lane(engine.clone(), queue.clone(), lane, ended.clone()));
        }
        let reads = Reads::start(&engine, &tasks, &ended);
        let (wake, messages) = Wake::new(owner);
        let wake = Arc::new(wake);
        let (sink, heard) = mpsc::channel(HEARD);
        tasks.spawn(notify::send(engine.clone(), messages, ended.clone()));
        tasks.spawn(notify::hear(wake.clone(), heard));
        tasks.spawn(engine.clone().listen(owner, sink, ended.clone()));
        tasks.spawn(life.clone().run(engine.clone(), ended));
        Ok(Arc::new(Self { engine, identity, timing, queue, reads, life, wake, end }))
    }

    async fn read(&self, ids: &[RecordId]) -> Result<Vec<Option<Record>>, StoreError> {
        let read = self.reads.read(ids.to_vec());
        let found = timeout(self.timing.patience, read).await.unwrap_or_else(|_| Err(late()));
        let found = found.map_err(StoreError::Unavailable)?;
        ids.iter().zip(found).map(|(id, bytes)| decode_some(*id, bytes)).collect()
    }

    /// What this process has in flight is known before the store can tell anybody.
    fn announce(&self, changes: &[Change]) -> Vec<Step> {
        let step = |change: &Change| {
            let begins = change.put.as_ref().is_some_and(|record| record.is_in_flight());
            if begins {
                self.wake.began(change.id);
            }
            Step { id: change.id, begins }
        };
        changes.iter().map(step).collect()
    }

    async fn settle(
        &self,
        queued: Result<tokio::sync::oneshot::Receiver<commits::Answer>, String>,
        steps: Vec<Step>,
        until: Instant,
    ) -> Result<Swap, StoreError> {
        let result = match queued {
            Ok(result) => timeout_at(until, result).await,
            Err(reason) => return Err(StoreError::Unavailable(reason)),
        };
        let answer = match result {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("it is closed".to_owned()),
            // A lane that tries again knows more than that it took too long.
            Err(_) => Err(self.queue.trouble(self.timing.patience).unwrap_or_else(late)),
        };
        match answer.map_err(StoreError::Unavailable)? {
            CasResult::Done => {
                steps.iter().filter(|step| !step.begins).for_each(|step| self.wake.ended(step.id));
                Ok(Swap::Done)
            }
            CasResult::Lost { index, winner } => {
                // Whoever asked this process for them is told to look at the winner.
                steps.iter().for_each(|step| self.wake.ended(step.id));
                let id = steps.get(index).map(|step| step.id);
                let id = id.ok_or_else(|| StoreError::Unavailable("no such change".to_owned()))?;
                Ok(Swap::Lost { index, winner: decode_some(id, winner)?.map(Box::new) })
            }
        }
    }
}

/// One change of a swap.
struct Step {
    id: RecordId,
    /// Whether it puts a record of this process in flight.
    begins: bool,
}

impl<E: Engine> Store for SharedStore<E> {
    fn get(&self, id: RecordId) -> StoreFuture<'_, Option<Record>> {
        Box::pin(async move { Ok(self.read(&[id]).await?.pop().flatten()) })
    }

    fn get_many<'a>(&'a self, ids: &'a [RecordId]) -> StoreFuture<'a, Vec<Option<Record>>> {
        Box::pin(self.read(ids))
    }

    /// The changes are queued before this returns: from then on they are on their way even if the
    /// future is dropped.
    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap> {
        if changes.is_empty() {
            return Box::pin(async { Ok(Swap::Done) });
        }
        let until = Instant::now() + self.timing.patience;
        let steps = self.announce(&changes);
        let group = Group::of(changes);
        let queued = if group.claims() && !self.life.alive() {
            Err(self.life.why_not())
        } else {
            self.queue.push(group, until)
        };
        Box::pin(self.settle(queued, steps, until))
    }

    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>> {
        Box::pin(async move {
            let listed = timeout(self.timing.patience * LISTING, self.engine.list(&query)).await;
            let found: Vec<ListedRecord> = listed
                .unwrap_or_else(|_| Err(EngineError::Rejected(late())))
                .map_err(|trouble| StoreError::Unavailable(trouble.reason().to_owned()))?;
            let mut page = Vec::with_capacity(found.len());
            for (id, bytes) in found {
                match codec::decode(&id, &bytes) {
                    Ok(record) => page.push((id, record)),
                    Err(error) => {
                        let reason = error.to_string();
                        tracing::error!(record.id = ?id, reason, "a corrupt record was left out");
                    }
                }
            }
            Ok(page)
        })
    }

    fn now(&self) -> Timestamp {
        self.life.now()
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn owner(&self) -> Nonce {
        self.life.owner
    }

    fn ready(&self) -> Result<(), StoreError> {
        // A renewal that failed comes long before the end of the lease, and says the same.
        match self.life.trouble() {
            Some(trouble) => Err(StoreError::Unavailable(trouble)),
            None if self.life.alive() => Ok(()),
            None => Err(StoreError::Unavailable(self.life.why_not())),
        }
    }

    fn life(&self) -> Option<u64> {
        self.life.current()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn watch(&self, id: RecordId, owner: Nonce) -> Watch {
        self.wake.watch(id, owner)
    }

    fn announce(&self, id: RecordId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let message = vec![(EVERYONE, Message::Replaced { id })];
            let sent = timeout(self.timing.patience, self.engine.publish(message)).await;
            sent.unwrap_or_else(|_| Err(EngineError::Rejected(late())))
                .map_err(|trouble| StoreError::Unavailable(trouble.reason().to_owned()))
        })
    }

    fn announced(&self) -> Option<broadcast::Receiver<RecordId>> {
        Some(self.wake.announced())
    }

    fn leave(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.end.fire();
            self.life.end();
            let left = timeout(self.timing.patience, self.engine.leave(self.life.owner)).await;
            left.unwrap_or_else(|_| Err(EngineError::Rejected(late())))
                .map_err(|trouble| StoreError::Unavailable(trouble.reason().to_owned()))
        })
    }
}

impl<E: Engine> Drop for SharedStore<E> {
    fn drop(&mut self) {
        self.end.fire();
    }
}

fn late() -> String {
    "it did not answer in time".to_owned()
}

fn decode_some(id: RecordId, bytes: Option<Vec<u8>>) -> Result<Option<Record>, StoreError> {
    let decode = |bytes: Vec<u8>| codec::decode(&id, &bytes);
    let record = bytes.map(decode).transpose();
    record.map_err(|error| StoreError::Corrupt { id, reason: error.to_string() })
}
