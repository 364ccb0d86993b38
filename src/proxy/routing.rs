//! Routing: an immutable snapshot of the request-related configuration.
//!
//! An exchange loads the snapshot once, at its head, and a request keeps its route to the end. A
//! new snapshot can therefore replace the present one at any time. Upstreams, waiters and the quota
//! are shared pointers, so a successor can take over the parts of unchanged routes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::sync::Semaphore;

use super::callers::Callers;
use super::cors::CrossOrigin;
use super::error_format::ErrorFormat;
use super::headers::OVERRIDE;
use super::inflight::Quota;
use super::kept::{KeptPlace, settling};
use super::key_headers::{hidden_keys, key_headers, own_key_headers, possible_key_headers};
use super::rate::RateLimit;
use super::request_id::X_REQUEST_ID;
use super::resolved::server_tls;
use super::routes::{Matched, PathMatcher, RouteChoice};
use crate::config::{
    Config, FileDigests, ItemsMode, LimitsConfig, Mode, RequestMode, RouteConfig, ServerTlsConfig,
    UpstreamConfig,
};
use crate::listen_address::PeerSet;
use crate::matcher::Matcher;
use crate::net::tls_server::ListenerTls;
use crate::observe::exchange::RouteFields;
use crate::observe::log::LogFormat;
use crate::observe::metrics::{Metrics, RouteMetrics};
use crate::problem::Dialect;
use crate::settle::SettleRoute;
use crate::upstream::Upstream;

/// The snapshot.
#[derive(Debug)]
pub(crate) struct Routing {
    /// The routes as configured: for the contract and for the records API.
    pub(crate) configured: Arc<[RouteConfig]>,
    /// The naming of callers on routes without their own.
    pub(crate) callers: Arc<Callers>,
    /// The rules for cross-origin requests; `None`: browsers keep answers from scripts.
    pub(crate) cors: Option<CrossOrigin>,
    /// The headers in which the keys of some route stand.
    key_headers: Vec<HeaderName>,
    /// The same, and the headers in which proxies look for keys.
    pub(crate) possible_key_headers: Vec<HeaderName>,
    /// The proxies whose forwarding headers are believed.
    pub(crate) trusted_proxies: PeerSet,
    /// The load balancers whose connections begin with a PROXY header.
    pub(crate) proxy_protocol: PeerSet,
    /// The certificates for new connections; `None`: connections are not encrypted.
    pub(crate) tls: Option<Arc<ListenerTls>>,
    /// Format of the access log; `None`: there is none.
    pub(crate) access: Option<LogFormat>,
    /// Limits of connections and of bodies.
    pub(crate) limits: LimitsConfig,
    /// The limit of claims per tenant; `None`: no such limit.
    pub(crate) quota: Option<Arc<Quota>>,
    /// The rate of requests per tenant; `None`: no such limit.
    pub(crate) rate: Option<Arc<RateLimit>>,
    /// Metrics of requests that no route took.
    pub(crate) unmatched: Arc<RouteMetrics>,
    /// Time between the announcement of the end and the drain.
    pub(crate) drain_delay: Duration,
    /// Time for requests in flight to finish at the shutdown.
    pub(crate) drain: Duration,
    /// The upstreams as configured, to be taken over by a successor.
    pub(super) upstreams: Vec<(UpstreamConfig, Arc<Upstream>)>,
    pub(super) tls_config: Option<ServerTlsConfig>,
    /// Digests of the files behind this snapshot.
    pub(super) digests: FileDigests,
    matcher: PathMatcher,
    pub(super) routes: Vec<Arc<Route>>,
}

/// A route with all its settings resolved.
#[derive(Debug)]
pub(crate) struct Route {
    /// Unique among the routes; stored in every record.
    pub(crate) name: Arc<str>,
    /// Condition on the requests that the route takes; empty: none.
    pub(crate) when: Vec<Matcher>,
    /// The naming of callers.
    pub(crate) callers: Arc<Callers>,
    pub(crate) mode: RouteMode,
    /// Form of the gateway's own errors.
    pub(crate) errors: ErrorFormat,
    pub(crate) upstream: Arc<Upstream>,
    /// Time limit of a request to the upstream.
    pub(crate) timeout: Duration,
    /// Maximum size of a buffered request body, in bytes.
    pub(crate) max_buffered: u64,
    /// Maximum size of a streamed request body, in bytes; `None`: no limit.
    pub(crate) max_streamed: Option<u64>,
    /// The time limit for a request body to arrive.
    pub(crate) body_timeout: Duration,
    /// The headers in which the key of the route, or a part of it, stands; empty: no key is looked
    /// for in a header.
    pub(crate) key_headers: Vec<HeaderName>,
    /// The key headers that the upstream must not see: the route's own and those by which proxies
    /// decide that they may send a request twice.
    pub(crate) hidden_keys: Vec<HeaderName>,
    /// True if `X-Request-Id` is the key header of some route: what goes upstream in it is left to
    /// `hidden_keys`.
    pub(crate) has_key_in_request_id: bool,
    /// True if a renewed token makes another caller.
    pub(crate) is_named_by_token: bool,
    /// The settlement of unknown outcomes; `None`: by operators only.
    pub(crate) settle: Option<Arc<SettleRoute>>,
    /// Places of a request whose values are kept with its claim, and their names.
    pub(crate) kept: Arc<[KeptPlace]>,
    /// Permits of the waiting duplicates, `max_waiters` in total.
    pub(crate) waiters: Arc<Semaphore>,
    max_waiters: usize,
    pub(crate) metrics: Arc<RouteMetrics>,
    /// The fields of lines in the log about the route's requests.
    pub(crate) log_fields: Arc<RouteFields>,
}

/// Treatment of duplicates, shared with the requests of the route.
#[derive(Debug, Clone)]
pub(crate) enum RouteMode {
    /// Keyed requests, with a stored answer per key.
    Request(Arc<RequestMode>),
    /// Batches, with a key per item.
    Items(Arc<ItemsMode>),
    /// Passed through, and recorded beside.
    Observe(Arc<RequestMode>),
    /// Passed through.
    Off,
}

/// Result of a lookup.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Route(&'a Arc<Route>),
    /// One of several routes, told apart by what the request holds.
    Choice(&'a RouteChoice),
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
        Self::build(config, config.files.digests(), metrics, None)
    }

    /// Resolves a changed configuration. Upstreams with their connections, counts of waiters and
    /// quotas, and TLS sessions are taken over from `previous` where their settings and files,
    /// according to `digests`, are the same.
    ///
    /// # Errors
    /// The errors of [`Routing::new`].
    pub(crate) fn successor(
        config: &Config,
        digests: &FileDigests,
        metrics: &Metrics,
        previous: &Self,
    ) -> Result<Self, String> {
        Self::build(config, digests.clone(), metrics, Some(previous))
    }

    fn build(
        config: &Config,
        digests: FileDigests,
        metrics: &Metrics,
        previous: Option<&Self>,
    ) -> Result<Self, String> {
        let limits = &config.server.limits;
        let mut upstreams = Vec::with_capacity(config.upstreams.len());
        for upstream in &config.upstreams {
            let kept = previous.and_then(|previous| previous.same_upstream(upstream, &digests));
            let resolved = match kept {
                Some(kept) => kept,
                None => {
                    let client = Upstream::new(upstream)?;
                    Arc::new(client.metered(metrics.upstream(&upstream.name)))
                }
            };
            upstreams.push((upstream.clone(), resolved));
        }
        let key_headers = key_headers(&config.routes);
        let has_key_in_request_id = key_headers.contains(&X_REQUEST_ID);
        let upstream_named = |name: &str| {
            let found = upstreams.iter().find(|(configured, _)| configured.name == name);
            found.map(|(configured, upstream)| (upstream.clone(), configured.timeout))
        };
        let kept = previous.map(|previous| &*previous.callers);
        let callers = Arc::new(Callers::new(&config.tenant, upstream_named, kept)?);
        let resolve = |route: &RouteConfig| {
            let (configured, upstream) = upstreams
                .get(route.upstream)
                .ok_or_else(|| format!("route {}: its upstream is not configured", route.name))?;
            let metrics = metrics.route(&route.name);
            let name = configured.name.as_str();
            let fields = RouteFields { route: route.name.clone(), upstream: name.into() };
            let upstream = (upstream.clone(), configured.timeout);
            let callers = match &route.tenant {
                Some(own) => {
                    let kept = previous.and_then(|previous| previous.own_callers(&route.name));
                    Arc::new(Callers::new(own, upstream_named, kept)?)
                }
                None => callers.clone(),
            };
            let log_and_count = (metrics, Arc::new(fields));
            let mut resolved = Route::new(route, callers, upstream, limits, log_and_count);
            resolved.is_named_by_token =
                route.tenant.as_ref().unwrap_or(&config.tenant).is_by_raw_token();
            resolved.has_key_in_request_id = has_key_in_request_id;
            if let Some(waiters) = previous.and_then(|previous| previous.same_waiters(route)) {
                resolved.waiters = waiters;
            }
            Ok(Arc::new(resolved))
        };
        let quota = limits.in_flight_per_tenant.map(|limit| {
            let kept = previous.and_then(|previous| previous.quota.clone());
            kept.unwrap_or_else(|| Quota::new(limit))
        });
        let tls_config = config.server.tls.clone();
        let tls = tls_config.as_ref().map(|tls| {
            match previous.and_then(|previous| previous.same_tls(tls, &digests)) {
                Some(kept) => Ok(kept),
                None => server_tls(tls).map(Arc::new),
            }
        });
        Ok(Self {
            unmatched: metrics.unmatched(),
            drain_delay: config.server.drain_delay,
            drain: config.server.drain,
            matcher: PathMatcher::new(&config.routes)?,
            routes: config.routes.iter().map(resolve).collect::<Result<_, String>>()?,
            callers,
            configured: config.routes.clone().into(),
            cors: config
                .server
                .cors
                .as_ref()
                .map(|cors| CrossOrigin::new(cors, config, &key_headers)),
            possible_key_headers: possible_key_headers(&config.routes),
            key_headers,
            quota,
            rate: limits.rate_per_tenant.map(|rate| {
                let burst = limits.burst_per_tenant.unwrap_or(rate.count as usize);
                let kept = previous.and_then(|previous| previous.rate.clone());
                let kept = kept.filter(|kept| kept.is(rate.interval(), burst));
                kept.unwrap_or_else(|| Arc::new(RateLimit::new(rate.interval(), burst)))
            }),
            trusted_proxies: config.server.trusted_proxies.clone(),
            proxy_protocol: config.server.proxy_protocol.clone(),
            tls: tls.transpose()?,
            tls_config,
            upstreams,
            digests,
            access: config.log.access_format()?,
            limits: limits.clone(),
        })
    }

    /// Digests of the files behind this snapshot.
    pub(crate) fn digests(&self) -> &FileDigests {
        &self.digests
    }

    /// The route for `method` and the normalized `path`.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        match self.matcher.find(method, path) {
            Matched::Route(index) => match self.matcher.choice(method, index) {
                Some(choice) => Found::Choice(choice),
                None => self.routes.get(index).map_or(Found::NoRoute, Found::Route),
            },
            Matched::NotAllowed(allow) => Found::NotAllowed(allow),
            Matched::NoRoute => Found::NoRoute,
        }
    }

    /// The routes, each as configured and as resolved.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&RouteConfig, &Arc<Route>)> {
        self.configured.iter().zip(&self.routes)
    }

    /// Number of duplicates that wait for a call in flight.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = |route: &Arc<Route>| route.max_waiters - route.waiters.available_permits();
        self.routes.iter().map(waiting).sum()
    }

    /// The naming of callers of the route called `name`.
    fn own_callers(&self, name: &str) -> Option<&Callers> {
        self.routes.iter().find(|route| *route.name == *name).map(|route| &*route.callers)
    }

    /// The connections to each upstream, by name.
    pub(crate) fn connections(&self) -> Vec<(String, usize)> {
        let count = |(config, upstream): &(UpstreamConfig, Arc<Upstream>)| {
            (config.name.clone(), upstream.connections())
        };
        self.upstreams.iter().map(count).collect()
    }

    /// True if the headers have the key header of some route.
    pub(crate) fn has_key(&self, headers: &HeaderMap) -> bool {
        self.key_headers.iter().any(|name| headers.contains_key(name))
    }

    /// The routes with a policy for unknown outcomes.
    pub(crate) fn settle_routes(&self) -> Vec<Arc<SettleRoute>> {
        self.routes.iter().filter_map(|route| route.settle.clone()).collect()
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
        callers: Arc<Callers>,
        (upstream, timeout): (Arc<Upstream>, Duration),
        limits: &LimitsConfig,
        (metrics, log_fields): (Arc<RouteMetrics>, Arc<RouteFields>),
    ) -> Self {
        let (settle, kept) = settling(route, &upstream, timeout);
        let dialect = match &route.mode {
            Mode::Request(mode) if mode.observes => Dialect::default(),
            Mode::Request(mode) => mode.dialect,
            Mode::Items(mode) => mode.dialect,
            Mode::Off => Dialect::default(),
        };
        let (mode, hidden_keys) = match &route.mode {
            Mode::Request(mode) if mode.observes => {
                (RouteMode::Observe(Arc::new((**mode).clone())), Vec::new())
            }
            Mode::Request(mode) => {
                // The parts of a composite key are the backend's own fields, and go upstream.
                let hidden = match mode.key.forward {
                    true => Vec::new(),
                    false => hidden_keys(mode.key.places.header()),
                };
                let insists = mode.suspect.is_some().then_some(OVERRIDE);
                let hidden = hidden.into_iter().chain(insists).collect();
                (RouteMode::Request(Arc::new((**mode).clone())), hidden)
            }
            Mode::Items(mode) => {
                // A batch has the ids of its items; a key for the whole batch would freeze partial
                // results.
                let mode = RouteMode::Items(Arc::new((**mode).clone()));
                (mode, hidden_keys(None))
            }
            Mode::Off => (RouteMode::Off, Vec::new()),
        };
        Self {
            name: route.name.clone(),
            when: route.when.clone(),
            callers,
            mode,
            errors: ErrorFormat { dialect, replacements: route.replaced_errors.clone() },
            upstream,
            timeout,
            max_buffered: route.max_body.unwrap_or(limits.max_body),
            max_streamed: route.max_body,
            body_timeout: limits.body_timeout,
            key_headers: own_key_headers(&route.mode),
            hidden_keys,
            is_named_by_token: false,
            has_key_in_request_id: false,
            settle,
            kept,
            waiters: Arc::new(Semaphore::new(max_waiters(&route.mode))),
            max_waiters: max_waiters(&route.mode),
            metrics,
            log_fields,
        }
    }
}

/// Duplicates that may wait on a route of this mode.
pub(super) fn max_waiters(mode: &Mode) -> usize {
    match mode {
        Mode::Request(mode) => mode.duplicates.max_waiters,
        Mode::Items(mode) => mode.duplicates.max_waiters,
        Mode::Off => 0,
    }
}
