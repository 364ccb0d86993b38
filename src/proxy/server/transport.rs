//! The begin of a client's connection below HTTP: the PROXY header of a load balancer, then TLS.
//!
//! Both count against the time limit of the first request head, so that a connection that says
//! nothing ends as early as one that sends half a head.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;

use crate::listen_address::PeerSet;
use crate::net::proxy_protocol::{self, Announced, ProxyHeaderError};
use crate::net::tls_server::{ClientCertificate, ListenerTls};
use crate::net::watched::WatchedStream;
use crate::shutdown::Shutdown;

/// The client's address: the one announced by a load balancer if the peer is one, else the peer's;
/// `None`: the connection has no usable PROXY header and must end.
pub(super) async fn client_of(
    stream: &mut WatchedStream,
    peer: Option<IpAddr>,
    balancers: &PeerSet,
    deadline: Instant,
) -> Option<Option<IpAddr>> {
    if !balancers.contains(peer) {
        return Some(peer);
    }
    let defect = match timeout_at(deadline, proxy_protocol::read(stream)).await {
        Ok(Ok((announced, beyond))) => {
            stream.unread(beyond);
            return Some(match announced {
                Announced::Client(address) => Some(address),
                Announced::Own => peer,
            });
        }
        // Load balancers check servers by connecting only.
        Ok(Err(ProxyHeaderError::Silent)) => return None,
        Ok(Err(ProxyHeaderError::Io(error))) => error.to_string(),
        Ok(Err(ProxyHeaderError::Malformed(defect))) => defect.to_owned(),
        Err(_) => "it did not arrive in time".to_owned(),
    };
    let peer = peer.map_or("unix:".to_owned(), |peer| peer.to_canonical().to_string());
    tracing::warn!(
        peer,
        defect,
        "a load balancer named in `proxy_protocol` sent no PROXY header; its connection was closed"
    );
    None
}

/// The handshake, until the deadline or the shutdown; `None`: the connection has ended.
pub(super) async fn secured(
    tls: &ListenerTls,
    stream: WatchedStream,
    deadline: Instant,
    mut shutdown: Shutdown,
) -> Option<(TlsStream<WatchedStream>, Option<Arc<ClientCertificate>>)> {
    let accepted = tokio::select! {
        biased;
        accepted = timeout_at(deadline, tls.accept(stream)) => accepted,
        () = shutdown.wait() => return None,
    };
    match accepted {
        Ok(Ok(secured)) => Some(secured),
        Ok(Err(error)) => {
            // Scanners and clients that distrust the certificate end here all the time.
            if error.kind() != io::ErrorKind::UnexpectedEof {
                tracing::debug!(%error, "a TLS handshake failed");
            }
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake did not end in time");
            None
        }
    }
}
