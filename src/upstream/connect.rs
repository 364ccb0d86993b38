//! Connecting to a backend's URL: name resolution, TCP, TLS and the HTTP handshake.
//!
//! No byte of a request is written here, so every failure in this file proves the backend's
//! inaction.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::socket::{Announcement, Socket};
use crate::body::Body;

/// Bytes of the longest response head.
pub(super) const MAX_RESPONSE_HEAD: usize = 64 << 10;

/// Header lines of the longest response head. hyper takes 100 by default, and reserves 64 bytes for
/// each line while reading a head: 2048 lines have no measurable cost, while room for 16,384 (the
/// most that fit into the bytes) costs more than a microsecond per response.
const MAX_RESPONSE_LINES: usize = 2048;

/// A backend's URL, resolved to everything a connection and a request need.
pub(super) struct Destination {
    /// Scheme and authority, for messages.
    pub(super) name: String,
    /// The `Host` of requests to the URL.
    pub(super) host_header: HeaderValue,
    /// Prefix of every request's path, without a slash at its end; often empty.
    pub(super) prefix: String,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    dead: DeadAddresses,
}

/// A connection ready for a request.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Body>,
    announced: Announcement,
    /// Time for which the backend keeps the connection open, less a margin, according to the last
    /// response; `None`: not stated.
    pub(super) kept_for: Option<Duration>,
}

impl Connection {
    /// Sends `request`, which is in the connection's queue when the call returns.
    pub(super) fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + use<> {
        self.announced.announce();
        self.sender.try_send_request(request)
    }
}

impl Destination {
    /// The destination of `url`; `tls` is used for the scheme `https`.
    pub(super) fn new(url: &Uri, tls: Option<&Arc<ClientConfig>>) -> Result<Self, String> {
        let wrong = |what: &str| format!("upstream URL {url}: {what}");
        let authority = url.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("credentials in the URL are not used; remove them"));
        }
        if url.query().is_some() {
            return Err(wrong("a query cannot be part of it"));
        }
        let secure = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(_) | None => return Err(wrong("its scheme must be http or https")),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        let tls = match (secure, tls) {
            (false, _) => None,
            (true, Some(config)) => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| wrong("its host is neither a DNS name nor an IP address"))?;
                Some((TlsConnector::from(config.clone()), name))
            }
            (true, None) => return Err(wrong("TLS is not set up")),
        };
        Ok(Self {
            name: format!("{}://{authority}", url.scheme_str().unwrap_or_default()),
            host_header: HeaderValue::from_str(authority.as_str())
                .map_err(|_| wrong("its authority cannot be a Host header"))?,
            prefix: url.path().trim_end_matches('/').to_owned(),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            host,
            tls,
            dead: DeadAddresses::default(),
        })
    }

    /// True for encrypted connections.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The request target to send: the prefix, then the client's path and query.
    pub(super) fn uri(&self, target: &Uri) -> Result<Uri, String> {
        let path = target.path_and_query().map_or("/", PathAndQuery::as_str);
        if path == "*" {
            return Ok(Uri::from_static("*"));
        }
        let joined = format!("{}{path}", self.prefix);
        joined.parse().map_err(|error| format!("{}: no valid request target: {error}", self.name))
    }

    /// A new connection, within `limit` for DNS, connect and TLS together.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Connection, String> {
        let deadline = Instant::now() + limit;
        let stream = self.tcp(deadline).await?;
        // Requests are written whole, so Nagle's algorithm only delays them. Without the option
        // requests are slower and otherwise unaffected.
        let _ = stream.set_nodelay(true);
        let (socket, announced) = Socket::new(stream);
        match &self.tls {
            None => self.handshake(socket, announced).await,
            Some((connector, name)) => {
                let stream = timeout_at(deadline, connector.connect(name.clone(), socket))
                    .await
                    .map_err(|_| format!("{}: TLS handshake timed out", self.name))?
                    .map_err(|error| format!("{}: TLS handshake failed: {error}", self.name))?;
                self.handshake(stream, announced).await
            }
        }
    }

    /// Tries every address of the host, recently dead addresses last. Each address gets an equal
    /// share of the remaining time, so an address that swallows packets cannot use up the whole
    /// limit.
    async fn tcp(&self, deadline: Instant) -> Result<TcpStream, String> {
        let mut addresses = self.resolve(deadline).await?;
        self.dead.sort_last(&mut addresses, Instant::now());
        let mut failure = format!("{}: {} has no address", self.name, self.host);
        for (at, address) in addresses.iter().enumerate() {
            let now = Instant::now();
            let left = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
            let until = now + deadline.saturating_duration_since(now) / left;
            match timeout_at(until, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => {
                    failure = format!("{}: connect to {address}: {error}", self.name);
                }
                Err(_) => {
                    self.dead.note(*address, Instant::now());
                    failure = format!("{}: connect to {address} timed out", self.name);
                }
            }
        }
        Err(failure)
    }

    async fn resolve(&self, deadline: Instant) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        match timeout_at(deadline, lookup).await {
            Ok(Ok(addresses)) => Ok(addresses.take(MAX_ADDRESSES).collect()),
            Ok(Err(error)) => Err(format!("{}: look-up of {}: {error}", self.name, self.host)),
            Err(_) => Err(format!("{}: look-up of {} timed out", self.name, self.host)),
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a connection ends by itself when its sender is dropped; a drain must not wait \
                  for idle ones"
    )]
    async fn handshake<T>(&self, io: T, announced: Announcement) -> Result<Connection, String>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            // The buffer's size alone is no strict limit: the buffer may grow to twice as much.
            .max_buf_size(MAX_RESPONSE_HEAD)
            .max_header_size(MAX_RESPONSE_HEAD)
            .max_headers(MAX_RESPONSE_LINES)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| format!("{}: {error}", self.name))?;
        tokio::spawn(async move {
            // Callers learn of failures from the sender, and the end of an idle connection is of no
            // interest.
            let _ = connection.await;
        });
        Ok(Connection { sender, announced, kept_for: None })
    }
}

/// Number of addresses tried for a host.
const MAX_ADDRESSES: usize = 8;

/// Time for which an unresponsive address is tried last.
const DEAD_FOR: Duration = Duration::from_secs(30);

/// Addresses with timed-out connection attempts, and the time until which they are tried last. An
/// address refusing connections costs no time and is not recorded.
#[derive(Default)]
struct DeadAddresses(Mutex<Vec<(SocketAddr, Instant)>>);

impl DeadAddresses {
    fn note(&self, address: SocketAddr, now: Instant) {
        let mut dead = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The remaining entries are addresses of the last lookups: a few.
        dead.retain(|(other, until)| *other != address && *until > now);
        dead.truncate(MAX_ADDRESSES * MAX_ADDRESSES);
        dead.push((address, now + DEAD_FOR));
    }

    /// Moves dead addresses behind the others. The order is the resolver's otherwise.
    fn sort_last(&self, addresses: &mut [SocketAddr], now: Instant) {
        if addresses.len() < 2 {
            return;
        }
        let dead = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.sort_by_key(|address| {
            dead.iter().any(|(other, until)| other == address && *until > now)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_swallows_packets_is_tried_last_for_a_while() {
        let (dead, now) = (DeadAddresses::default(), Instant::now());
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (one, two) = (address(1), address(2));
        let order = |at| {
            let mut addresses = [one, two];
            dead.sort_last(&mut addresses, at);
            addresses
        };
        assert_eq!(order(now), [one, two]);
        dead.note(one, now);
        assert_eq!(order(now + DEAD_FOR / 2), [two, one]);
        dead.note(two, now + DEAD_FOR / 2);
        assert_eq!(order(now + DEAD_FOR / 2), [one, two], "both: the resolver's order");
        assert_eq!(order(now + DEAD_FOR), [one, two]);
        dead.note(one, now + DEAD_FOR);
        assert_eq!(dead.0.lock().unwrap().len(), 2);
    }
}
