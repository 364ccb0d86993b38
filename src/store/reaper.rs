//! Claims of processes that are gone: what they had in flight becomes unknown, never free.
//!
//! Uses the port alone, so it is the same for every engine: which owners no longer live is the
//! store's knowledge, by its own clock; what becomes of a claim is a rule of the core. Every process
//! that shares a store does this; of two that try, one wins the swap.

use std::sync::Arc;
use std::time::Duration;

use super::{Change, Query, Store, StoreError, Swap};
use crate::shutdown::Shutdown;

/// Records read at once.
const PAGE: usize = 64;
/// Pages in one pass; what is left comes with the next.
const PAGES: usize = 100;

/// Looks for abandoned claims every `period`, until the end starts.
pub async fn run(store: Arc<dyn Store>, period: Duration, mut shutdown: Shutdown) {
    let mut failed = false;
    while !shutdown.started() {
        match pass(&*store).await {
            Ok(0) => failed = false,
            Ok(lost) => {
                failed = false;
                tracing::warn!(
                    lost,
                    "claims of a process that is gone became unknown; their keys are held until \
                     each is settled"
                );
            }
            Err(error) => {
                // Said once: a store that fails says so elsewhere too.
                if !failed {
                    tracing::warn!(%error, "abandoned claims cannot be looked for now");
                }
                failed = true;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = shutdown.wait() => {}
        }
    }
}

/// Makes every abandoned claim unknown; says how many.
///
/// # Errors
/// When the store fails.
pub async fn pass(store: &dyn Store) -> Result<u64, StoreError> {
    let mut lost = 0;
    let mut after = None;
    for _ in 0..PAGES {
        let query = Query { abandoned: true, after, limit: PAGE, ..Query::default() };
        let page = store.list(query).await?;
        after = page.last().map(|(id, _)| *id);
        // A page may be short because corrupt records were left out.
        let last = page.is_empty();
        let now = store.now();
        let mut swaps = Vec::with_capacity(page.len());
        for (id, record) in page {
            let put = record.abandoned(now).map(Arc::new);
            swaps.push(store.swap(vec![Change { id, expect: Some(record.version), put }]));
        }
        for swap in swaps {
            // Lost: somebody else was first.
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
