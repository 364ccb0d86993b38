//! Hostile requests over HTTP/1.
//!
//! An expectation is the statuses of all answers, `open` or `closed`, and each request that the
//! backend received: method, target, its body in quotation marks, and in brackets header lines
//! that it had, or had not (`!name`). `200-` is an answer to HEAD. `\e` at the end of what is sent
//! closes the client's side. Every case is delivered in one write with a request behind it, line by
//! line, and byte by byte.

use super::table::{self, Case};
use crate::support::{Backend, Conn, Gateway, Seen, Setup};

/// Texts that many requests share.
const WORDS: [(&str, &str); 4] = [
    ("<get>", "GET /a HTTP/1.1¶host: a¶"),
    ("<put>", "PUT /files/a HTTP/1.1¶host: a¶"),
    (
        "<keyed>",
        "POST /v1/vouchers/redeem HTTP/1.1¶host: a¶idempotency-key: KEY¶\
         content-type: application/json¶",
    ),
    ("<chunked>", "PUT /files/a HTTP/1.1¶host: a¶transfer-encoding: chunked¶¶"),
];

/// The tables, one for each test.
pub(super) const TABLES: [&str; 4] = [
    include_str!("request_lines.txt"),
    include_str!("fields.txt"),
    include_str!("framing.txt"),
    include_str!("connections.txt"),
];

/// The request behind each case.
const NEXT: &str = "GET /next HTTP/1.1\r\nhost: a\r\n\r\n";

/// The ways in which the bytes arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// In one write, with the next request.
    Whole,
    Lines,
    Bytes,
}

/// What must happen.
#[derive(Debug)]
pub(super) struct Expected<'a> {
    /// Of each answer, and true for one without a body.
    pub(super) statuses: Vec<(u16, bool)>,
    is_open: bool,
    /// The requests that the backend receives.
    pub(super) received: Vec<&'a str>,
}

impl<'a> Expected<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let mut parts = text.split("; ");
        let (mut statuses, mut is_open) = (Vec::new(), None);
        for word in parts.next().unwrap_or_default().split(' ') {
            match word {
                "open" => is_open = Some(true),
                "closed" => is_open = Some(false),
                status => {
                    let digits = status.trim_end_matches('-');
                    statuses.push((digits.parse().expect("a status"), status != digits));
                }
            }
        }
        Self { statuses, is_open: is_open.expect("open or closed"), received: parts.collect() }
    }
}

/// A gateway with a route for every kind of request.
pub(super) fn gateway(backend: &Backend) -> Gateway {
    let files = "name = \"files\"\nmethods = [\"POST\", \"PUT\", \"PATCH\", \"DELETE\"]\n\
                 path = \"/files/{*rest}\"\nmode = \"off\"";
    Setup::before(backend).route(files).start()
}

/// The bytes of a case; true: the client's side closes behind them.
pub(super) fn bytes_of(case: &Case, key: &str) -> (Vec<u8>, bool) {
    let text = case.sent.concat();
    let (text, ends) = text.strip_suffix("\\e").map_or((text.as_str(), false), |text| (text, true));
    let mut words = WORDS.to_vec();
    words.push(("KEY", key));
    (table::bytes(text, &words), ends)
}

/// Runs a case in one way of arrival.
fn run(
    gateway: &Gateway,
    backend: &Backend,
    case: &Case,
    key: &str,
    way: Arrival,
) -> Result<(), String> {
    let expected = Expected::of(case.expected);
    let (bytes, ends) = bytes_of(case, key);
    let before = backend.calls();
    let mut conn = Conn::open(gateway.addr);
    // A refusal may come, and the connection end, before all is written.
    let mut write = |bytes: &[u8]| drop(conn.try_write(bytes));
    match way {
        Arrival::Whole if ends => write(&bytes),
        Arrival::Whole => write(&[&bytes, NEXT.as_bytes()].concat()),
        Arrival::Lines => bytes.split_inclusive(|byte| *byte == b'\n').for_each(write),
        Arrival::Bytes if bytes.len() > 5000 => bytes.chunks(997).for_each(write),
        Arrival::Bytes => bytes.chunks(1).for_each(write),
    }
    if ends {
        conn.half_close();
    } else if way != Arrival::Whole && !expected.is_open {
        let _ = conn.try_write(NEXT.as_bytes());
    }
    for (at, (status, to_head)) in expected.statuses.iter().enumerate() {
        let answer = conn.try_read(*to_head).map_err(|error| format!("answer {at}: {error}"))?;
        if answer.status != *status {
            return Err(format!("answer {at}: {answer:?}"));
        }
        if answer.status >= 400 && answer.error().is_empty() {
            return Err(format!("answer {at} has no Idempotency-Error: {answer:?}"));
        }
    }
    if expected.is_open {
        if way != Arrival::Whole {
            conn.try_write(NEXT.as_bytes()).map_err(|error| format!("not open: {error}"))?;
        }
        let next = conn.try_read(false).map_err(|error| format!("not open: {error}"))?;
        if next.status != 200 {
            return Err(format!("the next request: {next:?}"));
        }
    } else {
        conn.try_end()?;
    }
    let seen = backend.seen().split_off(before);
    let mut seen = seen.as_slice();
    if expected.is_open {
        let Some((next, others)) = seen.split_last() else { return Err("nothing seen".into()) };
        if next.line != "GET /next HTTP/1.1" {
            return Err(format!("the next request arrived as {next:?}"));
        }
        seen = others;
    }
    received(&expected.received, seen)
}

/// Compares what the backend received.
pub(super) fn received(expected: &[&str], seen: &[Seen]) -> Result<(), String> {
    if seen.len() != expected.len() {
        return Err(format!("the backend received {} requests: {seen:?}", seen.len()));
    }
    for (expected, seen) in expected.iter().zip(seen) {
        let (request, lines) = match expected.split_once(" [") {
            Some((request, lines)) => (request, lines.trim_end_matches(']')),
            None => (*expected, ""),
        };
        let (line, body) = request.split_once(" \"").unwrap_or((request, "\""));
        let body = table::bytes(body.strip_suffix('"').expect("a closing mark"), &[]);
        let line = [&table::bytes(line, &[])[..], b" HTTP/1.1"].concat();
        if seen.line.as_bytes() != line || seen.body != body {
            return Err(format!("the backend received {seen:?}"));
        }
        well_formed(seen)?;
        for line in lines.split(" | ").filter(|line| !line.is_empty()) {
            let is_met = match (line.strip_prefix('!'), line.split_once(": ")) {
                (Some(name), _) => seen.all(name).is_empty(),
                (None, Some((name, value))) => {
                    seen.all(name) == [String::from_utf8_lossy(&table::bytes(value, &[]))]
                }
                (None, None) => seen.all(line.trim_end_matches(':')) == [""],
            };
            if !is_met {
                return Err(format!("{line}: the backend received {seen:?}"));
            }
        }
    }
    Ok(())
}

/// What holds for every request that the gateway emits.
fn well_formed(seen: &Seen) -> Result<(), String> {
    const NEVER: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "http2-settings",
        "proxy",
    ];
    let count = |name| seen.all(name).len();
    let (lengths, codings) = (seen.all("content-length"), seen.all("transfer-encoding"));
    let is_framed = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => seen.body.is_empty(),
        ([length], []) => *length == seen.body.len().to_string(),
        ([], [coding]) => coding == "chunked",
        _ => false,
    };
    let is_clean = NEVER.iter().all(|name| count(name) == 0);
    if !is_framed || !is_clean || count("host") != 1 || count("via") != 1 {
        return Err(format!("the backend received {seen:?}"));
    }
    Ok(())
}

#[track_caller]
fn check(table: &'static str) {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let cases = table::cases(table);
    let mut failures = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        for way in [Arrival::Whole, Arrival::Lines, Arrival::Bytes] {
            let key = format!("k-{at}-{way:?}");
            if let Err(failure) = run(&gateway, &backend, case, &key, way) {
                let Case { section, name, sent, expected } = case;
                let sent = sent.concat();
                failures.push(format!(
                    "{section}: {name} ({way:?})\n  > {sent}\n  < {expected}\n  but {failure}"
                ));
                break;
            }
        }
    }
    table::report(&failures, cases.len());
}

#[test]
fn request_lines() {
    check(TABLES[0]);
}

#[test]
fn fields_and_hosts() {
    check(TABLES[1]);
}

#[test]
fn lengths_and_chunks() {
    check(TABLES[2]);
}

#[test]
fn options_of_connections_and_requests_in_a_row() {
    check(TABLES[3]);
}
