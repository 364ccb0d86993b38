//! The embedded store: a directory on this machine, durable, with one writer.
//!
//! This file is the requesting side: opening the store, encoding records, queueing swaps, reading.
//!
//! ```text
//! swap ──▶ queue ──▶ writer ──▶ log (one sync) ──▶ replies
//!                      │  └────▶ memtable ──checkpoint──▶ table ◀── compaction
//! get ───────────────────────▶ memtable, else table
//! list ──────────────────────▶ memtable and table, merged
//! ```
//!
//! | file | task |
//! |---|---|
//! | `writer` | compares, writes and replies, on its own thread |
//! | `wal` | write-ahead log: frames in two files |
//! | `memtable`, `expiry` | records newer than in the table |
//! | `checkpoint`, `ingest` | move the memtable's records into the table |
//! | `table`, `layout`, `compaction` | the tree on disk, its keys, the merging of its files |
//! | `listing` | pages of records |
//! | `id_filter` | ids certainly absent from the store |
//! | `open`, `recovery`, `interrupted` | opening, and recovery from a crash |
//! | `read` | reads of single records, repeated while descriptors are lacking |
//! | `names` | names under which keys are kept |
//! | `directory` | locks, and the look at whether the files are in place |
//! | `disk`, `health` | fallible operations, and the state after a failure |
//! | `inspect` | the command line's view |
//!
//! The meaning of records is defined in `idempotency`. For operators: `docs/store.md`.

mod checkpoint;
mod clock;
mod compaction;
mod directory;
mod disk;
mod error;
mod expiry;
mod health;
mod id_filter;
mod ingest;
mod inspect;
mod interrupted;
mod layout;
mod listing;
mod memtable;
mod names;
mod open;
mod read;
mod recovery;
mod replies;
mod rotation;
mod table;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use self::disk::FREE_SPACE_MARGIN;
pub use self::error::OpenError;
pub use self::inspect::{StoreInfo, VerifyProgress, VerifyReport, info, init, is_store, verify};
pub use self::interrupted::Recovered;
pub use self::open::DirectoryOptions;
pub use self::rotation::rotate;

use self::checkpoint::{Checkpointer, Checkpoints};
use self::clock::StoreClock;
use self::compaction::Compactor;
use self::directory::LogPlace;
use self::disk::{Disk, FileSystem, Space};
use self::health::Health;
use self::id_filter::{FilterSizes, IdFilter};
use self::layout::decode;
use self::memtable::Memtable;
use self::names::NamesFile;
use self::open::OpenedStore;
use self::read::{RecordReadError, repeated};
use self::replies::ReplyTask;
use self::table::Table;
use self::writer::{PendingChanges, StoreWriter, SwapRequest, encoded};
use super::{
    Change, Identity, NamesDocument, Query, Store, StoreError, StoreFuture, Swap, sealed_names,
};
use crate::clock::Timestamp;
use crate::idempotency::id::IdScheme;
use crate::idempotency::record::Nonce;
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::{Record, RecordId};

/// Maximum number of compare-and-swaps in the writer's queue; further ones wait for capacity.
const QUEUE: usize = 4096;
/// Longest wait for the result of a compare-and-swap. A slower disk counts as failed; the change
/// may still take effect, as stated by the error of the port.
const SWAP_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for the store's threads when it closes; exceeded only when the disk hangs or a
/// merge of files is long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// An open store. A drop writes the queued changes and unlocks the directory.
pub struct Embedded {
    identity: Identity,
    owner: Nonce,
    table: Table,
    memtable: Arc<Memtable>,
    health: Arc<Health>,
    names: Arc<NamesFile>,
    clock: Arc<StoreClock>,
    queue: Option<mpsc::Sender<SwapRequest>>,
    replies: ReplyTask,
    writer: Option<JoinHandle<()>>,
    /// Receives a message at the end of the writer and its threads.
    ended: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Opens the store, and marks interrupted calls as unknown before any read.
    ///
    /// Blocks for the duration of the disk operations; call before serving.
    ///
    /// # Errors
    /// When the directory is not a store, is in use, cannot be written or is damaged.
    pub fn open(options: &DirectoryOptions) -> Result<(Arc<Self>, Recovered), OpenError> {
        let disk = Arc::new(FileSystem { dir: options.path.clone() });
        Self::open_on(options, disk.clone(), Space::new(disk), id_filter::SIZES)
    }

    fn open_on(
        options: &DirectoryOptions,
        disk: Arc<dyn Disk>,
        space: Space,
        ids: FilterSizes,
    ) -> Result<(Arc<Self>, Recovered), OpenError> {
        let path = &options.path;
        let unwritable = |error| OpenError::Unwritable { path: path.clone(), error };
        let OpenedStore { table, wal, identity, created } = open::open(options, &*disk)?;
        let damaged = |reason| OpenError::Damaged { path: path.clone(), reason };
        let marker = table.marker().map_err(damaged)?;
        let clock = Arc::new(StoreClock::start(marker.clock, identity.created));
        let recovered = interrupted::lose_in_flight(&table, &*disk, &clock);
        let recovered =
            recovered.map_err(|error| unwritable(io::Error::other(error.to_string())))?;
        let log = LogPlace::find(&open::log(path)).map_err(unwritable)?;
        let health = Arc::new(Health::new(space, path.clone(), log));
        let memtable = Arc::new(Memtable::default());
        let compactor = Compactor::start(table.clone(), health.clone());
        let checkpointer = Checkpointer {
            table: table.clone(),
            disk: disk.clone(),
            memtable: memtable.clone(),
            health: health.clone(),
            clock: clock.clone(),
            compactor: compactor.map_err(unwritable)?,
        };
        let checkpoints = Checkpoints::start(checkpointer, wal.last()).map_err(unwritable)?;
        let (queue, requests) = mpsc::channel(QUEUE);
        let (replies, reply_task) = replies::replies();
        let writer = StoreWriter {
            table: table.clone(),
            disk,
            health: health.clone(),
            queue: requests,
            replies,
            wal,
            memtable: memtable.clone(),
            id_filter: IdFilter::new(table.clone(), memtable.clone(), ids),
            checkpoints,
            pending: PendingChanges::default(),
        };
        let (end, ended) = std::sync::mpsc::sync_channel(1);
        let writer =
            std::thread::Builder::new().name("oncegate-store".to_owned()).spawn(move || {
                let health = writer.health.clone();
                if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                    health.fail("its writer ended by a defect");
                }
                let _ = end.send(());
            });
        let names = Arc::new(NamesFile::new(open::data(path), identity.store_id));
        let store = Self {
            identity,
            names,
            owner: *uuid::Uuid::new_v4().as_bytes(),
            table,
            memtable,
            health,
            clock,
            queue: Some(queue),
            replies: reply_task,
            writer: Some(writer.map_err(unwritable)?),
            ended: Mutex::new(ended),
        };
        Ok((Arc::new(store), Recovered { created, ..recovered }))
    }

    /// Durable state of the record with the given id.
    fn read(&self, id: &RecordId) -> Result<Option<Record>, RecordReadError> {
        let Some(current) = self.memtable.get(id, |current| current.cloned()) else {
            return self.table.get(id);
        };
        let decoded = current.map(|encoded| decode(&self.table.codec, id, &encoded.bytes));
        Ok(decoded.transpose()?)
    }

    fn queue(&self) -> Result<&mpsc::Sender<SwapRequest>, StoreError> {
        match (&self.queue, self.health.failure()) {
            (_, Some(error)) => Err(error),
            (Some(queue), None) if !queue.is_closed() => Ok(queue),
            (Some(_) | None, None) => Err(closed()),
        }
    }

    /// Error of a change without a result after [`SWAP_TIMEOUT`].
    fn too_slow(&self) -> StoreError {
        let seconds = SWAP_TIMEOUT.as_secs();
        StoreError::Unavailable(match self.health.lacks_descriptors() {
            true => format!(
                "no file could be opened for {seconds} s, because too many are open; raise the \
                 limit of open files, or allow fewer connections"
            ),
            false => format!("the disk did not answer within {seconds} s; check it"),
        })
    }
}

impl Store for Embedded {
    fn get(&self, id: RecordId) -> StoreFuture<'_, Option<Record>> {
        // On the caller's thread: a lookup in the memtable and filters, and mostly cached blocks.
        Box::pin(async move { repeated(|| self.read(&id)).await })
    }

    fn get_many<'a>(&'a self, ids: &'a [RecordId]) -> StoreFuture<'a, Vec<Option<Record>>> {
        Box::pin(async move {
            repeated(|| ids.iter().map(|id| self.read(id)).collect::<Result<_, _>>()).await
        })
    }

    /// The change is queued before the return, unless the queue is full. A queued change is made
    /// even if the future is dropped.
    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap> {
        self.replies.run();
        for record in changes.iter().filter_map(|change| change.put.as_deref()) {
            self.clock.observe(record);
        }
        let (reply, result) = oneshot::channel();
        let request = SwapRequest { changes: encoded(&self.table.codec, &changes), reply };
        let queued = match self.queue() {
            Err(error) => Err(error),
            Ok(queue) => match queue.try_send(request) {
                Ok(()) => Ok(None),
                Err(mpsc::error::TrySendError::Full(request)) => Ok(Some((queue, request))),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(closed()),
            },
        };
        Box::pin(async move {
            let swapped = async {
                if let Some((queue, request)) = queued? {
                    queue.send(request).await.map_err(|_| closed())?;
                }
                result.await.unwrap_or_else(|_| Err(self.health.failure().unwrap_or_else(closed)))
            };
            tokio::time::timeout(SWAP_TIMEOUT, swapped)
                .await
                .unwrap_or_else(|_| Err(self.too_slow()))
        })
    }

    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>> {
        Box::pin(async move {
            if query.abandoned {
                // Calls in flight of earlier processes became unknown when the store was opened.
                return Ok(Vec::new());
            }
            // A failed store may not list records of unfinished changes.
            self.queue()?;
            let (table, memtable) = (self.table.clone(), self.memtable.clone());
            // A page may read many blocks from disk, so the read is kept off the threads serving
            // requests.
            let page =
                tokio::task::spawn_blocking(move || listing::list(&table, &memtable, &query)).await;
            page.unwrap_or_else(|_| {
                Err(StoreError::Unavailable("a listing failed; see the log".to_owned()))
            })
        })
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn expiry_time(&self) -> ExpiryTime {
        self.clock.expiry_time()
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn ids(&self) -> &IdScheme {
        self.table.codec.ids()
    }

    fn owner(&self) -> Nonce {
        self.owner
    }

    fn names(&self) -> StoreFuture<'_, Option<NamesDocument>> {
        let names = self.names.clone();
        blocking(move || Ok(names.read()?.map(sealed_names::names_of)))
    }

    fn swap_names(&self, expect: Option<u64>, bytes: Vec<u8>) -> StoreFuture<'_, bool> {
        let names = self.names.clone();
        blocking(move || {
            let bytes = sealed_names::with_seal_of(names.read()?.as_ref(), &bytes);
            names.replace(expect, &bytes)
        })
    }

    fn ready(&self) -> Result<(), StoreError> {
        self.queue()?;
        self.health.left().or_else(|| self.health.no_room()).map_or(Ok(()), Err)
    }

    fn failure(&self) -> Option<StoreError> {
        self.health.failure()
    }

    fn failed(&self) -> Pin<Box<dyn Future<Output = StoreError> + Send + '_>> {
        Box::pin(self.health.failed())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Without a sender the writer writes the queued changes and ends.
        drop(self.queue.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        match ended.recv_timeout(CLOSE_TIMEOUT) {
            // The threads keep the directory locked until their end or the end of the process.
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => tracing::error!(
                "closing the store takes more than {} s; not waiting any longer",
                CLOSE_TIMEOUT.as_secs()
            ),
            Ok(()) | Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                if let Some(writer) = self.writer.take() {
                    let _ = writer.join();
                }
            }
        }
    }
}

/// Runs work that waits for the disk on a thread that serves no requests.
fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> StoreFuture<'static, T> {
    Box::pin(async move {
        let failed = || StoreError::Unavailable("reading the disk failed; see the log".to_owned());
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(failed()))
    })
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed; restart oncegate".to_owned())
}
