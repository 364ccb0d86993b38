//! One backend: sends a request at most once and tells "certainly not sent" from "unknown".
//!
//! Nothing is retried here and no redirect is followed. What may look like a retry is none: a
//! request that hyper hands back unwritten, because the idle connection it was meant for had ended,
//! goes to another connection, and a URL that cannot be connected to is passed over for the next.
//! In both cases the backend has seen nothing. As soon as the first byte may have left, every
//! failure is [`SendError::Unknown`].
//!
//! Left to others: the headers of the request (`headers`), the `timeout` of the whole call (drop
//! the future or the body; the connection is then closed), and what a response means.

mod connect;
mod framing;
mod pool;
mod socket;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::HOST;
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::Instant;

use self::connect::Target;
pub use self::framing::Framing;
use self::framing::{Lines, frame, framing};
pub use self::pool::ResponseBody;
use self::pool::{Call, Endpoint, Lease};
use crate::body::Body;
use crate::config;
use crate::net::tls;

/// Idle connections that one call tries before it makes a new one. When that many have ended, the
/// backend was most likely restarted and the others have ended too.
const MAX_STALE: usize = 3;

/// One backend with all its URLs.
pub struct Upstream {
    endpoints: Vec<Arc<Endpoint>>,
    connect_timeout: Duration,
    /// Whether request targets must be changed: some URL has a path.
    prefixed: bool,
    /// Whose turn it is among equally loaded URLs.
    turn: AtomicUsize,
    /// Where the cool-downs count from.
    started: Instant,
}

/// Whether a request may still be sent; else why not.
pub type May<'m> = &'m (dyn Fn() -> Result<(), String> + Sync);

/// Why there is no response.
#[derive(Debug)]
pub enum SendError {
    /// It is proven that not one byte of the request was written.
    NotSent {
        /// Why not, for the log.
        reason: String,
    },
    /// The request, or a part of it, may have reached the backend.
    Unknown {
        /// What happened.
        failure: Failure,
        /// The same in words, for the log.
        detail: String,
    },
}

/// What happened to a request that may have reached the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The connection was reset or broke.
    Reset,
    /// The backend closed the connection before a whole response head.
    Closed,
    /// What came back is no HTTP/1 response that can be trusted.
    BadResponse,
    /// The request's own body broke off while it was sent.
    RequestBody,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent { reason } => write!(f, "not sent: {reason}"),
            Self::Unknown { detail, .. } => write!(f, "outcome unknown: {detail}"),
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

/// What became of a request on one connection.
enum Attempt {
    Answered(Response<ResponseBody>),
    /// Handed back: nothing of it was written.
    Unsent(Request<Body>, Call, hyper::Error),
}

impl Upstream {
    /// The backend a configuration describes. Certificates are read now, connections are made when
    /// they are needed.
    ///
    /// # Errors
    /// What is wrong with a URL or a certificate file.
    pub fn new(config: &config::UpstreamConfig) -> Result<Self, String> {
        let named = |error| format!("upstream {:?}: {error}", config.name);
        let secure = config.urls.iter().any(|url| url.scheme() == Some(&Scheme::HTTPS));
        let client_cert = config.client_cert.as_ref();
        let tls = secure
            .then(|| {
                let client_cert = client_cert.map(|(chain, key)| (chain.as_path(), key.as_path()));
                tls::client(config.ca.as_deref(), client_cert)
            })
            .transpose()
            .map_err(named)?;
        let endpoints = config
            .urls
            .iter()
            .map(|url| {
                Ok(Arc::new(Endpoint::new(Target::new(url, tls.as_ref())?, config.keep_alive)))
            })
            .collect::<Result<Vec<_>, String>>()
            .map_err(named)?;
        if endpoints.is_empty() {
            return Err(named("it has no URL".to_owned()));
        }
        Ok(Self {
            prefixed: endpoints.iter().any(|endpoint| !endpoint.target.prefix.is_empty()),
            endpoints,
            // A call that ends while it connects has sent nothing; whoever waits for it after its
            // own time ran out must still learn that.
            connect_timeout: config.connect_timeout.min(config.timeout),
            turn: AtomicUsize::new(0),
            started: Instant::now(),
        })
    }

    /// Sends `request` at most once and waits for the response's head.
    ///
    /// The request's target gives path and query; the URL's prefix, `Host` and the framing headers
    /// are set here. Interim responses (1xx) are skipped, except that 101 is returned like any
    /// other response, with its connection closed. `connect_timeout` bounds DNS, connect and TLS
    /// for each URL; nothing bounds the rest, so wrap the call and the reading of the body in a
    /// timeout. Dropping either closes the connection.
    ///
    /// # Errors
    /// [`SendError::NotSent`] only when not one byte was written.
    ///
    /// Where TLS 1.3 refuses a client certificate, the refusal arrives after the request has left;
    /// that is [`SendError::Unknown`].
    pub async fn send(&self, request: Request<Body>) -> Result<Response<ResponseBody>, SendError> {
        self.send_if(request, &|| Ok(())).await
    }

    /// As [`Upstream::send`], if `may` says so when there is a connection: finding one may take as long
    /// as `connect_timeout` for each URL.
    ///
    /// # Errors
    /// As [`Upstream::send`]; what `may` gives is a reason for [`SendError::NotSent`].
    pub async fn send_if(
        &self,
        mut request: Request<Body>,
        may: May<'_>,
    ) -> Result<Response<ResponseBody>, SendError> {
        frame(&mut request);
        let original = self.prefixed.then(|| request.uri().clone());
        let mut tried: Vec<usize> = Vec::new();
        let mut reasons: Vec<String> = Vec::new();
        while let Some(index) = self.choose(&tried) {
            let endpoint = &self.endpoints[index];
            address(&mut request, original.as_ref(), &endpoint.target)
                .map_err(|reason| SendError::NotSent { reason })?;
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

    /// Sends to one URL: on idle connections as long as they turn out to have ended, then on a new
    /// one. The inner error hands the request back with the reason why this URL cannot be reached.
    async fn send_to(
        &self,
        endpoint: &Arc<Endpoint>,
        mut request: Request<Body>,
        may: May<'_>,
    ) -> Result<Result<Response<ResponseBody>, (Request<Body>, String)>, SendError> {
        let mut call = endpoint.enter();
        for _ in 0..MAX_STALE {
            let Some(connection) = endpoint.check_out().await else { break };
            may().map_err(|reason| SendError::NotSent { reason })?;
            match attempt(Lease { call, connection }, request).await? {
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
        Ok(match attempt(Lease { call, connection }, request).await? {
            Attempt::Answered(response) => Ok(response),
            Attempt::Unsent(unsent, _call, error) => {
                Err((unsent, format!("{}: closed at once: {error}", endpoint.target.name)))
            }
        })
    }

    /// The next URL to try: one that works before one that is avoided, then the least loaded, then
    /// in turn.
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

    /// Milliseconds since this upstream was made, never 0.
    fn now(&self) -> u64 {
        crate::clock::millis(self.started.elapsed()).saturating_add(1)
    }
}

/// Sends on one connection. The request is on its way when this returns; the future holds no copy of
/// it.
fn attempt(
    mut lease: Lease,
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
    lease: Lease,
    bodiless: bool,
) -> Result<Response<ResponseBody>, SendError> {
    let secure = lease.call.endpoint.target.is_tls();
    let status = response.status();
    let lines = Lines::of(response.headers());
    let framing = match framing(status, &lines, bodiless, secure) {
        Ok(framing) => framing,
        Err(what) => {
            let detail = format!("{}: {what}", lease.call.endpoint.target.name);
            return Err(SendError::Unknown { failure: Failure::BadResponse, detail });
        }
    };
    let reusable = status != StatusCode::SWITCHING_PROTOCOLS
        && response.version() == Version::HTTP_11
        && !matches!(framing, Framing::UntilClose { .. })
        && !lines.closes
        // Both framings at once: whoever sent this may mean another end than we do.
        && !(lines.coded() && lines.length);
    Ok(response.map(|incoming| ResponseBody::new(incoming, lease, reusable, framing)))
}

/// Directs the request to one URL: origin-form target and `Host`.
fn address(
    request: &mut Request<Body>,
    original: Option<&Uri>,
    target: &Target,
) -> Result<(), String> {
    match original {
        Some(original) => *request.uri_mut() = target.uri(original)?,
        None if request.uri().authority().is_some() => {
            *request.uri_mut() = target.uri(request.uri())?;
        }
        None => {}
    }
    request.headers_mut().insert(HOST, target.host_header.clone());
    Ok(())
}

fn unknown(error: &hyper::Error, name: &str) -> SendError {
    let failure = if error.is_user() {
        Failure::RequestBody
    } else if error.is_incomplete_message() {
        Failure::Closed
    } else if error.is_parse() {
        Failure::BadResponse
    } else {
        // An I/O error, and everything a later hyper may add.
        Failure::Reset
    };
    let detail = match std::error::Error::source(error) {
        Some(cause) => format!("{name}: {error}: {cause}"),
        None => format!("{name}: {error}"),
    };
    SendError::Unknown { failure, detail }
}
