//! Start and end of the whole gateway: the store opens before the listeners accept, so every
//! accepted request can be recorded.

mod caller;
pub(crate) mod names;
mod permissions;
mod reload;
mod resources;
pub(crate) mod store;
mod traces;

pub(crate) use caller::name_caller;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use self::names::PinError;
use self::reload::Reloader;
use self::store::StartedStore;
use crate::admin;
use crate::clock;
use crate::config::{Config, RouteConfig};
use crate::listen_address::ListenAddress;
use crate::machine;
use crate::net::listen::ListenSocket;
use crate::observe::metrics::{Figures, Metrics};
use crate::observe::repeated;
use crate::observe::traffic::Traffic;
use crate::proxy::routing::Routing;
use crate::proxy::{self, Gateway};
use crate::shutdown::{self, Shutdown, Trigger};
use crate::store::key_counts::{KeyCounts, shard_count};
use crate::store::metered::MeteredStore;
use crate::store::server::OpenFailure;
use crate::store::{Store, cache, expiry, reaper};

/// A gateway that accepts requests.
#[derive(Debug)]
pub(crate) struct Running {
    /// Addresses for clients.
    pub(crate) listening: Vec<ListenAddress>,
    /// Address for operators and probes.
    pub(crate) admin: SocketAddr,
    /// The configuration in brief.
    pub(crate) summary: Summary,
    /// Id of the store, if this start created it.
    pub(crate) new_store: Option<uuid::Uuid>,
    gateway: Arc<Gateway>,
    background: TaskTracker,
    shutdown: Shutdown,
    /// Announces the end to probes.
    ending: Trigger,
    /// Requests to reload the configuration; `None`: there is no file.
    reloads: Option<Arc<Notify>>,
    /// Ends the operator's listener after the drain.
    end: Trigger,
}

/// A configuration in brief, for the log.
#[derive(Debug)]
pub(crate) struct Summary {
    /// Names of the routes.
    pub(crate) routes: String,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    /// Bytes of all buffered bodies.
    pub(crate) buffered: u64,
    pub(crate) workers: usize,
    /// Files that may be open.
    pub(crate) descriptors: u64,
    /// Bytes of memory; `None`: not known.
    pub(crate) memory: Option<u64>,
    pub(crate) store: uuid::Uuid,
}

impl Summary {
    fn of(config: &Config, store: uuid::Uuid) -> Self {
        let routes: Vec<&str> = config.routes.iter().map(|route| &*route.name).collect();
        let limits = &config.server.limits;
        Self {
            routes: routes.join(","),
            connections: limits.connections,
            in_flight: limits.in_flight,
            buffered: limits.buffered,
            workers: config.server.workers,
            descriptors: machine::descriptors(),
            memory: machine::memory(),
            store,
        }
    }
}

/// Reason why a gateway did not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The configuration contradicts the store.
    Configuration(String),
    /// Any other obstacle, in a single line.
    Obstacle(String),
}

impl From<String> for StartError {
    fn from(obstacle: String) -> Self {
        Self::Obstacle(obstacle)
    }
}

impl From<OpenFailure> for StartError {
    fn from(failure: OpenFailure) -> Self {
        match failure {
            OpenFailure::Key(text) => Self::Configuration(text),
            OpenFailure::Obstacle(text) => Self::Obstacle(text),
        }
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Configuration(text) | Self::Obstacle(text) => f.write_str(text),
        }
    }
}

/// Reads the files that a configuration names, such as certificates and keys, as a start does.
///
/// # Errors
/// The file that cannot be used, and why.
pub(crate) fn check_files(config: &Config) -> Result<(), String> {
    Routing::new(config, &Metrics::new()).map(drop)
}

/// Opens the store and starts listening. The gateway runs until the shutdown starts, and follows
/// changes of the file `source`.
///
/// # Errors
/// The obstacle and the remedy. Nothing is left running.
pub(crate) async fn start(
    mut config: Config,
    source: Option<PathBuf>,
    shutdown: Shutdown,
) -> Result<Running, StartError> {
    let configured = Arc::new(config.clone());
    let lowered = resources::fit(&mut config);
    let metrics = Metrics::new();
    // First of all: what cannot be read is no reason to make a store.
    let routing = Routing::new(&config, &metrics).map_err(StartError::Configuration)?;
    let listeners = config.server.listen.iter().map(ListenSocket::bind);
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    let admin_listener = ListenSocket::bind_tcp(config.admin.listen)?;
    let StartedStore { store, created } = open_store(&config, &admin_listener).await?;
    metrics.store_created(store.identity().created);
    if let Some(bytes) = machine::memory_limit() {
        metrics.memory_limit(bytes);
    }
    let key_counts = KeyCounts::new(config.server.limits.stored_keys_per_tenant);
    let store: Arc<dyn Store> = Arc::new(MeteredStore::new(store, metrics.store()));
    let new_store = created.then(|| store.identity().store_id);
    permissions::warn_of_wide(&config);
    pin_names(&config, &*store).await?;
    let lease = store::lease(&config.store);
    let tasks = TaskTracker::new();
    let (tracer, sender) =
        traces::open(&config.traces, &store.owner()).map_err(StartError::Configuration)?.unzip();
    let figures = (metrics.clone(), tracer);
    let stored = (store.clone(), key_counts.clone());
    let gateway = Gateway::new(&config, routing, stored, tasks.clone(), figures);
    permissions::note_expiry(&metrics, gateway.routing().tls.as_deref());
    let traffic = Traffic::new(metrics.clone(), clock::now());
    let admin_state = admin::AdminState::new(
        &configured,
        gateway.clone(),
        store.clone(),
        gateway.cache.clone(),
        (metrics, traffic.clone()),
        tasks,
    );
    let admin_state = Arc::new(admin_state);
    let listening = listeners.iter().map(|listener| listener.address().clone()).collect();
    let admin = admin_listener.tcp_address().unwrap_or(config.admin.listen);
    // The sweeper, the operator's listener and idle connections are no work to drain: they end by
    // themselves when the shutdown starts.
    let background = TaskTracker::new();
    background.spawn(traffic.run(shutdown.clone()));
    if let Some(sender) = sender {
        background.spawn(sender.run(shutdown.clone()));
    }
    background.spawn(expiry::run(store.clone(), key_counts.clone(), shutdown.clone()));
    background.spawn(shard_count::run(key_counts, store.clone(), shutdown.clone()));
    background.spawn(gateway.settler.clone().run(gateway.clone(), shutdown.clone()));
    if let Some(lease) = lease {
        // A death is noticed within two leases.
        let settler = gateway.settler.clone();
        let noticed = move || settler.look_at_all();
        background.spawn(reaper::run(store.clone(), lease, noticed, shutdown.clone()));
    }
    if let Some(announced) = store.announced() {
        // The task ends with the store, so its end is not awaited.
        TaskTracker::new().spawn(cache::follow(gateway.cache.clone(), announced));
    }
    background.spawn(log_repeated(shutdown.clone()));
    let (end, mut ended) = shutdown::channel();
    let (ending, announced) = shutdown::channel();
    let operators = admin::serve(admin_state.clone(), admin_listener, announced);
    background.spawn(async move {
        // Probes are answered during the drain.
        tokio::select! {
            () = operators => {}
            () = ended.wait() => {}
        }
    });
    log_warnings(&config);
    proxy::serve(&gateway, listeners, &background, &shutdown);
    lowered.iter().for_each(resources::Lowered::log);
    let summary = Summary::of(&config, gateway.store.identity().store_id);
    let reloads = source.map(|file| {
        let reloader = Reloader {
            file,
            gateway: gateway.clone(),
            store,
            admin: admin_state,
            files: config.files.clone(),
            seen: gateway.routing().digests().clone(),
            in_force: configured,
        };
        let requests = Arc::new(Notify::new());
        background.spawn(reloader.run(requests.clone(), shutdown.clone()));
        requests
    });
    Ok(Running {
        listening,
        admin,
        summary,
        new_store,
        gateway,
        background,
        shutdown,
        reloads,
        ending,
        end,
    })
}

/// Logs the counts of repeated conditions until the shutdown starts.
async fn log_repeated(mut shutdown: Shutdown) {
    while !shutdown.started() {
        tokio::select! {
            () = tokio::time::sleep(repeated::INTERVAL) => repeated::log_counts(),
            () = shutdown.wait() => {}
        }
    }
}

/// Logs the traps that a configuration is allowed to have.
fn log_warnings(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("configuration: {warning}");
    }
}

/// Opens the store, and answers probes while another process has the store open.
async fn open_store(config: &Config, admin: &ListenSocket) -> Result<StartedStore, OpenFailure> {
    let waiting = || {
        tracing::warn!(
            admin = %admin.address(),
            "another process has the store open; waiting for its end, at most for `lock_wait`"
        );
    };
    tokio::select! {
        biased;
        opened = store::open(&config.store, &waiting) => opened,
        () = admin::serve_starting(admin.clone()) => {
            Err("the admin listener ended".to_owned().into())
        }
    }
}

/// Checks that the configuration finds the keys that the store keeps.
async fn pin_names(config: &Config, store: &dyn Store) -> Result<(), StartError> {
    let Err(error) = names::pin(config, store).await else { return Ok(()) };
    // Nothing was claimed: other replicas need not wait for the end of this lease.
    if let Err(error) = store.leave().await {
        tracing::debug!(%error, "leaving the store failed; the lease ends by itself");
    }
    Err(match error {
        PinError::Refused(text) => StartError::Configuration(text),
        PinError::Store(text) => StartError::Obstacle(text),
    })
}

impl admin::ServedGateway for Gateway {
    fn routes(&self) -> Arc<[RouteConfig]> {
        self.routing().configured.clone()
    }

    fn figures(&self) -> Figures {
        self.figures()
    }
}

/// Time for the background tasks to end after the signal.
const BACKGROUND: Duration = Duration::from_secs(1);

impl Running {
    /// Asks for a reload of the configuration; the log tells the result. Returns false if the
    /// gateway runs without a file.
    pub(crate) fn reload(&self) -> bool {
        self.reloads.as_ref().inspect(|requests| requests.notify_one()).is_some()
    }

    /// Time between the announcement of the end and the drain.
    pub(crate) fn drain_delay(&self) -> Duration {
        self.gateway.routing().drain_delay
    }

    /// Announces the end to probes: /readyz fails from now on.
    pub(crate) fn announce_end(&self) {
        self.ending.fire();
    }

    /// Waits until the store takes no more writes before a restart; returns its reason.
    pub(crate) async fn store_failed(&self) -> String {
        self.gateway.store.failed().await.to_string()
    }

    /// Waits for the shutdown, then for the work in flight, and closes the store; false when work
    /// was left at the end of the drain. Records of that work stay in flight, and become unknown at
    /// the next start.
    pub(crate) async fn finished(mut self) -> bool {
        self.shutdown.wait().await;
        self.announce_end();
        tracing::info!(calls = self.gateway.requests_in_flight(), "draining");
        let drained = self.gateway.drained(self.gateway.routing().drain).await;
        if let Err(error) = self.gateway.store.leave().await {
            tracing::debug!(%error, "leaving the store failed; the lease ends by itself");
        }
        self.end.fire();
        // Background tasks hold the store, and the store closes with its last holder.
        shutdown::ended(&self.background, BACKGROUND).await;
        self.gateway.settler.ended(BACKGROUND).await;
        drained
    }
}
