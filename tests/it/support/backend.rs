//! A backend that records every request byte for byte and answers as it is told.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::client::{Head, HeaderLines, read_body, read_head};
use super::reply::{Act, Step, answer};
use super::{WAIT_LIMIT, eventually};

/// A request as it reached the backend.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The request line.
    pub(crate) line: String,
    /// Header lines in order: lower-case name, value bytes.
    pub(crate) headers: HeaderLines,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
    /// Counts the backend's connections from 0.
    pub(crate) connection: usize,
    /// Counts the backend's requests from 0.
    pub(crate) number: usize,
}

impl Seen {
    /// Every value of this header.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let lines = self.headers.iter().filter(|(header, _)| header == name);
        lines.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The one value of this header.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        assert!(values.len() <= 1, "{name} stands {} times", values.len());
        values.pop()
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

type Script = Arc<dyn Fn(&Seen) -> Act + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    script: Script,
    seen: Vec<Seen>,
    accepted: usize,
    open: BTreeMap<usize, TcpStream>,
    body_bytes: usize,
}

/// A backend on a port of its own.
pub(crate) struct Backend {
    addr: SocketAddr,
    shared: Arc<Shared>,
    closed_port: Mutex<Option<OwnedFd>>,
}

impl Backend {
    /// Answers 200 with a body that says which execution it was.
    pub(crate) fn start() -> Self {
        Self::scripted(|seen| answer(200, &format!(r#"{{"execution":{}}}"#, seen.number)))
    }

    /// Does what `script` says.
    pub(crate) fn scripted(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let backend = Self::refusing();
        backend.script(script);
        backend.listen();
        backend
    }

    /// Refuses connections, on a port that stays its own, until told to listen.
    pub(crate) fn refusing() -> Self {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let addr: SocketAddr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
        let state = State {
            script: Arc::new(|seen| answer(200, &format!(r#"{{"execution":{}}}"#, seen.number))),
            seen: Vec::new(),
            accepted: 0,
            open: BTreeMap::new(),
            body_bytes: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        Self { addr, shared, closed_port: Mutex::new(Some(socket)) }
    }

    /// Starts to accept connections.
    pub(crate) fn listen(&self) {
        let socket = self.closed_port.lock().unwrap().take().expect("listens already");
        rustix::net::listen(&socket, 1024).unwrap();
        let listener = TcpListener::from(socket);
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let shared = Arc::clone(&shared);
                let number = {
                    let mut state = shared.state.lock().unwrap();
                    let number = state.accepted;
                    state.accepted += 1;
                    state.open.insert(number, stream.try_clone().unwrap());
                    number
                };
                std::thread::spawn(move || {
                    let _ = serve(stream, number, &shared);
                    shared.state.lock().unwrap().open.remove(&number);
                    shared.changed.notify_all();
                });
            }
        });
    }

    /// From now on, does what `script` says.
    pub(crate) fn script(&self, script: impl Fn(&Seen) -> Act + Send + Sync + 'static) {
        self.shared.state.lock().unwrap().script = Arc::new(script);
    }

    /// From now on, does the same for each request.
    pub(crate) fn always(&self, act: Act) {
        self.script(move |_| act.clone());
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many whole requests have arrived.
    pub(crate) fn calls(&self) -> usize {
        self.shared.state.lock().unwrap().seen.len()
    }

    /// How many whole requests for this target have arrived.
    pub(crate) fn calls_to(&self, target: &str) -> usize {
        let state = self.shared.state.lock().unwrap();
        state.seen.iter().filter(|seen| seen.target() == target).count()
    }

    /// Everything that has arrived.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.state.lock().unwrap().seen.clone()
    }

    /// The latest request.
    pub(crate) fn last(&self) -> Seen {
        self.shared.state.lock().unwrap().seen.last().expect("nothing arrived").clone()
    }

    /// How often each body has arrived.
    pub(crate) fn executions(&self) -> BTreeMap<String, usize> {
        let state = self.shared.state.lock().unwrap();
        let mut counts = BTreeMap::new();
        for seen in &state.seen {
            *counts.entry(seen.text()).or_default() += 1;
        }
        counts
    }

    /// How many bytes of bodies have arrived, those of unfinished requests included.
    pub(crate) fn body_bytes(&self) -> usize {
        self.shared.state.lock().unwrap().body_bytes
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().accepted
    }

    /// Waits until `count` whole requests have arrived.
    #[track_caller]
    pub(crate) fn wait_calls(&self, count: usize) {
        let end = Instant::now() + WAIT_LIMIT;
        let mut state = self.shared.state.lock().unwrap();
        while state.seen.len() < count {
            assert!(Instant::now() < end, "{} of {count} calls arrived", state.seen.len());
            let wait = Duration::from_millis(200);
            state = self.shared.changed.wait_timeout(state, wait).unwrap().0;
        }
    }

    /// Closes every connection, as a server does with idle ones, and waits until the other side
    /// has closed them too.
    pub(crate) fn close_connections(&self) {
        for stream in self.shared.state.lock().unwrap().open.values() {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        self.wait_closed();
    }

    /// Waits until the other side has closed this connection, whatever the script does on it.
    #[track_caller]
    pub(crate) fn wait_ended(&self, connection: usize) {
        let stream =
            self.shared.state.lock().unwrap().open.get(&connection).map(TcpStream::try_clone);
        let Some(stream) = stream else { return };
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
        let ended = stream.peek(&mut [0]);
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }

    /// Waits until no connection is left.
    #[track_caller]
    pub(crate) fn wait_closed(&self) {
        eventually("the gateway drops its connections", || {
            self.shared.state.lock().unwrap().open.is_empty().then_some(())
        });
    }
}

fn serve(stream: TcpStream, connection: usize, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = &stream;
    loop {
        let Head { line, headers } = read_head(&mut reader)?;
        let count = |bytes| shared.state.lock().unwrap().body_bytes += bytes;
        let body = read_body(&mut reader, &headers, false, &count)?;
        let (seen, script) = {
            let mut state = shared.state.lock().unwrap();
            let number = state.seen.len();
            let seen = Seen { line, headers, body, connection, number };
            state.seen.push(seen.clone());
            (seen, Arc::clone(&state.script))
        };
        shared.changed.notify_all();
        for step in script(&seen).0 {
            match step {
                Step::Send(bytes) => writer.write_all(&bytes)?,
                Step::Wait(gate) => gate.pass(),
                Step::Close => {
                    stream.shutdown(std::net::Shutdown::Both)?;
                    return Ok(());
                }
                Step::Reset => {
                    // Closing with a linger of zero sends RST. Every duplicate of the descriptor
                    // must go for that, the reader's and the registered one too.
                    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
                    shared.state.lock().unwrap().open.remove(&connection);
                    return Ok(());
                }
            }
        }
    }
}
