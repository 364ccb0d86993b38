//! Connecting to a backend's URL: name resolution, TCP, TLS and the HTTP handshake.
//!
//! No byte of a request is written here, so every failure in this file proves the backend's
//! inaction.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::framing::MAX_RESPONSE_HEAD;
use super::http2::{self, Http2Sender};
use super::socket::{Announcement, Socket};
use crate::body::Body;
use crate::config::{BackendUrl, HostPolicy};
use crate::net::small_reads::SmallReads;
use crate::net::stream::SocketStream;
use crate::net::tls;

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
    socket: SocketTarget,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    dead: DeadAddresses,
}

/// The place to connect to.
enum SocketTarget {
    /// A host, as a name or an address, and a port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(PathBuf),
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
    pub(super) fn new(
        url: &BackendUrl,
        host: &HostPolicy,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, String> {
        let mut target = match url {
            BackendUrl::Http(url) => Self::http(url, host, tls)?,
            BackendUrl::Unix(path) => Self {
                name: url.to_string(),
                // A socket has no authority; programs behind one expect this name.
                host_header: HeaderValue::from_static("localhost"),
                prefix: String::new(),
                socket: SocketTarget::Unix(path.clone()),
                tls: None,
                dead: DeadAddresses::default(),
            },
        };
        if let HostPolicy::Name(name) = host {
            target.host_header = name.clone();
        }
        Ok(target)
    }

    fn http(
        url: &Uri,
        policy: &HostPolicy,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, String> {
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
                let name = ServerName::try_from(server_name(&host, policy))
                    .map_err(|_| wrong("its host is neither a DNS name nor an IP address"))?;
                Some((TlsConnector::from(config.clone()), name))
            }
            (true, None) => return Err(wrong("TLS is not set up")),
        };
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self {
            name: format!("{}://{authority}", url.scheme_str().unwrap_or_default()),
            host_header: HeaderValue::from_str(authority.as_str())
                .map_err(|_| wrong("its authority cannot be a Host header"))?,
            prefix: url.path().trim_end_matches('/').to_owned(),
            socket: SocketTarget::Tcp(host, port),
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

    /// The scheme of requests on HTTP/2.
    pub(super) fn scheme(&self) -> Scheme {
        if self.is_tls() { Scheme::HTTPS } else { Scheme::HTTP }
    }

    /// A new connection, within `limit` for DNS, connect and TLS together.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Connection, String> {
        let deadline = Instant::now() + limit;
        let (socket, announced) = Socket::new(self.socket(deadline).await?);
        match &self.tls {
            None => self.handshake(socket, announced).await,
            Some(tls) => {
                let stream = self.secured(tls, socket, deadline).await?;
                self.handshake(stream, announced).await
            }
        }
    }

    /// A new connection with HTTP/2, within `limit` for DNS, connect and TLS together. A backend
    /// that does not agree to HTTP/2 in the handshake is an error.
    pub(super) async fn connect_http2(&self, limit: Duration) -> Result<Http2Sender, String> {
        let deadline = Instant::now() + limit;
        let socket = self.socket(deadline).await?;
        let named = |error: hyper::Error| format!("{}: {error}", self.name);
        match &self.tls {
            None => http2::handshake(socket).await.map_err(named),
            Some(tls) => {
                let stream = self.secured(tls, socket, deadline).await?;
                if stream.get_ref().1.alpn_protocol() != Some(tls::HTTP2) {
                    return Err(format!("{}: the backend does not speak HTTP/2", self.name));
                }
                http2::handshake(stream).await.map_err(named)
            }
        }
    }

    /// A connected socket.
    async fn socket(&self, deadline: Instant) -> Result<SocketStream, String> {
        let stream = match &self.socket {
            SocketTarget::Tcp(host, port) => {
                SocketStream::Tcp(self.tcp(host, *port, deadline).await?)
            }
            SocketTarget::Unix(path) => match timeout_at(deadline, UnixStream::connect(path)).await
            {
                Ok(Ok(stream)) => SocketStream::Unix(stream),
                Ok(Err(error)) => return Err(format!("{}: connect: {error}", self.name)),
                Err(_) => return Err(format!("{}: connect timed out", self.name)),
            },
        };
        // Requests are written whole, so Nagle's algorithm would only delay them.
        stream.set_nodelay();
        Ok(stream)
    }

    async fn secured<S>(
        &self,
        (connector, name): &(TlsConnector, ServerName<'static>),
        socket: S,
        deadline: Instant,
    ) -> Result<TlsStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        timeout_at(deadline, connector.connect(name.clone(), socket))
            .await
            .map_err(|_| format!("{}: TLS handshake timed out", self.name))?
            .map_err(|error| format!("{}: TLS handshake failed: {error}", self.name))
    }

    /// Tries every address of the host, recently dead addresses last. Each address gets an equal
    /// share of the remaining time, so an address that swallows packets cannot use up the whole
    /// limit.
    async fn tcp(&self, host: &str, port: u16, deadline: Instant) -> Result<TcpStream, String> {
        let mut addresses = self.resolve(host, port, deadline).await?;
        self.dead.sort_last(&mut addresses, Instant::now());
        let mut failure = format!("{}: {host} has no address", self.name);
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

    async fn resolve(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let lookup = tokio::net::lookup_host((host, port));
        match timeout_at(deadline, lookup).await {
            Ok(Ok(addresses)) => Ok(addresses.take(MAX_ADDRESSES).collect()),
            Ok(Err(error)) => Err(format!("{}: look-up of {host}: {error}", self.name)),
            Err(_) => Err(format!("{}: look-up of {host} timed out", self.name)),
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
            .handshake(TokioIo::new(SmallReads(io)))
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

/// The name that the backend's certificate must have, and that the handshake asks for: the URL's
/// host. For an IP address the configured `host` is taken instead, because few certificates name
/// addresses and a handshake cannot ask for one.
fn server_name(host: &str, policy: &HostPolicy) -> String {
    if let HostPolicy::Name(name) = policy
        && host.parse::<IpAddr>().is_ok()
        && let Some(name) = name.to_str().ok().and_then(|name| name.parse::<Authority>().ok())
    {
        return name.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    }
    host.to_owned()
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
