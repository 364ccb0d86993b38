//! Requests that are not plain: what is refused before anything is claimed, and what one connection
//! may carry.

use crate::support::{Backend, Conn, Gate, Gateway, Request, Setup, answer};

const BODY: &str = r#"{"qr":"rsg:1"}"#;
const KEYED: &str = "host: a\r\nidempotency-key: k\r\ncontent-type: application/json\r\n";

/// Sends the bytes, expects a refusal and the end of the connection, and nothing upstream.
#[track_caller]
fn check_refused(gateway: &Gateway, backend: &Backend, bytes: &str) {
    let calls = backend.calls();
    let mut conn = Conn::open(gateway.addr);
    conn.write(bytes);
    // Whatever follows must not be read as a request of its own.
    let _ = conn.try_write(b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
    let reply = conn.try_read(false).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    assert!((400..=501).contains(&reply.status), "{bytes:?}: {reply:?}");
    assert_ne!(reply.status, 500, "{bytes:?}");
    if let Ok(second) = conn.try_read(false) {
        assert!(second.status >= 400, "{bytes:?} went on: {second:?}");
    }
    assert_eq!(backend.calls(), calls, "{bytes:?} reached the backend");
}

fn gateway() -> (Backend, Gateway) {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    (backend, gateway)
}

/// What follows the request line of a redemption in each refused request.
#[track_caller]
fn check_heads(heads: &[&str]) {
    let (backend, gateway) = gateway();
    for head in heads {
        let bytes = format!("POST /v1/vouchers/redeem HTTP/1.1\r\n{head}");
        check_refused(&gateway, &backend, &bytes);
    }
    // None of them left a claim on the key.
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
}

#[test]
fn exactly_one_host_is_needed() {
    let key = "idempotency-key: k\r\ncontent-length: 2\r\n\r\n{}";
    check_heads(&[
        key,
        &format!("host: a\r\nhost: b\r\n{key}"),
        &format!("host: a\r\nhost: a\r\n{key}"),
        &format!("host: a b\r\n{key}"),
        &format!("host: a/b\r\n{key}"),
        &format!("host: a@b\r\n{key}"),
        &format!("host: a, b\r\n{key}"),
    ]);
}

#[test]
fn the_length_of_a_body_has_one_meaning() {
    let chunks = "2\r\n{}\r\n0\r\n\r\n";
    check_heads(&[
        &format!("{KEYED}transfer-encoding: gzip, chunked\r\n\r\n{chunks}"),
        &format!("{KEYED}transfer-encoding: chunked, chunked\r\n\r\n{chunks}"),
        &format!("{KEYED}transfer-encoding: identity\r\n\r\n"),
        &format!("{KEYED}transfer-encoding: xchunked\r\n\r\n{chunks}"),
        &format!("{KEYED}transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"),
        &format!("{KEYED}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"),
        &format!("{KEYED}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"),
        &format!("{KEYED}content-length: 2, 3\r\n\r\n{{}}"),
        &format!("{KEYED}content-length: +2\r\n\r\n{{}}"),
        &format!("{KEYED}content-length: -2\r\n\r\n{{}}"),
        &format!("{KEYED}content-length: 0x2\r\n\r\n{{}}"),
        &format!("{KEYED}content-length: \r\n\r\n{{}}"),
        &format!("{KEYED}content-length: 99999999999999999999\r\n\r\n{{}}"),
    ]);
}

#[test]
fn a_length_next_to_chunks_never_splits_the_stream_in_two() {
    let (backend, gateway) = gateway();
    for (number, framing) in [
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 12",
        "content-length: 40\r\ntransfer-encoding: chunked",
    ]
    .iter()
    .enumerate()
    {
        let mut conn = Conn::open(gateway.addr);
        conn.write(format!(
            "POST /v1/vouchers/redeem HTTP/1.1\r\nhost: a\r\nidempotency-key: k-{number}\r\n\
             {framing}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        ));
        let _ = conn.try_write(b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n");
        // Refused, or taken by its chunks with the connection closed after it: RFC 9112
        // section 6.1 leaves a server these two.
        let reply = conn.read();
        assert!([200, 400].contains(&reply.status), "{reply:?}");
        assert_eq!(reply.header("connection").as_deref(), Some("close"));
        conn.ends();
    }
    for seen in backend.seen() {
        assert_eq!((seen.text(), seen.all("content-length")), ("{}".into(), vec!["2".into()]));
        assert_eq!(seen.all("transfer-encoding"), [""; 0]);
        assert!(!seen.line.contains("smuggled"));
    }
}

#[test]
fn chunked_needs_http_1_1() {
    let (backend, gateway) = gateway();
    let bytes = format!(
        "POST /v1/vouchers/redeem HTTP/1.0\r\n{KEYED}transfer-encoding: chunked\r\n\r\n\
         2\r\n{{}}\r\n0\r\n\r\n"
    );
    check_refused(&gateway, &backend, &bytes);
}

#[test]
fn broken_chunks_are_refused_and_claim_nothing() {
    let chunked = format!("{KEYED}transfer-encoding: chunked\r\n\r\n");
    check_heads(&[
        &format!("{chunked}zz\r\n{{}}\r\n0\r\n\r\n"),
        &format!("{chunked}-2\r\n{{}}\r\n0\r\n\r\n"),
        &format!("{chunked}2\r\n{{}}xx0\r\n\r\n"),
        &format!("{chunked}fffffffffffffffff\r\n{{}}\r\n0\r\n\r\n"),
    ]);
}

#[test]
fn malformed_header_lines_are_refused() {
    check_heads(&[
        &format!("{KEYED}x-a : 1\r\ncontent-length: 2\r\n\r\n{{}}"),
        &format!("{KEYED}x-a: 1\r\n folded\r\ncontent-length: 2\r\n\r\n{{}}"),
        &format!("{KEYED}no colon\r\ncontent-length: 2\r\n\r\n{{}}"),
        &format!("{KEYED}x-a: nul\0\r\ncontent-length: 2\r\n\r\n{{}}"),
        &format!("{KEYED}x(a): 1\r\ncontent-length: 2\r\n\r\n{{}}"),
    ]);
}

#[test]
fn a_connection_header_cannot_take_the_key_or_the_credentials_away() {
    let (backend, gateway) = gateway();
    for name in ["idempotency-key", "Idempotency-Key", "close, idempotency-key", "x-api-key"] {
        let request = Request::redeem("k", BODY).tenant("a").header("connection", name);
        request.send(gateway.addr).is(400, "rejected", "request-invalid");
    }
    assert_eq!(backend.calls(), 0);
}

#[test]
fn connect_and_trace_go_nowhere() {
    let (backend, gateway) = gateway();
    for bytes in [
        "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
        "CONNECT /v1/vouchers/redeem HTTP/1.1\r\nhost: a\r\n\r\n",
        "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n",
        "TRACE /v1/vouchers/redeem HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\n\r\n",
    ] {
        let mut conn = Conn::open(gateway.addr);
        conn.write(bytes);
        if let Ok(reply) = conn.try_read(false) {
            assert!((400..=501).contains(&reply.status) && reply.status != 500, "{reply:?}");
        }
    }
    for (path, allow) in
        [("/v1/vouchers/redeem", "GET, HEAD, OPTIONS, POST"), ("/", "GET, HEAD, OPTIONS")]
    {
        let mut conn = Conn::open(gateway.addr);
        conn.write(format!("TRACE {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
        let reply = conn.read();
        reply.is(405, "rejected", "method-not-allowed");
        assert_eq!(reply.header("allow").as_deref(), Some(allow), "{path}");
    }
    assert_eq!(backend.calls(), 0);
}

#[test]
fn absolute_form_is_no_way_around_the_key() {
    let (backend, gateway) = gateway();
    for target in ["http://a/v1/vouchers/redeem", "http://other/v1/vouchers/redeem"] {
        let mut conn = Conn::open(gateway.addr);
        conn.write(format!("POST {target} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}"));
        let reply = conn.read();
        assert_eq!((reply.status, reply.disposition()), (400, "rejected".to_owned()), "{reply:?}");
    }
    assert_eq!(backend.calls(), 0);
}

#[test]
fn no_spelling_of_a_path_leads_around_a_route() {
    let backend = Backend::start();
    let free = "name = \"free\"\nmethods = [\"POST\"]\npath = \"/free/{*rest}\"\nmode = \"off\"";
    let gateway = Setup::before(&backend).route(free).start();
    for path in [
        "/v1/vouchers/../vouchers/redeem",
        "/v1/vouchers/./redeem",
        "/v1/vouchers/%2e/redeem",
        "/v1/vouchers/x/%2e%2E/redeem",
        "//v1/vouchers/redeem",
        "/v1//vouchers/redeem",
        "/v1/vouchers/redeem/",
        "/v1/vouchers%2Fredeem",
        "/v1/vouchers%2fredeem",
        "/v1/vouchers/redeem;x=1",
        "/v1/vouchers\\redeem",
        "/v1/vouchers/redeem%00",
        "/v1/vouchers/redeem%",
        "/V1/VOUCHERS/REDEEM",
        "/free/../v1/vouchers/redeem",
        "/free/%2e%2e/v1/vouchers/redeem",
        "/free/.%2e/v1/vouchers/redeem",
        "/free/..%2fv1/vouchers/redeem",
        "/free/..%5cv1/vouchers/redeem",
        "/free/..;/v1/vouchers/redeem",
        "/free//../v1/vouchers/redeem",
    ] {
        for request in [Request::new("POST", path), Request::new("POST", path).key("k")] {
            let reply = request.json(BODY).send(gateway.addr);
            assert!([400, 404, 405].contains(&reply.status), "{path}: {reply:?}");
            assert!(!reply.error().is_empty(), "{path}");
        }
    }
    assert_eq!(backend.calls(), 0);
    let reply = Request::new("POST", "/free/of/charge").json(BODY).send(gateway.addr);
    assert_eq!(reply.status, 200);
}

#[test]
fn encoded_plain_characters_name_the_same_path() {
    let (backend, gateway) = gateway();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    let same = Request::new("POST", "/v1/vouchers/%72edeem").json(BODY);
    same.clone().send(gateway.addr).is(400, "rejected", "key-missing");
    same.key("k").send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn too_much_is_refused_before_the_claim() {
    let backend = Backend::start();
    let gateway =
        Setup::before(&backend).limits("max_body = \"1KiB\"\nmax_head = \"16KiB\"").start();
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(2000));
    Request::redeem("k", &large).send(gateway.addr).is(413, "rejected", "body-too-large");
    let mut conn = Conn::open(gateway.addr);
    conn.write(format!(
        "POST /v1/vouchers/redeem HTTP/1.1\r\n{KEYED}transfer-encoding: chunked\r\n\r\n\
         400\r\n{}\r\n1\r\nx\r\n0\r\n\r\n",
        "x".repeat(1024)
    ));
    conn.read().is(413, "rejected", "body-too-large");
    let header = Request::redeem("k", BODY).header("x-large", "x".repeat(40_000));
    let reply = header.try_send(gateway.addr).expect("an answer");
    assert_eq!((reply.status, reply.error()), (431, "head-too-large".to_owned()));
    assert_eq!(backend.calls(), 0);
    let fits = format!(r#"{{"a":"{}"}}"#, "x".repeat(1016));
    assert_eq!(fits.len(), 1024);
    Request::redeem("k", &fits).send(gateway.addr).is(200, "executed", "");
}

#[test]
fn a_target_that_is_too_long_is_refused() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).limits("max_head = \"256KiB\"").start();
    let long = format!("/v1/vouchers/redeem?{}", "x".repeat(70_000));
    let reply = Request::new("POST", &long).key("k").json(BODY).send(gateway.addr);
    assert_eq!((reply.status, reply.error()), (414, "uri-too-long".to_owned()));
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_body_is_not_waited_for_when_the_head_is_refused_already() {
    let (backend, gateway) = gateway();
    for head in ["", "idempotency-key: a,b\r\n"] {
        let mut conn = Conn::open(gateway.addr);
        conn.write(format!(
            "POST /v1/vouchers/redeem HTTP/1.1\r\nhost: a\r\n{head}content-length: 1000\r\n\r\n"
        ));
        let reply = conn.read();
        assert_eq!((reply.status, reply.header("connection")), (400, Some("close".into())));
        conn.ends();
    }
    let mut conn = Conn::open(gateway.addr);
    conn.write(format!(
        "POST /v1/vouchers/redeem HTTP/1.1\r\n{KEYED}content-length: 99999999\r\n\r\n"
    ));
    conn.read().is(413, "rejected", "body-too-large");
    conn.ends();
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_connection_lives_on_after_answers_and_whole_refused_requests() {
    let (backend, gateway) = gateway();
    let mut conn = Conn::open(gateway.addr);
    let mut send = |request: Request| {
        conn.write(request.bytes());
        conn.read().summary()
    };
    assert_eq!(send(Request::redeem("k", BODY)).1, "executed");
    assert_eq!(send(Request::redeem("k", BODY)).1, "replayed");
    assert_eq!(send(Request::redeem("k", "{}")).2, "key-reused");
    assert_eq!(send(Request::get("/missing-key")).0, 200);
    assert_eq!(send(Request::redeem("k", BODY)).1, "replayed");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let held = gate.clone();
    backend.script(move |seen| {
        let act = answer(200, &seen.text());
        if seen.text().contains('1') { act.after(&held) } else { act }
    });
    let gateway = Setup::before(&backend).start();
    let mut bytes = Vec::new();
    for number in 1..=4 {
        bytes.extend(Request::redeem(&format!("k-{number}"), &format!("[{number}]")).bytes());
    }
    bytes.extend(Request::redeem("k-1", "[1]").bytes());
    let mut conn = Conn::open(gateway.addr);
    conn.write(bytes);
    backend.wait_calls(1);
    gate.open();
    let texts: Vec<_> = (0..5).map(|_| conn.read().text()).collect();
    assert_eq!(texts, ["[1]", "[2]", "[3]", "[4]", "[1]"]);
    assert_eq!(backend.calls(), 4);
}

#[test]
fn continue_is_said_only_when_the_body_is_wanted() {
    let (backend, gateway) = gateway();
    let mut conn = Conn::open(gateway.addr);
    let head = |key: &str| {
        format!(
            "POST /v1/vouchers/redeem HTTP/1.1\r\nhost: a\r\n{key}expect: 100-continue\r\n\
             content-type: application/json\r\ncontent-length: 14\r\n\r\n"
        )
    };
    conn.write(head("idempotency-key: k\r\n"));
    assert_eq!(conn.try_read_head().unwrap().0, 100);
    conn.write(BODY);
    conn.read().is(200, "executed", "");
    assert_eq!(backend.last().header("expect"), None);
    let mut conn = Conn::open(gateway.addr);
    conn.write(head(""));
    assert_eq!(conn.try_read_head().unwrap().0, 400);
    assert_eq!(backend.calls(), 1);
}

#[test]
fn clients_of_http_1_0_are_served() {
    let (backend, gateway) = gateway();
    for disposition in ["executed", "replayed"] {
        let mut conn = Conn::open(gateway.addr);
        conn.write(format!(
            "POST /v1/vouchers/redeem HTTP/1.0\r\n{KEYED}content-length: 14\r\n\r\n{BODY}"
        ));
        conn.read().is(200, disposition, "");
        conn.ends();
    }
    assert_eq!(backend.calls(), 1);
}

#[test]
fn bytes_that_are_not_http_1_are_refused_without_harm() {
    let (backend, gateway) = gateway();
    let garbage: [&[u8]; 5] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\nhost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ];
    for bytes in garbage {
        let mut conn = Conn::open(gateway.addr);
        conn.write(bytes);
        conn.half_close();
        if let Ok(reply) = conn.try_read(false) {
            assert!((400..=505).contains(&reply.status) && reply.status != 500, "{reply:?}");
        }
    }
    assert_eq!(backend.calls(), 0);
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
}
