//! The state shared by all exchanges.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::batch_cache::BatchCache;
use super::batch_locks::BatchLocks;
use super::budget::Budget;
use super::inflight::InFlight;
use super::other_callers::CallerMemory;
use super::routing::Routing;
use crate::config::Config;
use crate::limit::Limit;
use crate::machine;
use crate::observe::metrics::{Figures, Metrics};
use crate::observe::traces::Tracer;
use crate::settle::retry::RetryQueue;
use crate::settle::{SettleRoute, SettleRoutes, Settler};
use crate::shutdown;
use crate::store::Store;
use crate::store::cache::RecordCache;
use crate::store::key_counts::KeyCounts;

/// The state shared by all exchanges.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// The present routing; see [`Gateway::routing`].
    routing: ArcSwap<Routing>,
    /// The store of records.
    pub(crate) store: Arc<dyn Store>,
    /// The numbers of keys stored for each caller.
    pub(crate) key_counts: Arc<KeyCounts>,
    /// Cache of recently used final records.
    pub(crate) cache: Arc<RecordCache>,
    /// Replies to batches whose items are all done.
    pub(crate) batch_replies: BatchCache,
    /// The callers of the latest requests, where tokens name them.
    pub(crate) callers: CallerMemory,
    /// The requests in flight in this process.
    pub(crate) in_flight: Arc<InFlight>,
    /// Locks of the batches in flight in this process.
    pub(crate) locks: Arc<BatchLocks>,
    /// Forwarded requests and connections, awaited by a drain.
    pub(crate) tasks: TaskTracker,
    /// Changes not confirmed by the store, retried in the background.
    pub(crate) retries: RetryQueue,
    /// The settlement of unknown outcomes.
    pub(crate) settler: Arc<Settler>,
    pub(crate) budget: Arc<Budget>,
    /// Permits of the requests in flight.
    pub(crate) claims: Limit,
    /// Permits of the open connections.
    pub(crate) connections: Arc<Limit>,
    pub(crate) metrics: Arc<Metrics>,
    /// The source of traces; `None`: there is no collector.
    pub(crate) tracer: Option<Arc<Tracer>>,
    /// Counts the reloads, for connections that may have to end.
    reloads: watch::Sender<u64>,
}

impl Gateway {
    /// The current routing snapshot. An exchange loads the snapshot once and keeps it to the end.
    pub(crate) fn routing(&self) -> Arc<Routing> {
        self.routing.load_full()
    }

    /// Puts a new snapshot in force, with its limits, in one step. Requests under way keep the
    /// snapshot that they began with.
    pub(crate) fn reload(&self, routing: Routing) {
        let limits = &routing.limits;
        self.claims.set(limits.in_flight);
        self.connections.set(limits.connections);
        self.retries.set_limit(limits.in_flight);
        self.budget.set(limits.buffered);
        self.key_counts.set(limits.stored_keys_per_tenant);
        if let Some((quota, limit)) = routing.quota.as_ref().zip(limits.in_flight_per_tenant) {
            quota.set(limit);
        }
        self.routing.store(Arc::new(routing));
        // The reply to a batch was rendered by the rules of its time.
        self.cache.outdate_derived();
        self.reloads.send_modify(|count| *count += 1);
    }

    /// Announces the reloads from now on.
    pub(crate) fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// Number of requests in flight, batches included.
    pub(crate) fn requests_in_flight(&self) -> usize {
        self.claims.taken()
    }

    /// Figures for the metrics, at this moment.
    pub(crate) fn figures(&self) -> Figures {
        let routing = self.routing();
        Figures {
            in_flight: self.requests_in_flight(),
            waiters: routing.waiting(),
            buffered: self.budget.taken(),
            pools: routing.connections(),
        }
    }

    /// Waits for the requests in flight to end and, on a shared store, for their outcomes to be
    /// recorded, at most for `limit`. Returns true when the drain is complete.
    pub(crate) async fn drained(&self, limit: Duration) -> bool {
        let until = tokio::time::Instant::now() + limit;
        let ended = shutdown::ended(&self.tasks, limit).await;
        if !self.store.is_shared() {
            // A failed data directory accepts no changes before the next start.
            return ended;
        }
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        self.retries.recorded(left).await && ended
    }

    /// The shared state for a configuration, which `routing` resolves.
    pub(crate) fn new(
        config: &Config,
        routing: Routing,
        (store, key_counts): (Arc<dyn Store>, Arc<KeyCounts>),
        tasks: TaskTracker,
        (metrics, tracer): (Arc<Metrics>, Option<Arc<Tracer>>),
    ) -> Arc<Self> {
        let limits = &config.server.limits;
        let cache = match store.is_shared() {
            true => RecordCache::with_time_to_live(record_cache(), RECORD_TIME_TO_LIVE),
            false => RecordCache::new(record_cache()),
        };
        let cache = Arc::new(cache);
        let settler = Settler::new(store.clone(), cache.clone(), metrics.clone());
        Arc::new(Self {
            routing: ArcSwap::from_pointee(routing),
            settler: Arc::new(settler),
            budget: Budget::new(limits.buffered),
            claims: Limit::new(limits.in_flight),
            connections: Arc::new(Limit::new(limits.connections)),
            reloads: watch::Sender::new(0),
            cache,
            batch_replies: BatchCache::new(machine::part_of_memory(64, BATCH_CACHE)),
            callers: CallerMemory::new(),
            in_flight: Arc::new(InFlight::default()),
            locks: Arc::default(),
            store,
            key_counts,
            tasks,
            retries: RetryQueue::new(limits.in_flight),
            metrics,
            tracer,
        })
    }
}

impl SettleRoutes for Gateway {
    fn settle_routes(&self) -> Vec<Arc<SettleRoute>> {
        self.routing().settle_routes()
    }

    fn is_configured(&self, name: &str) -> bool {
        self.routing().each().any(|(config, _)| &*config.name == name)
    }
}

/// Bytes of memory for final records.
const RECORD_CACHE: u64 = 24 << 20;

/// Bytes for final records: less where the memory of the process is limited.
fn record_cache() -> u64 {
    machine::part_of_memory(16, RECORD_CACHE)
}

/// Bytes of memory for the replies to finished batches.
const BATCH_CACHE: u64 = 8 << 20;

/// Time to live of a cached record where other processes may purge records. A purge is announced by
/// a message, and the message may be lost; after this time the store is read instead.
const RECORD_TIME_TO_LIVE: Duration = Duration::from_secs(60);
