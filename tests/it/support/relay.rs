//! A relay before a gateway that keeps every attempt of a client, and loses answers on their way
//! to it.

use std::io::{self, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::WAIT_LIMIT;
use super::backend::Seen;
use super::client::{Conn, Head, HeaderLines, Response, read_body, read_head};

/// A request of a client and the answer it met.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// The request.
    pub(crate) seen: Seen,
    /// Counts the requests for the same target from 1.
    pub(crate) nth: usize,
    /// The answer, delivered or not.
    pub(crate) answer: Response,
}

/// Delivery of an answer to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The whole answer arrives.
    Whole,
    /// The connection closes without a byte of the answer.
    Closed,
    /// The connection is reset without a byte of the answer.
    Reset,
    /// The connection closes after half of the body.
    Cut,
    /// No byte arrives until the client closes the connection.
    Silent,
}

struct Shared {
    to: SocketAddr,
    delivery: Box<dyn Fn(&Attempt) -> Delivery + Send + Sync>,
    seen: Mutex<Vec<Seen>>,
}

/// The relay, on a port of its own.
pub(crate) struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Relay {
    /// Relays to `to`; `delivery` decides how each answer reaches the client.
    pub(crate) fn before(
        to: SocketAddr,
        delivery: impl Fn(&Attempt) -> Delivery + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let delivery = Box::new(delivery);
        let shared = Arc::new(Shared { to, delivery, seen: Mutex::default() });
        let relay = Arc::clone(&shared);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let shared = Arc::clone(&relay);
                // A connection that breaks is the client's affair, or the test's.
                std::thread::spawn(move || drop(serve(&stream, number, &shared)));
            }
        });
        Self { addr, shared }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The requests for this target so far, answered or not.
    pub(crate) fn attempts(&self, target: &str) -> Vec<Seen> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.target() == target).cloned().collect()
    }
}

impl Shared {
    /// Keeps a request; gives its number among those for the same target.
    fn keep(&self, request: &Seen) -> usize {
        let mut seen = self.seen.lock().unwrap();
        seen.push(request.clone());
        seen.iter().filter(|seen| seen.target() == request.target()).count()
    }
}

fn serve(stream: &TcpStream, connection: usize, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WAIT_LIMIT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut gateway = Conn::try_open(shared.to)?;
    for number in 0.. {
        let Head { line, headers } = read_head(&mut reader)?;
        let body = read_body(&mut reader, &headers, false, &|_| ())?;
        let seen = Seen { line, headers, body, connection, number };
        let nth = shared.keep(&seen);
        gateway.try_write(&message(&seen.line, &seen.headers, &seen.body))?;
        let answer = gateway.try_read(seen.line.starts_with("HEAD "))?;
        let attempt = Attempt { seen, nth, answer };
        let answer = &attempt.answer;
        let line = format!("HTTP/1.1 {} Relayed", answer.status);
        let bytes = message(&line, &answer.headers, &answer.body);
        match (shared.delivery)(&attempt) {
            Delivery::Whole => (&*stream).write_all(&bytes)?,
            Delivery::Closed => return stream.shutdown(Shutdown::Both),
            Delivery::Reset => {
                // Sent when the last descriptor of the connection is closed.
                return Ok(rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?);
            }
            Delivery::Cut => {
                let half = bytes.len() - answer.body.len().div_ceil(2);
                (&*stream).write_all(&bytes[..half])?;
                return stream.shutdown(Shutdown::Both);
            }
            Delivery::Silent => return read_head(&mut reader).map(drop),
        }
        if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return stream.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

/// The same message with a computed `Content-Length`.
fn message(line: &str, headers: &HeaderLines, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{line}\r\n").into_bytes();
    let framed = headers.iter().any(|(name, _)| is_framing(name));
    for (name, value) in headers.iter().filter(|(name, _)| !is_framing(name)) {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    if framed {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

fn is_framing(name: &str) -> bool {
    matches!(name, "content-length" | "transfer-encoding")
}
