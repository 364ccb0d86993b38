//! Reaper of claims whose process has ended: their records become unknown, never free.
//!
//! The reaper uses the port alone, so it is the same for every backend. The store decides by its
//! own clock which leases have ended, and a rule of `idempotency` decides what becomes of a claim.
//! Every process that shares a store runs a reaper; of two that try, one wins the swap.
//!
//! A step of the server's clock ends all leases at once, those of living processes too. A claim is
//! therefore given up only when its owner's lease was seen as ended in every pass for half a lease,
//! by this process's own clock: a living owner has renewed it by then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::port::{Change, ListPosition, Query, Store, StoreError, Swap};
use crate::idempotency::record::Nonce;
use crate::observe::repeated::Repeated;
use crate::shutdown::Shutdown;

/// Records of one listing.
const PAGE: usize = 64;
/// Limit on the pages of one pass; the next pass takes the rest.
const PAGES: usize = 100;

static FAILED: Repeated = Repeated::new("abandoned claims could not be given up");

/// Passes within a lease: as many as a living process renews its lease.
const PASSES: u32 = 5;

/// The owners whose leases are seen as ended.
#[derive(Debug)]
pub struct EndedOwners {
    /// Time for which a lease must be seen as ended.
    wait: Duration,
    /// The first of the passes in a row that saw the lease as ended.
    since: HashMap<Nonce, Instant>,
}

impl EndedOwners {
    /// Nobody yet; owners are given up after `wait`.
    pub fn new(wait: Duration) -> Self {
        Self { wait, since: HashMap::new() }
    }

    /// Notes that the owner's lease is seen as ended; true if it was for long enough.
    fn is_given_up(&mut self, owner: Nonce, now: Instant) -> bool {
        now.duration_since(*self.since.entry(owner).or_insert(now)) >= self.wait
    }
}

/// Runs passes until the shutdown starts; `lease` is the length of a lease. `noticed` is called
/// after a pass that made claims unknown.
pub async fn run(
    store: Arc<dyn Store>,
    lease: Duration,
    noticed: impl Fn() + Send,
    mut shutdown: Shutdown,
) {
    let mut ended = EndedOwners::new(lease / 2);
    while !shutdown.started() {
        match pass(&*store, &mut ended).await {
            Ok(0) => {}
            Ok(lost) => {
                noticed();
                tracing::warn!(
                    lost,
                    "claims of an ended process became unknown; their keys are held until each is \
                     settled"
                );
            }
            Err(error) => {
                // Nobody was seen in this pass.
                ended = EndedOwners::new(lease / 2);
                if let Some(times) = FAILED.occur() {
                    tracing::warn!(
                        %error, times,
                        "the store failed, so abandoned claims stay in flight for now"
                    );
                }
            }
        }
        shutdown.pause(lease / PASSES).await;
    }
}

/// Makes every abandoned claim unknown whose owner is given up, and returns their number.
///
/// # Errors
/// A failure of the store.
pub async fn pass(store: &dyn Store, ended: &mut EndedOwners) -> Result<u64, StoreError> {
    let mut lost = 0;
    let mut after = None;
    let mut seen = HashSet::new();
    let began = Instant::now();
    for _ in 0..PAGES {
        let query = Query { abandoned: true, after, limit: PAGE, ..Query::default() };
        let page = store.list(query).await?;
        after = page.last().map(|(id, record)| ListPosition::of(id, record));
        // A page may be short because corrupt records were left out.
        let last = page.is_empty();
        let now = store.now();
        let mut swaps = Vec::with_capacity(page.len());
        for (id, record) in page {
            seen.insert(record.owner);
            if !ended.is_given_up(record.owner, began) {
                continue;
            }
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
    ended.since.retain(|owner, _| seen.contains(owner));
    Ok(lost)
}
