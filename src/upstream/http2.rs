//! HTTP/2 connections to a backend: streams with a limit of our own, and the proof that a request
//! was not executed.
//!
//! A request is handed to the library only if a stream can be opened at once: a request queued
//! inside the library when its connection breaks would count as unknown, although nothing of it was
//! sent.

use std::error::Error as _;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use super::framing::{Framing, MAX_RESPONSE_HEAD};
use super::go_away::{EndAnnounced, FollowedStream};
use crate::body::Body;

/// Bytes of an answer that a backend may send ahead on a stream, and on a connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Time between two signs of life on a connection with calls, and the time to answer one.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Shortest interval between two rounds of closing idle connections.
const MIN_PRUNE_EVERY: Duration = Duration::from_millis(100);

/// The sending half of a connection.
pub(super) struct Http2Sender {
    requests: SendRequest<Body>,
    /// Streams that the backend allows at this moment.
    allowed: Box<dyn Fn() -> usize + Send + Sync>,
    ended: EndAnnounced,
}

impl Http2Sender {
    /// False for a connection that takes no further request.
    fn is_open(&self) -> bool {
        !self.ended.is_set() && !self.requests.is_closed()
    }
}

impl std::fmt::Debug for Http2Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2Sender").field("allowed", &(self.allowed)()).finish_non_exhaustive()
    }
}

/// Begins HTTP/2 on a connected stream.
#[expect(
    clippy::disallowed_methods,
    reason = "a connection ends by itself when its senders are dropped; a drain must not wait for \
              idle ones"
)]
pub(super) async fn handshake<T>(io: T) -> hyper::Result<Http2Sender>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ended = EndAnnounced::default();
    let (requests, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_RESPONSE_HEAD as u32)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(FollowedStream::new(io, ended.clone())))
        .await?;
    // The backend's limit is known to the connection alone, which is polled in its own task.
    let connection = Arc::new(Mutex::new(Box::pin(connection)));
    let polled = connection.clone();
    tokio::spawn(poll_fn(move |context| {
        let mut connection = polled.lock().unwrap_or_else(PoisonError::into_inner);
        // Callers learn of failures from their streams.
        connection.as_mut().poll(context).map(drop)
    }));
    let allowed = move || {
        let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.current_max_send_streams()
    };
    Ok(Http2Sender { requests, allowed: Box::new(allowed), ended })
}

/// The HTTP/2 connections to a URL.
#[derive(Debug)]
pub(super) struct Http2Pool {
    connections: Mutex<PooledConnections>,
    /// Streams of a connection at once.
    streams: usize,
    keep_alive: Duration,
}

#[derive(Debug, Default)]
struct PooledConnections {
    list: Vec<Arc<SharedConnection>>,
    /// True while the task closing idle connections runs.
    pruned: bool,
}

/// A connection and the number of its streams.
#[derive(Debug)]
struct SharedConnection {
    sender: Http2Sender,
    taken: AtomicUsize,
    /// The end of the last stream.
    idle_since: Mutex<Instant>,
}

/// A stream on a connection, given back when dropped.
#[derive(Debug)]
pub(super) struct StreamLease(Arc<SharedConnection>);

impl Drop for StreamLease {
    fn drop(&mut self) {
        *self.0.idle_since() = Instant::now();
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

impl SharedConnection {
    fn idle_since(&self) -> MutexGuard<'_, Instant> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a stream, if one of `streams` and of those that the backend allows is free.
    fn lease(self: &Arc<Self>, streams: usize) -> Option<StreamLease> {
        if !self.sender.is_open() {
            return None;
        }
        let most = streams.min((self.sender.allowed)());
        let free = |taken: usize| (taken < most).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, free);
        taken.is_ok().then(|| StreamLease(self.clone()))
    }

    /// True for a connection that is closed, or was without a stream for `limit`.
    fn is_over(&self, limit: Duration) -> bool {
        let is_idle = self.taken.load(Ordering::Acquire) == 0;
        !self.sender.is_open() || (is_idle && self.idle_since().elapsed() > limit)
    }
}

impl StreamLease {
    /// Sends `request`, which is in the connection's queue when the call returns.
    pub(super) fn send(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + use<> {
        self.0.sender.requests.clone().try_send_request(request)
    }
}

impl Http2Pool {
    pub(super) fn new(streams: usize, keep_alive: Duration) -> Self {
        Self { connections: Mutex::default(), streams, keep_alive }
    }

    fn lock(&self) -> MutexGuard<'_, PooledConnections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of connections.
    pub(super) fn connections(&self) -> usize {
        self.lock().list.len()
    }

    /// A stream on one of the connections, if there is a free one.
    pub(super) fn lease(&self) -> Option<StreamLease> {
        let mut connections = self.lock();
        let keep_alive = self.keep_alive;
        connections.list.retain(|connection| !connection.is_over(keep_alive));
        connections.list.iter().find_map(|connection| connection.lease(self.streams))
    }

    /// Adds a connection, and takes its first stream.
    pub(super) fn add(self: &Arc<Self>, sender: Http2Sender) -> StreamLease {
        let connection = Arc::new(SharedConnection {
            sender,
            taken: AtomicUsize::new(1),
            idle_since: Mutex::new(Instant::now()),
        });
        let mut connections = self.lock();
        connections.list.push(connection.clone());
        if !std::mem::replace(&mut connections.pruned, true) {
            drop(connections);
            spawn_pruner(Arc::downgrade(self), self.keep_alive.max(MIN_PRUNE_EVERY));
        }
        StreamLease(connection)
    }

    /// Closes idle connections; false when none is left.
    fn prune(&self) -> bool {
        let mut connections = self.lock();
        let keep_alive = self.keep_alive;
        connections.list.retain(|connection| !connection.is_over(keep_alive));
        connections.pruned = !connections.list.is_empty();
        connections.pruned
    }
}

/// Starts the task closing idle connections. The task runs while connections exist, and keeps
/// nothing alive.
#[expect(
    clippy::disallowed_methods,
    reason = "it only closes idle connections; a drain must not wait for it"
)]
fn spawn_pruner(pool: Weak<Http2Pool>, every: Duration) {
    tokio::spawn(async move {
        loop {
            sleep(every).await;
            match pool.upgrade() {
                Some(pool) if pool.prune() => {}
                Some(_) | None => return,
            }
        }
    });
}

/// Puts a request into the form of HTTP/2: its host becomes the authority of an absolute target.
///
/// # Errors
/// A line about a host or a target that cannot stand there.
pub(super) fn address(request: &mut Request<Body>, scheme: Scheme) -> Result<(), String> {
    *request.version_mut() = Version::HTTP_2;
    // HTTP/2 frames every body itself.
    request.headers_mut().remove(TRANSFER_ENCODING);
    let host = request.headers_mut().remove(HOST).ok_or("the request has no host")?;
    let authority = Authority::try_from(host.as_bytes());
    let authority =
        authority.map_err(|error| format!("the host cannot be an authority: {error}"))?;
    let target = request.uri().path_and_query().cloned();
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(target.unwrap_or(PathAndQuery::from_static("/")));
    *request.uri_mut() = uri.build().map_err(|error| format!("no valid target: {error}"))?;
    Ok(())
}

/// Takes [`address`] back, for a request that goes to another URL.
pub(super) fn restore(request: &mut Request<Body>, host: Option<HeaderValue>) {
    *request.version_mut() = Version::HTTP_11;
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
}

/// The end of an answer's body: HTTP/2 marks the end of every stream.
pub(super) fn framing(status: StatusCode, bodiless: bool) -> Framing {
    if bodiless || matches!(status.as_u16(), 204 | 304) { Framing::None } else { Framing::Stream }
}

/// Returns the proof, in words, that the backend did not execute the request of the failed stream:
/// the backend refused the stream, or announced that it never looked at it. All else proves
/// nothing, an end of the connection by the library on this side least of all.
pub(super) fn refusal(error: &hyper::Error) -> Option<String> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = cause.downcast_ref::<h2::Error>() {
            let is_refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
            let is_unread = cause.is_remote() && (is_refused || cause.is_go_away());
            return is_unread.then(|| format!("the backend refused the stream unread: {cause}"));
        }
        source = cause.source();
    }
    None
}
