//! HTTP/2 connections of clients.
//!
//! hyper speaks the protocol and bounds streams, heads and windows. The rest is added here: floods
//! of frames without content end the connection, and so do heads that do not arrive in time,
//! clients that take nothing, and connections without requests.

mod body;
mod head;
mod meter;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::task::TaskTracker;

use self::body::CountedBody;
use self::meter::{MeteredStream, SharedMeter};
use super::exchanges::{access_entry, dismissed};
use crate::net::watched::SocketWatch;
use crate::net::write_timeout::write_timeout;
use crate::observe::exchange::{ExchangeSpan, note, within};
use crate::problem::{Problem, Slug};
use crate::proxy::answer::report;
use crate::proxy::exchange;
use crate::proxy::peer::Peer;
use crate::proxy::routing::Routing;
use crate::proxy::state::Gateway;
use crate::shutdown::Shutdown;

/// Bytes that a client may send ahead on a stream, and on a connection: as much as an HTTP/1.1
/// connection buffers. The window opens again when a piece of a body is read, within the memory for
/// bodies.
const WINDOW: u32 = 64 << 10;

/// Streams that were reset before the gateway has seen them, at most.
const MOST_PENDING_RESETS: usize = 20;

/// Streams reset by the gateway for a client's mistakes, at most.
const MOST_FAULTS: usize = 64;

/// Bytes buffered for sending on a stream, at most.
const SEND_BUFFER: usize = 64 << 10;

/// Time between two signs of life that a client has to answer.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Time to answer one.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Time for a client to close a connection that has ended.
const LINGER: Duration = Duration::from_secs(1);

/// Bounds of the time between two looks at the times of a connection.
const LOOKS: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// A connection and the state that its streams share.
pub(super) struct Http2Connection<'a> {
    pub(super) gateway: &'a Arc<Gateway>,
    pub(super) routing: &'a Arc<Routing>,
    pub(super) watch: SocketWatch,
    pub(super) peer: Peer,
    pub(super) accepted: Instant,
}

/// Counts of a connection's streams.
#[derive(Debug, Clone, Default)]
struct StreamCounts {
    /// Requests so far.
    requests: Arc<AtomicUsize>,
    /// Streams with a task.
    active: Arc<AtomicUsize>,
    /// Answers that wait for the next piece from the backend.
    waiting: Arc<AtomicUsize>,
}

/// Runs streams as tasks that a drain awaits.
#[derive(Clone)]
struct StreamTasks {
    tasks: TaskTracker,
    active: Arc<AtomicUsize>,
}

impl<F> Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        struct Active(Arc<AtomicUsize>);
        impl Drop for Active {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.active.fetch_add(1, Ordering::Relaxed);
        let active = Active(self.active.clone());
        self.tasks.spawn(Box::pin(async move {
            stream.await;
            drop(active);
        }));
    }
}

/// The end of a connection.
#[derive(Debug)]
enum Http2End {
    /// Closed in order.
    Closed,
    /// Given up by hyper.
    Broken(hyper::Error),
    /// Reset by the client.
    Reset,
    /// Ended by the gateway.
    Ended(&'static str),
}

impl Http2Connection<'_> {
    /// Serves the connection until it ends.
    pub(super) async fn serve<S>(self, stream: S, mut shutdown: Shutdown)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { gateway, routing, watch, peer, accepted } = self;
        let limits = &routing.limits;
        let meter = SharedMeter::new(accepted);
        let stream = write_timeout(stream, limits.body_timeout);
        let stream = MeteredStream::new(stream, meter.clone());
        let counts = StreamCounts::default();
        let peer = Arc::new(peer);
        let service = service_fn(|request| {
            counts.requests.fetch_add(1, Ordering::Relaxed);
            let stream = StreamContext {
                gateway: gateway.clone(),
                peer: peer.clone(),
                waiting: counts.waiting.clone(),
                meter: meter.clone(),
            };
            answer_one(stream, request)
        });
        let tasks = StreamTasks { tasks: gateway.tasks.clone(), active: counts.active.clone() };
        let connection = builder(routing, tasks).serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let mut clock = ConnectionClock::new(routing, meter.clone(), counts.clone(), accepted);
        let mut ending = pin!(shutdown.wait());
        let mut failed = pin!(watch.failed());
        let mut dismissed = pin!(dismissed(gateway, &peer, gateway.reloads()));
        let end = poll_fn(|context| {
            if !clock.is_draining()
                && (ending.as_mut().poll(context).is_ready()
                    || dismissed.as_mut().poll(context).is_ready())
            {
                clock.drain();
                connection.as_mut().graceful_shutdown();
            }
            match connection.as_mut().poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(Http2End::Closed),
                Poll::Ready(Err(error)) => return Poll::Ready(Http2End::Broken(error)),
                Poll::Pending => {}
            }
            if failed.as_mut().poll(context).is_ready() {
                return Poll::Ready(Http2End::Reset);
            }
            match clock.poll(context) {
                Poll::Ready(ClockEvent::End(reason)) => Poll::Ready(Http2End::Ended(reason)),
                Poll::Ready(ClockEvent::Drain) => {
                    connection.as_mut().graceful_shutdown();
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match end {
            Http2End::Closed => {}
            Http2End::Broken(error) => tracing::debug!(%error, "a client connection ended early"),
            Http2End::Reset => tracing::debug!("a client reset its connection"),
            Http2End::Ended(reason) => tracing::debug!(reason, "a client connection was ended"),
        }
        // The streams learn of the end when the connection is dropped.
    }
}

fn builder(routing: &Routing, tasks: StreamTasks) -> http2::Builder<StreamTasks> {
    let limits = &routing.limits;
    let mut builder = http2::Builder::new(tasks);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(u32::try_from(limits.streams).unwrap_or(u32::MAX))
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MOST_PENDING_RESETS)
        .max_local_error_reset_streams(MOST_FAULTS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// The state that a stream has from its connection.
struct StreamContext {
    gateway: Arc<Gateway>,
    peer: Arc<Peer>,
    waiting: Arc<AtomicUsize>,
    meter: SharedMeter,
}

async fn answer_one(
    stream: StreamContext,
    mut request: Request<Incoming>,
) -> Result<Response<CountedBody>, Infallible> {
    let StreamContext { gateway, peer, waiting, meter } = stream;
    if meter.lock().has_resets() {
        // hyper ends a stream that waits and is reset. A stream whose reset was read together with
        // its head ends here: it would open a connection to the backend for nothing.
        tokio::task::yield_now().await;
    }
    let method = request.method().clone();
    let span = ExchangeSpan::new();
    let routing = gateway.routing();
    let entry = access_entry(&routing, &peer, &span, &method);
    let answered = async {
        match head::adapt(&mut request) {
            Ok(()) => exchange::exchange(&gateway, &routing, &peer, request).await,
            Err(detail) => {
                let problem = Problem::new(Slug::RequestInvalid, detail).close();
                let slug = problem.slug.as_str();
                routing.unmatched.refused(slug);
                exchange::identify(&routing, request.headers());
                note(|span| span.set_outcome(slug));
                report(&problem, None, None)
            }
        }
    };
    let response = head::answer(&method, within(span, answered).await);
    let response = match entry {
        Some(entry) => entry.attach(response),
        None => response,
    };
    Ok(response.map(|body| CountedBody::new(body, waiting)))
}

/// A decision of the clock.
enum ClockEvent {
    /// No request is expected any more.
    Drain,
    /// The connection ends at once, for a reason.
    End(&'static str),
}

/// The time limits of a connection.
struct ConnectionClock {
    looks: Interval,
    meter: SharedMeter,
    counts: StreamCounts,
    header: Duration,
    body: Duration,
    idle: Duration,
    accepted: Instant,
    /// Since when no stream is open.
    idle_since: Instant,
    /// Begin of the orderly end.
    draining: Option<Instant>,
}

impl ConnectionClock {
    fn new(routing: &Routing, meter: SharedMeter, counts: StreamCounts, accepted: Instant) -> Self {
        let limits = &routing.limits;
        let (header, body) = (limits.header_timeout, limits.body_timeout);
        let idle = limits.idle_timeout;
        let every = (header.min(body).min(idle) / 8).clamp(LOOKS[0], LOOKS[1]);
        let mut looks = interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let idle_since = accepted;
        Self { looks, meter, counts, header, body, idle, accepted, idle_since, draining: None }
    }

    fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// Notes the begin of the orderly end.
    fn drain(&mut self) {
        self.draining.get_or_insert_with(Instant::now);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ClockEvent> {
        while self.looks.poll_tick(context).is_ready() {
            if let Some(event) = self.look(Instant::now()) {
                return Poll::Ready(event);
            }
        }
        Poll::Pending
    }

    fn look(&mut self, now: Instant) -> Option<ClockEvent> {
        let meter = self.meter.lock();
        let late = |since: Instant| now.duration_since(since) >= self.header;
        if meter.head_since().is_some_and(late) {
            return Some(ClockEvent::End("a head did not arrive in time"));
        }
        if self.counts.requests.load(Ordering::Relaxed) == 0 && late(self.accepted) {
            return Some(ClockEvent::End("no request arrived in time"));
        }
        if let Some(before) = now.checked_sub(self.body)
            && meter.stalled(before) > self.counts.waiting.load(Ordering::Relaxed)
        {
            return Some(ClockEvent::End("the client takes nothing"));
        }
        if self.counts.active.load(Ordering::Relaxed) > 0 || meter.is_answering() {
            self.idle_since = now;
            return None;
        }
        let idle = now.duration_since(self.idle_since);
        match self.draining {
            Some(since) if idle.min(now.duration_since(since)) >= LINGER => {
                Some(ClockEvent::End("the client does not close"))
            }
            None if idle >= self.idle => {
                self.draining = Some(now);
                Some(ClockEvent::Drain)
            }
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(accepted: Instant) -> (ConnectionClock, SharedMeter, StreamCounts) {
        let (meter, counts) = (SharedMeter::new(accepted), StreamCounts::default());
        let second = Duration::from_secs(1);
        let clock = ConnectionClock {
            looks: interval(second),
            meter: meter.clone(),
            counts: counts.clone(),
            header: 10 * second,
            body: 30 * second,
            idle: 75 * second,
            accepted,
            idle_since: accepted,
            draining: None,
        };
        (clock, meter, counts)
    }

    #[tokio::test]
    async fn a_connection_without_requests_ends_in_order_and_then_at_once() {
        let start = Instant::now();
        let (mut clock, _, counts) = clock(start);
        counts.requests.store(1, Ordering::Relaxed);
        clock.meter = SharedMeter::new(start + Duration::from_secs(150));
        let at = |seconds| start + Duration::from_secs(seconds);
        counts.active.store(1, Ordering::Relaxed);
        assert!(clock.look(at(80)).is_none());
        counts.active.store(0, Ordering::Relaxed);
        assert!(clock.look(at(81)).is_none() && !clock.is_draining());
        assert!(matches!(clock.look(at(80 + 75)), Some(ClockEvent::Drain)));
        assert!(clock.is_draining() && clock.look(at(80 + 75)).is_none());
        assert!(matches!(clock.look(at(80 + 77)), Some(ClockEvent::End(_))));
    }

    #[tokio::test]
    async fn heads_and_first_requests_have_a_time_limit() {
        let start = Instant::now();
        let (mut clock, meter, counts) = clock(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(clock.look(at(9)).is_none());
        assert!(matches!(clock.look(at(10)), Some(ClockEvent::End(_))));
        counts.requests.store(1, Ordering::Relaxed);
        assert!(matches!(clock.look(at(10)), Some(ClockEvent::End(_))), "the preface is open");
        drop(meter);
    }
}
