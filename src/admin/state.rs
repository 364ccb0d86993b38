//! The state that requests to the records API share.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::session::Sessions;
use super::unknown::UnknownCount;
use crate::config::{Config, FileDigests, Mode, RouteConfig, defaults};
use crate::idempotency::retention::Retention;
use crate::observe::metrics::{Figures, Metrics};
use crate::observe::traffic::Traffic;
use crate::store::Store;
use crate::store::cache::RecordCache;

/// Concurrent requests to the records API; further requests wait. Each may hold a page of
/// records.
const AT_ONCE: usize = 4;
/// Bytes of a resolve's body without its response.
const BESIDES: u64 = 64 << 10;

/// The gateway as the admin listener sees it. A reload replaces its routes, so they are asked for
/// with each request.
pub(crate) trait ServedGateway: fmt::Debug + Send + Sync {
    /// The present routes.
    fn routes(&self) -> Arc<[RouteConfig]>;

    /// Figures of the present moment, for the metrics.
    fn figures(&self) -> Figures;
}

/// The state shared by requests to the records API.
#[derive(Debug)]
pub(crate) struct AdminState {
    pub(super) store: Arc<dyn Store>,
    pub(super) cache: Arc<RecordCache>,
    /// The source of the rules of a record's route, and of figures.
    pub(super) gateway: Arc<dyn ServedGateway>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) unknown: UnknownCount,
    /// The settings of the configuration in force.
    settings: ArcSwap<AdminSettings>,
    /// The sessions of the operator's page.
    pub(super) sessions: Sessions,
    pub(super) turns: Arc<Semaphore>,
    /// Tasks awaited by a drain, so that a started decision is completed.
    pub(super) tasks: TaskTracker,
}

/// Settings that a reload replaces.
#[derive(Debug)]
pub(super) struct AdminSettings {
    /// Retention of requests whose route is not configured any more.
    pub(super) retention: Retention,
    /// Digest of the token.
    pub(super) token: Option<[u8; 32]>,
    /// Host names of the operator's page, besides addresses and those of the own machine.
    pub(super) hosts: Vec<String>,
    /// The configuration in force without its secrets, and digests of its files.
    pub(super) shown: Value,
}

impl AdminSettings {
    fn new(config: &Config, digests: &FileDigests) -> Self {
        let token = config.admin.token.as_ref();
        let token = token.map(|token| Sha256::digest(token.expose().as_bytes()).into());
        let files = digests.each().map(|(path, digest)| {
            (path.display().to_string(), digest.map_or(Value::Null, Value::String))
        });
        let shown = json!({
            "digest": digests.whole(),
            "files": files.collect::<serde_json::Map<_, _>>(),
            "config": config.describe_json(),
        });
        let hosts = config.admin.hosts.clone();
        Self { retention: config.store.retention, token, hosts, shown }
    }
}

impl AdminState {
    /// The settings of the configuration in force.
    pub(super) fn settings(&self) -> Arc<AdminSettings> {
        self.settings.load_full()
    }

    /// Returns true for the token of `[admin]`. Digests are compared, each byte of them: how long
    /// it takes says nothing of the token.
    pub(super) fn is_token(&self, given: &[u8]) -> bool {
        let settings = self.settings();
        let Some(token) = &settings.token else { return false };
        let given = Sha256::digest(given);
        let differing = token.iter().zip(&*given).fold(0, |sum, (one, other)| sum | (one ^ other));
        std::hint::black_box(differing) == 0
    }

    /// Puts a configuration in force; `digests` are those of its files.
    pub(crate) fn reload(&self, config: &Config, digests: &FileDigests) {
        self.settings.store(Arc::new(AdminSettings::new(config, digests)));
    }

    /// State for a gateway with this configuration, store, cache, metrics and tasks to drain.
    pub(crate) fn new(
        config: &Config,
        gateway: Arc<dyn ServedGateway>,
        store: Arc<dyn Store>,
        cache: Arc<RecordCache>,
        (metrics, traffic): (Arc<Metrics>, Arc<Traffic>),
        tasks: TaskTracker,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let unknown = UnknownCount::default();
        let settings = AdminSettings::new(config, &config.files.digests());
        let settings = ArcSwap::from_pointee(settings);
        let sessions = Sessions::default();
        Self { store, cache, gateway, metrics, traffic, unknown, settings, sessions, turns, tasks }
    }

    /// Bytes of the largest answer kept by any route.
    pub(super) fn most_stored(&self) -> u64 {
        let routes = self.gateway.routes();
        let most = routes.iter().filter_map(|route| match &route.mode {
            Mode::Request(mode) => Some(mode.record.max_stored_body),
            Mode::Items(_) | Mode::Off => None,
        });
        most.max().unwrap_or(defaults::MAX_STORED_BODY)
    }

    /// Bytes of the largest accepted body.
    pub(super) fn most_body(&self) -> u64 {
        // Twice: Base64 is a third larger, and text has its escapes.
        self.most_stored().saturating_mul(2).saturating_add(BESIDES)
    }

    /// Waits for a permit.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.turns.clone().acquire_owned().await.ok()
    }
}
