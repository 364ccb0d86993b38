//! A store that several processes share: the [`Store`] port on top of an [`Engine`].
//!
//! `engine` defines the trait of a server; the rest is the same for every server. `commits` queues
//! changes, batched by `batching`, and repeats changes without a result. `reads` batches reads,
//! `lease` keeps the lease and the store's time, and `notify` exchanges messages about records in
//! flight with the other processes.

mod batching;
mod commits;
pub(crate) mod engine;
mod lease;
pub(crate) mod message;
mod notify;
mod quarantine;
mod reads;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use self::commits::{CommitQueue, CommitReply};
use self::engine::{CasResult, Engine, EngineError, Group};
use self::lease::ReplicaLease;
use self::message::{EVERYONE, Message};
use self::notify::Notifier;
use self::quarantine::NewestRecord;
use self::reads::ReadQueue;
use super::codec::Codec;
use super::watch::Watch;
use super::{
    Change, Identity, NamesDocument, Query, Store, StoreError, StoreFuture, Swap, sealed_names,
};
use crate::clock::{self, Timestamp};
use crate::idempotency::id::IdScheme;
use crate::idempotency::record::Nonce;
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::{Record, RecordId};
use crate::shutdown::{self, Trigger};

/// Time limit of a listing, as a multiple of the time limit of a change.
const LISTING_FACTOR: u32 = 4;
/// Limit of received messages that are not applied yet.
const INBOX: usize = 1024;

/// Time limits of a shared store.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Time after which a change or a read counts as failed.
    pub timeout: Duration,
    /// Time since the last heartbeat after which a process counts as dead.
    pub lease: Duration,
}

/// A store on a server shared by several processes. Dropping the store ends the connections.
pub(crate) struct SharedStore<E: Engine> {
    engine: Arc<E>,
    identity: Identity,
    codec: Codec,
    timing: Timing,
    commits: Arc<CommitQueue>,
    reads: ReadQueue,
    lease: Arc<ReplicaLease>,
    notifier: Arc<Notifier>,
    /// Uptime until which nothing is deleted.
    quarantine: Option<Duration>,
    /// Stops the background tasks.
    stop: Trigger,
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
    /// Starts the background tasks on an opened engine. The lease of this process is valid when
    /// this function returns.
    ///
    /// # Errors
    /// When the first heartbeat fails.
    pub(crate) async fn start(
        engine: Arc<E>,
        identity: Identity,
        codec: Codec,
        timing: Timing,
    ) -> Result<Arc<Self>, String> {
        let owner = *uuid::Uuid::new_v4().as_bytes();
        let lease = Arc::new(ReplicaLease::new(owner, timing.lease));
        lease.renew(&*engine).await?;
        // Boxed: a listing is large, and all of a start would be.
        let newest = Box::pin(newest(&*engine, &codec, timing.timeout * LISTING_FACTOR)).await;
        let quarantine = quarantine::end(lease.now(), newest);
        let (stop, shutdown) = shutdown::channel();
        let tasks = TaskTracker::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let queue = Arc::new(CommitQueue::new(cores));
        for connection in 0..engine.connections() {
            let (engine, queue) = (engine.clone(), queue.clone());
            tasks.spawn(commits::run_connection(engine, queue, connection, shutdown.clone()));
        }
        let reads = ReadQueue::start(&engine, &tasks, &shutdown);
        let (notifier, outgoing) = Notifier::new(owner);
        let notifier = Arc::new(notifier);
        let (sender, inbox) = mpsc::channel(INBOX);
        tasks.spawn(notify::send(engine.clone(), outgoing, shutdown.clone()));
        tasks.spawn(notify::receive(notifier.clone(), inbox));
        tasks.spawn(engine.clone().listen(owner, sender, shutdown.clone()));
        tasks.spawn(lease.clone().run(engine.clone(), shutdown));
        Ok(Arc::new(Self {
            engine,
            identity,
            codec,
            timing,
            commits: queue,
            reads,
            lease,
            notifier,
            quarantine,
            stop,
        }))
    }

    async fn read(&self, ids: &[RecordId]) -> Result<Vec<Option<Record>>, StoreError> {
        let read = self.reads.read(ids.to_vec());
        let records = timeout(self.timing.timeout, read).await.unwrap_or_else(|_| Err(late()));
        let records = records.map_err(StoreError::Unavailable)?;
        ids.iter().zip(records).map(|(id, bytes)| self.decode(*id, bytes)).collect()
    }

    /// A record of a listing; `None`: it is corrupt.
    fn sound(&self, id: RecordId, bytes: &[u8]) -> Option<(RecordId, Record)> {
        match self.codec.decode(&id, bytes) {
            Ok(record) => Some((id, record)),
            Err(error) => {
                tracing::error!(
                    record = ?id,
                    %error,
                    "a record is corrupt and was left out of a listing; its key stays held"
                );
                None
            }
        }
    }

    fn decode(&self, id: RecordId, bytes: Option<Vec<u8>>) -> Result<Option<Record>, StoreError> {
        let record = bytes.map(|bytes| self.codec.decode(&id, &bytes)).transpose();
        record.map_err(|error| StoreError::Corrupt { id, reason: error.to_string() })
    }

    /// Registers the records that the changes put in flight, before the server can show them to
    /// other processes.
    fn register(&self, changes: &[Change]) -> Vec<RegisteredChange> {
        let register = |change: &Change| {
            let begins = change.put.as_ref().is_some_and(|record| record.is_in_flight());
            if begins {
                self.notifier.began(change.id);
            }
            RegisteredChange { id: change.id, begins }
        };
        changes.iter().map(register).collect()
    }

    /// Waits for the result of a queued group and notifies the waiters of its records.
    async fn await_result(
        &self,
        queued: Result<oneshot::Receiver<CommitReply>, String>,
        changes: Vec<RegisteredChange>,
        deadline: Instant,
    ) -> Result<Swap, StoreError> {
        let result = match queued {
            Ok(result) => timeout_at(deadline, result).await,
            Err(reason) => return Err(StoreError::Unavailable(reason)),
        };
        let reply = match result {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => Err("the store is closed".to_owned()),
            // The cause of the failed attempts says more than the timeout.
            Err(_) => Err(self.commits.failure(self.timing.timeout).unwrap_or_else(late)),
        };
        match reply.map_err(StoreError::Unavailable)? {
            CasResult::Done => {
                for change in changes.iter().filter(|change| !change.begins) {
                    self.notifier.ended(change.id);
                }
                Ok(Swap::Done)
            }
            CasResult::Lost { index, winner } => {
                // Notifies the processes that wait for this process to look at the winner.
                changes.iter().for_each(|change| self.notifier.ended(change.id));
                let id = changes.get(index).map(|change| change.id);
                let id = id.ok_or_else(|| {
                    StoreError::Unavailable(
                        "the store rejected a change it was not sent".to_owned(),
                    )
                })?;
                Ok(Swap::Lost { index, winner: self.decode(id, winner)?.map(Box::new) })
            }
        }
    }
}

/// A change of a swap whose record is registered with the notifier.
struct RegisteredChange {
    id: RecordId,
    /// True if the change puts a record of this process in flight.
    begins: bool,
}

impl<E: Engine> Store for SharedStore<E> {
    fn get(&self, id: RecordId) -> StoreFuture<'_, Option<Record>> {
        Box::pin(async move { Ok(self.read(&[id]).await?.pop().flatten()) })
    }

    fn get_many<'a>(&'a self, ids: &'a [RecordId]) -> StoreFuture<'a, Vec<Option<Record>>> {
        Box::pin(self.read(ids))
    }

    /// Queues the changes before the future is returned, so dropping the future does not cancel
    /// them.
    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap> {
        if changes.is_empty() {
            return Box::pin(async { Ok(Swap::Done) });
        }
        let deadline = Instant::now() + self.timing.timeout;
        let registered = self.register(&changes);
        let group = Group::of(&self.codec, changes);
        let queued = if group.claims() && !self.lease.is_valid() {
            Err(self.lease.expiry_reason())
        } else {
            self.commits.push(group, deadline)
        };
        Box::pin(self.await_result(queued, registered, deadline))
    }

    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>> {
        Box::pin(async move {
            let limit = self.timing.timeout * LISTING_FACTOR;
            let mut query = query;
            let (wanted, mut page) = (query.limit, Vec::new());
            loop {
                let listed = bounded(limit, self.engine.list(&query)).await?;
                let may_have_more = listed.len() == query.limit && query.expired_at.is_none();
                query.after = listed.last().map(|(at, _)| *at);
                page.extend(listed.into_iter().filter_map(|(at, bytes)| self.sound(at.id, &bytes)));
                // Corrupt records were left out: others take their places.
                if !may_have_more || page.len() == wanted {
                    return Ok(page);
                }
                query.limit = wanted - page.len();
            }
        })
    }

    fn now(&self) -> Timestamp {
        self.lease.now()
    }

    fn expiry_time(&self) -> ExpiryTime {
        let deletes = self.quarantine.is_none_or(|end| clock::uptime() >= end);
        ExpiryTime { at: self.lease.expiry_time(), deletes }
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn ids(&self) -> &IdScheme {
        self.codec.ids()
    }

    fn owner(&self) -> Nonce {
        self.lease.owner
    }

    fn names(&self) -> StoreFuture<'_, Option<NamesDocument>> {
        Box::pin(async move {
            let stored = bounded(self.timing.timeout, self.engine.names()).await?;
            Ok(stored.map(sealed_names::names_of))
        })
    }

    fn swap_names(&self, expect: Option<u64>, bytes: Vec<u8>) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let stored = bounded(self.timing.timeout, self.engine.names()).await?;
            let bytes = sealed_names::with_seal_of(stored.as_ref(), &bytes);
            bounded(self.timing.timeout, self.engine.swap_names(expect, &bytes)).await
        })
    }

    fn live_owners<'a>(&'a self, owners: &'a [Nonce]) -> StoreFuture<'a, Vec<Nonce>> {
        Box::pin(async move {
            if owners.is_empty() {
                return Ok(Vec::new());
            }
            bounded(self.timing.timeout, self.engine.live_owners(owners)).await
        })
    }

    fn ready(&self) -> Result<(), StoreError> {
        // A failed heartbeat comes long before the end of the lease, and has the same cause.
        match self.lease.failure().or_else(|| self.lease.read_failure()) {
            Some(failure) => Err(StoreError::Unavailable(failure)),
            None if self.lease.is_valid() => Ok(()),
            None => Err(StoreError::Unavailable(self.lease.expiry_reason())),
        }
    }

    fn epoch(&self) -> Option<u64> {
        self.lease.epoch()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn watch(&self, id: RecordId, owner: Nonce) -> Watch {
        self.notifier.watch(id, owner)
    }

    fn announce(&self, id: RecordId) -> StoreFuture<'_, ()> {
        let message = vec![(EVERYONE, Message::Replaced { id })];
        Box::pin(bounded(self.timing.timeout, self.engine.publish(message)))
    }

    fn announced(&self) -> Option<broadcast::Receiver<RecordId>> {
        Some(self.notifier.replaced())
    }

    fn leave(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.stop.fire();
            self.lease.end();
            bounded(self.timing.timeout, self.engine.leave(self.lease.owner)).await
        })
    }
}

impl<E: Engine> Drop for SharedStore<E> {
    fn drop(&mut self) {
        self.stop.fire();
    }
}

/// Newest time in the record that was claimed last.
async fn newest<E: Engine>(engine: &E, codec: &Codec, limit: Duration) -> NewestRecord {
    let query = Query { limit: 1, ..Query::default() };
    let listed = bounded(limit, engine.list(&query)).await;
    let Ok(listed) = listed else { return NewestRecord::Unknown };
    let Some((at, bytes)) = listed.first() else { return NewestRecord::Absent };
    let updated = codec.decode(&at.id, bytes).ok().map(|record| record.updated);
    NewestRecord::At(updated.map_or(at.first_seen, |updated| updated.max(at.first_seen)))
}

/// Runs a call to the engine with a time limit.
async fn bounded<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, StoreError> {
    let result = timeout(limit, call).await.unwrap_or_else(|_| Err(EngineError::Rejected(late())));
    result.map_err(|error| StoreError::Unavailable(error.reason().to_owned()))
}

fn late() -> String {
    "the store did not answer in time".to_owned()
}
