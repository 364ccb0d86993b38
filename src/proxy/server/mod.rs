//! The gateway's public side: connections from clients, served until they end or the gateway
//! drains.

mod connection;
mod doubt;
mod exchanges;
mod http2;
mod timer;
mod tracker;
mod transport;

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use self::connection::{ClientStream, SharedTracker, message};
use self::doubt::RequestDoubt;
use self::exchanges::{access_entry, dismissed};
use self::http2::Http2Connection;
use self::timer::DeadlineTimer;
use self::tracker::{HeadLimits, RequestTracker};
use super::answer::report;
use super::peer::Peer;
use super::routing::Routing;
use super::state::Gateway;
use super::{exchange, reply};
use crate::body::Body;
use crate::net::accept::accept;
use crate::net::listen::ListenSocket;
use crate::net::stream::SocketStream;
use crate::net::tls;
use crate::net::watched::{SocketWatch, watched};
use crate::observe::exchange::{ExchangeSpan, note, within};
use crate::problem::{Problem, Slug};
use crate::shutdown::Shutdown;

/// Bytes a connection buffers at most for reading or writing; more than any head may have.
const BUFFER: usize = 64 << 10;

/// Accepts on all `listeners` until the shutdown starts; `background` runs the accept loops.
pub(crate) fn serve(
    gateway: &Arc<Gateway>,
    listeners: Vec<ListenSocket>,
    background: &TaskTracker,
    shutdown: &Shutdown,
) {
    for listener in listeners {
        let (served, refusing, until) = (gateway.clone(), gateway.clone(), shutdown.clone());
        let accepting = accept(
            listener,
            gateway.connections.clone(),
            gateway.tasks.clone(),
            move || refusal(&refusing.routing()),
            move |stream, peer| serve_socket(served, stream, peer, until),
        );
        let mut shutdown = shutdown.clone();
        background.spawn(async move {
            tokio::select! {
                () = accepting => {}
                () = shutdown.wait() => {}
            }
        });
    }
}

/// The answer to a connection above the limit. A client that waits for a handshake would not
/// understand it.
fn refusal(routing: &Routing) -> Bytes {
    if routing.tls.is_some() {
        return Bytes::new();
    }
    let problem = Problem::new(
        Slug::Overloaded,
        "Too many connections are open. Nothing was sent; please try again shortly.",
    );
    routing.unmatched.refused(problem.slug.as_str());
    message(&problem.retry_after(reply::RETRY_LATER).close())
}

/// The end of a connection.
enum ConnectionEnd {
    /// Closed by hyper.
    Closed,
    /// Given up by hyper: a message broke off.
    Broken(hyper::Error),
    /// The client has sent no head, or an incomplete head, for too long.
    Late,
    /// Reset by the client.
    Reset,
}

/// Serves an accepted connection until it ends.
pub(crate) async fn serve_socket(
    gateway: Arc<Gateway>,
    stream: SocketStream,
    peer: Option<IpAddr>,
    shutdown: Shutdown,
) {
    let _counted = gateway.metrics.connection();
    let _memory = gateway.budget.connection(gateway.connections.taken());
    let routing = gateway.routing();
    let limits = &routing.limits;
    let (mut stream, watch) = watched(stream);
    let heads = HeadLimits { header: limits.header_timeout, idle: limits.idle_timeout };
    let tracker = SharedTracker::new(RequestTracker::new(heads));
    let accepted = Instant::now();
    let deadline = accepted + limits.header_timeout;
    let announced = &routing.proxy_protocol;
    let Some(client) = transport::client_of(&mut stream, peer, announced, deadline).await else {
        return;
    };
    let connection = ClientConnection { gateway: &gateway, routing: &routing, watch, tracker };
    match &routing.tls {
        None => connection.serve_http1(stream, Peer::new(client, None), shutdown).await,
        // Boxed, because a handshake's state is large and most of it is not needed later.
        Some(tls) => {
            let handshake = transport::secured(tls, stream, deadline, shutdown.clone());
            let Some((stream, certificate)) = Box::pin(handshake).await else { return };
            let peer = Peer::new(client, Some(certificate));
            if stream.get_ref().1.alpn_protocol() != Some(tls::HTTP2) {
                return Box::pin(connection.serve_http1(stream, peer, shutdown)).await;
            }
            let ClientConnection { gateway, routing, watch, .. } = connection;
            let connection = Http2Connection { gateway, routing, watch, peer, accepted };
            Box::pin(connection.serve(stream, shutdown)).await;
        }
    }
}

/// Serves HTTP/2 on a socket without TLS, which no listener does: for the fuzz target.
pub(crate) async fn serve_http2(gateway: &Arc<Gateway>, stream: SocketStream, shutdown: Shutdown) {
    let routing = &gateway.routing();
    let (stream, watch) = watched(stream);
    let (peer, accepted) = (Peer::new(None, None), Instant::now());
    let connection = Http2Connection { gateway, routing, watch, peer, accepted };
    Box::pin(connection.serve(stream, shutdown)).await;
}

/// A client's connection.
struct ClientConnection<'a> {
    gateway: &'a Arc<Gateway>,
    /// The snapshot at the begin of the connection.
    routing: &'a Arc<Routing>,
    watch: SocketWatch,
    tracker: SharedTracker,
}

impl ClientConnection<'_> {
    /// Serves HTTP/1.1 until the connection ends.
    async fn serve_http1<S>(self, stream: S, peer: Peer, shutdown: Shutdown)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self { gateway, routing, watch, tracker } = self;
        let limits = &routing.limits;
        let stream = ClientStream::new(stream, tracker.clone(), routing.clone());
        let mut builder = http1::Builder::new();
        builder
            // The tracker has the deadlines; hyper's own would also end a connection that idles.
            .header_read_timeout(None)
            // A client closing its sending side after its request still gets its answer.
            .half_close(true)
            .max_header_size(limits.max_head)
            .max_buf_size(BUFFER.max(2 * limits.max_head));
        let service = service_fn(|request| {
            let doubt = tracker.lock().begin(request.body());
            observed(gateway, &peer, &watch, request, doubt)
        });
        let mut connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut signal = shutdown.clone();
        let mut ending = pin!(signal.wait());
        let mut failed = pin!(watch.failed());
        let reloads = gateway.reloads();
        let mut dismissed = pin!(dismissed(gateway, &peer, reloads.clone()));
        let mut reloads = reloads;
        let mut timer = DeadlineTimer::default();
        let mut listening = false;
        let mut draining = false;
        let end = poll_fn(|context| {
            let mut connection = Pin::new(&mut connection);
            // Polled once, so that the shutdown wakes this task. A connection is polled several
            // times per request, and polling the wait again would take a lock each time.
            if !listening {
                listening = true;
                draining = ending.as_mut().poll(context).is_ready();
                draining |= dismissed.as_mut().poll(context).is_ready();
                if draining {
                    connection.as_mut().graceful_shutdown();
                }
            } else if !draining {
                draining = shutdown.changed();
                if !draining && reloads.has_changed().unwrap_or_default() {
                    reloads.mark_unchanged();
                    draining = dismissed.as_mut().poll(context).is_ready();
                }
                if draining {
                    connection.as_mut().graceful_shutdown();
                }
            }
            match connection.poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(ConnectionEnd::Closed),
                Poll::Ready(Err(error)) => return Poll::Ready(ConnectionEnd::Broken(error)),
                Poll::Pending => {}
            }
            let deadline = tracker.lock().deadline();
            match deadline {
                Some(deadline) => timer.poll_until(deadline, context).map(|()| ConnectionEnd::Late),
                // A wait for the client's bytes notices a reset by itself.
                None => failed.as_mut().poll(context).map(|()| ConnectionEnd::Reset),
            }
        })
        .await;
        match end {
            ConnectionEnd::Closed => watch.reset_on_close(false),
            ConnectionEnd::Broken(error) => {
                tracing::debug!(%error, "a client connection ended early")
            }
            ConnectionEnd::Reset => tracing::debug!("a client reset its connection"),
            ConnectionEnd::Late => {
                watch.reset_on_close(false);
                connection.into_parts().io.into_inner().answer_late_head().await;
            }
        }
    }
}

/// Answers a request as an exchange of the log, with a line of its own in the access log.
async fn observed(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    watch: &SocketWatch,
    request: Request<Incoming>,
    doubt: Option<RequestDoubt>,
) -> Result<Response<Body>, Infallible> {
    let routing = gateway.routing();
    let span = ExchangeSpan::new();
    let entry = access_entry(&routing, peer, &span, request.method());
    // Boxed: the future of an exchange is large, and would be copied on each step of its way into
    // the connection.
    let answer = Box::pin(answer_one(gateway, &routing, (peer, watch), request, doubt));
    let response = within(span, answer).await?;
    Ok(match entry {
        Some(entry) => entry.attach(response),
        None => response,
    })
}

async fn answer_one(
    gateway: &Arc<Gateway>,
    routing: &Routing,
    (peer, watch): (&Peer, &SocketWatch),
    request: Request<Incoming>,
    doubt: Option<RequestDoubt>,
) -> Result<Response<Body>, Infallible> {
    if request.version() == Version::HTTP_10 {
        // The end of the connection may be the only end of the body, so a broken answer would look
        // whole.
        watch.reset_on_close(true);
    }
    if let Some(doubt) = doubt {
        let problem = Problem::new(Slug::RequestInvalid, doubt.detail()).close();
        let slug = problem.slug.as_str();
        routing.unmatched.refused(slug);
        exchange::identify(routing, request.headers());
        note(|span| span.set_outcome(slug));
        return Ok(report(&problem, None, None));
    }
    Ok(exchange::exchange(gateway, routing, peer, request).await)
}
