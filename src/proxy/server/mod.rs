//! Accepting connections and ending them well.

mod connection;
pub(super) mod peer;
mod timer;

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use self::connection::{ClientIo, written_out};
use self::peer::Client;
use self::timer::ClientTimer;
use super::state::Gateway;
use super::{exchange, reply};
use crate::places::Places;
use crate::problem::{Problem, Slug};
use crate::shutdown::Shutdown;

/// How long accepting rests after the system refused a connection (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The most a connection buffers of what it reads or writes; more than any head may have.
const BUFFER: usize = 64 << 10;

/// Accepts on `listener` until the shutdown starts.
pub(super) async fn accept(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    connections: Arc<Places>,
    mut shutdown: Shutdown,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.wait() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = connections.take() else {
            refuse(&stream);
            continue;
        };
        let shutdown = shutdown.clone();
        let served = gateway.clone();
        gateway.tasks.spawn(async move {
            serve(served, stream, peer, shutdown).await;
            drop(place);
        });
    }
}

/// Tells a connection over the limit why, as far as its buffer takes it at once.
fn refuse(stream: &TcpStream) {
    let problem = Problem::new(
        Slug::Overloaded,
        "Too many connections are open. Nothing was sent; please try again shortly.",
    );
    let problem = problem.retry_after(reply::RETRY_LATER).close();
    let _ = stream.try_write(&written_out(&problem));
}

/// Serves one connection until it ends.
async fn serve(gateway: Arc<Gateway>, stream: TcpStream, peer: SocketAddr, mut shutdown: Shutdown) {
    // Without this an answer in two pieces waits for the client's delayed acknowledgment.
    let _ = stream.set_nodelay(true);
    let limits = &gateway.config.server.limits;
    let timed_out = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(ClientIo::new(stream, timed_out.clone(), limits.body_timeout));
    let timer = ClientTimer::default();
    let client = Client::new(peer.ip(), timer.clone());
    let mut builder = http1::Builder::new();
    builder
        .timer(timer)
        .header_read_timeout(limits.header_timeout)
        // A client that has sent its request and closed its sending side still gets its answer.
        .half_close(true)
        .max_header_size(limits.max_head)
        .max_buf_size(BUFFER.max(2 * limits.max_head));
    let service = service_fn(|request| {
        let (gateway, client) = (&gateway, &client);
        async move { Ok::<_, Infallible>(exchange::exchange(gateway, client, request).await) }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let signal = shutdown.clone();
    let mut ending = pin!(shutdown.wait());
    let mut listening = false;
    let mut told = false;
    let result = poll_fn(|context| {
        // Polled once, to be woken when the end starts; a connection is polled several times for
        // each request, and asking the signal itself costs a lock each time.
        if !listening {
            listening = true;
            told = ending.as_mut().poll(context).is_ready();
            if told {
                connection.as_mut().graceful_shutdown();
            }
        } else if !told && signal.changed() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    })
    .await;
    if let Err(error) = result {
        timed_out.store(error.is_timeout(), Ordering::Release);
        tracing::debug!(%error, "a connection ended early");
    }
}
