//! The embedded store: a directory on this machine, durable, with one writer.
//!
//! This file is the asking side: it opens the store, writes records down and queues changes.
//!
//! ```text
//! swap ──▶ queue ──▶ writer ──▶ log (one sync) ──▶ answers
//!                      │  └────▶ recent ──fold──▶ table, later, on a thread of its own
//! get ───────────────────────▶ recent, else table
//! list ──▶ queue ──▶ all is folded ─────────────▶ table
//! ```
//!
//! `writer` compares and writes, `log` makes durable, `answers` go back, `recent` is what the table has not yet, `fold`
//! brings it there, many at once by `sorted`, `absent` knows what is nowhere, `engine` knows the table's layout. `open` decides whether a directory is a store,
//! `journal` tells a torn tail of the table's from lost data, `replay` brings the table up to the log,
//! `disk` is what may fail, `inspect` serves the command line. What the records mean is not known
//! here; see `docs/store.md` for operators.

mod checkpoint;
mod disk;
mod error;
mod id_filter;
mod ingest;
mod inspect;
mod journal;
mod memtable;
mod open;
mod recovery;
mod replies;
mod table;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

pub use self::disk::FREE_SPACE_MARGIN;
pub use self::error::OpenError;
pub use self::inspect::{StoreInfo, VerifyProgress, VerifyReport, info, init, verify};
pub use self::open::{DirectoryOptions, NAMED, Recovered};

use self::checkpoint::Checkpoints;
use self::disk::{Disk, FileSystem, Space};
use self::id_filter::{FilterSizes, IdFilter};
use self::memtable::Memtable;
use self::replies::ReplyTask;
use self::table::{EncodedRecord, Table, decode};
use self::writer::{EncodedChange, Health, SwapRequest, Writer, WriterMessage};
use super::codec::{Codec, Head};
use super::{Change, Identity, Query, Store, StoreError, StoreFuture, Swap};
use crate::clock::{self, Timestamp};
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId};

/// Compare-and-swaps that may wait for the writer; the next ones wait for a place.
const QUEUE: usize = 4096;
/// How long a compare-and-swap waits for its result. A disk that takes longer is as good as gone;
/// the change may still be made, as the port's error says.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long closing waits for the writer; longer only when the disk hangs.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// An open store. Closing it, by dropping it, writes what is queued and unlocks the directory.
pub struct Embedded {
    identity: Identity,
    owner: Nonce,
    codec: Codec,
    engine: Option<Table>,
    recent: Arc<Memtable>,
    shared: Arc<Health>,
    queue: Option<mpsc::Sender<WriterMessage>>,
    answers: ReplyTask,
    writer: Option<JoinHandle<()>>,
    /// Says that the writer has ended.
    ended: Mutex<std::sync::mpsc::Receiver<()>>,
    /// Unlocks when dropped, after everything else.
    _lock: File,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Opens the store, and makes what was in flight unknown before anyone sees it.
    ///
    /// Blocks for as long as the disk takes; call it before serving.
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
        let path = options.path.clone();
        let opened = open::open(options, &*disk)?;
        let engine = opened.engine;
        let recovered = open::recover(&engine, &*disk, clock::now());
        let relieved = engine.relieve(checkpoint::STAGED as u64).map_err(StoreError::Unavailable);
        let recovered = recovered.and_then(|recovered| relieved.map(|()| recovered));
        let recovered = recovered.map_err(|error| OpenError::Unwritable {
            path: path.clone(),
            error: io::Error::other(error.to_string()),
        })?;
        let shared = Arc::new(Health { space, path: path.clone(), failed: OnceLock::new() });
        let (queue, requests) = mpsc::channel(QUEUE);
        let (answers, hand_out) = replies::replies();
        let recent = Arc::new(Memtable::default());
        let folding = Checkpoints::start(
            engine.clone(),
            disk.clone(),
            recent.clone(),
            shared.clone(),
            opened.log.last(),
        );
        let unwritable = |error| OpenError::Unwritable { path: path.clone(), error };
        let absent = IdFilter::new(engine.clone(), recent.clone(), ids);
        let writer = Writer {
            engine: engine.clone(),
            disk,
            shared: shared.clone(),
            queue: requests,
            answers,
            folding: folding.map_err(unwritable)?,
            log: opened.log,
            recent: recent.clone(),
            absent,
            pending: writer::PendingChanges::default(),
        };
        let (end, ended) = std::sync::mpsc::sync_channel(1);
        let writer =
            std::thread::Builder::new().name("oncegate-store".to_owned()).spawn(move || {
                writer.run();
                let _ = end.send(());
            });
        let writer = writer.map_err(unwritable)?;
        let store = Self {
            identity: opened.identity,
            owner: *uuid::Uuid::new_v4().as_bytes(),
            codec: options.codec.clone(),
            engine: Some(engine),
            recent,
            shared,
            queue: Some(queue),
            answers: hand_out,
            writer: Some(writer),
            ended: Mutex::new(ended),
            _lock: opened.lock,
        };
        Ok((Arc::new(store), Recovered { created: opened.created, ..recovered }))
    }

    fn engine(&self) -> Result<&Table, StoreError> {
        self.engine.as_ref().ok_or_else(closed)
    }

    /// The record with this id, as it is durable.
    fn read(&self, id: &RecordId) -> Result<Option<Record>, StoreError> {
        match self.recent.get(id, |now| now.cloned()) {
            Some(after) => after.map(|written| decode(&self.codec, id, &written.bytes)).transpose(),
            None => self.engine()?.get(id),
        }
    }

    /// Waits until all that was changed so far is in the table.
    async fn folded(&self) -> Result<(), StoreError> {
        let (answer, folded) = oneshot::channel();
        let folding = async {
            self.queue()?.send(WriterMessage::Checkpoint(answer)).await.map_err(|_| closed())?;
            folded.await.unwrap_or_else(|_| Err(self.shared.failure().unwrap_or_else(closed)))
        };
        tokio::time::timeout(PATIENCE, folding).await.unwrap_or_else(|_| Err(too_slow()))
    }

    fn queue(&self) -> Result<&mpsc::Sender<WriterMessage>, StoreError> {
        match (&self.queue, self.shared.failure()) {
            (_, Some(error)) => Err(error),
            (Some(queue), None) if !queue.is_closed() => Ok(queue),
            (Some(_) | None, None) => Err(closed()),
        }
    }
}

impl Store for Embedded {
    fn get(&self, id: RecordId) -> StoreFuture<'_, Option<Record>> {
        // On the caller's thread: one look into memory tables, filters and mostly cached blocks.
        Box::pin(async move { self.read(&id) })
    }

    fn get_many<'a>(&'a self, ids: &'a [RecordId]) -> StoreFuture<'a, Vec<Option<Record>>> {
        Box::pin(async move { ids.iter().map(|id| self.read(id)).collect() })
    }

    /// The change is queued before this returns, unless the queue is full: from then on it is made
    /// even if the future is dropped.
    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap> {
        self.answers.run();
        let (answer, result) = oneshot::channel();
        let request =
            WriterMessage::Swap(SwapRequest { changes: planned(&self.codec, &changes), answer });
        let queued = match self.queue() {
            Err(error) => Err(error),
            Ok(queue) => match queue.try_send(request) {
                Ok(()) => Ok(None),
                Err(mpsc::error::TrySendError::Full(request)) => Ok(Some((queue, request))),
                Err(mpsc::error::TrySendError::Closed(_)) => Err(closed()),
            },
        };
        Box::pin(async move {
            let answered = async {
                if let Some((queue, request)) = queued? {
                    queue.send(request).await.map_err(|_| closed())?;
                }
                result.await.unwrap_or_else(|_| Err(self.shared.failure().unwrap_or_else(closed)))
            };
            tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(|_| Err(too_slow()))
        })
    }

    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>> {
        Box::pin(async move {
            let engine = self.engine()?.clone();
            if query.abandoned {
                // What other processes had in flight became unknown when this one opened it.
                return Ok(Vec::new());
            }
            self.folded().await?;
            // A page may read many blocks from the disk: not on a thread that serves requests.
            let page = tokio::task::spawn_blocking(move || engine.list(&query)).await;
            page.unwrap_or_else(|_| {
                Err(StoreError::Unavailable("a listing failed; see the log".to_owned()))
            })
        })
    }

    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn owner(&self) -> Nonce {
        self.owner
    }

    fn ready(&self) -> Result<(), StoreError> {
        self.queue()?;
        self.shared.no_room().map_or(Ok(()), Err)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Without a sender the writer writes what is queued, and ends.
        drop(self.queue.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        match ended.recv_timeout(CLOSE_WITHIN) {
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                tracing::error!("the disk does not answer; closing without waiting for it");
                // Dropping the engine would wait for the same disk.
                std::mem::forget(self.engine.take());
            }
            Ok(()) | Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                if let Some(writer) = self.writer.take() {
                    let _ = writer.join();
                }
                drop(self.engine.take());
            }
        }
    }
}

/// Writes the records of all changes down, one behind the other: they live about equally long, and
/// one piece of memory is handed to the writer's thread instead of many.
fn planned(codec: &Codec, changes: &[Change]) -> Vec<EncodedChange> {
    let puts = changes.iter().filter_map(|change| change.put.as_deref());
    let mut bytes = Vec::with_capacity(puts.map(|record| codec.size_hint(record)).sum());
    let ends: Vec<usize> = changes
        .iter()
        .map(|change| {
            if let Some(record) = &change.put {
                codec.encode_into(&mut bytes, &change.id, record);
            }
            bytes.len()
        })
        .collect();
    let bytes = Bytes::from(bytes);
    let mut start = 0;
    let written = changes.iter().zip(ends).map(|(change, end)| {
        let put = change
            .put
            .as_ref()
            .map(|record| EncodedRecord { bytes: bytes.slice(start..end), head: Head::of(record) });
        start = end;
        EncodedChange { id: change.id, expect: change.expect, put }
    });
    written.collect()
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed; restart oncegate".to_owned())
}

fn too_slow() -> StoreError {
    let seconds = PATIENCE.as_secs();
    StoreError::Unavailable(format!("the disk did not answer within {seconds} s; check it"))
}
