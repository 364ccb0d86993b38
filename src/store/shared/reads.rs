//! Questions that wait for the server. What arrives while the others are under way goes together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::sleep;

use super::engine::{Engine, EngineError};
use crate::idempotency::RecordId;
use crate::shutdown::{Shutdown, Tasks};

/// Questions that may wait; the next ones wait for a place.
const QUEUE: usize = 4096;
/// Questions under way at once.
const LANES: usize = 2;
/// Callers whose questions go together.
const TOGETHER: usize = 256;

/// Records in one question.
const AT_ONCE: usize = 4096;
/// How often a question is put again when a connection fails under it, and the pause between.
const TRIES: usize = 4;
const PAUSE: Duration = Duration::from_millis(50);

type Bytes = Option<Vec<u8>>;

/// The asking side.
pub(super) struct Reads(mpsc::Sender<Asked>);

/// A question that waits for its answer.
struct Asked {
    ids: Vec<RecordId>,
    answer: oneshot::Sender<Result<Vec<Bytes>, String>>,
}

impl Reads {
    /// Starts the lanes; they run until the end starts.
    pub(super) fn start<E: Engine>(engine: &Arc<E>, tasks: &Tasks, end: &Shutdown) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..LANES {
            tasks.spawn(lane(engine.clone(), queue.clone(), end.clone()));
        }
        Self(sender)
    }

    /// The bytes under these ids, in their order. The caller bounds the wait.
    pub(super) async fn read(&self, ids: Vec<RecordId>) -> Result<Vec<Bytes>, String> {
        let closed = || "it is closed".to_owned();
        let (answer, result) = oneshot::channel();
        self.0.send(Asked { ids, answer }).await.map_err(|_| closed())?;
        result.await.unwrap_or_else(|_| Err(closed()))
    }
}

async fn lane<E: Engine>(
    engine: Arc<E>,
    queue: Arc<Mutex<mpsc::Receiver<Asked>>>,
    mut end: Shutdown,
) {
    let mut batch = Vec::new();
    loop {
        let take = async { queue.lock().await.recv_many(&mut batch, TOGETHER).await };
        tokio::select! {
            count = take => if count == 0 { return },
            () = end.wait() => return,
        }
        batch.retain(|asked| !asked.answer.is_closed());
        if !batch.is_empty() {
            answer(&*engine, std::mem::take(&mut batch)).await;
        }
    }
}

/// Reads as many as a server can be asked for at once, and then the next.
async fn read_parts<E: Engine>(engine: &E, ids: &[RecordId]) -> Result<Vec<Bytes>, EngineError> {
    let mut found = Vec::with_capacity(ids.len());
    for part in ids.chunks(AT_ONCE) {
        found.append(&mut engine.read(part).await?);
    }
    Ok(found)
}

async fn answer<E: Engine>(engine: &E, batch: Vec<Asked>) {
    let ids: Vec<RecordId> = batch.iter().flat_map(|asked| asked.ids.iter().copied()).collect();
    let mut found = Err(String::new());
    for _ in 0..TRIES {
        found = match read_parts(engine, &ids).await {
            Ok(found) if found.len() == ids.len() => Ok(found),
            Ok(_) => Err("its answer does not fit the question".to_owned()),
            Err(trouble) => Err(trouble.reason().to_owned()),
        };
        if found.is_ok() || batch.iter().all(|asked| asked.answer.is_closed()) {
            break;
        }
        sleep(PAUSE).await;
    }
    let mut found = found.map(Vec::into_iter);
    for asked in batch {
        let part = match &mut found {
            Ok(found) => Ok(found.by_ref().take(asked.ids.len()).collect()),
            Err(reason) => Err(reason.clone()),
        };
        // Whoever asked may have stopped waiting.
        let _ = asked.answer.send(part);
    }
}
