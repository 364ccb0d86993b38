//! HTTP/2 for clients: the same promises as over HTTP/1.1, and what hostile peers do.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::support::certificates::{Authority, Tls, connect, over};
use super::support::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, request,
};
use super::support::http2::Http2;
use super::support::{Act, Backend, Gate, Gateway, Request, Setup, WAIT_LIMIT, answer, eventually};

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;

struct House {
    authority: Authority,
    backend: Backend,
    gateway: Gateway,
}

fn house(adjust: impl FnOnce(Setup) -> Setup) -> House {
    let (backend, authority) = (Backend::start(), Authority::new("servers"));
    let setup =
        Setup::before(&backend).server("tls = { cert = \"server.crt\", key = \"server.key\" }");
    authority.server().write(setup.dir(), "server");
    let gateway = adjust(setup).start();
    House { authority, backend, gateway }
}

impl House {
    /// A client with a library.
    fn client(&self) -> Http2 {
        Http2::open(self.gateway.addr, &self.authority)
    }

    /// A connection without anything sent.
    fn bare(&self) -> Tls {
        let mut config = self.authority.trusting(None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = connect(self.gateway.addr, &Arc::new(config)).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
        stream
    }

    /// A connection after the preface with these settings.
    fn raw(&self, settings: &[(u16, u32)]) -> Tls {
        let mut stream = self.bare();
        stream.write_all(PREFACE).unwrap();
        frames::write(&mut stream, &[Frame::settings(settings)]).unwrap();
        stream
    }

    /// Asserts that other clients are served.
    fn is_well(&self, key: &str) {
        self.client().send(&Request::redeem(key, "{}")).is(200, "executed", "");
    }
}

/// Asserts that the connection ends before `limit`.
#[track_caller]
fn ends(stream: &mut Tls, limit: Duration) {
    let started = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(started.elapsed() < limit, "open after {:?}", started.elapsed());
}

#[test]
fn a_key_is_one_execution_over_both_versions() {
    let house = house(|setup| setup);
    let mut client = house.client();
    let first = client.send(&Request::redeem("k", "{\"a\":1}"));
    first.is(200, "executed", "");
    let second = client.send(&Request::redeem("k", "{\"a\":1}"));
    second.is(200, "replayed", "");
    assert_eq!((first.status, &first.body), (second.status, &second.body));
    client.send(&Request::redeem("k", "{\"a\":2}")).is(422, "rejected", "key-reused");
    let mut old = connect(house.gateway.addr, &Arc::new(house.authority.trusting(None))).unwrap();
    let third = over(&mut old, &Request::redeem("k", "{\"a\":1}"));
    let third = third.unwrap();
    third.is(200, "replayed", "");
    assert_eq!(third.body, first.body);
    let seen = house.backend.last();
    assert!(seen.line.ends_with("HTTP/1.1"), "{seen:?}");
    assert_eq!(seen.header("via").as_deref(), Some("2 oncegate"));
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(seen.header("x-forwarded-host").as_deref(), Some("shop.example"));
    assert_eq!(house.backend.calls(), 1);
}

#[test]
fn many_calls_share_a_connection() {
    let house = house(|setup| setup);
    let client = house.client();
    let calls: Vec<_> =
        (0..60).map(|at| client.begin(&Request::redeem(&format!("k{}", at % 30), "{}"))).collect();
    for call in calls {
        assert_eq!(call.answer().status, 200);
    }
    assert_eq!(house.backend.calls(), 30);
}

#[test]
fn an_answer_to_head_has_no_body_and_cookies_are_one_line() {
    let house = house(|setup| setup);
    house.backend.script(|seen| {
        let line = seen.line.clone();
        if line.starts_with("HEAD") {
            Act::raw(*b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        } else {
            answer(200, "{}")
        }
    });
    let mut client = house.client();
    let head = client.send(&Request::new("HEAD", "/a"));
    assert_eq!((head.status, head.header("content-length").as_deref()), (200, Some("5")));
    assert!(head.body.is_empty());
    // The gateway's own answers as well.
    let own = client.send(&Request::new("HEAD", "/.well-known/idempotency"));
    assert_eq!((own.status, own.body.len()), (200, 0), "{own:?}");
    assert!(own.header("content-length").is_some_and(|length| length != "0"), "{own:?}");
    let get = Request::get("/a").header("cookie", "a=1").header("cookie", "b=2");
    client.send(&get).is(200, "", "");
    assert_eq!(house.backend.last().all("cookie"), ["a=1; b=2"]);
}

#[test]
fn a_request_runs_on_after_its_stream_was_reset() {
    let house = house(|setup| setup);
    let gate = Gate::default();
    let held = gate.clone();
    house.backend.script(move |_| answer(200, "{}").after(&held));
    let mut stream = house.raw(&[]);
    let lines = request(
        "POST",
        "/v1/vouchers/redeem",
        &[("idempotency-key", "k"), ("content-type", "application/json")],
    );
    let frames = [Frame::head(1, 0, &lines), Frame::new(DATA, END_STREAM, 1, *b"{}")];
    frames::write(&mut stream, &frames).unwrap();
    house.backend.wait_calls(1);
    frames::write(&mut stream, &[Frame::reset(1, 8)]).unwrap();
    drop(stream);
    gate.open();
    house.client().send(&Request::redeem("k", "{}")).is(200, "replayed", "");
    assert_eq!(house.backend.calls(), 1);
}

#[test]
fn streams_beyond_the_limit_are_refused_unread() {
    let house = house(|setup| setup.limits("streams = 2"));
    let gate = Gate::default();
    let held = gate.clone();
    house.backend.script(move |_| answer(200, "{}").after(&held));
    let mut stream = house.raw(&[]);
    let settings = frames::until(&mut stream, |frame| frame.kind == SETTINGS).unwrap();
    let pairs: Vec<&[u8]> = settings.payload.chunks(6).collect();
    assert!(pairs.contains(&&[0, 3, 0, 0, 0, 2][..]), "{pairs:?}");
    for at in [1, 3, 5] {
        let lines = request("GET", "/a", &[]);
        frames::write(&mut stream, &[Frame::head(at, END_STREAM, &lines)]).unwrap();
    }
    let reset = frames::until(&mut stream, |frame| frame.kind == RST_STREAM).unwrap();
    assert_eq!((reset.stream, reset.reason()), (5, REFUSED_STREAM));
    house.backend.wait_calls(2);
    gate.open();
    assert_eq!(house.backend.calls(), 2);
}

type Lines = Vec<(&'static str, &'static str)>;
type RefusedHead = (&'static str, Lines, u32);

/// A request whose head is refused: its lines, and the status of the answer, or the reason of the
/// reset (above 1000).
fn refused_heads() -> Vec<RefusedHead> {
    let reset = 1000 + PROTOCOL_ERROR;
    let with = |more: &[(&'static str, &'static str)]| request("GET", "/a", more);
    let plain = |method, path| request(method, path, &[]);
    let without = |name: &str| {
        let mut lines = request("GET", "/a", &[]);
        lines.retain(|(line, _)| *line != name);
        lines
    };
    let authority = |value: &'static str| {
        let mut lines = request("GET", "/a", &[]);
        lines[2].1 = value;
        lines
    };
    vec![
        ("no method", without(":method"), reset),
        ("no path", without(":path"), reset),
        ("no authority", without(":authority"), 400),
        ("an empty path", plain("GET", ""), reset),
        ("a path without a slash", plain("GET", "a"), reset),
        ("an asterisk", plain("GET", "*"), 400),
        ("a method that is none", plain("G ET", "/a"), reset),
        ("TRACE", plain("TRACE", "/a"), 405),
        ("CONNECT with a path", plain("CONNECT", "/a"), reset),
        ("another host", with(&[("host", "other.example")]), 400),
        ("two hosts", with(&[("host", "shop.example"), ("host", "shop.example")]), 400),
        ("a user in the authority", authority("user@shop.example"), 400),
        ("an authority that is none", authority("shop example"), reset),
        ("space before a value", with(&[("x-a", " b")]), 400),
        ("space behind a value", with(&[("x-a", "b ")]), 400),
        ("a tab behind a value", with(&[("x-a", "b\t")]), 400),
        ("a line feed in a value", with(&[("x-a", "b\nc")]), reset),
        ("a NUL in a value", with(&[("x-a", "b\0c")]), reset),
        ("a name in upper case", with(&[("X-A", "b")]), reset),
        ("a name with a space", with(&[("x a", "b")]), reset),
        ("an empty name", with(&[("", "b")]), reset),
        ("connection", with(&[("connection", "close")]), reset),
        ("keep-alive", with(&[("keep-alive", "timeout=5")]), reset),
        ("proxy-connection", with(&[("proxy-connection", "close")]), reset),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), reset),
        ("upgrade", with(&[("upgrade", "websocket")]), reset),
        ("te", with(&[("te", "gzip")]), reset),
        ("a pseudo-header behind others", with(&[("x-a", "b"), (":path", "/b")]), reset),
        ("a pseudo-header twice", with(&[(":path", "/b")]), reset),
        ("an unknown pseudo-header", with(&[(":fragment", "b")]), reset),
        ("a status", with(&[(":status", "200")]), reset),
        ("a length that is none", with(&[("content-length", "+1")]), reset),
        ("a length without content", with(&[("content-length", "1")]), reset),
        ("dot segments", plain("POST", "/v1/../v1/vouchers/redeem"), 400),
        ("a coded slash", plain("POST", "/v1%2Fvouchers/redeem"), 400),
        ("an expectation", with(&[("expect", "more")]), 417),
    ]
}

#[test]
fn heads_that_are_open_to_two_readings_are_refused() {
    let house = house(|setup| setup);
    for (name, lines, expected) in refused_heads() {
        let mut stream = house.raw(&[]);
        frames::write(&mut stream, &[Frame::head(1, END_STREAM, &lines)]).unwrap();
        let ends = |frame: &Frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY);
        let found = match frames::until(&mut stream, ends) {
            Some(frame) if frame.kind == HEADERS => u32::from(frame.status()),
            Some(frame) => 1000 + frame.reason(),
            None => 0,
        };
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(house.backend.calls(), 0);
    house.is_well("k");
}

#[test]
fn floods_of_frames_without_content_end_their_connection() {
    let house = house(|setup| {
        ["idle_timeout", "header_timeout", "body_timeout"]
            .iter()
            .fold(setup, |setup, limit| setup.limits(&format!("{limit} = \"1h\"")))
    });
    let get = request("GET", "/a", &[]);
    type Flood<'a> = (&'a str, Box<dyn Fn(u32) -> Vec<Frame> + 'a>);
    let floods: Vec<Flood<'_>> = vec![
        ("PING", Box::new(|_| vec![Frame::new(PING, 0, 0, [0; 8])])),
        ("PING with ACK", Box::new(|_| vec![Frame::new(PING, 1, 0, [0; 8])])),
        ("SETTINGS", Box::new(|_| vec![Frame::settings(&[])])),
        ("PRIORITY", Box::new(|_| vec![Frame::new(2, 0, 3, [0, 0, 0, 0, 1])])),
        ("unknown", Box::new(|_| vec![Frame::new(99, 0, 0, [])])),
        ("WINDOW_UPDATE", Box::new(|_| vec![Frame::new(WINDOW_UPDATE, 0, 0, 1u32.to_be_bytes())])),
        (
            "empty DATA",
            Box::new(|at| {
                let mut frames = vec![Frame::new(DATA, 0, 1, [])];
                if at == 0 {
                    let lines = request("POST", "/optional", &[]);
                    frames.insert(0, Frame::head(1, 0, &lines));
                }
                frames
            }),
        ),
        (
            "rapid reset",
            Box::new(|at| {
                vec![Frame::head(2 * at + 1, END_STREAM, &get), Frame::reset(2 * at + 1, 8)]
            }),
        ),
        (
            "CONTINUATION",
            Box::new(|at| {
                let mut frames = vec![Frame::new(CONTINUATION, 0, 1, [])];
                if at == 0 {
                    frames.insert(0, Frame::new(HEADERS, END_STREAM, 1, block(&get)));
                }
                frames
            }),
        ),
    ];
    for (name, flood) in floods {
        let mut stream = house.raw(&[]);
        let mut is_open = true;
        for at in 0..3000 {
            if frames::write(&mut stream, &flood(at)).is_err() {
                is_open = false;
                break;
            }
        }
        if is_open {
            // No other time limit ends it before the client's read gives up.
            let end = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
            let is_timeout = matches!(end, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut));
            assert!(!is_timeout, "{name}: still open");
        }
        house.is_well(&format!("k-{}", name.replace(' ', "-")));
    }
}

#[test]
fn streams_whose_reset_arrives_with_their_head_reach_nobody() {
    let house = house(|setup| setup);
    let get = request("GET", "/a", &[]);
    let keyed = request("POST", "/v1/vouchers/redeem", &[("idempotency-key", "k")]);
    let mut stream = house.raw(&[]);
    let pairs = (0..9).flat_map(|at| {
        let lines = if at == 4 { &keyed } else { &get };
        [Frame::head(2 * at + 1, END_STREAM, lines), Frame::reset(2 * at + 1, 8)]
    });
    let frames: Vec<Frame> = pairs.chain([Frame::head(19, END_STREAM, &get)]).collect();
    frames::write(&mut stream, &frames).unwrap();
    let answer = frames::until(&mut stream, |frame| frame.kind == HEADERS).unwrap();
    assert_eq!((answer.stream, answer.status()), (19, 200));
    assert_eq!(house.backend.calls(), 1);
    house.is_well("k");
}

#[test]
fn a_client_that_takes_nothing_is_ended_and_a_slow_backend_is_waited_for() {
    let house = house(|setup| setup.limits("body_timeout = \"600ms\""));
    let gate = Gate::default();
    let held = gate.clone();
    let large = "x".repeat(200_000);
    house.backend.script(move |seen| match seen.target() {
        "/slow" => Act::raw(*b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
            .then(Act::raw(*b"cd").after(&held)),
        _ => answer(200, &large),
    });
    let ended_after = |window| {
        let mut stream = house.raw(&[(4, window)]);
        let lines = request("GET", "/large", &[]);
        frames::write(&mut stream, &[Frame::head(1, END_STREAM, &lines)]).unwrap();
        let started = Instant::now();
        ends(&mut stream, WAIT_LIMIT / 2);
        started.elapsed()
    };
    // No window at all, and one of a single byte.
    for window in [0, 1] {
        let time = ended_after(window);
        assert!(time >= Duration::from_millis(500), "{time:?}");
    }
    let client = house.client();
    let slow = client.begin(&Request::get("/slow"));
    house.backend.wait_calls(3);
    // Two clients that take nothing are ended meanwhile: the time for a client has run out twice.
    for _ in 0..2 {
        ended_after(0);
    }
    gate.open();
    let slow = slow.answer();
    assert_eq!((slow.status, slow.text().as_str()), (200, "abcd"));
}

#[test]
fn heads_that_do_not_arrive_end_in_time() {
    let house = house(|setup| setup.limits("header_timeout = \"600ms\""));
    let get = request("GET", "/a", &[]);
    let head = Frame::new(HEADERS, END_STREAM, 1, block(&get)).bytes();
    let settings = Frame::settings(&[]).bytes();
    for (name, bytes) in [
        ("nothing", vec![]),
        ("half a preface", PREFACE[..10].to_vec()),
        ("no settings", PREFACE.to_vec()),
        ("no request", [PREFACE, &settings].concat()),
        ("half a frame header", [PREFACE, &settings, &head[..4]].concat()),
        ("half a head", [PREFACE, &settings, &head[..20]].concat()),
        ("no end of the head", [PREFACE, &settings, &head].concat()),
    ] {
        let mut stream = house.bare();
        stream.write_all(&bytes).unwrap();
        stream.flush().unwrap();
        let started = Instant::now();
        ends(&mut stream, WAIT_LIMIT / 2);
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_millis(300), "{name}: {elapsed:?}");
    }
    assert_eq!(house.backend.calls(), 0);
}

#[test]
fn an_idle_connection_ends_in_order() {
    let house = house(|setup| setup.limits("idle_timeout = \"500ms\""));
    let mut stream = house.raw(&[]);
    let lines = request("GET", "/a", &[]);
    frames::write(&mut stream, &[Frame::head(1, END_STREAM, &lines)]).unwrap();
    let end = frames::until(&mut stream, |frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(end.reason(), 0);
    ends(&mut stream, WAIT_LIMIT / 2);
}

#[test]
fn a_drain_finishes_what_is_under_way() {
    let mut house = house(|setup| setup);
    let gate = Gate::default();
    let held = gate.clone();
    house.backend.script(move |_| answer(200, "{}").after(&held));
    let client = house.client();
    let call = client.begin(&Request::redeem("k", "{}"));
    house.backend.wait_calls(1);
    house.gateway.sigterm();
    eventually("the drain begins", || house.gateway.stderr().contains("draining").then_some(()));
    gate.open();
    call.answer().is(200, "executed", "");
    drop(client);
    assert_eq!(house.gateway.wait().code(), Some(0));
}

#[test]
fn uploads_count_against_the_memory_for_bodies() {
    let house = house(|setup| setup.limits("buffered = \"100KiB\"").limits("max_body = \"64KiB\""));
    let lines = |key| {
        request(
            "POST",
            "/v1/vouchers/redeem",
            &[("idempotency-key", key), ("content-type", "application/json")],
        )
    };
    let piece = || Frame::new(DATA, 0, 1, vec![b'1'; 15_000]);
    let mut first = house.raw(&[]);
    let frames: Vec<Frame> =
        std::iter::once(Frame::head(1, 0, &lines("k1"))).chain((0..4).map(|_| piece())).collect();
    frames::write(&mut first, &frames).unwrap();
    eventually("the first upload is held", || {
        (house.gateway.metric("oncegate_buffered_bytes") == Some(60_000)).then_some(())
    });
    // The second finds no room for as much.
    let mut second = house.raw(&[]);
    let frames: Vec<Frame> = std::iter::once(Frame::head(1, 0, &lines("k2")))
        .chain((0..4).map(|_| piece()))
        .chain([Frame::new(DATA, END_STREAM, 1, *b"1")])
        .collect();
    frames::write(&mut second, &frames).unwrap();
    let head = frames::until(&mut second, |frame| frame.kind == HEADERS).unwrap();
    assert_eq!(head.status(), 503);
    drop(second);
    frames::write(&mut first, &[Frame::new(DATA, END_STREAM, 1, [])]).unwrap();
    let head = frames::until(&mut first, |frame| frame.kind == HEADERS).unwrap();
    assert_eq!(head.status(), 200);
}

#[test]
fn mistakes_in_frames_end_the_connection_or_the_stream() {
    let house = house(|setup| setup);
    let get = request("GET", "/a", &[]);
    let head = |stream| Frame::head(stream, END_STREAM, &get);
    for (name, frames) in [
        ("DATA on stream 0", vec![Frame::new(DATA, 0, 0, *b"a")]),
        ("DATA on an idle stream", vec![Frame::new(DATA, 0, 1, *b"a")]),
        ("HEADERS on stream 0", vec![head(0)]),
        ("HEADERS on an even stream", vec![head(2)]),
        ("HEADERS on an older stream", vec![head(5), head(3)]),
        ("CONTINUATION without HEADERS", vec![Frame::new(CONTINUATION, END_HEADERS, 1, [])]),
        (
            "PING between parts of a head",
            vec![Frame::new(HEADERS, END_STREAM, 1, block(&get)), Frame::new(PING, 0, 0, [0; 8])],
        ),
        ("PING on a stream", vec![Frame::new(PING, 0, 1, [0; 8])]),
        ("PING of another length", vec![Frame::new(PING, 0, 0, [0; 7])]),
        ("SETTINGS on a stream", vec![Frame::new(SETTINGS, 0, 1, [])]),
        ("SETTINGS of another length", vec![Frame::new(SETTINGS, 0, 0, [0; 5])]),
        ("SETTINGS with ACK and content", vec![Frame::new(SETTINGS, 1, 0, [0; 6])]),
        ("a window above its maximum", vec![Frame::settings(&[(4, 0x8000_0000)])]),
        ("a frame size below its minimum", vec![Frame::settings(&[(5, 100)])]),
        ("a push setting that is none", vec![Frame::settings(&[(2, 2)])]),
        ("RST_STREAM on stream 0", vec![Frame::reset(0, 8)]),
        ("RST_STREAM on an idle stream", vec![Frame::reset(1, 8)]),
        ("RST_STREAM of another length", vec![head(1), Frame::new(RST_STREAM, 0, 1, [0; 3])]),
        ("WINDOW_UPDATE of nothing", vec![Frame::new(WINDOW_UPDATE, 0, 0, [0; 4])]),
        (
            "WINDOW_UPDATE above the maximum",
            vec![Frame::new(WINDOW_UPDATE, 0, 0, 0x7fff_ffff_u32.to_be_bytes())],
        ),
        ("WINDOW_UPDATE of another length", vec![Frame::new(WINDOW_UPDATE, 0, 0, [0; 3])]),
        ("PUSH_PROMISE", vec![Frame::new(5, END_HEADERS, 1, [0, 0, 0, 2])]),
        ("GOAWAY on a stream", vec![Frame::new(GOAWAY, 0, 1, [0; 8])]),
        ("a frame above the maximum size", vec![Frame::new(99, 0, 0, vec![0; 20_000])]),
        (
            "a block that cannot be read",
            vec![Frame::new(HEADERS, END_STREAM | END_HEADERS, 1, [0xff; 8])],
        ),
        (
            "more padding than content",
            vec![Frame::new(HEADERS, END_STREAM | END_HEADERS | 8, 1, [200, 0, 0])],
        ),
    ] {
        let mut stream = house.raw(&[]);
        frames::write(&mut stream, &frames).unwrap();
        let is_end = |frame: &Frame| matches!(frame.kind, GOAWAY | RST_STREAM);
        let end = frames::until(&mut stream, is_end);
        assert!(end.is_none_or(|frame| frame.reason() != 0), "{name}");
    }
    house.is_well("k");
}
