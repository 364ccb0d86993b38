//! The task that counts the keys of a shard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::KeyCounts;
use crate::clock::Timestamp;
use crate::idempotency::{RecordId, State};
use crate::observe::repeated::Repeated;
use crate::shutdown::Shutdown;
use crate::store::{ListPosition, Query, Store, StoreError};

/// Records of one listing; each may hold an answer of `max_stored_body`.
const PAGE: usize = 32;

/// The position behind the oldest record.
const OLDEST: ListPosition =
    ListPosition { first_seen: Timestamp::from_millis(0), id: RecordId::from_bytes([0; 16]) };

/// Rest after a page, as a multiple of the time that the page took: the store serves requests.
const REST_FACTOR: u32 = 3;

/// Pause after a failure of the store.
const PAUSE: Duration = Duration::from_secs(5);

static FAILED: Repeated = Repeated::new("the keys of callers could not be counted");

/// Counts the shards that are asked for, one at a time, until the shutdown starts.
pub(crate) async fn run(counts: Arc<KeyCounts>, store: Arc<dyn Store>, mut shutdown: Shutdown) {
    while !shutdown.started() {
        let Some(shard) = counts.next_wanted() else {
            tokio::select! {
                () = counts.wake.notified() => {}
                () = shutdown.wait() => {}
            }
            continue;
        };
        let counted = tokio::select! {
            counted = count(&counts, &*store, shard) => counted,
            () = shutdown.wait() => return,
        };
        let Err(error) = counted else { continue };
        counts.abandon();
        counts.want(shard);
        if let Some(times) = FAILED.occur() {
            tracing::warn!(
                %error, times,
                "the store failed while the keys of callers were counted; they are counted again"
            );
        }
        shutdown.pause(PAUSE).await;
    }
}

/// Counts the keys of each known caller of a shard.
pub(super) async fn count(
    counts: &KeyCounts,
    store: &dyn Store,
    shard: u8,
) -> Result<(), StoreError> {
    let started = Instant::now();
    counts.begin(shard);
    let mut after = None;
    loop {
        let asked = Instant::now();
        let query = Query { shard: Some(shard), after, limit: PAGE, ..Query::default() };
        let page = store.list(query).await?;
        let Some((id, record)) = page.last() else { break };
        let last = ListPosition::of(id, record);
        // A lock is no key: it goes with its batch.
        let keys = page.iter().filter(|(_, record)| record.state != State::SerializeLock);
        let keys: Vec<_> = keys.map(|(id, record)| (*id, record.tenant)).collect();
        counts.page(&keys, last);
        after = Some(last);
        tokio::time::sleep(asked.elapsed() * REST_FACTOR).await;
    }
    // Keys that were stored since the last page are part of the count.
    counts.page(&[], OLDEST);
    counts.finish(started.elapsed());
    Ok(())
}
