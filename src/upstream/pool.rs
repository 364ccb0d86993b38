//! The connections to a URL: the idle pool, and the number of running calls.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout};

use super::Framing;
use super::connect::{Connection, Destination};
use super::http2::{Http2Pool, StreamLease};
use crate::body::BodyError;

/// Most idle connections kept for a URL; further connections are closed.
const MAX_IDLE: usize = 1024;

/// Time for which an unreachable URL is avoided while a different URL is reachable.
pub(super) const COOL_DOWN: Duration = Duration::from_secs(5);

/// Time for a connection to become ready after its answer was read: normally the time for its
/// driver task to finish a poll. A slower connection is still writing a request with an early
/// answer, and is closed.
const READY_WAIT: Duration = Duration::from_millis(5);

/// Shortest interval between two rounds of closing expired idle connections.
const MIN_PRUNE_EVERY: Duration = Duration::from_millis(100);

/// A backend's URL and its connections.
pub(super) struct Endpoint {
    pub(super) target: Destination,
    keep_alive: Duration,
    /// The end of the connection ends an answer without a length.
    pub(super) close_is_trusted: bool,
    idle: Mutex<Idle>,
    /// The connections with HTTP/2; `None`: HTTP/1.1 is spoken.
    pub(super) http2: Option<Arc<Http2Pool>>,
    in_flight: AtomicUsize,
    /// End of the cool-down, in milliseconds since the creation of the upstream; 0 for a working
    /// URL.
    avoid_until: AtomicU64,
}

#[derive(Default)]
struct Idle {
    /// Ordered by the time of becoming idle.
    connections: Vec<IdleConnection>,
    /// True while the task closing expired connections runs.
    pruned: bool,
}

struct IdleConnection {
    connection: Connection,
    since: Instant,
    /// Time for which the connection may be idle.
    limit: Duration,
}

/// A running call on a URL; counted until dropped.
pub(super) struct ActiveCall {
    pub(super) endpoint: Arc<Endpoint>,
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection in use by a call. Dropping the lease closes the connection.
pub(super) struct PoolLease {
    pub(super) call: ActiveCall,
    pub(super) connection: Connection,
}

/// A call's share of a connection.
pub(super) enum CallLease {
    /// A whole connection.
    Http1(PoolLease),
    /// A stream, with the call that is counted.
    Http2 { _call: ActiveCall, _stream: StreamLease },
}

impl PoolLease {
    /// Gives the connection back. Its last answer must have been read to the end.
    fn give_back(self) {
        let Self { call, connection } = self;
        call.endpoint.keep(connection);
    }
}

impl Endpoint {
    pub(super) fn new(
        target: Destination,
        keep_alive: Duration,
        close_is_trusted: bool,
        http2: Option<Arc<Http2Pool>>,
    ) -> Self {
        Self {
            http2,
            target,
            keep_alive,
            close_is_trusted,
            idle: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            avoid_until: AtomicU64::new(0),
        }
    }

    /// Counts one more call.
    pub(super) fn enter(self: &Arc<Self>) -> ActiveCall {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        ActiveCall { endpoint: self.clone() }
    }

    /// Calls that are running.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Open connections: idle ones, and one for each running call.
    pub(super) fn connections(&self) -> usize {
        match &self.http2 {
            Some(pool) => pool.connections(),
            None => self.idle().connections.len() + self.in_flight(),
        }
    }

    /// True during the cool-down.
    pub(super) fn is_avoided(&self, now: u64) -> bool {
        self.avoid_until.load(Ordering::Relaxed) > now
    }

    /// Records the choice of this URL at `now`. After a cool-down, only the first call tries the
    /// URL, and further calls avoid the URL until the attempt succeeds.
    pub(super) fn chosen(&self, now: u64) {
        if self.avoid_until.load(Ordering::Relaxed) != 0 {
            self.unreachable(now);
        }
    }

    /// Starts a cool-down at `now`.
    pub(super) fn unreachable(&self, now: u64) {
        self.avoid_until.store(now + crate::clock::millis(COOL_DOWN), Ordering::Relaxed);
    }

    /// Ends the cool-down after a successful connection.
    pub(super) fn reached(&self) {
        self.avoid_until.store(0, Ordering::Relaxed);
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // No code under the lock can panic; the list is consistent in any case.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the most recently used idle connection still usable.
    pub(super) async fn check_out(&self) -> Option<Connection> {
        loop {
            let IdleConnection { mut connection, since, limit } = self.idle().connections.pop()?;
            let idle_for = since.elapsed();
            if idle_for > self.keep_alive {
                // All that are left became idle even earlier.
                drop(std::mem::take(&mut self.idle().connections));
                return None;
            }
            if idle_for > limit {
                continue;
            }
            let sender = &mut connection.sender;
            if sender.is_closed() {
                continue;
            }
            if sender.is_ready() || matches!(timeout(READY_WAIT, sender.ready()).await, Ok(Ok(())))
            {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next call.
    fn keep(self: &Arc<Self>, connection: Connection) {
        let limit = connection.kept_for.map_or(self.keep_alive, |time| time.min(self.keep_alive));
        if connection.sender.is_closed() || limit.is_zero() {
            return;
        }
        let since = Instant::now();
        let mut idle = self.idle();
        if idle.connections.len() >= MAX_IDLE {
            return;
        }
        idle.connections.push(IdleConnection { connection, since, limit });
        if !std::mem::replace(&mut idle.pruned, true) {
            drop(idle);
            spawn_pruner(Arc::downgrade(self), self.keep_alive.max(MIN_PRUNE_EVERY));
        }
    }

    /// Closes expired idle connections; false when the pool is empty afterwards.
    fn prune(&self) -> bool {
        let now = Instant::now();
        let mut idle = self.idle();
        let over = |idle: &mut IdleConnection| {
            now.saturating_duration_since(idle.since) > idle.limit
                || idle.connection.sender.is_closed()
        };
        let expired: Vec<_> = idle.connections.extract_if(.., over).collect();
        let left = !idle.connections.is_empty();
        idle.pruned = left;
        drop(idle);
        // Dropping a sender wakes its connection's task, so the drop happens outside the lock.
        drop(expired);
        left
    }
}

/// Starts the task closing expired connections. The task runs while idle connections exist, and
/// keeps nothing alive.
#[expect(
    clippy::disallowed_methods,
    reason = "it only closes idle connections; a drain must not wait for it"
)]
fn spawn_pruner(endpoint: Weak<Endpoint>, every: Duration) {
    tokio::spawn(async move {
        loop {
            sleep(every).await;
            match endpoint.upgrade() {
                Some(endpoint) if endpoint.prune() => {}
                Some(_) | None => return,
            }
        }
    });
}

/// A response's body in the order of arrival. At its end the connection returns to the pool; on an
/// early drop the connection is closed.
///
/// A body broken off before the end announced by its framing gives an error, never a clean end.
/// Trailers are left out: the forwarded message has its own framing.
pub(crate) struct ResponseBody {
    incoming: Incoming,
    lease: Option<CallLease>,
    reusable: bool,
    framing: Framing,
}

impl ResponseBody {
    pub(super) fn new(
        incoming: Incoming,
        lease: CallLease,
        reusable: bool,
        framing: Framing,
    ) -> ResponseBody {
        let mut body = Self { incoming, lease: Some(lease), reusable, framing };
        if http_body::Body::is_end_stream(&body.incoming) {
            body.end();
        }
        body
    }

    /// The framing of the body.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Returns the connection to the pool after the end of the body.
    fn end(&mut self) {
        if let Some(CallLease::Http1(lease)) = self.lease.take()
            && self.reusable
        {
            lease.give_back();
        }
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseBody").field("framing", &self.framing).finish_non_exhaustive()
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            return match std::task::ready!(Pin::new(&mut this.incoming).poll_frame(cx)) {
                // The library takes an end of the connection without an error for the body's end.
                None if matches!(this.framing, Framing::Stream)
                    && !this.incoming.is_end_stream() =>
                {
                    this.lease = None;
                    let what = "the stream ended before the end of the answer";
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, what);
                    Poll::Ready(Some(Err(error.into())))
                }
                None => {
                    this.end();
                    Poll::Ready(None)
                }
                Some(Ok(frame)) if frame.is_data() => {
                    // A reader aware of the length does not ask for a frame after the last.
                    if this.incoming.is_end_stream() {
                        this.end();
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Some(Ok(_trailers)) => continue,
                Some(Err(error)) => {
                    this.lease = None;
                    Poll::Ready(Some(Err(error.into())))
                }
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
