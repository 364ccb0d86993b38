//! The gateway's public side: connections from clients, served until they end or the gateway
//! drains.

mod connection;
mod timer;

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use self::connection::{ClientStream, message};
use self::timer::HeaderTimer;
use super::peer::Peer;
use super::state::Gateway;
use super::{exchange, reply};
use crate::net::accept::accept;
use crate::net::listen::ListenSocket;
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
    let connections = Arc::new(Semaphore::new(gateway.routing().limits.connections));
    for listener in listeners {
        let (served, until) = (gateway.clone(), shutdown.clone());
        let accepting = accept(
            listener,
            connections.clone(),
            gateway.tasks.clone(),
            refusal,
            move |stream, peer| serve_http1(served, stream, peer, until),
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

/// The answer to a connection above the limit.
fn refusal() -> Bytes {
    let problem = Problem::new(
        Slug::Overloaded,
        "Too many connections are open. Nothing was sent; please try again shortly.",
    );
    message(&problem.retry_after(reply::RETRY_LATER).close())
}

/// Serves one HTTP/1.1 connection until it ends.
async fn serve_http1<S>(gateway: Arc<Gateway>, stream: S, peer: SocketAddr, shutdown: Shutdown)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routing = gateway.routing();
    let limits = &routing.limits;
    let stream = ClientStream::new(stream, limits.body_timeout);
    let peer = Peer::new(peer.ip());
    let mut builder = http1::Builder::new();
    builder
        .timer(HeaderTimer::default())
        .header_read_timeout(limits.header_timeout)
        // A client that closes its sending side after its request still gets its answer.
        .half_close(true)
        .max_header_size(limits.max_head)
        .max_buf_size(BUFFER.max(2 * limits.max_head));
    let service = service_fn(|request| {
        let (gateway, peer) = (&gateway, &peer);
        async move { Ok::<_, Infallible>(exchange::exchange(gateway, peer, request).await) }
    });
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut signal = shutdown.clone();
    let mut ending = pin!(signal.wait());
    let mut listening = false;
    let mut draining = false;
    let result = poll_fn(|context| {
        let mut connection = Pin::new(&mut connection);
        // The wait is polled once, so that the shutdown wakes this task. A connection is polled
        // several times for each request, and polling the wait again would take a lock each time.
        if !listening {
            listening = true;
            draining = ending.as_mut().poll(context).is_ready();
            if draining {
                connection.as_mut().graceful_shutdown();
            }
        } else if !draining && shutdown.changed() {
            draining = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.poll(context)
    })
    .await;
    if let Err(error) = result {
        tracing::debug!(%error, "a client connection ended early");
        if error.is_timeout() {
            connection.into_parts().io.into_inner().answer_late_head().await;
        }
    }
}
