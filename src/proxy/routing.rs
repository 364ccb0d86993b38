//! Routing: an immutable snapshot of the request-related configuration.
//!
//! An exchange loads the snapshot once, at its head, and a request keeps its route to the end. A
//! new snapshot can therefore replace the present one at any time. Upstreams, waiters and the quota
//! are shared pointers, so a successor can take over the parts of unchanged routes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use tokio::sync::Semaphore;

use super::inflight::Quota;
use super::routes::{Matched, PathMatcher};
use crate::config::{
    ClientAuth, Config, ItemsMode, LimitsConfig, Mode, RequestMode, RouteConfig, ServerTlsConfig,
};
use crate::idempotency::tenant::CredentialHeaders;
use crate::listen_address::PeerSet;
use crate::net::tls_server::{ListenerTls, ListenerTlsFiles};
use crate::observe::metrics::{Metrics, RouteMetrics};
use crate::upstream::Upstream;

/// Headers in which clients and proxies look for a key. Some of them, such as Go's HTTP client,
/// repeat a request without a body on their own when one of these is there, whatever its value.
const KEY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("idempotency-key"), HeaderName::from_static("x-idempotency-key")];

/// The snapshot.
#[derive(Debug)]
pub(crate) struct Routing {
    /// The routes as configured: for the contract and for the records API.
    pub(crate) configured: Arc<[RouteConfig]>,
    /// The headers identifying a caller.
    pub(crate) tenant_headers: CredentialHeaders,
    /// The proxies whose forwarding headers are believed.
    pub(crate) trusted_proxies: PeerSet,
    /// The load balancers whose connections begin with a PROXY header.
    pub(crate) proxy_protocol: PeerSet,
    /// The certificates for new connections; `None`: connections are not encrypted.
    pub(crate) tls: Option<Arc<ListenerTls>>,
    /// Limits of connections and of bodies.
    pub(crate) limits: LimitsConfig,
    /// The limit of claims per tenant; `None`: no such limit.
    pub(crate) quota: Option<Arc<Quota>>,
    /// Metrics of requests that no route took.
    pub(crate) unmatched: RouteMetrics,
    /// The upstreams, by name.
    upstreams: Vec<(String, Arc<Upstream>)>,
    matcher: PathMatcher,
    routes: Vec<Arc<Route>>,
}

/// A route with all its settings resolved.
#[derive(Debug)]
pub(crate) struct Route {
    /// Unique among the routes; stored in every record.
    pub(crate) name: Arc<str>,
    pub(crate) mode: RouteMode,
    pub(crate) upstream: Arc<Upstream>,
    /// Time limit of a request to the upstream.
    pub(crate) timeout: Duration,
    /// Maximum size of a buffered request body, in bytes.
    pub(crate) max_buffered: u64,
    /// Maximum size of a streamed request body, in bytes; `None`: no limit.
    pub(crate) max_streamed: Option<u64>,
    /// The time limit for a request body to arrive.
    pub(crate) body_timeout: Duration,
    /// The key headers that the upstream must not see: the route's own and those by which proxies
    /// decide that they may send a request twice.
    pub(crate) hidden_keys: Vec<HeaderName>,
    /// Permits of the waiting duplicates, `max_waiters` in total.
    pub(crate) waiters: Arc<Semaphore>,
    max_waiters: usize,
    pub(crate) metrics: RouteMetrics,
}

/// Treatment of duplicates, shared with the requests of the route.
#[derive(Debug, Clone)]
pub(crate) enum RouteMode {
    /// Keyed requests, with a stored answer per key.
    Request(Arc<RequestMode>),
    /// Batches, with a key per item.
    Items(Arc<ItemsMode>),
    /// Passed through.
    Off,
}

/// Result of a lookup.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Route(&'a Arc<Route>),
    /// The path is configured, but only for the listed methods.
    NotAllowed(HeaderValue),
    /// No route has the path.
    NoRoute,
}

impl Routing {
    /// Resolves a configuration.
    ///
    /// # Errors
    /// When an upstream's certificates cannot be loaded or two routes conflict.
    pub(crate) fn new(config: &Config, metrics: &Metrics) -> Result<Self, String> {
        let limits = &config.server.limits;
        let mut upstreams = Vec::with_capacity(config.upstreams.len());
        for upstream in &config.upstreams {
            let client = Upstream::new(upstream)?.metered(metrics.upstream(&upstream.name));
            upstreams.push((Arc::new(client), upstream.timeout));
        }
        let names = config.upstreams.iter().map(|upstream| upstream.name.clone());
        let named = names.zip(upstreams.iter().map(|(client, _)| client.clone())).collect();
        let resolve = |route: &RouteConfig| {
            let (upstream, timeout) = upstreams
                .get(route.upstream)
                .ok_or_else(|| format!("route {}: its upstream is not configured", route.name))?;
            let metrics = metrics.route(&route.name);
            Ok(Arc::new(Route::new(route, (upstream.clone(), *timeout), limits, metrics)))
        };
        Ok(Self {
            unmatched: metrics.unmatched(),
            matcher: PathMatcher::new(&config.routes)?,
            routes: config.routes.iter().map(resolve).collect::<Result<_, String>>()?,
            configured: config.routes.clone().into(),
            tenant_headers: config.tenant.headers.clone(),
            quota: limits.in_flight_per_tenant.map(Quota::new),
            trusted_proxies: config.server.trusted_proxies.clone(),
            proxy_protocol: config.server.proxy_protocol.clone(),
            tls: config.server.tls.as_ref().map(server_tls).transpose()?.map(Arc::new),
            limits: limits.clone(),
            upstreams: named,
        })
    }

    /// The route for `method` and the normalized `path`.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        match self.matcher.find(method, path) {
            Matched::Route(index) => self.routes.get(index).map_or(Found::NoRoute, Found::Route),
            Matched::NotAllowed(allow) => Found::NotAllowed(allow),
            Matched::NoRoute => Found::NoRoute,
        }
    }

    /// Number of duplicates that wait for a call in flight.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = |route: &Arc<Route>| route.max_waiters - route.waiters.available_permits();
        self.routes.iter().map(waiting).sum()
    }

    /// The connections to each upstream, by name.
    pub(crate) fn connections(&self) -> Vec<(String, usize)> {
        let count =
            |(name, upstream): &(String, Arc<Upstream>)| (name.clone(), upstream.connections());
        self.upstreams.iter().map(count).collect()
    }

    /// The methods that the normalized `path` is configured for; `None`: not for any.
    pub(crate) fn allowed(&self, path: &str) -> Option<HeaderValue> {
        self.matcher.allowed(path)
    }

    /// Names and values of the path parameters of a matched route.
    pub(crate) fn parameters(&self, method: &Method, path: &str) -> Vec<(String, String)> {
        self.matcher.parameters(method, path)
    }
}

impl Route {
    fn new(
        route: &RouteConfig,
        (upstream, timeout): (Arc<Upstream>, Duration),
        limits: &LimitsConfig,
        metrics: RouteMetrics,
    ) -> Self {
        let (mode, max_waiters, hidden_keys) = match &route.mode {
            Mode::Request(mode) => {
                // The parts of a composite key are the backend's own fields, and go upstream.
                let hidden = match mode.key.forward {
                    true => Vec::new(),
                    false => hidden_keys(mode.key.places.header()),
                };
                let waiters = mode.duplicates.max_waiters;
                (RouteMode::Request(Arc::new((**mode).clone())), waiters, hidden)
            }
            Mode::Items(mode) => {
                // A batch has the ids of its items; a key for the whole batch would freeze partial
                // results.
                let waiters = mode.duplicates.max_waiters;
                let mode = RouteMode::Items(Arc::new((**mode).clone()));
                (mode, waiters, hidden_keys(None))
            }
            Mode::Off => (RouteMode::Off, 0, Vec::new()),
        };
        Self {
            name: route.name.clone(),
            mode,
            upstream,
            timeout,
            max_buffered: route.max_body.unwrap_or(limits.max_body),
            max_streamed: route.max_body,
            body_timeout: limits.body_timeout,
            hidden_keys,
            waiters: Arc::new(Semaphore::new(max_waiters)),
            max_waiters,
            metrics,
        }
    }
}

/// The headers to keep back on a keyed route whose key stands in header `own`, if in any.
fn hidden_keys(own: Option<&HeaderName>) -> Vec<HeaderName> {
    let own = own.filter(|own| !KEY_HEADERS.contains(own)).cloned();
    KEY_HEADERS.into_iter().chain(own).collect()
}

fn server_tls(config: &ServerTlsConfig) -> Result<ListenerTls, String> {
    let files = ListenerTlsFiles {
        cert: &config.cert,
        key: &config.key,
        client_ca: config.client_ca.as_deref(),
        requires_client: config.client_auth == ClientAuth::Required,
    };
    ListenerTls::new(files).map_err(|error| format!("[server] tls: {error}"))
}
