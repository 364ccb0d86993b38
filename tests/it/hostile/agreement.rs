//! Accepted requests go on as exactly one request each, in a form that every server reads alike:
//! nginx, HAProxy and Apache get the very bytes that the gateway emitted, and what they pass on has
//! the same count, method, path and body.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};

use super::frames;
use super::requests::{self, Expected};
use super::table::{self, Case};
use crate::servers::{Hop, HopKind};
use crate::support::{Backend, Conn, Seen, Setup, WAIT_LIMIT, answer};

/// Requests at most in one case.
const MOST_EMITTED: usize = 16;

/// A backend that keeps the bytes of every connection, and takes one request on each.
struct Recorder {
    addr: SocketAddr,
    emitted: Receiver<Vec<u8>>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, emitted) = sync_channel(MOST_EMITTED);
        std::thread::spawn(move || {
            // One after the other, so that they are kept in their order.
            for stream in listener.incoming().map_while(Result::ok) {
                let bytes = record(stream).unwrap_or_default();
                if sender.send(bytes).is_err() {
                    // The test has ended.
                    break;
                }
            }
        });
        Self { addr, emitted }
    }
}

/// Reads a request, answers, and gives all bytes that arrived up to the end of the connection.
fn record(mut stream: TcpStream) -> std::io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(WAIT_LIMIT))?;
    let (mut bytes, mut buffer, mut is_answered) = (Vec::new(), [0; 8192], false);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&buffer[..count]);
        if !is_answered && is_whole(&bytes) {
            is_answered = true;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
        }
    }
}

/// True when a head and the body that it announces have arrived.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let body = &bytes[end + 4..];
    if head.contains("\r\ntransfer-encoding: chunked") {
        return body.ends_with(b"0\r\n\r\n");
    }
    let length = head.split("\r\ncontent-length: ").nth(1);
    let length = length.map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
    body.len() >= length.unwrap_or(0)
}

/// A case, the request expected of it, and the bytes emitted for that.
type Emitted = (Case, &'static str, Vec<u8>);

/// A gateway before `recorder`.
fn before(unused: &Backend, recorder: &Recorder) -> Setup {
    let [from, to] = [unused.addr(), recorder.addr].map(|addr| format!("http://{addr}"));
    Setup::before(unused).replacing(from, to)
}

/// Adds what the gateway emits for each accepted case of HTTP/2.
fn over_http2(unused: &Backend, recorder: &Recorder, found: &mut Vec<Emitted>) {
    let (setup, authority) = frames::encrypted(before(unused, recorder));
    let gateway = setup.start();
    for (at, case) in frames::cases().into_iter().enumerate() {
        let calls = frames::accepted(&case);
        if calls.is_empty() {
            continue;
        }
        frames::exchange(&gateway, &authority, &case, at);
        for line in calls {
            let bytes = recorder.emitted.recv_timeout(WAIT_LIMIT).expect("a request");
            found.push((case.clone(), line, bytes));
        }
    }
}

/// The bytes that the gateway emits for each accepted case, and the requests expected of them.
fn emitted() -> Vec<Emitted> {
    let (recorder, unused) = (Recorder::start(), Backend::start());
    let files = "name = \"files\"\nmethods = [\"POST\", \"PUT\", \"PATCH\", \"DELETE\"]\n\
                 path = \"/files/{*rest}\"\nmode = \"off\"";
    let gateway = before(&unused, &recorder).route(files).start();
    let mut found = Vec::new();
    let cases = requests::TABLES.iter().flat_map(|table| table::cases(table));
    for (at, case) in cases.enumerate() {
        let expected = Expected::of(case.expected);
        // A part of an upload goes on before the rest of it is found broken. `Max-Forwards` asks the
        // next server not to pass a request on.
        let is_broken = expected.statuses.contains(&(400, false));
        if expected.received.is_empty() || is_broken || case.section.contains("Max-Forwards") {
            continue;
        }
        let (bytes, _) = requests::bytes_of(&case, &format!("k-{at}"));
        let mut conn = Conn::open(gateway.addr);
        conn.write(&bytes);
        conn.half_close();
        let statuses = expected.statuses.iter();
        for (status, to_head) in statuses {
            let answer = conn.try_read(*to_head).expect("an answer");
            assert_eq!(answer.status, *status, "{}: {answer:?}", case.name);
        }
        for line in expected.received {
            let bytes = recorder.emitted.recv_timeout(WAIT_LIMIT).expect("a request");
            found.push((case.clone(), line, bytes));
        }
    }
    drop(gateway);
    over_http2(&unused, &recorder, &mut found);
    assert_eq!(unused.calls(), 0);
    found
}

/// Method, target and body.
type Reading = (String, String, Vec<u8>);

fn reading(seen: &Seen) -> Reading {
    let method = seen.line.split(' ').next().unwrap_or_default();
    (method.to_owned(), seen.target().to_owned(), seen.body.clone())
}

/// The requests that `hop` makes of these bytes.
fn through(hop: &Hop, backend: &Backend, bytes: &[u8]) -> Result<Vec<Reading>, String> {
    let before = backend.calls();
    let mut conn = Conn::try_open(hop.addr()).map_err(|error| error.to_string())?;
    conn.try_write(bytes).map_err(|error| error.to_string())?;
    let to_head = bytes.starts_with(b"HEAD ");
    let answer = conn.try_read(to_head).map_err(|error| format!("no answer: {error}"))?;
    if answer.status != 200 {
        return Err(format!("refused: {answer:?}"));
    }
    // Had the server read more than one request, the second answer would be here before this one.
    conn.try_write(b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .map_err(|error| error.to_string())?;
    let last = conn.try_read(false).map_err(|error| format!("the last request: {error}"))?;
    let mut readings: Vec<_> = backend.seen()[before..].iter().map(reading).collect();
    let end = readings.pop().ok_or("no request")?;
    if last.status != 200 || end.1 != "/last" {
        return Err(format!("the last request: {end:?}, {last:?}"));
    }
    Ok(readings)
}

/// Lets a server read everything that the gateway emits.
#[track_caller]
fn check(kind: HopKind) {
    let backend = Backend::scripted(|_| answer(200, "{}"));
    let emitted = emitted();
    let hop = Hop::before(backend.addr(), kind);
    let mut failures = Vec::new();
    for (Case { section, name, .. }, line, bytes) in &emitted {
        let (method, rest) = line.split_once(' ').expect("a method");
        let rest = rest.split(" [").next().unwrap_or(rest);
        let (target, body) = rest.split_once(" \"").unwrap_or((rest, "\""));
        let body = table::bytes(body.trim_end_matches('"'), &[]);
        let target = String::from_utf8(table::bytes(target, &[])).unwrap();
        let expected = vec![(method.to_owned(), target, body)];
        match through(&hop, &backend, bytes) {
            Ok(readings) if readings == expected => {}
            found => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(500)]);
                failures.push(format!("{section}: {name}\n{text}\n  {found:?}"));
            }
        }
    }
    table::report(&failures, emitted.len());
}

#[test]
fn nginx_reads_what_the_gateway_emits_alike() {
    check(HopKind::Nginx);
}

#[test]
fn haproxy_reads_what_the_gateway_emits_alike() {
    check(HopKind::HaProxy);
}

#[test]
fn apache_reads_what_the_gateway_emits_alike() {
    check(HopKind::Apache);
}
