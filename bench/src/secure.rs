//! Loads over TLS: handshakes alone, and requests over HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, HandshakeKind};

use crate::load::{Ask, BODY, Load, NEXT_KEY, Progress, STALLED, Status};
use crate::tls::{self, Tickets};
use crate::{Failure, backend};

/// Transport of a load to its server.
#[derive(Clone)]
pub(crate) enum Wire {
    Plain,
    Tls(Arc<ClientConfig>),
    Http2(Arc<ClientConfig>),
    /// Nothing but handshakes, full or resumed.
    Handshake(Arc<ClientConfig>, HandshakeKind),
}

/// Shakes hands again and again; to resume a session, the ticket of the handshake before is used.
pub(crate) async fn handshakes(
    load: &Load,
    config: &Arc<ClientConfig>,
    kind: HandshakeKind,
    progress: &Progress,
) -> Result<(), Failure> {
    let (config, tickets) = Tickets::of(config, kind == HandshakeKind::Resumed);
    let shake = async || -> Result<HandshakeKind, Failure> {
        let mut stream = tls::connect(load.address, &config).await?;
        tickets.wait(&mut stream).await?;
        let (socket, session) = stream.into_inner();
        // Without this the ports of closed connections would run out.
        socket.set_zero_linger()?;
        session.handshake_kind().ok_or_else(|| "no handshake".into())
    };
    // Brings the first ticket.
    shake().await?;
    while !progress.stop.load(Ordering::Relaxed) {
        let found = tokio::time::timeout(STALLED, shake()).await;
        let found = found.map_err(|_| "no handshake in time")??;
        if found != kind {
            return Err(format!("a handshake was {found:?}").into());
        }
        progress.answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Asks over one connection of HTTP/2, one request after the other.
pub(crate) async fn requests(
    load: &Load,
    config: &Arc<ClientConfig>,
    number: u64,
    progress: &Progress,
) -> Result<(), Failure> {
    let stream = tls::connect(load.address, config).await?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) });
    loop {
        let key =
            if load.ask == Ask::Fresh { NEXT_KEY.fetch_add(1, Ordering::Relaxed) } else { number };
        sender.ready().await?;
        let response = sender.send_request(request(load.address, load.ask, key)?);
        tokio::time::timeout(STALLED, checked(response, load.status))
            .await
            .map_err(|_| "no answer in time")??;
        progress.answered.fetch_add(1, Ordering::Relaxed);
        if progress.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// The same requests as over HTTP/1.1.
fn request(address: SocketAddr, ask: Ask, key: u64) -> Result<Request<Full<Bytes>>, Failure> {
    let builder = Request::builder()
        .header("user-agent", "till/4.2")
        .header("accept", "application/json")
        .header("authorization", "Bearer 4f9c2e71a0");
    let request = if ask == Ask::Get {
        builder.uri(format!("https://{address}/vouchers/7f3c9a51")).body(Full::default())?
    } else {
        builder
            .method(Method::POST)
            .uri(format!("https://{address}/redeem"))
            .header("content-type", "application/json")
            .header("idempotency-key", format!("\"bench-{:08x}-{key:016}\"", std::process::id()))
            .body(Full::from(BODY))?
    };
    Ok(request)
}

async fn checked(
    response: impl Future<Output = hyper::Result<Response<hyper::body::Incoming>>>,
    status: Status,
) -> Result<(), Failure> {
    let (head, body) = response.await?.into_parts();
    let body = body.collect().await?.to_bytes();
    let said = head.headers.get("idempotency-status").map(|value| value.as_bytes());
    let right = head.status == 200
        && body == backend::ANSWER.as_bytes()
        && match status {
            Status::Any => true,
            Status::None => said.is_none(),
            Status::Is(word) => said == Some(word.as_bytes()),
        };
    if right { Ok(()) } else { Err(format!("expected {status:?}, got {head:?} {body:?}").into()) }
}
