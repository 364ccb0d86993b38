//! A minimal HTTP server and client on the loopback interface, for the demo and for dry runs.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::shutdown::Shutdown;

/// Bytes of the largest message that is read.
const LARGEST: usize = 32 << 20;
/// Header lines of a message: the gateway forwards answers with any number of them.
const MOST_HEADERS: usize = 16 << 10;

/// No answer: the connection ends without one.
#[derive(Debug)]
pub(crate) struct ConnectionLost;

impl std::fmt::Display for ConnectionLost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection ended without an answer")
    }
}

impl std::error::Error for ConnectionLost {}

/// Serves on a free loopback port until the shutdown. `ConnectionLost` closes the
/// connection without an answer.
pub(crate) async fn serve<S, F>(
    tasks: &TaskTracker,
    mut shutdown: Shutdown,
    answer: S,
) -> Result<SocketAddr, String>
where
    S: Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Bytes>, ConnectionLost>> + Send + 'static,
{
    let cannot_listen = |error| format!("cannot listen on a loopback port: {error}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let connections = tasks.clone();
    tasks.spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.wait() => return,
            };
            // A connection that broke before it was accepted is its client's affair.
            let Ok((stream, _)) = accepted else { continue };
            connections.spawn(serve_connection(stream, shutdown.clone(), answer.clone()));
        }
    });
    Ok(address)
}

async fn serve_connection<S, F>(stream: TcpStream, mut shutdown: Shutdown, answer: S)
where
    S: Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Bytes>, ConnectionLost>> + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body =
                Limited::new(body, LARGEST).collect().await.map_err(|_| ConnectionLost)?.to_bytes();
            answer(Request::from_parts(head, body)).await.map(|response| response.map(Full::new))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .max_headers(MOST_HEADERS)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // The end of a connection is part of the story, not an error.
        _ = connection => {}
        () = shutdown.wait() => {}
    }
}

/// Sends one request on a connection of its own and reads the whole answer. Dropping the future
/// closes the connection, as a till that gives up does.
pub(crate) async fn send(
    to: SocketAddr,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, ConnectionLost> {
    let stream = TcpStream::connect(to).await.map_err(|_| ConnectionLost)?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(MOST_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| ConnectionLost)?;
    let exchange = async move {
        let response =
            sender.send_request(request.map(Full::new)).await.map_err(|_| ConnectionLost)?;
        let (head, body) = response.into_parts();
        let body =
            Limited::new(body, LARGEST).collect().await.map_err(|_| ConnectionLost)?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}
