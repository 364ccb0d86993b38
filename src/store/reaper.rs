//! Reaper of claims whose process has ended: their records become unknown, never free.
//!
//! The reaper uses the port alone, so it is the same for every backend. The store decides by its
//! own clock which leases have ended, and a rule of `idempotency` decides what becomes of a claim.
//! Every process that shares a store runs a reaper; of two that try, one wins the swap.

use std::sync::Arc;
use std::time::Duration;

use super::port::{Change, ListPosition, Query, Store, StoreError, Swap};
use crate::observe::repeated::Repeated;
use crate::shutdown::Shutdown;

/// Records of one listing.
const PAGE: usize = 64;
/// Limit on the pages of one pass; the next pass takes the rest.
const PAGES: usize = 100;

static FAILED: Repeated = Repeated::new("abandoned claims could not be given up");

/// Runs a pass every `period` until the shutdown starts.
pub async fn run(store: Arc<dyn Store>, period: Duration, mut shutdown: Shutdown) {
    while !shutdown.started() {
        match pass(&*store).await {
            Ok(0) => {}
            Ok(lost) => {
                tracing::warn!(
                    lost,
                    "claims of an ended process became unknown; their keys are held until each is \
                     settled"
                );
            }
            Err(error) => {
                if let Some(times) = FAILED.occur() {
                    tracing::warn!(
                        %error, times,
                        "the store failed, so abandoned claims stay in flight for now"
                    );
                }
            }
        }
        shutdown.pause(period).await;
    }
}

/// Makes every abandoned claim unknown and returns their number.
///
/// # Errors
/// A failure of the store.
pub async fn pass(store: &dyn Store) -> Result<u64, StoreError> {
    let mut lost = 0;
    let mut after = None;
    for _ in 0..PAGES {
        let query = Query { abandoned: true, after, limit: PAGE, ..Query::default() };
        let page = store.list(query).await?;
        after = page.last().map(|(id, record)| ListPosition::of(id, record));
        // A page may be short because corrupt records were left out.
        let last = page.is_empty();
        let now = store.now();
        let mut swaps = Vec::with_capacity(page.len());
        for (id, record) in page {
            let put = record.abandoned(now).map(Arc::new);
            swaps.push(store.swap(vec![Change { id, expect: Some(record.version), put }]));
        }
        for swap in swaps {
            // A lost swap means that another process was first.
            if let Swap::Done = swap.await? {
                lost += 1;
            }
        }
        if last {
            break;
        }
    }
    Ok(lost)
}
