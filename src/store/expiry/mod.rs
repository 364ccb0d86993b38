//! Expiry: turns answers past their retention into tombstones, and forgets those in the end.
//!
//! Uses the port alone, so it is the same for every engine. When a record is due and what becomes
//! of it is decided by [`Record::expired`](crate::idempotency::Record::expired); nothing in flight or unknown is ever due. Time is the
//! store's, and a clock that jumps only makes this sooner or later.

use std::sync::Arc;
use std::time::Duration;

use super::{Change, Query, Store, StoreError, Swap};
use crate::clock::Timestamp;
use crate::idempotency::record::Expiry;
use crate::shutdown::Shutdown;

/// Records read at once; each may hold an answer of `max_stored_body`.
const PAGE: usize = 32;
/// The shortest pause between two passes.
const SOONEST: Duration = Duration::from_secs(1);
/// The longest, also after an error: retention may have been configured shorter meanwhile.
const LATEST: Duration = Duration::from_secs(10);

/// What one pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Answers that became tombstones.
    pub buried: u64,
    /// Records that are gone.
    pub forgotten: u64,
}

/// Sweeps until the end starts.
pub async fn run(store: Arc<dyn Store>, mut shutdown: Shutdown) {
    let mut failed = false;
    while !shutdown.started() {
        let pause = match pass(&*store, &shutdown).await {
            Ok(swept) => {
                failed = false;
                if swept != Swept::default() {
                    tracing::debug!(swept.buried, swept.forgotten, "swept expired records");
                }
                next(&*store).await.unwrap_or(LATEST)
            }
            Err(error) => {
                // Said once: a store that fails says so elsewhere too.
                if !failed {
                    tracing::warn!(%error, "sweeping stopped for now");
                }
                failed = true;
                LATEST
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.wait() => {}
        }
    }
}

/// Sweeps all that is due now; ends early when `shutdown` starts.
///
/// # Errors
/// When the store fails.
pub async fn pass(store: &dyn Store, shutdown: &Shutdown) -> Result<Swept, StoreError> {
    let mut swept = Swept::default();
    while !shutdown.started() {
        let now = store.now();
        let (due, done) = page(store, now).await?;
        swept.buried += done.buried;
        swept.forgotten += done.forgotten;
        // A page on which nothing moved would be the same page again.
        if due < PAGE || done == Swept::default() {
            break;
        }
    }
    Ok(swept)
}

/// Sweeps one page; says how many records were on it, and what was done.
async fn page(store: &dyn Store, now: Timestamp) -> Result<(usize, Swept), StoreError> {
    let due = Query { expired_at: Some(now), limit: PAGE, ..Query::default() };
    let records = store.list(due).await?;
    let count = records.len();
    let mut swaps = Vec::with_capacity(count);
    for (id, record) in records {
        let expect = Some(record.version);
        let (change, done) = match record.expired(now) {
            Expiry::Keep => continue,
            Expiry::Bury(tombstone) => (
                Change { id, expect, put: Some(Arc::from(tombstone)) },
                Swept { buried: 1, ..Swept::default() },
            ),
            Expiry::Forget => {
                (Change { id, expect, put: None }, Swept { forgotten: 1, ..Swept::default() })
            }
        };
        // Each on its own, so that one lost swap does not undo the others; all asked for before
        // the first is awaited, so that a store may commit them together.
        swaps.push((store.swap(vec![change]), done));
    }
    let mut swept = Swept::default();
    for (swap, done) in swaps {
        match swap.await {
            Ok(Swap::Done) => {
                swept.buried += done.buried;
                swept.forgotten += done.forgotten;
            }
            // Somebody else moved it: it comes again if it is still due.
            Ok(Swap::Lost { .. }) => {}
            Err(error @ StoreError::Corrupt { .. }) => tracing::error!(%error, "not swept"),
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
        }
    }
    Ok((count, swept))
}

/// How long nothing will be due.
async fn next(store: &dyn Store) -> Result<Duration, StoreError> {
    let now = store.now();
    let soon = Some(now.saturating_add(LATEST));
    let query = Query { expired_at: soon, limit: 1, ..Query::default() };
    let first = store.list(query).await?;
    let due = first.first().and_then(|(_, record)| record.expires());
    Ok(due.map_or(LATEST, |at| now.until(at)).clamp(SOONEST, LATEST))
}

#[cfg(test)]
mod tests;
