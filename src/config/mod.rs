//! What the configuration means: every value checked, every default applied, every name resolved.
//!
//! `file` holds what was written (serde only), `tree` gets there from text past every mistake of
//! syntax, `read` (with `upstreams`, `routes`, `request`, `items` and `reader`) turns it into these types
//! and reports all mistakes at once, `units` are durations, sizes and secrets, `profiles` the
//! presets of routes, `paths` the table of routes, `describe` prints what was understood. The rest
//! of the crate sees only the types of this module, [`paths::Paths`] and [`Mistakes`].

mod capillary;
mod describe;
mod describe_items;
mod describe_stores;
mod diagnostics;
mod document;
mod environment;
pub mod file;
pub mod file_items;
mod items;
mod items_consistency;
mod items_parts;
pub mod load;
pub mod paths;
pub mod profiles;
mod request;
mod routes;
mod stores;
#[cfg(test)]
mod tests;
pub mod units;
mod upstreams;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, Uri};

use crate::idempotency::fingerprint::FingerprintRules;
use crate::idempotency::key::KeyRules;
use crate::idempotency::outcome::OutcomeRules;
use crate::idempotency::retention::{Keep, Retention};
use crate::items::ItemRules;
use crate::json::Pointer;
use crate::problem::Dialect;
pub use diagnostics::{Mistake, Mistakes};
pub use load::{load, parse, without_file};
pub use units::Secret;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The public listener.
    pub server: ServerConfig,
    /// The operator's listener.
    pub admin: AdminConfig,
    /// Where records are kept.
    pub store: StoreConfig,
    /// What tells callers apart.
    pub tenant: TenantConfig,
    /// The backends.
    pub upstreams: Vec<UpstreamConfig>,
    /// What is served, in the order written.
    pub routes: Vec<RouteConfig>,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Addresses to accept on; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// How long SIGTERM lets calls in flight finish.
    pub drain: Duration,
    /// Threads that serve requests.
    pub workers: usize,
    /// The limits of everything a client can make the gateway hold.
    pub limits: LimitsConfig,
}

/// `[server.limits]`
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// Client connections at once.
    pub connections: usize,
    /// For a request head to arrive, and for an idle connection to send one.
    pub header_timeout: Duration,
    /// For a request body to arrive, and for a client to take the next piece of its answer.
    pub body_timeout: Duration,
    /// Bytes of a request head.
    pub max_head: usize,
    /// Bytes of a request body on a keyed route.
    pub max_body: u64,
    /// Bytes of all buffered bodies together.
    pub buffered: u64,
    /// Claims at once.
    pub in_flight: usize,
    /// Claims at once for each tenant; `None`: no limit of its own.
    pub in_flight_per_tenant: Option<usize>,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Where health and the records API are served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The bearer token of the records API, which is closed without one.
    pub token: Option<Secret>,
}

/// `[store]`
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// How long answers and tombstones are kept where a route does not say.
    pub retention: Retention,
    /// Whether an empty place may become a store.
    pub create: bool,
    /// The only store identity to accept.
    pub expect_id: Option<uuid::Uuid>,
    /// Which engine.
    pub engine: EngineConfig,
}

/// Which engine keeps the records.
#[derive(Debug, Clone)]
pub enum EngineConfig {
    /// A directory on this machine.
    Embedded {
        /// The directory.
        path: PathBuf,
        /// Bytes of memory for the engine's own caches.
        cache: u64,
    },
    /// A PostgreSQL server.
    Postgres(Box<PostgresConfig>),
    /// A Redis or Valkey server or cluster.
    Redis(Box<RedisConfig>),
}

/// `[store.postgres]`
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// `postgres://user:password@host/database`
    pub url: Secret,
    /// Connections that write.
    pub pool: usize,
    /// Whether statements are prepared once for each connection.
    pub prepared: bool,
    /// What both shared stores have.
    pub server: StoreServerConfig,
}

/// `[store.redis]`
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://` or `rediss://`, at least one.
    pub urls: Vec<Secret>,
    /// Whether they are a cluster.
    pub cluster: bool,
    /// The name under which sentinels know the primary.
    pub sentinel: Option<String>,
    /// Whether a server that may lose what it confirmed is refused.
    pub strict: bool,
    /// Replicas that must confirm each change before it counts.
    pub replicas: u32,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// What both shared stores have.
    pub server: StoreServerConfig,
}

/// What every store on a server has.
#[derive(Debug, Clone)]
pub struct StoreServerConfig {
    /// For DNS, connect, TLS and login together.
    pub connect_timeout: Duration,
    /// For a change to become durable, reconnecting included.
    pub timeout: Duration,
    /// How long this replica lives on after it was last heard of.
    pub lease: Duration,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the certificate chain and key to present.
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

/// `[tenant]`
#[derive(Debug, Clone)]
pub struct TenantConfig {
    /// The headers whose values tell callers apart.
    pub headers: Vec<HeaderName>,
}

/// `[[upstream]]`
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// What routes call it.
    pub name: String,
    /// Its addresses: scheme `http` or `https`, authority, and an optional path prefix.
    pub urls: Vec<Uri>,
    /// For DNS, connect and TLS together.
    pub connect_timeout: Duration,
    /// For the whole answer, from the moment the request is handed to the connection.
    pub timeout: Duration,
    /// How long an idle connection is used again.
    pub keep_alive: Duration,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the certificate chain and key to present.
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

/// `[[route]]`
#[derive(Debug, Clone)]
pub struct RouteConfig {
    /// Unique; a metric label and part of each record.
    pub name: Arc<str>,
    /// Upper-case methods.
    pub methods: Vec<Method>,
    /// In matchit's syntax.
    pub path: String,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Bytes of a request body. On keyed routes `None` means the server's limit; on `off` routes
    /// it means no limit.
    pub max_body: Option<u64>,
    /// What the route does about duplicates.
    pub mode: Mode,
}

/// What a route does about duplicates.
#[derive(Debug, Clone)]
pub enum Mode {
    /// One key, one request, one stored answer.
    Request(Box<RequestMode>),
    /// One key for each item of a batch, which may be fulfilled over several tries.
    Items(Box<ItemsMode>),
    /// Passed through, streamed both ways.
    Off,
}

/// Everything about a route in request mode.
#[derive(Debug, Clone)]
pub struct RequestMode {
    /// `[route.key]`
    pub key: KeyRules,
    /// `[route.fingerprint]`
    pub fingerprint: FingerprintRules,
    /// `[route.duplicates]`
    pub duplicates: DuplicateRules,
    /// `[route.outcome]`; `on_unknown` is `hold`, the only policy of this version.
    pub outcome: OutcomeRules,
    /// `[route.record]`
    pub record: RecordRules,
    /// How the gateway's own errors are written: problem+json or a backend's envelope.
    pub dialect: Dialect,
}

/// Everything about a route in items mode.
#[derive(Debug, Clone)]
pub struct ItemsMode {
    /// Names the ledger; routes with the same name share their ids. See [`crate::items::scope`].
    pub ledger: String,
    /// `[route.items]`
    pub rules: ItemRules,
    /// `[route.duplicates]`: what a batch gets while another one is sending one of its items.
    pub duplicates: DuplicateRules,
    /// `[route.outcome]`: what the status of an answer without rows means.
    pub outcome: OutcomeRules,
    /// `[route.record]`; `max_stored_body` bounds the answer that is read.
    pub record: RecordRules,
    /// How the gateway's own errors are written where `[route.items.render]` has no refusal.
    pub dialect: Dialect,
}

/// `[route.duplicates]`
#[derive(Debug, Clone)]
pub struct DuplicateRules {
    /// How long a duplicate waits for the call in flight; zero answers 409 at once.
    pub wait: Duration,
    /// Duplicates that may wait at once on this route; the next is told 409 at once.
    pub max_waiters: usize,
    /// How long the first client waits; `None`: until the upstream's timeout.
    pub answer_within: Option<Duration>,
    /// The header that says `true` on a replay.
    pub replayed_header: HeaderName,
}

/// `[route.record]`
#[derive(Debug, Clone)]
pub struct RecordRules {
    /// Where the body names the business id.
    pub subject: Option<Pointer>,
    /// Bytes of the largest answer body to keep.
    pub max_stored_body: u64,
    /// How long this route's records are kept.
    pub retention: Retention,
}

/// What a key that is left out means, in one place.
pub mod defaults {
    use super::{Duration, Keep};

    /// `[server] drain`
    pub const DRAIN: Duration = Duration::from_secs(30);
    /// `[server] workers`: one for every two of the cores that the process may use. The others are for
    /// what a gateway stands beside: the application, the server of its store, or the thread that
    /// writes its own.
    pub fn workers() -> usize {
        std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
    }
    /// `[server.limits] connections`
    pub const CONNECTIONS: usize = 10_000;
    /// `[server.limits] header_timeout`
    pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
    /// `[server.limits] body_timeout`
    pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
    /// `[server.limits] max_head`
    pub const MAX_HEAD: usize = 32 << 10;
    /// `[server.limits] max_body`
    pub const MAX_BODY: u64 = 1 << 20;
    /// `[server.limits] buffered`
    pub const BUFFERED: u64 = 256 << 20;
    /// `[server.limits] in_flight`
    pub const IN_FLIGHT: usize = 10_000;
    /// `[store] retention`
    pub const RETENTION: Keep = Keep::For(Duration::from_secs(7 * 86_400));
    /// `[store] tombstone`
    pub const TOMBSTONE: Keep = Keep::For(Duration::from_secs(30 * 86_400));
    /// `[[upstream]] connect_timeout`
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    /// `[[upstream]] timeout`
    pub const TIMEOUT: Duration = Duration::from_secs(60);
    /// `[[upstream]] keep_alive`
    pub const KEEP_ALIVE: Duration = Duration::from_secs(4);
    /// `[route.duplicates] wait`
    pub const WAIT: Duration = Duration::from_secs(5);
    /// `[route.duplicates] max_waiters`
    pub const MAX_WAITERS: usize = 1000;
    /// `[route.record] max_stored_body`
    pub const MAX_STORED_BODY: u64 = 1 << 20;
    /// `[tenant] headers`
    pub const TENANT_HEADERS: [&str; 2] = ["authorization", "x-api-key"];
    /// `[store.embedded] path`
    pub const STORE_PATH: &str = "/var/lib/oncegate";
    /// `[store.embedded] cache`
    pub const CACHE: u64 = 8 << 20;
    /// `[store.postgres] pool`
    pub const POOL: usize = 4;
    /// `[store.redis] prefix`
    pub const PREFIX: &str = "oncegate";
    /// `[store.postgres] connect_timeout`, `[store.redis] connect_timeout`
    pub const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
    /// `[store.postgres] timeout`, `[store.redis] timeout`
    pub const STORE_TIMEOUT: Duration = Duration::from_secs(2);
    /// `[store.postgres] lease`, `[store.redis] lease`
    pub const LEASE: Duration = Duration::from_secs(10);
}
