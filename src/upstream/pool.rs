//! The connections to one URL: idle ones to use again, and how many calls are running.

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
use super::connect::{Connection, Target};
use crate::body::BodyError;

/// Idle connections kept for each URL; what is beyond is closed.
const MAX_IDLE: usize = 1024;

/// How long a URL that could not be reached is avoided while others can be.
pub(super) const COOL_DOWN: Duration = Duration::from_secs(5);

/// For a connection whose answer has just been read to become ready again. That is normally the
/// time its driver needs to finish its turn; one that takes longer is still writing a request whose
/// answer came early, and is closed.
const READY_WAIT: Duration = Duration::from_millis(5);

/// The shortest time between two rounds of closing what was idle for too long.
const MIN_PRUNE_EVERY: Duration = Duration::from_millis(100);

/// One URL of a backend and its connections.
pub(super) struct Endpoint {
    pub(super) target: Target,
    keep_alive: Duration,
    idle: Mutex<Idle>,
    in_flight: AtomicUsize,
    /// Until when it is avoided, in milliseconds since the upstream was made; 0: it works.
    avoid_until: AtomicU64,
}

#[derive(Default)]
struct Idle {
    /// In the order they became idle.
    connections: Vec<IdleConnection>,
    /// Whether a task is there to close what is idle for too long.
    pruned: bool,
}

struct IdleConnection {
    connection: Connection,
    since: Instant,
}

/// A call that is running on a URL; counted as long as it lives.
pub(super) struct Call {
    pub(super) endpoint: Arc<Endpoint>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection in use by one call. Dropped, it closes.
pub(super) struct Lease {
    pub(super) call: Call,
    pub(super) connection: Connection,
}

impl Lease {
    /// Gives the connection back. Its last answer must have been read to the end.
    fn give_back(self) {
        let Self { call, connection } = self;
        call.endpoint.keep(connection);
    }
}

impl Endpoint {
    pub(super) fn new(target: Target, keep_alive: Duration) -> Self {
        Self {
            target,
            keep_alive,
            idle: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            avoid_until: AtomicU64::new(0),
        }
    }

    /// Counts one more call.
    pub(super) fn enter(self: &Arc<Self>) -> Call {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Call { endpoint: self.clone() }
    }

    /// Calls that are running.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it is to be avoided at `now`.
    pub(super) fn is_avoided(&self, now: u64) -> bool {
        self.avoid_until.load(Ordering::Relaxed) > now
    }

    /// It was chosen at `now`. When its cool-down is just over, this one call finds out whether it
    /// works again, and the others go on avoiding it meanwhile.
    pub(super) fn chosen(&self, now: u64) {
        if self.avoid_until.load(Ordering::Relaxed) != 0 {
            self.unreachable(now);
        }
    }

    /// It could not be reached at `now`.
    pub(super) fn unreachable(&self, now: u64) {
        self.avoid_until.store(now + crate::clock::millis(COOL_DOWN), Ordering::Relaxed);
    }

    /// A connection was made.
    pub(super) fn reached(&self) {
        self.avoid_until.store(0, Ordering::Relaxed);
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // Nothing that can panic happens under the lock; the list is whole in any case.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that became idle last and can be used, if there is one.
    pub(super) async fn check_out(&self) -> Option<Connection> {
        loop {
            let IdleConnection { mut connection, since } = self.idle().connections.pop()?;
            if since.elapsed() > self.keep_alive {
                // All that are left became idle even earlier.
                drop(std::mem::take(&mut self.idle().connections));
                return None;
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
        if connection.sender.is_closed() || self.keep_alive.is_zero() {
            return;
        }
        let since = Instant::now();
        let mut idle = self.idle();
        if idle.connections.len() >= MAX_IDLE {
            return;
        }
        idle.connections.push(IdleConnection { connection, since });
        if !std::mem::replace(&mut idle.pruned, true) {
            drop(idle);
            spawn_pruner(Arc::downgrade(self), self.keep_alive.max(MIN_PRUNE_EVERY));
        }
    }

    /// Closes what was idle for too long; says whether anything is left.
    fn prune(&self) -> bool {
        let now = Instant::now();
        let mut idle = self.idle();
        let fresh =
            |idle: &IdleConnection| now.saturating_duration_since(idle.since) <= self.keep_alive;
        let expired = idle.connections.iter().position(fresh).unwrap_or(idle.connections.len());
        let expired: Vec<_> = idle.connections.drain(..expired).collect();
        idle.connections.retain(|idle| !idle.connection.sender.is_closed());
        let left = !idle.connections.is_empty();
        idle.pruned = left;
        drop(idle);
        // Dropping a sender wakes its connection's task: not under the lock.
        drop(expired);
        left
    }
}

/// Runs while there are idle connections, and holds nothing alive.
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

/// A response's body as it arrives. At its end the connection goes back to the pool; dropped
/// before, the connection is closed.
///
/// A body that breaks off before the end its framing announced gives an error, never a clean end.
/// Trailers are left out: what is sent on has a framing of its own.
pub struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
    reusable: bool,
    framing: Framing,
}

impl ResponseBody {
    pub(super) fn new(
        incoming: Incoming,
        lease: Lease,
        reusable: bool,
        framing: Framing,
    ) -> ResponseBody {
        let mut body = Self { incoming, lease: Some(lease), reusable, framing };
        if http_body::Body::is_end_stream(&body.incoming) {
            body.end();
        }
        body
    }

    /// How the end of the body is told.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The body was read to its end.
    fn end(&mut self) {
        if let Some(lease) = self.lease.take()
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
                None => {
                    this.end();
                    Poll::Ready(None)
                }
                Some(Ok(frame)) if frame.is_data() => {
                    // Who knows the length does not ask for a frame after the last one.
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
