//! The configuration as the gateway uses it: every value checked, every default applied, every name
//! resolved.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use serde::Serialize;

use super::backend_url::BackendUrl;
use super::callers::TenantConfig;
use super::cors::CorsConfig;
use super::diagnostics::Warning;
use super::encryption::EncryptionConfig;
use super::errors::ErrorReplacement;
use super::files::ConfigFiles;
use super::listener::ServerTlsConfig;
use super::log::LogConfig;
use super::policy::UnknownPolicy;
use super::rate::Rate;
use super::shown;
use super::suspect::SuspectRules;
use super::traces::TracesConfig;
use super::units::Secret;
use super::upstream_kinds::{CloseDelimited, HostPolicy, HttpVersion};
use crate::idempotency::fingerprint::FingerprintRules;
use crate::idempotency::key::KeyRules;
use crate::idempotency::outcome::OutcomeRules;
use crate::idempotency::retention::Retention;
use crate::items::ItemRules;
use crate::listen_address::{ListenAddress, PeerSet};
use crate::matcher::Matcher;
use crate::place::Place;
use crate::problem::Dialect;

/// The whole configuration.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// The public listener.
    pub server: ServerConfig,
    /// The log.
    pub log: LogConfig,
    /// The traces.
    pub traces: TracesConfig,
    /// The operator's listener.
    pub admin: AdminConfig,
    /// The store of the records.
    pub store: StoreConfig,
    /// The identity of callers.
    pub tenant: TenantConfig,
    /// The backends.
    pub upstreams: Vec<UpstreamConfig>,
    /// The routes, in the order of the file.
    pub routes: Vec<RouteConfig>,
    /// The file and the files that it names; empty for a configuration without a file.
    #[serde(skip)]
    pub files: ConfigFiles,
    /// Traps that the configuration is allowed to have.
    #[serde(skip)]
    pub warnings: Vec<Warning>,
}

/// `[server]`
#[derive(Debug, Clone, Serialize)]
pub struct ServerConfig {
    /// Addresses to accept on.
    #[serde(serialize_with = "shown::texts")]
    pub listen: Vec<ListenAddress>,
    /// Time for calls in flight to finish after SIGTERM.
    #[serde(serialize_with = "shown::time")]
    pub drain: Duration,
    /// Time between the announcement of the end and the drain.
    #[serde(serialize_with = "shown::time")]
    pub drain_delay: Duration,
    /// Threads serving requests.
    pub workers: usize,
    /// Certificates; `None`: connections are not encrypted.
    pub tls: Option<ServerTlsConfig>,
    /// Load balancers that begin their connections with a PROXY header.
    #[serde(serialize_with = "shown::peers")]
    pub proxy_protocol: PeerSet,
    /// Proxies whose forwarding headers are believed.
    #[serde(serialize_with = "shown::peers")]
    pub trusted_proxies: PeerSet,
    /// Web pages whose scripts may call; `None`: none.
    pub cors: Option<CorsConfig>,
    /// Limits of the memory and connections of clients.
    pub limits: LimitsConfig,
}

/// `[server.limits]`
#[derive(Debug, Clone, Serialize)]
pub struct LimitsConfig {
    /// Client connections at once.
    pub connections: usize,
    /// Time between two requests of a connection.
    #[serde(serialize_with = "shown::time")]
    pub idle_timeout: Duration,
    /// Time for the first request head from the connection's acceptance, and for a later head from
    /// its first byte.
    #[serde(serialize_with = "shown::time")]
    pub header_timeout: Duration,
    /// Time for a request body to arrive, and for a client to take the next piece of its answer.
    #[serde(serialize_with = "shown::time")]
    pub body_timeout: Duration,
    /// Bytes of a request head.
    #[serde(serialize_with = "shown::size")]
    pub max_head: usize,
    /// Bytes of a request body on a keyed route.
    #[serde(serialize_with = "shown::size")]
    pub max_body: u64,
    /// Bytes of all buffered bodies together.
    #[serde(serialize_with = "shown::size")]
    pub buffered: u64,
    /// HTTP/2 streams of a client's connection.
    pub streams: usize,
    /// Claims at once.
    pub in_flight: usize,
    /// Concurrent claims per tenant; `None`: no such limit.
    pub in_flight_per_tenant: Option<usize>,
    /// Requests of a tenant on keyed routes; `None`: no such limit.
    pub rate_per_tenant: Option<Rate>,
    /// Requests of a tenant at once, where there is a rate.
    pub burst_per_tenant: Option<usize>,
    /// Keys that the store holds for a tenant; `None`: no such limit.
    pub stored_keys_per_tenant: Option<usize>,
}

/// `[admin]`
#[derive(Debug, Clone, Serialize)]
pub struct AdminConfig {
    /// The address of health and the records API; port 0 takes a free port.
    pub listen: SocketAddr,
    /// The bearer token of the records API; without a token the API is closed.
    pub token: Option<Secret>,
    /// Host names under which the operator's page is served, besides addresses and localhost.
    pub hosts: Vec<String>,
    /// The file of the token.
    #[serde(skip)]
    pub token_file: Option<PathBuf>,
}

/// `[store]`
#[derive(Debug, Clone, Serialize)]
pub struct StoreConfig {
    /// Retention of answers and tombstones on routes without a setting.
    #[serde(flatten, serialize_with = "shown::retention")]
    pub retention: Retention,
    /// Permission to turn an empty directory or database into a store.
    pub create: bool,
    /// The only store identity to accept.
    #[serde(serialize_with = "shown::optional_text")]
    pub expect_id: Option<uuid::Uuid>,
    /// Digest of the change of names to accept.
    pub accept_names: Option<String>,
    /// The keys of the records; `None`: records are stored in plain.
    pub encryption: Option<EncryptionConfig>,
    /// The engine.
    #[serde(flatten)]
    pub engine: EngineConfig,
}

/// The engine for the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineConfig {
    /// A directory on this machine.
    Embedded {
        /// The directory.
        path: PathBuf,
        /// Bytes of memory for the engine's own caches.
        #[serde(serialize_with = "shown::size")]
        cache: u64,
        /// Time to wait for another process that has the directory open.
        #[serde(serialize_with = "shown::time")]
        lock_wait: Duration,
    },
    /// A PostgreSQL server.
    Postgres(Box<PostgresConfig>),
    /// A Redis or Valkey server or cluster.
    Redis(Box<RedisConfig>),
}

/// `[store.postgres]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PostgresConfig {
    /// `postgres://user:password@host/database`
    #[serde(serialize_with = "shown::store_url")]
    pub url: Secret,
    /// Connections that write.
    pub pool: usize,
    /// Prepares statements once for each connection.
    pub prepared: bool,
    /// Keys common to both shared stores.
    #[serde(flatten)]
    pub server: StoreServerConfig,
}

/// `[store.redis]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RedisConfig {
    /// `redis://` or `rediss://`, at least one.
    #[serde(serialize_with = "shown::store_urls")]
    pub urls: Vec<Secret>,
    /// Treats the servers as a cluster.
    pub cluster: bool,
    /// The name of the primary at the sentinels.
    pub sentinel: Option<String>,
    /// Refuses a server that may lose confirmed changes.
    #[serde(rename = "durability", serialize_with = "shown::durability")]
    pub strict: bool,
    /// Replicas that must confirm each change before it counts.
    pub replicas: u32,
    /// Prefix of the names of all keys.
    pub prefix: String,
    /// Keys common to both shared stores.
    #[serde(flatten)]
    pub server: StoreServerConfig,
}

/// Keys of every store on a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreServerConfig {
    /// Time for DNS, connect, TLS and login together.
    #[serde(serialize_with = "shown::time")]
    pub connect_timeout: Duration,
    /// Time for a change to become durable, reconnecting included.
    #[serde(serialize_with = "shown::time")]
    pub timeout: Duration,
    /// Time without a heartbeat after which this replica counts as dead.
    #[serde(serialize_with = "shown::time")]
    pub lease: Duration,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the certificate chain and key to present.
    #[serde(serialize_with = "shown::client_cert")]
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

/// `[[upstream]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamConfig {
    /// The upstream's name for routes.
    pub name: String,
    /// The addresses.
    #[serde(serialize_with = "shown::texts")]
    pub urls: Vec<BackendUrl>,
    /// Time for DNS, connect and TLS together.
    #[serde(serialize_with = "shown::time")]
    pub connect_timeout: Duration,
    /// Time for the whole answer, from the moment the request is handed to the connection.
    #[serde(serialize_with = "shown::time")]
    pub timeout: Duration,
    /// Time for which an idle connection is kept for reuse.
    #[serde(serialize_with = "shown::time")]
    pub keep_alive: Duration,
    /// The version of HTTP.
    pub http: HttpVersion,
    /// HTTP/2 streams of a connection.
    pub streams: usize,
    /// The `Host` of requests to the upstream.
    pub host: HostPolicy,
    /// Treatment of answers delimited by the end of their connection.
    pub close_delimited: CloseDelimited,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the certificate chain and key to present.
    #[serde(serialize_with = "shown::client_cert")]
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

/// `[[route]]`
#[derive(Debug, Clone, Serialize)]
pub struct RouteConfig {
    /// Unique; a metric label and part of each record.
    pub name: Arc<str>,
    /// Upper-case methods.
    #[serde(serialize_with = "shown::texts")]
    pub methods: Vec<Method>,
    /// The path, in matchit's syntax.
    pub path: String,
    /// Condition on the requests that the route takes of those on its path; empty: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Matcher>,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Bytes of a request body. On keyed routes `None` means the server's limit; on `off` routes
    /// `None` means no limit.
    #[serde(serialize_with = "shown::optional_size")]
    pub max_body: Option<u64>,
    /// `[route.errors]`
    #[serde(skip)]
    pub replaced_errors: Vec<ErrorReplacement>,
    /// `[route.tenant]`; `None`: callers are named as `[tenant]` says.
    pub tenant: Option<TenantConfig>,
    /// Treatment of duplicates.
    #[serde(flatten)]
    pub mode: Mode,
}

/// Treatment of duplicates on a route.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Mode {
    /// A key, a request, a stored answer.
    Request(Box<RequestMode>),
    /// A key for each item of a batch, with fulfillment possibly over several tries.
    Items(Box<ItemsMode>),
    /// Passed through, streamed both ways.
    Off,
}

/// Everything about a route in request mode.
#[derive(Debug, Clone, Serialize)]
pub struct RequestMode {
    /// `[route.key]`
    #[serde(serialize_with = "shown::key")]
    pub key: KeyRules,
    /// `[route.fingerprint]`
    #[serde(serialize_with = "shown::fingerprint")]
    pub fingerprint: FingerprintRules,
    /// `[route.duplicates]`
    pub duplicates: DuplicateRules,
    /// `[route.outcome]`
    #[serde(serialize_with = "shown::outcome")]
    pub outcome: OutcomeRules,
    /// `on_unknown` in `[route.outcome]`, and the table of the policy.
    #[serde(flatten)]
    pub on_unknown: UnknownPolicy,
    /// `[route.record]`
    pub record: RecordRules,
    /// `[route.suspect]`; `None`: other keys for the same subject are not looked for.
    pub suspect: Option<SuspectRules>,
    /// Observe mode: requests pass as on a route without keys, and are recorded beside.
    #[serde(skip)]
    pub observes: bool,
    /// Form of the gateway's own errors: problem+json or a backend's envelope.
    #[serde(rename = "errors", serialize_with = "shown::dialect")]
    pub dialect: Dialect,
}

/// Everything about a route in items mode.
#[derive(Debug, Clone)]
pub struct ItemsMode {
    /// Names the ledger; routes with the same name share their ids. See [`crate::items::scope`].
    pub ledger: String,
    /// `batch` of `[route.items]`: the batch's own key, a part of every id.
    pub batch_key: Option<KeyRules>,
    /// `[route.items]`
    pub rules: ItemRules,
    /// Places of `serialize_by` outside the body.
    pub serialize_places: Vec<Place>,
    /// `[route.duplicates]`: the reply to a batch with an item in flight in another batch.
    pub duplicates: DuplicateRules,
    /// `[route.outcome]`: the meaning of the status of an answer without rows.
    pub outcome: OutcomeRules,
    /// `on_unknown` in `[route.outcome]`, and the table of the policy.
    pub on_unknown: UnknownPolicy,
    /// `[route.record]`; `max_stored_body` bounds the answer read.
    pub record: RecordRules,
    /// Form of the gateway's own errors where `[route.items.render]` has no refusal.
    pub dialect: Dialect,
}

/// `[route.duplicates]`
#[derive(Debug, Clone, Serialize)]
pub struct DuplicateRules {
    /// Time for a duplicate to wait for the call in flight; zero answers 409 at once.
    #[serde(serialize_with = "shown::time")]
    pub wait: Duration,
    /// Maximum number of waiting duplicates on the route; the next gets 409 at once.
    pub max_waiters: usize,
    /// Time for the first client to wait; `None`: until the upstream's timeout.
    #[serde(serialize_with = "shown::optional_time")]
    pub answer_within: Option<Duration>,
    /// Header set to `true` on a replay.
    #[serde(serialize_with = "shown::text")]
    pub replayed_header: HeaderName,
    /// Headers of a replay that are the request's own.
    #[serde(serialize_with = "shown::texts")]
    pub echo_headers: Vec<HeaderName>,
}

/// `[route.record]`
#[derive(Debug, Clone, Serialize)]
pub struct RecordRules {
    /// Places of the business id; the first that a request has is the request's.
    #[serde(serialize_with = "shown::places")]
    pub subject: Vec<Place>,
    /// Bytes of the largest answer body to keep.
    #[serde(serialize_with = "shown::size")]
    pub max_stored_body: u64,
    /// Retention of this route's records.
    #[serde(flatten, serialize_with = "shown::retention")]
    pub retention: Retention,
    /// Keeps the body of a request in its record while the outcome is open.
    pub keep_request: bool,
}
