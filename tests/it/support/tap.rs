//! A relay before a gateway that keeps every attempt of a client, and loses answers on their way
//! to it.

use std::io::{self, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::PATIENCE;
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

/// The fate of an answer on its way to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives.
    Arrives,
    /// The connection closes without a byte of it.
    Closes,
    /// The connection is reset without a byte of it.
    Resets,
    /// The connection closes after half of its body.
    IsCut,
    /// Nothing happens until the client closes the connection.
    IsSilent,
}

struct Shared {
    to: SocketAddr,
    fate: Box<dyn Fn(&Attempt) -> Fate + Send + Sync>,
    seen: Mutex<Vec<Seen>>,
}

/// The relay, on a port of its own.
pub(crate) struct Tap {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Tap {
    /// Relays to `to`; each answer meets its `fate`.
    pub(crate) fn before(
        to: SocketAddr,
        fate: impl Fn(&Attempt) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let fate = Box::new(fate);
        let shared = Arc::new(Shared { to, fate, seen: Mutex::default() });
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
    stream.set_read_timeout(Some(PATIENCE))?;
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
        match (shared.fate)(&attempt) {
            Fate::Arrives => (&*stream).write_all(&bytes)?,
            Fate::Closes => return stream.shutdown(Shutdown::Both),
            Fate::Resets => {
                // Sent when the last descriptor of the connection is closed.
                return Ok(rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?);
            }
            Fate::IsCut => {
                let half = bytes.len() - answer.body.len().div_ceil(2);
                (&*stream).write_all(&bytes[..half])?;
                return stream.shutdown(Shutdown::Both);
            }
            Fate::IsSilent => return read_head(&mut reader).map(drop),
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
