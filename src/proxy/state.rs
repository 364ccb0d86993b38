//! The state that all exchanges share.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::batch_cache::BatchCache;
use super::batch_locks::BatchLocks;
use super::budget::Budget;
use super::inflight::InFlight;
use super::routing::Routing;
use crate::config::Config;
use crate::settle::retry::RetryQueue;
use crate::shutdown;
use crate::store::Store;
use crate::store::cache::RecordCache;

/// Everything the exchanges share.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// The present routing; see [`Gateway::routing`].
    routing: ArcSwap<Routing>,
    /// The store of records.
    pub(crate) store: Arc<dyn Store>,
    /// Final records that were asked for lately.
    pub(crate) hot: Arc<RecordCache>,
    /// Replies to batches whose items are all done.
    pub(crate) batch_replies: BatchCache,
    /// The calls in flight in this process.
    pub(crate) calls: Arc<InFlight>,
    /// Locks of the batches that this process is sending.
    pub(crate) busy: Arc<BatchLocks>,
    /// Calls and connections that a drain waits for.
    pub(crate) tasks: TaskTracker,
    /// Changes that the store did not confirm, to be repeated.
    pub(crate) unfinished: RetryQueue,
    pub(crate) budget: Arc<Budget>,
    /// Permits of the calls in flight, `most_claims` in all.
    pub(crate) claims: Arc<Semaphore>,
    most_claims: usize,
}

impl Gateway {
    /// The present routing. An exchange asks once and keeps the answer to its end.
    pub(crate) fn routing(&self) -> Arc<Routing> {
        self.routing.load_full()
    }

    /// Number of calls in flight, batches included.
    pub(crate) fn calling(&self) -> usize {
        self.most_claims - self.claims.available_permits()
    }

    /// Waits until the calls in flight have ended and, on a store that others share, what came of
    /// them is recorded, for `limit` at most; says whether all is.
    pub(crate) async fn drained(&self, limit: Duration) -> bool {
        let until = tokio::time::Instant::now() + limit;
        let ended = shutdown::ended(&self.tasks, limit).await;
        if !self.store.is_shared() {
            // A directory that failed takes nothing before the next start.
            return ended;
        }
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        self.unfinished.recorded(left).await && ended
    }

    /// The shared state for this configuration.
    ///
    /// # Errors
    /// When an upstream's certificates cannot be loaded or two routes are in each other's way.
    pub(crate) fn new(
        config: &Config,
        store: Arc<dyn Store>,
        tasks: TaskTracker,
    ) -> Result<Arc<Self>, String> {
        let limits = &config.server.limits;
        let hot = match store.is_shared() {
            true => RecordCache::with_time_to_live(RECORD_CACHE, RECORD_TIME_TO_LIVE),
            false => RecordCache::new(RECORD_CACHE),
        };
        Ok(Arc::new(Self {
            routing: ArcSwap::from_pointee(Routing::new(config)?),
            budget: Budget::new(limits.buffered),
            claims: Arc::new(Semaphore::new(limits.in_flight)),
            most_claims: limits.in_flight,
            hot: Arc::new(hot),
            batch_replies: BatchCache::new(BATCH_CACHE),
            calls: Arc::new(InFlight::default()),
            busy: Arc::default(),
            store,
            tasks,
            unfinished: RetryQueue::new(limits.in_flight),
        }))
    }
}

/// Bytes of memory for final records.
const RECORD_CACHE: u64 = 24 << 20;

/// Bytes of memory for the replies to finished batches.
const BATCH_CACHE: u64 = 8 << 20;

/// Longest stay of a record in memory where other processes may purge it: they announce a purge, and
/// the message may be lost. After that the store is asked again.
const RECORD_TIME_TO_LIVE: Duration = Duration::from_secs(60);
