//! Backends that speak HTTP/2: what proves that a call was not executed, and what leaves it unknown.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::support::certificates::Authority;
use super::support::frames::{self, DATA, END_STREAM, Frame, HEADERS, PREFACE, SETTINGS};
use super::support::{Backend, Gate, Request, Response, Setup, at_once, eventually};

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const CALM: u32 = 11;

/// What a backend does with the connection when a request has begun on a stream.
type Script = dyn Fn(&mut TcpStream, u32) + Send + Sync;

/// A backend that follows a script, frame by frame.
struct Raw {
    addr: SocketAddr,
    requests: Arc<AtomicUsize>,
    /// Requests on each connection.
    connections: Arc<Mutex<Vec<usize>>>,
}

impl Raw {
    fn start(
        settings: Vec<(u16, u32)>,
        script: impl Fn(&mut TcpStream, u32) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::default()));
        let raw = Self { addr, requests: requests.clone(), connections: Arc::clone(&connections) };
        let script: Arc<Script> = Arc::new(script);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (script, requests) = (script.clone(), requests.clone());
                let (settings, connections) = (settings.clone(), Arc::clone(&connections));
                let number = {
                    let mut connections: std::sync::MutexGuard<'_, Vec<usize>> =
                        connections.lock().unwrap();
                    connections.push(0);
                    connections.len() - 1
                };
                std::thread::spawn(move || {
                    let _ = serve(stream, &settings, |stream, id| {
                        connections.lock().unwrap()[number] += 1;
                        requests.fetch_add(1, Ordering::SeqCst);
                        script(stream, id);
                    });
                });
            }
        });
        raw
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn gateway(&self, adjust: impl FnOnce(Setup) -> Setup) -> super::support::Gateway {
        let unused = Backend::refusing();
        let setup = Setup::before(&unused)
            .replacing(format!("http://{}", unused.addr()), format!("http://{}", self.addr))
            .upstream("http = \"2\"")
            .upstream("timeout = \"30s\"");
        adjust(setup).start()
    }
}

fn serve(
    mut stream: TcpStream,
    settings: &[(u16, u32)],
    mut begun: impl FnMut(&mut TcpStream, u32),
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    assert_eq!(preface, PREFACE);
    frames::write(&mut stream, &[Frame::settings(settings)])?;
    // A call begins once the gateway has confirmed the settings, so that it knows them afterwards.
    let (mut confirmed, mut early) = (false, Vec::new());
    loop {
        let frame = frames::read(&mut stream)?;
        match frame.kind {
            SETTINGS if frame.flags == 0 => {
                frames::write(&mut stream, &[Frame::new(SETTINGS, 1, 0, [])])?;
            }
            frames::PING if frame.flags == 0 => {
                frames::write(&mut stream, &[Frame::new(frames::PING, 1, 0, frame.payload)])?;
            }
            SETTINGS => {
                confirmed = true;
                early.drain(..).for_each(|id| begun(&mut stream, id));
            }
            HEADERS if confirmed => begun(&mut stream, frame.stream),
            HEADERS => early.push(frame.stream),
            _ => {}
        }
    }
}

fn say(stream: &mut TcpStream, frames: &[Frame]) {
    let _ = frames::write(stream, frames);
}

/// A whole answer on a stream.
fn whole(id: u32, status: &str, body: &str) -> [Frame; 2] {
    let length = body.len().to_string();
    let lines = [(":status", status), ("content-length", &length)];
    [Frame::head(id, 0, &lines), Frame::new(DATA, END_STREAM, id, body.as_bytes())]
}

fn reset(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// The fate of a call.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    NotExecuted,
    Unknown,
    Executed,
}

fn fate(first: &Response) -> Fate {
    match first.disposition().as_str() {
        "executed" => Fate::Executed,
        "not-executed" => Fate::NotExecuted,
        "unknown" => Fate::Unknown,
        other => panic!("{other:?}: {first:?}"),
    }
}

#[test]
fn only_a_refusal_by_the_backend_proves_that_nothing_was_executed() {
    type Row = (&'static str, Fate, Box<Script>);
    let rows: Vec<Row> = vec![
        (
            "a whole answer",
            Fate::Executed,
            Box::new(|stream, id| say(stream, &whole(id, "200", "{}"))),
        ),
        (
            "a refused stream",
            Fate::NotExecuted,
            Box::new(|stream, id| {
                say(stream, &[Frame::reset(id, REFUSED_STREAM)]);
            }),
        ),
        (
            "an end below the stream",
            Fate::NotExecuted,
            Box::new(|stream, _| {
                say(stream, &[Frame::go_away(0, NO_ERROR)]);
            }),
        ),
        (
            "an end below the stream with a reason",
            Fate::NotExecuted,
            Box::new(|stream, _| {
                // The connection stays open: a reset may overtake the frame, and proves nothing.
                say(stream, &[Frame::go_away(0, CALM)]);
            }),
        ),
        (
            "an end above the stream, then a close",
            Fate::Unknown,
            Box::new(|stream, id| {
                say(stream, &[Frame::go_away(id, NO_ERROR)]);
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }),
        ),
        (
            "an end above the stream with a reason",
            Fate::Unknown,
            Box::new(|stream, id| {
                say(stream, &[Frame::go_away(id, CALM)]);
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }),
        ),
        (
            "a close",
            Fate::Unknown,
            Box::new(|stream, _| {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }),
        ),
        ("a reset of the connection", Fate::Unknown, Box::new(|stream, _| reset(stream))),
        (
            "a cancelled stream",
            Fate::Unknown,
            Box::new(|stream, id| {
                say(stream, &[Frame::reset(id, CANCEL)]);
            }),
        ),
        (
            "a stream reset without a reason",
            Fate::Unknown,
            Box::new(|stream, id| {
                say(stream, &[Frame::reset(id, NO_ERROR)]);
            }),
        ),
        (
            "a stream reset by a fault",
            Fate::Unknown,
            Box::new(|stream, id| {
                say(stream, &[Frame::reset(id, INTERNAL_ERROR)]);
            }),
        ),
        (
            "a broken protocol",
            Fate::Unknown,
            Box::new(|stream, _| {
                say(stream, &[Frame::new(DATA, 0, 0, *b"a")]);
            }),
        ),
        (
            "bytes of another protocol",
            Fate::Unknown,
            Box::new(|stream, _| {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            }),
        ),
        (
            "a refusal after the head",
            Fate::Unknown,
            Box::new(|stream, id| {
                let head = Frame::head(id, 0, &[(":status", "200")]);
                say(stream, &[head, Frame::reset(id, REFUSED_STREAM)]);
            }),
        ),
        (
            "an end below the stream after the head",
            Fate::Unknown,
            Box::new(|stream, id| {
                let head = Frame::head(id, 0, &[(":status", "200")]);
                say(stream, &[head, Frame::new(DATA, 0, id, *b"{"), Frame::go_away(0, NO_ERROR)]);
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }),
        ),
        (
            "an answer that breaks off",
            Fate::Unknown,
            Box::new(|stream, id| {
                let head = Frame::head(id, 0, &[(":status", "200")]);
                say(stream, &[head, Frame::new(DATA, 0, id, *b"{"), Frame::reset(id, CANCEL)]);
            }),
        ),
        (
            "less than announced",
            Fate::Unknown,
            Box::new(|stream, id| {
                let lines = [(":status", "200"), ("content-length", "5")];
                say(
                    stream,
                    &[Frame::head(id, 0, &lines), Frame::new(DATA, END_STREAM, id, *b"{}")],
                );
            }),
        ),
        (
            "more than announced",
            Fate::Unknown,
            Box::new(|stream, id| {
                let lines = [(":status", "200"), ("content-length", "1")];
                say(
                    stream,
                    &[Frame::head(id, 0, &lines), Frame::new(DATA, END_STREAM, id, *b"{}")],
                );
            }),
        ),
        (
            "an answer without a status",
            Fate::Unknown,
            Box::new(|stream, id| {
                say(stream, &[Frame::head(id, END_STREAM, &[("x-a", "b")])]);
            }),
        ),
        ("silence", Fate::Unknown, Box::new(|_, _| {})),
    ];
    for (name, expected, script) in rows {
        let calls = AtomicUsize::new(0);
        let raw = Raw::start(vec![], move |stream, id| {
            // The first call meets the script, later ones are answered.
            match calls.fetch_add(1, Ordering::SeqCst) {
                0 => script(stream, id),
                _ => say(stream, &whole(id, "200", "{\"again\":true}")),
            }
        });
        // The row without an answer waits for the end of the time.
        let short = |setup: Setup| setup.replacing("timeout = \"30s\"", "timeout = \"5s\"");
        let gateway = raw.gateway(short);
        let request = Request::redeem("k", "{}");
        let first = request.send(gateway.addr);
        assert_eq!(fate(&first), expected, "{name}: {first:?}");
        let second = request.send(gateway.addr);
        let reply = match expected {
            Fate::Executed => (200, "replayed", ""),
            Fate::NotExecuted => (200, "executed", ""),
            Fate::Unknown => (409, "unknown", "outcome-unknown"),
        };
        let (status, disposition, error) = second.summary();
        assert_eq!((status, &*disposition, &*error), reply, "{name}: {second:?}");
        let executions = if expected == Fate::NotExecuted { 2 } else { 1 };
        assert_eq!(raw.requests(), executions, "{name}");
    }
}

#[test]
fn a_connection_has_as_many_streams_as_configured_and_as_the_backend_allows() {
    // The setting 3 is the number of streams that the backend allows.
    for (settings, configured, most) in [(vec![], 2, 2), (vec![(3, 1)], 16, 1)] {
        let gate = Gate::default();
        let held = gate.clone();
        let raw = Raw::start(settings, move |stream, id| {
            let (mut stream, held) = (stream.try_clone().unwrap(), held.clone());
            std::thread::spawn(move || {
                held.pass();
                say(&mut stream, &whole(id, "200", "{}"));
            });
        });
        let gateway = raw.gateway(|setup| setup.upstream(&format!("streams = {configured}")));
        // The first call alone: afterwards the gateway knows the backend's settings.
        let mut first = Request::redeem("k", "{}").begin(gateway.addr);
        eventually("the first call", || (raw.requests() == 1).then_some(()));
        let others: Vec<_> = (0..5)
            .map(|at| {
                let client = Request::redeem(&format!("k{at}"), "{}").begin(gateway.addr);
                eventually("the next call", || (raw.requests() == at + 2).then_some(()));
                client
            })
            .collect();
        let used = raw.connections.lock().unwrap().clone();
        assert!(used.iter().all(|streams| *streams <= most), "{used:?}");
        assert_eq!(used.len(), 6_usize.div_ceil(most), "{used:?}");
        gate.open();
        first.read().is(200, "executed", "");
        for mut client in others {
            client.read().is(200, "executed", "");
        }
    }
}

#[test]
fn calls_share_a_connection_one_after_the_other_and_at_once() {
    let raw = Raw::start(vec![], |stream, id| say(stream, &whole(id, "200", "{}")));
    let gateway = raw.gateway(|setup| setup);
    for at in 0..10 {
        Request::redeem(&format!("a{at}"), "{}").send(gateway.addr).is(200, "executed", "");
    }
    assert_eq!(*raw.connections.lock().unwrap(), [10]);
    at_once(8, |at| {
        Request::redeem(&format!("b{at}"), "{}").send(gateway.addr).is(200, "executed", "");
    });
    assert_eq!(raw.requests(), 18);
}

#[test]
fn a_backend_that_does_not_agree_to_http2_gets_nothing() {
    let authority = Authority::new("backends");
    let folder = tempfile::tempdir().unwrap();
    let identity = authority.server();
    let ca = authority.write(folder.path(), "ca.pem");
    let (cert, key) = identity.write(folder.path(), "backend");
    // Another gateway is the backend: it agrees to HTTP/2, its plain neighbor does not.
    let behind = Backend::start();
    let inner = Setup::before(&behind)
        .server(&format!("tls = {{ cert = {cert:?}, key = {key:?} }}"))
        .route("name = \"inner\"\nmethods = [\"POST\"]\npath = \"/{*rest}\"\nmode = \"off\"")
        .replacing("path = \"/v1/vouchers/redeem\"", "path = \"/elsewhere\"")
        .start();
    let unused = Backend::refusing();
    let outer = |url: String| {
        Setup::before(&unused)
            .replacing(format!("http://{}", unused.addr()), url)
            .upstream("http = \"2\"")
            .upstream(&format!("ca = {ca:?}"))
            .start()
    };
    let gateway = outer(format!("https://localhost:{}", inner.addr.port()));
    Request::redeem("k", "{}").send(gateway.addr).is(200, "executed", "");
    Request::redeem("k", "{}").send(gateway.addr).is(200, "replayed", "");
    assert_eq!(behind.calls(), 1);
    assert_eq!(behind.last().header("via").as_deref(), Some("1.1 oncegate, 2 oncegate"));
    // A server that offers HTTP/1.1 only.
    let old = old_server(&identity.cert, &identity.key);
    let gateway = outer(format!("https://localhost:{}", old.port()));
    Request::redeem("k", "{}").send(gateway.addr).is(502, "not-executed", "upstream-unreachable");
}

/// A server with TLS that knows HTTP/1.1 only, and answers nothing.
fn old_server(cert: &str, key: &str) -> SocketAddr {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut session = rustls::ServerConnection::new(config.clone()).unwrap();
            while session.is_handshaking() && session.complete_io(&mut stream).is_ok() {}
        }
    });
    addr
}
