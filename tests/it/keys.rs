//! The key over the wire: which spellings are taken, which are refused, and where it goes.

use crate::support::{Backend, Conn, Request, Response, Setup};

const BODY: &str = r#"{"qr":"rsg:1"}"#;
const UUID: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";

/// Sends the header lines given and nothing else as a key.
fn with_lines(to: std::net::SocketAddr, lines: &[&[u8]]) -> Response {
    let mut request = Request::new("POST", "/v1/vouchers/redeem").json(BODY);
    for line in lines {
        request = request.header("Idempotency-Key", line);
    }
    request.send(to)
}

#[track_caller]
fn check_refused(setup: Setup, backend: &Backend, lines: &[&[u8]]) {
    let gateway = setup.start();
    let calls = backend.calls();
    for line in lines {
        let reply = with_lines(gateway.addr, &[line]);
        let shown = String::from_utf8_lossy(line).into_owned();
        assert_eq!((reply.status, reply.error()), (400, "key-invalid".to_owned()), "{shown:?}");
        assert_eq!(reply.disposition(), "rejected");
    }
    assert_eq!(backend.calls(), calls);
}

#[track_caller]
fn check_taken(setup: Setup, backend: &Backend, lines: &[&[u8]]) {
    let gateway = setup.start();
    let calls = backend.calls();
    for line in lines {
        let shown = String::from_utf8_lossy(line).into_owned();
        assert_eq!(with_lines(gateway.addr, &[line]).disposition(), "executed", "{shown:?}");
    }
    assert_eq!(backend.calls(), calls + lines.len());
}

#[test]
fn keys_of_1_to_255_visible_characters_are_taken_bare_or_quoted() {
    let backend = Backend::start();
    let longest = "k".repeat(255);
    let quoted = format!("\"{}\"", "q".repeat(255));
    let lines: [&[u8]; 9] = [
        b"k",
        b"~!#$%&'()*+-./:<=>?@[]^_`{|}",
        b"\"with;semicolon\"",
        b"\"with,comma\"",
        br#""with\"quotes\"""#,
        br#""back\\slash""#,
        UUID.as_bytes(),
        longest.as_bytes(),
        quoted.as_bytes(),
    ];
    check_taken(Setup::before(&backend), &backend, &lines);
}

#[test]
fn the_string_and_the_bare_value_name_the_same_key() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    with_lines(gateway.addr, &[b"key-1"]).is(200, "executed", "");
    let same: [&[u8]; 5] =
        [b"\"key-1\"", b"\"key-1\";a=1", b"\"key-1\"; a; b=\"x\"", b"  key-1  ", b"key-1"];
    for line in same {
        with_lines(gateway.addr, &[line]).is(200, "replayed", "");
    }
    with_lines(gateway.addr, &[b"Key-1"]).is(200, "executed", "");
    assert_eq!(backend.calls(), 2, "keys are compared with case");
}

#[test]
fn every_other_value_is_refused_and_claims_nothing() {
    let backend = Backend::start();
    let too_long = "k".repeat(256);
    let quoted_too_long = format!("\"{}\"", "k".repeat(256));
    let lines: [&[u8]; 15] = [
        b"",
        b"   ",
        b"\"\"",
        b"a,b",
        b"a, b",
        b"\"a\", \"b\"",
        b"\"a\";x=1, \"b\"",
        b"a b",
        b"\"a b\"",
        b"a\tb",
        "schl\u{fc}ssel".as_bytes(),
        b"\xff\xfe",
        b"\"open",
        too_long.as_bytes(),
        quoted_too_long.as_bytes(),
    ];
    check_refused(Setup::before(&backend), &backend, &lines);
    check_refused(Setup::before(&backend), &backend, &[br#""bad \escape""#, b"\"k\"x"]);
    let gateway = Setup::before(&backend).start();
    for control in [b"k\x7f", b"k\x01"] {
        let reply = with_lines(gateway.addr, &[control]);
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(!reply.error().is_empty(), "{reply:?}");
    }
    assert_eq!(backend.calls(), 0);
}

#[test]
fn two_header_lines_are_refused_even_when_equal() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    with_lines(gateway.addr, &[b"k", b"k"]).is(400, "rejected", "key-invalid");
    with_lines(gateway.addr, &[b"k", b""]).is(400, "rejected", "key-invalid");
    with_lines(gateway.addr, &[b"", b"k"]).is(400, "rejected", "key-invalid");
    assert_eq!(backend.calls(), 0);
    with_lines(gateway.addr, &[b"k"]).is(200, "executed", "");
}

#[test]
fn a_malformed_key_is_refused_where_keys_are_optional_too() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let request = Request::new("POST", "/optional").key("a,b").json(BODY);
    request.send(gateway.addr).is(400, "rejected", "key-invalid");
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_key_in_a_trailer_is_refused() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let request = |path: &str, head: &str, trailer: &str| {
        let mut conn = Conn::open(gateway.addr);
        conn.write(format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\n{head}transfer-encoding: chunked\r\n\r\n\
             2\r\n{{}}\r\n0\r\n{trailer}\r\n"
        ));
        conn.read()
    };
    let (trailer, announced) = ("Idempotency-Key: k\r\n", "trailer: x-sum, idempotency-key\r\n");
    for path in ["/v1/vouchers/redeem", "/optional"] {
        for head in ["", announced, "idempotency-key: k\r\n", "idempotency-key: other\r\n"] {
            request(path, head, trailer).is(400, "rejected", "key-invalid");
        }
    }
    request("/v1/vouchers/redeem", "", "").is(400, "rejected", "key-missing");
    request("/v1/vouchers/redeem", "", "x-sum: 1\r\n").is(400, "rejected", "key-missing");
    assert_eq!(backend.calls(), 0);
    request("/optional", "", "x-sum: 1\r\n").is(200, "bypassed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn strict_routes_take_the_string_alone() {
    let backend = Backend::start();
    let strict = || Setup::before(&backend).redeem(r#"key.syntax = "strict""#);
    check_taken(strict(), &backend, &[b"\"k\"", b"\"l\";p"]);
    check_refused(strict(), &backend, &[b"k", b"'k'", UUID.as_bytes(), b"?1", b"12"]);
    let malformed: [&[u8]; 5] = [b"\"k\";", b"\"k\";A=1", b"\"k\";=1", b"\"k\";a=", b"\"k\";a=\""];
    check_refused(strict(), &backend, &malformed);
}

#[test]
fn length_and_format_can_be_narrowed() {
    let backend = Backend::start();
    let uuid = || Setup::before(&backend).redeem(r#"key.format = "uuid""#);
    let quoted = format!("\"{}\"", UUID.replace('8', "9"));
    check_taken(uuid(), &backend, &[UUID.as_bytes(), quoted.as_bytes()]);
    let plain = UUID.replace('-', "");
    check_refused(uuid(), &backend, &[b"k", plain.as_bytes(), &UUID.as_bytes()[1..]]);
    let (gateway, before) = (uuid().start(), backend.calls());
    for (key, disposition) in [
        (UUID.to_uppercase(), "executed"),
        (UUID.to_lowercase(), "replayed"),
        (format!("\"{}\"", UUID.to_uppercase()), "replayed"),
    ] {
        Request::redeem(&key, BODY).send(gateway.addr).is(200, disposition, "");
    }
    assert_eq!(backend.calls(), before + 1);
    let short = || Setup::before(&backend).redeem("key.min_length = 4\nkey.max_length = 8");
    check_taken(short(), &backend, &[b"1234", b"12345678", b"\"87654321\""]);
    check_refused(short(), &backend, &[b"123", b"123456789", b"\"123\""]);
}

#[test]
fn another_header_can_carry_the_key() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).redeem(r#"key.header = "X-Request-Key""#).start();
    let request = Request::new("POST", "/v1/vouchers/redeem").json(BODY);
    request.clone().key("k").send(gateway.addr).is(400, "rejected", "key-missing");
    let keyed = request.header("x-request-key", "k");
    keyed.send(gateway.addr).is(200, "executed", "");
    keyed.send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
    assert_eq!(backend.last().header("x-request-key"), None);
}

#[test]
fn the_body_can_carry_the_key() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).redeem(r#"key.pointer = "/requestId""#).start();
    let send =
        |body: &str| Request::new("POST", "/v1/vouchers/redeem").json(body).send(gateway.addr);
    send(r#"{"requestId":"r-1","v":1}"#).is(200, "executed", "");
    send(r#"{"v":1,"requestId":"r-1"}"#).is(200, "replayed", "");
    send(r#"{"requestId":"r-1","v":2}"#).is(422, "rejected", "key-reused");
    send(r#"{"requestId":17,"v":1}"#).is(200, "executed", "");
    send(r#"{"v":1}"#).is(400, "rejected", "key-missing");
    send(r#"{"requestId":"","v":1}"#).is(400, "rejected", "key-invalid");
    send(r#"{"requestId":["x"],"v":1}"#).is(400, "rejected", "key-invalid");
    send(r#"{"requestId":"a b","v":1}"#).is(400, "rejected", "key-invalid");
    for broken in ["", "{", "[1,2]"] {
        let reply = send(broken);
        assert_eq!((reply.status, reply.disposition()), (400, "rejected".to_owned()), "{broken}");
    }
    assert_eq!(backend.calls(), 2);
}

#[test]
fn the_key_goes_upstream_only_when_asked_to() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.last().all("idempotency-key"), [""; 0]);
    let gateway = Setup::before(&backend).redeem("key.forward = true").start();
    Request::redeem("\"k-2\"", BODY).send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.last().all("idempotency-key").len(), 1);
    assert!(backend.last().header("idempotency-key").unwrap().contains("k-2"));
}

#[test]
fn keys_belong_to_a_tenant_or_to_a_route_of_it() {
    let backend = Backend::start();
    let route = |name: &str, scope: &str| {
        format!(
            "name = \"{name}\"\nmethods = [\"POST\"]\npath = \"/{name}\"\nkey.scope = \"{scope}\""
        )
    };
    let gateway = Setup::before(&backend)
        .route(&route("a", "tenant"))
        .route(&route("b", "tenant"))
        .route(&route("c", "route"))
        .route(&route("d", "route"))
        .start();
    let send = |path: &str| Request::new("POST", path).key("k").json(BODY).send(gateway.addr);
    send("/a").is(200, "executed", "");
    send("/b").is(422, "rejected", "key-reused");
    send("/c").is(200, "executed", "");
    send("/d").is(200, "executed", "");
    send("/d").is(200, "replayed", "");
    assert_eq!(backend.calls(), 3);
}

#[test]
fn no_key_credential_or_body_stands_in_the_log() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).env("ONCEGATE_LOG", "trace").start();
    let request = Request::redeem("hush-key", r#"{"qr":"hush-body"}"#).tenant("hush-tenant");
    for _ in 0..2 {
        request.send(gateway.addr);
    }
    Request::redeem("hush-key", "{}").tenant("hush-tenant").send(gateway.addr);
    let mut gateway = gateway;
    gateway.stop();
    let log = gateway.stderr();
    assert!(log.contains("key-reused"), "the log says nothing: {log}");
    assert!(!log.contains("hush"), "{log}");
}
