//! Batching of reads: requests that arrive while earlier reads are in flight share one call.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::engine::{Engine, EngineError};
use crate::idempotency::RecordId;
use crate::shutdown::Shutdown;

/// Limit of queued requests; further requests wait for room in the queue.
const QUEUE: usize = 4096;
/// Number of concurrent reads.
const READERS: usize = 2;
/// Limit of requests in one batch.
const BATCH: usize = 256;

/// Limit of ids in one call to the engine.
const CHUNK: usize = 4096;
/// Number of attempts while the connection fails, and the pause between two attempts.
const ATTEMPTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(50);

/// Encoded record; `None` if absent.
type RecordBytes = Option<Vec<u8>>;

/// Queue of the requests to read.
pub(super) struct ReadQueue(mpsc::Sender<ReadRequest>);

/// Ids for a caller, and the channel for the reply.
struct ReadRequest {
    ids: Vec<RecordId>,
    reply: oneshot::Sender<Result<Vec<RecordBytes>, String>>,
}

impl ReadQueue {
    /// Starts the reading tasks, which run until shutdown.
    pub(super) fn start<E: Engine>(
        engine: &Arc<E>,
        tasks: &TaskTracker,
        shutdown: &Shutdown,
    ) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..READERS {
            tasks.spawn(run_reader(engine.clone(), queue.clone(), shutdown.clone()));
        }
        Self(sender)
    }

    /// Bytes of the records with these ids, in the order of the ids. The caller bounds the wait.
    pub(super) async fn read(&self, ids: Vec<RecordId>) -> Result<Vec<RecordBytes>, String> {
        let closed = || "the store is closed".to_owned();
        let (reply, result) = oneshot::channel();
        self.0.send(ReadRequest { ids, reply }).await.map_err(|_| closed())?;
        result.await.unwrap_or_else(|_| Err(closed()))
    }
}

async fn run_reader<E: Engine>(
    engine: Arc<E>,
    queue: Arc<Mutex<mpsc::Receiver<ReadRequest>>>,
    mut shutdown: Shutdown,
) {
    let mut batch = Vec::new();
    loop {
        let receive = async { queue.lock().await.recv_many(&mut batch, BATCH).await };
        tokio::select! {
            count = receive => if count == 0 { return },
            () = shutdown.wait() => return,
        }
        // Callers that stopped waiting need no answer.
        batch.retain(|request| !request.reply.is_closed());
        if !batch.is_empty() {
            serve(&*engine, std::mem::take(&mut batch)).await;
        }
    }
}

/// Reads in chunks that a server accepts in one call.
async fn read_chunks<E: Engine>(
    engine: &E,
    ids: &[RecordId],
) -> Result<Vec<RecordBytes>, EngineError> {
    let mut records = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        records.append(&mut engine.read(chunk).await?);
    }
    Ok(records)
}

async fn serve<E: Engine>(engine: &E, batch: Vec<ReadRequest>) {
    let ids: Vec<RecordId> = batch.iter().flat_map(|request| request.ids.iter().copied()).collect();
    let mut result = Err(String::new());
    for _ in 0..ATTEMPTS {
        result = match read_chunks(engine, &ids).await {
            Ok(records) if records.len() == ids.len() => Ok(records),
            Ok(_) => Err("the store answered with a wrong number of records".to_owned()),
            Err(error) => Err(error.reason().to_owned()),
        };
        if result.is_ok() || batch.iter().all(|request| request.reply.is_closed()) {
            break;
        }
        sleep(PAUSE).await;
    }
    let mut result = result.map(Vec::into_iter);
    for request in batch {
        let reply = match &mut result {
            Ok(records) => Ok(records.by_ref().take(request.ids.len()).collect()),
            Err(reason) => Err(reason.clone()),
        };
        // An error means a caller that stopped waiting.
        let _ = request.reply.send(reply);
    }
}
