//! A backend's client: sends a request at most once and distinguishes "certainly not sent" from
//! "unknown".
//!
//! Requests are never retried and redirects never followed. Two cases only look like retries: a
//! request handed back unwritten by hyper, because its idle connection had ended, goes to a
//! different connection, and an unreachable URL is passed over for the next. In both cases the
//! backend has seen nothing. As soon as the first byte may have left, every failure is
//! [`SendError::Unknown`].
//!
//! Left to the callers: the headers of the request (`headers`), the `timeout` of the whole call
//! (drop the future or the body; the connection is then closed), and the meaning of a response.

mod connect;
mod framing;
mod go_away;
mod http2;
mod multiplexed;
mod pool;
mod reference;
mod socket;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::HOST;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use self::connect::Destination;
pub(crate) use self::framing::Framing;
use self::framing::{FramingHeaders, frame, framing};
use self::http2::Http2Pool;
pub(crate) use self::pool::ResponseBody;
use self::pool::{ActiveCall, CallLease, Endpoint, PoolLease};
use crate::body::Body;
use crate::config;
use crate::net::tls;
use crate::observe::metrics::UpstreamMetrics;

/// Maximum number of idle connections tried before a new connection. After so many dead connections
/// the backend was most likely restarted, and the rest of the pool is dead too.
const MAX_STALE: usize = 3;

/// A backend with all its URLs.
pub(crate) struct Upstream {
    endpoints: Vec<Arc<Endpoint>>,
    connect_timeout: Duration,
    /// True when a URL has a path, so that request targets must be changed.
    prefixed: bool,
    /// The client's `Host` goes on.
    keeps_host: bool,
    /// Round-robin counter for equally loaded URLs.
    turn: AtomicUsize,
    /// Start of the cool-downs' clock.
    started: Instant,
    metrics: Option<UpstreamMetrics>,
}

/// Permission to send, requested once a connection exists; the error is the reason for a refusal.
pub(crate) type SendPermission<'m> = &'m (dyn Fn() -> Result<(), String> + Sync);

/// Reason for the lack of a response.
#[derive(Debug)]
pub(crate) enum SendError {
    /// No byte of the request was written; proven.
    NotSent {
        /// Reason for the log.
        reason: String,
    },
    /// The request, or a part of the request, may have reached the backend.
    Unknown {
        /// Kind of failure.
        failure: SendFailure,
        /// Description for the log.
        detail: String,
    },
}

/// Kind of failure of a request that may have reached the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendFailure {
    /// The connection was reset or broke.
    Reset,
    /// The backend closed the connection before a whole response head.
    Closed,
    /// The response is not a trustworthy HTTP/1 message.
    BadResponse,
    /// The request's own body broke off while it was sent.
    RequestBody,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent { reason } => write!(f, "not sent: {reason}"),
            Self::Unknown { failure, detail } => {
                write!(f, "outcome unknown ({failure:?}): {detail}")
            }
        }
    }
}

impl std::error::Error for SendError {}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.endpoints.iter().map(|endpoint| &endpoint.target.name);
        f.debug_list().entries(names).finish()
    }
}

/// The response of a URL, or the request handed back with the reason for an unreachable URL.
type Sent = Result<Response<ResponseBody>, (Request<Body>, String)>;

/// Result of sending a request on a connection.
enum Attempt {
    Answered(Response<ResponseBody>),
    /// The request, handed back unwritten.
    Unsent(Request<Body>, ActiveCall, hyper::Error),
}

impl Upstream {
    /// The backend of a configuration. Certificates are read now, connections are made on demand.
    ///
    /// # Errors
    /// The defect of a URL or a certificate file.
    pub(crate) fn new(config: &config::UpstreamConfig) -> Result<Self, String> {
        let named = |error| format!("upstream {:?}: {error}", config.name);
        let secure = config.urls.iter().any(config::BackendUrl::is_tls);
        let client_cert = config.client_cert.as_ref();
        let protocol = match config.http {
            config::HttpVersion::Http1 => tls::HTTP1,
            config::HttpVersion::Http2 => tls::HTTP2,
        };
        let tls = secure
            .then(|| {
                let client_cert = client_cert.map(|(chain, key)| (chain.as_path(), key.as_path()));
                tls::client(config.ca.as_deref(), client_cert, protocol)
            })
            .transpose()
            .map_err(named)?;
        let endpoints = config
            .urls
            .iter()
            .map(|url| {
                let target = Destination::new(url, &config.host, tls.as_ref())?;
                let trusted = config.close_delimited == config::CloseDelimited::Trusted;
                let http2 = (config.http == config::HttpVersion::Http2)
                    .then(|| Arc::new(Http2Pool::new(config.streams, config.keep_alive)));
                Ok(Arc::new(Endpoint::new(target, config.keep_alive, trusted, http2)))
            })
            .collect::<Result<Vec<_>, String>>()
            .map_err(named)?;
        if endpoints.is_empty() {
            return Err(named("it has no URL".to_owned()));
        }
        Ok(Self {
            keeps_host: config.host == config::HostPolicy::Client,
            prefixed: endpoints.iter().any(|endpoint| !endpoint.target.prefix.is_empty()),
            endpoints,
            // A call cancelled while connecting has sent nothing; a caller waiting beyond its own
            // time limit must still learn so.
            connect_timeout: config.connect_timeout.min(config.timeout),
            turn: AtomicUsize::new(0),
            started: Instant::now(),
            metrics: None,
        })
    }

    /// With metrics for its calls.
    pub(crate) fn metered(self, metrics: UpstreamMetrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Number of open connections, those of running calls included.
    pub(crate) fn connections(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.connections()).sum()
    }

    /// Sends `request` at most once and waits for the response's head.
    ///
    /// The request's target gives path and query; the URL's prefix, `Host` (unless the client's
    /// goes on) and the framing headers are set here. Interim responses (1xx) are skipped, except
    /// that 101 is returned like any other response, with its connection closed. `connect_timeout`
    /// bounds DNS, connect and TLS for each URL; nothing bounds the rest, so wrap the call and the
    /// reading of the body in a timeout. Dropping either closes the connection.
    ///
    /// # Errors
    /// [`SendError::NotSent`] only if not a single byte was written.
    ///
    /// Where TLS 1.3 refuses a client certificate, the refusal arrives after the request has left;
    /// the error is then [`SendError::Unknown`].
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<ResponseBody>, SendError> {
        self.send_if(request, &|| Ok(())).await
    }

    /// Like `send`, if permitted by `may` once a connection exists, which may take as long as
    /// `connect_timeout` for each URL.
    ///
    /// # Errors
    /// The errors of [`Upstream::send`]; a refusal by `may` gives [`SendError::NotSent`].
    pub(crate) async fn send_if(
        &self,
        mut request: Request<Body>,
        may: SendPermission<'_>,
    ) -> Result<Response<ResponseBody>, SendError> {
        let _timer = self.metrics.as_ref().map(UpstreamMetrics::start);
        frame(&mut request);
        let original = self.prefixed.then(|| request.uri().clone());
        let keeps_host = self.keeps_host && request.headers().contains_key(HOST);
        let mut tried: Vec<usize> = Vec::new();
        let mut reasons: Vec<String> = Vec::new();
        while let Some(index) = self.choose(&tried) {
            let endpoint = &self.endpoints[index];
            address(&mut request, original.as_ref(), &endpoint.target)
                .map_err(|reason| SendError::NotSent { reason })?;
            if !keeps_host {
                request.headers_mut().insert(HOST, endpoint.target.host_header.clone());
            }
            match self.send_to(endpoint, request, may).await? {
                Ok(response) => return Ok(response),
                Err((unsent, reason)) => {
                    request = unsent;
                    reasons.push(reason);
                    tried.push(index);
                    endpoint.unreachable(self.now());
                }
            }
        }
        Err(SendError::NotSent { reason: reasons.join("; ") })
    }

    /// Sends to a URL: on idle connections while these prove dead, then on a new connection. The
    /// inner error hands the request back with the reason for an unreachable URL.
    async fn send_to(
        &self,
        endpoint: &Arc<Endpoint>,
        mut request: Request<Body>,
        may: SendPermission<'_>,
    ) -> Result<Sent, SendError> {
        if let Some(pool) = &endpoint.http2 {
            return Box::pin(self.send_http2(endpoint, pool, request, may)).await;
        }
        let mut call = endpoint.enter();
        for _ in 0..MAX_STALE {
            let Some(connection) = endpoint.check_out().await else { break };
            may().map_err(|reason| SendError::NotSent { reason })?;
            match attempt(PoolLease { call, connection }, request).await? {
                Attempt::Answered(response) => return Ok(Ok(response)),
                Attempt::Unsent(unsent, counted, _ended) => (request, call) = (unsent, counted),
            }
        }
        // Boxed, because it is rare and large: the common path stays small.
        let connecting = Box::pin(endpoint.target.connect(self.connect_timeout));
        let connection = match connecting.await {
            Ok(connection) => connection,
            Err(reason) => return Ok(Err((request, reason))),
        };
        endpoint.reached();
        may().map_err(|reason| SendError::NotSent { reason })?;
        Ok(match attempt(PoolLease { call, connection }, request).await? {
            Attempt::Answered(response) => Ok(response),
            Attempt::Unsent(unsent, _call, error) => {
                Err((unsent, format!("{}: closed at once: {error}", endpoint.target.name)))
            }
        })
    }

    /// The next URL to try: working URLs before avoided URLs, then the least loaded, then
    /// round-robin.
    fn choose(&self, tried: &[usize]) -> Option<usize> {
        let count = self.endpoints.len();
        if count == 1 {
            return tried.is_empty().then_some(0);
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let now = self.now();
        let chosen = (0..count)
            .map(|step| first.wrapping_add(step) % count)
            .filter(|index| !tried.contains(index))
            .min_by_key(|index| {
                let endpoint = &self.endpoints[*index];
                (endpoint.is_avoided(now), endpoint.in_flight())
            })?;
        self.endpoints[chosen].chosen(now);
        Some(chosen)
    }

    /// Milliseconds since the creation of the upstream, never 0.
    fn now(&self) -> u64 {
        crate::clock::millis(self.started.elapsed()).saturating_add(1)
    }
}

/// Sends on a connection. The request is in the queue when the call returns; the future holds no
/// copy.
fn attempt(
    mut lease: PoolLease,
    request: Request<Body>,
) -> impl Future<Output = Result<Attempt, SendError>> {
    let bodiless = *request.method() == Method::HEAD;
    let sent = lease.connection.send(request);
    async move {
        match sent.await {
            Ok(response) => answered(response, lease, bodiless).map(Attempt::Answered),
            Err(mut error) => match error.take_message() {
                Some(unsent) => Ok(Attempt::Unsent(unsent, lease.call, error.into_error())),
                None => Err(unknown(&error.into_error(), &lease.call.endpoint.target.name)),
            },
        }
    }
}

fn answered(
    response: Response<Incoming>,
    mut lease: PoolLease,
    bodiless: bool,
) -> Result<Response<ResponseBody>, SendError> {
    let endpoint = &lease.call.endpoint;
    let close_is_trusted = endpoint.close_is_trusted || endpoint.target.is_tls();
    let status = response.status();
    let lines = FramingHeaders::of(response.headers());
    let framing = match framing(status, &lines, bodiless, close_is_trusted) {
        Ok(framing) => framing,
        Err(what) => {
            let detail = format!("{}: {what}", lease.call.endpoint.target.name);
            return Err(SendError::Unknown { failure: SendFailure::BadResponse, detail });
        }
    };
    let reusable = status != StatusCode::SWITCHING_PROTOCOLS
        && response.version() == Version::HTTP_11
        && !matches!(framing, Framing::UntilClose { .. })
        && !lines.closes
        // Both framings at once: the backend may mean a different end.
        && !(lines.coded() && lines.length)
        // A body that may be absent: a backend sending the body regardless sends it late, and its
        // bytes would be read as the next answer.
        && !(framing == Framing::None && lines.announce_content());
    lease.connection.kept_for = lines.kept_for;
    let lease = CallLease::Http1(lease);
    Ok(response.map(|incoming| ResponseBody::new(incoming, lease, reusable, framing)))
}

/// Sets the target, in origin form, for a URL.
fn address(
    request: &mut Request<Body>,
    original: Option<&Uri>,
    target: &Destination,
) -> Result<(), String> {
    match original {
        Some(original) => *request.uri_mut() = target.uri(original)?,
        None if request.uri().authority().is_some() => {
            *request.uri_mut() = target.uri(request.uri())?;
        }
        None => {}
    }
    Ok(())
}

fn unknown(error: &hyper::Error, name: &str) -> SendError {
    let failure = if error.is_user() {
        SendFailure::RequestBody
    } else if error.is_incomplete_message() {
        SendFailure::Closed
    } else if error.is_parse() {
        SendFailure::BadResponse
    } else {
        // An I/O error, or an error kind added by a later hyper.
        SendFailure::Reset
    };
    let detail = match std::error::Error::source(error) {
        Some(cause) => format!("{name}: {error}: {cause}"),
        None => format!("{name}: {error}"),
    };
    SendError::Unknown { failure, detail }
}
