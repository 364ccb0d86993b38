//! One id per exchange: upstream, in the log, in problems, and on the answers that the gateway
//! makes itself.

use std::net::SocketAddr;

use crate::support::{Act, Backend, Conn, Request, Response, Setup, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// The id on an answer of the gateway, the same as in its problem.
#[track_caller]
fn id_of(answer: &Response) -> String {
    let id = answer.header("x-request-id").unwrap_or_else(|| panic!("no id on {answer:?}"));
    assert!((1..=128).contains(&id.len()), "{id}");
    if answer.header("content-type").as_deref() == Some("application/problem+json") {
        assert_eq!(answer.json()["request_id"], *id, "{}", answer.text());
    }
    id
}

#[test]
fn the_clients_id_is_upstream_in_the_problem_on_the_answer_and_in_the_log() {
    let backend = Backend::start();
    backend.always(Act::close());
    let gateway = Setup::before(&backend).start();
    let lost = Request::redeem("k", BODY).header("x-request-id", "till-7:42").send(gateway.addr);
    lost.is(502, "unknown", "outcome-unknown");
    assert_eq!(id_of(&lost), "till-7:42");
    assert_eq!(backend.last().all("x-request-id"), ["till-7:42"]);
    eventually("the log has the id", || gateway.stderr().contains("till-7:42").then_some(()));
}

#[test]
fn an_id_is_made_where_the_client_sends_none_that_fits() {
    let backend = Backend::start();
    backend.always(Act::close());
    let gateway = Setup::before(&backend).start();
    let long = "x".repeat(129);
    let key = |key: &str| Request::redeem(key, BODY);
    let mut ids = Vec::new();
    for (number, request) in [
        key("k-0"),
        key("k-1").header("x-request-id", ""),
        key("k-2").header("x-request-id", &long),
        key("k-3").header("x-request-id", "two words"),
        key("k-4").header("x-request-id", "caf\u{e9}"),
        key("k-5").header("x-request-id", "one").header("x-request-id", "two"),
    ]
    .into_iter()
    .enumerate()
    {
        let lost = request.send(gateway.addr);
        let id = id_of(&lost);
        assert_eq!((id.len(), lost.status), (36, 502), "{number}: {id}");
        assert_eq!(backend.last().all("x-request-id"), [id.as_str()], "{number}");
        eventually("the log has the id", || gateway.stderr().contains(&id).then_some(()));
        assert!(!ids.contains(&id), "{id} was made twice");
        ids.push(id);
    }
}

#[test]
fn a_key_is_nobodys_request_id() {
    let backend = Backend::start();
    backend.always(Act::close());
    let pointer = "name = \"by-body\"\nmethods = [\"POST\"]\npath = \"/by-body\"\nkey.pointer = \"/id\"\nkey.scope = \"route\"";
    let other = "name = \"other\"\nmethods = [\"POST\"]\npath = \"/other\"\nkey.header = \"x-token\"\nkey.scope = \"route\"";
    let gateway = Setup::before(&backend).route(pointer).route(other).start();
    let secret = "3f1c-secret-key";
    let quoted = format!("\"{secret}\";a=1");
    for (number, request) in [
        Request::redeem(secret, BODY),
        Request::redeem(&quoted, &format!("[{BODY}]")),
        Request::new("POST", "/by-body").json(&format!(r#"{{"id":"{secret}"}}"#)),
        Request::new("POST", "/other").header("x-token", secret).body(b"x"),
    ]
    .into_iter()
    .enumerate()
    {
        let refused = request.header("x-request-id", secret).send(gateway.addr);
        assert_ne!(id_of(&refused), secret, "{number}");
        assert!(!refused.text().contains(secret), "{number}");
    }
    let ids: Vec<String> =
        backend.seen().iter().flat_map(|seen| seen.all("x-request-id")).collect();
    assert!(ids.len() >= 3 && !ids.contains(&secret.to_owned()), "{ids:?}");
    assert!(!gateway.stderr().contains(secret), "{}", gateway.stderr());
}

#[test]
fn a_key_header_of_this_name_stays_a_key() {
    let backend = Backend::start();
    let keyed = |name: &str, lines: &str| {
        format!(
            "name = {name:?}\nmethods = [\"POST\"]\npath = \"/{name}\"\n\
             key.header = \"X-Request-Id\"\n{lines}"
        )
    };
    let gateway = Setup::before(&backend)
        .route(&keyed("hidden", ""))
        .route(&keyed("shown", "key.forward = true"))
        .start();
    let send = |path: &str| {
        let request = Request::new("POST", path).header("x-request-id", "k").body(b"x");
        request.send(gateway.addr)
    };
    for disposition in ["executed", "replayed"] {
        send("/shown").is(200, disposition, "");
        assert_eq!(backend.last().all("x-request-id"), ["k"]);
    }
    send("/hidden").is(422, "rejected", "key-reused");
    assert_eq!(backend.calls(), 1);
}

/// Refusals in every layer: the parser, the head, the path, the route, and the gateway's own pages.
#[test]
fn every_answer_that_the_gateway_makes_has_an_id() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let raw = |text: &str| {
        let mut conn = Conn::open(gateway.addr);
        conn.write(text.as_bytes());
        conn.read()
    };
    let readable = "x-request-id: mine\r\n\r\n";
    for (text, id) in [
        (format!("GET / HTTP/1.1\r\n{readable}"), Some("mine")),
        (format!("TRACE / HTTP/1.1\r\nhost: a\r\n{readable}"), Some("mine")),
        (format!("POST /v1/vouchers/redeem#x HTTP/1.1\r\nhost: a\r\n{readable}"), Some("mine")),
        (format!("GET /a/../b HTTP/1.1\r\nhost: a\r\n{readable}"), Some("mine")),
        (format!("DELETE /x HTTP/1.1\r\nhost: a\r\n{readable}"), Some("mine")),
        (format!("OPTIONS /x HTTP/1.1\r\nhost: a\r\nmax-forwards: 0\r\n{readable}"), Some("mine")),
        (format!("GET /.well-known/idempotency HTTP/1.1\r\nhost: a\r\n{readable}"), Some("mine")),
        (format!("GET /.well-known/idempotency/x HTTP/1.1\r\nhost: a\r\n{readable}"), Some("mine")),
        ("what is this\r\n\r\n".to_owned(), None),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(70_000)), None),
    ] {
        let answer = raw(&text);
        let given = id_of(&answer);
        assert_eq!(id.unwrap_or(&given), given, "{answer:?}");
    }
    assert_eq!(backend.calls(), 0);
}

#[test]
fn answers_of_the_backend_keep_their_own_headers() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let send = |id: &str| Request::redeem("k", BODY).header("x-request-id", id).send(gateway.addr);
    backend.always(Act::whole(200, &[("x-request-id", "of-the-backend")], b"{}"));
    send("a").is(200, "executed", "");
    assert_eq!(send("b").all("x-request-id"), ["of-the-backend"]);
}

fn status_line(to: SocketAddr, request: &Request) -> (String, Response) {
    let mut conn = Conn::open(to);
    conn.write(request.bytes());
    let line = String::from_utf8(conn.try_read_line().unwrap()).unwrap();
    (line, request.send(to))
}

/// Many clients show their users the status line and nothing else.
#[test]
fn the_status_line_says_the_title_of_the_problem() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    for request in [
        Request::new("POST", "/v1/vouchers/redeem").json(BODY),
        Request::new("DELETE", "/x"),
        Request::exactly("GET / HTTP/1.1"),
        Request::exactly("nonsense"),
    ] {
        let (line, answer) = status_line(gateway.addr, &request);
        let title = answer.json()["title"].as_str().unwrap().to_owned();
        assert_eq!(line, format!("HTTP/1.1 {} {title}", answer.status));
    }
}
