//! Expiry task: turns answers past their retention into tombstones, and removes old tombstones.
//!
//! The task uses the port alone, so it is the same for every backend. The rule is
//! [`Record::expired`](crate::idempotency::Record::expired); nothing in flight or unknown is ever
//! due. Time is the store's, and a clock that jumps only makes expiry sooner or later.

use std::sync::Arc;
use std::time::Duration;

use super::key_counts::KeyCounts;
use super::port::{Change, ListPosition, Query, Store, StoreError, Swap};
use crate::idempotency::record::Expiry;
use crate::idempotency::retention::ExpiryTime;
use crate::observe::repeated::Repeated;
use crate::shutdown::Shutdown;

/// Records of one listing; each may hold an answer of `max_stored_body`.
const PAGE: usize = 32;
/// Shortest pause between two passes.
const SOONEST: Duration = Duration::from_secs(1);
/// Longest pause, also after an error. A restart elsewhere may have shortened the retention.
const LATEST: Duration = Duration::from_secs(10);

/// Records changed by one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Number of answers that became tombstones.
    pub buried: u64,
    /// Number of removed records.
    pub forgotten: u64,
}

static FAILED: Repeated = Repeated::new("expired records could not be removed");

/// Runs passes until the shutdown starts.
pub(crate) async fn run(store: Arc<dyn Store>, counts: Arc<KeyCounts>, mut shutdown: Shutdown) {
    while !shutdown.started() {
        let pause = match pass(&*store, &counts, &shutdown).await {
            Ok(swept) => {
                if swept != Swept::default() {
                    tracing::debug!(swept.buried, swept.forgotten, "expired records were removed");
                }
                next(&*store).await.unwrap_or(LATEST)
            }
            Err(error) => {
                if let Some(times) = FAILED.occur() {
                    tracing::warn!(
                        %error, times,
                        "the store failed, so expired records stay for now"
                    );
                }
                LATEST
            }
        };
        shutdown.pause(pause).await;
    }
}

/// Expires all records that are due now; ends early when `shutdown` starts.
///
/// # Errors
/// A failure of the store.
pub(crate) async fn pass(
    store: &dyn Store,
    counts: &KeyCounts,
    shutdown: &Shutdown,
) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    while !shutdown.started() {
        let time = store.expiry_time();
        if !time.deletes {
            break;
        }
        let (due, done) = page(store, counts, time).await?;
        swept.buried += done.buried;
        swept.forgotten += done.forgotten;
        // After a page without any change the next listing would return the same page.
        if due < PAGE || done == Swept::default() {
            break;
        }
    }
    Ok(swept)
}

/// Expires one page of due records. Returns their number and the changes made.
async fn page(
    store: &dyn Store,
    counts: &KeyCounts,
    time: ExpiryTime,
) -> Result<(usize, Swept), StoreError> {
    let due = Query { expired_at: Some(time.at), limit: PAGE, ..Query::default() };
    let records = store.list(due).await?;
    let count = records.len();
    let mut swaps = Vec::with_capacity(count);
    for (id, record) in records {
        let expect = Some(record.version);
        let (change, done) = match record.expired(time) {
            Expiry::Keep => continue,
            Expiry::Bury(tombstone) => (
                Change { id, expect, put: Some(Arc::from(tombstone)) },
                Swept { buried: 1, ..Swept::default() },
            ),
            Expiry::Forget => {
                (Change { id, expect, put: None }, Swept { forgotten: 1, ..Swept::default() })
            }
        };
        // One swap for each record, so that a lost swap does not undo the others; all are queued
        // before the first is awaited, so that a store can commit them together.
        let at = ListPosition::of(&id, &record);
        swaps.push((store.swap(vec![change]), done, at, record.tenant));
    }
    let mut swept = Swept::default();
    for (swap, done, at, tenant) in swaps {
        match swap.await {
            Ok(Swap::Done) => {
                if done.forgotten > 0 {
                    counts.removed(&tenant, &at);
                }
                swept.buried += done.buried;
                swept.forgotten += done.forgotten;
            }
            // Another writer changed the record; the next pass lists it if it is still due.
            Ok(Swap::Lost { .. }) => {}
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, "a corrupt record cannot expire and stays")
            }
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
        }
    }
    Ok((count, swept))
}

/// Time until the next record is due, within the limits of a pause.
async fn next(store: &dyn Store) -> Result<Duration, StoreError> {
    let now = store.expiry_time().at;
    let soon = Some(now.saturating_add(LATEST));
    let query = Query { expired_at: soon, limit: 1, ..Query::default() };
    let first = store.list(query).await?;
    let due = first.first().and_then(|(_, record)| record.expires());
    Ok(due.map_or(LATEST, |at| now.until(at)).clamp(SOONEST, LATEST))
}

#[cfg(test)]
mod tests;
