//! The state that all exchanges share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::batch::cache::BatchCache;
use super::batch::locks::Busy;
use super::budget::Budget;
use super::request::inflight::{InFlight, Quota};
use super::routes::Router;
use crate::config::Config;
use crate::settle::retry::Unfinished;
use crate::shutdown;
use crate::store::Store;
use crate::store::cache::RecordCache;
use crate::upstream::Upstream;

/// Everything the exchanges share.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// The configuration.
    pub(crate) config: Config,
    /// Where records are kept.
    pub(crate) store: Arc<dyn Store>,
    /// Final records that were asked for lately.
    pub(crate) hot: Arc<RecordCache>,
    /// Replies to batches whose items are all done.
    pub(crate) batch_replies: BatchCache,
    /// The calls in flight in this process.
    pub(crate) calls: Arc<InFlight>,
    /// What batches of this process are sending.
    pub(crate) busy: Arc<Busy>,
    /// Calls and connections that a drain waits for.
    pub(crate) tasks: TaskTracker,
    /// What the store did not confirm and is tried again.
    pub(crate) unfinished: Unfinished,
    pub(crate) router: Router,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) claims: Arc<Semaphore>,
    pub(crate) quota: Option<Arc<Quota>>,
    /// For each route, the duplicates that wait.
    pub(crate) waiters: Vec<Arc<Semaphore>>,
}

impl Gateway {
    /// The backend of a route.
    pub(crate) fn upstream(&self, route: usize) -> &Upstream {
        &self.upstreams[self.config.routes[route].upstream]
    }

    /// How long a call to the backend of a route may take.
    pub(crate) fn patience(&self, route: usize) -> Duration {
        self.config.upstreams[self.config.routes[route].upstream].timeout
    }

    /// The rules of a route in request mode.
    pub(crate) fn request_mode(&self, route: usize) -> Option<&crate::config::RequestMode> {
        match &self.config.routes[route].mode {
            crate::config::Mode::Request(mode) => Some(mode),
            crate::config::Mode::Items(_) | crate::config::Mode::Off => None,
        }
    }

    /// The rules of a route in items mode.
    pub(crate) fn items_mode(&self, route: usize) -> Option<&crate::config::ItemsMode> {
        match &self.config.routes[route].mode {
            crate::config::Mode::Items(mode) => Some(mode),
            crate::config::Mode::Request(_) | crate::config::Mode::Off => None,
        }
    }

    /// How many calls are in flight, batches included.
    pub(crate) fn calling(&self) -> usize {
        self.config.server.limits.in_flight - self.claims.available_permits()
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
        config: Config,
        store: Arc<dyn Store>,
        tasks: TaskTracker,
    ) -> Result<Arc<Self>, String> {
        let limits = &config.server.limits;
        let upstreams = config.upstreams.iter().map(Upstream::new).collect::<Result<_, _>>()?;
        let permits = |count| Arc::new(Semaphore::new(count));
        let waiters = config.routes.iter().map(|route| match &route.mode {
            crate::config::Mode::Request(mode) => permits(mode.duplicates.max_waiters),
            crate::config::Mode::Items(mode) => permits(mode.duplicates.max_waiters),
            crate::config::Mode::Off => permits(0),
        });
        let hot = match store.is_shared() {
            true => RecordCache::with_time_to_live(RECORD_CACHE, RECORD_TIME_TO_LIVE),
            false => RecordCache::new(RECORD_CACHE),
        };
        Ok(Arc::new(Self {
            router: Router::new(&config.routes)?,
            upstreams,
            budget: Budget::new(limits.buffered),
            claims: permits(limits.in_flight),
            quota: limits.in_flight_per_tenant.map(Quota::new),
            waiters: waiters.collect(),
            hot: Arc::new(hot),
            batch_replies: BatchCache::new(BATCH_CACHE),
            calls: Arc::new(InFlight::default()),
            busy: Arc::default(),
            store,
            tasks,
            unfinished: Unfinished::new(limits.in_flight),
            config,
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
