//! Requests and answers made to mislead: each of these once got a wrong answer.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

use crate::support::{Act, Backend, Gate, Request, Setup, answer, at_once, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// A route whose key may stand in the body.
const IN_BODY: &str = r#"name = "in-body"
methods = ["POST"]
path = "/in-body"
key.pointer = "/requestId"
key.required = false"#;

fn in_body(body: &str) -> Request {
    Request::new("POST", "/in-body").json(body)
}

#[test]
fn a_retry_that_meets_a_wrong_request_with_its_key_still_gets_its_answer() {
    let backend = Backend::start();
    // Too large for the answers kept in memory: each duplicate asks the store.
    backend.always(answer(200, &format!("\"{}\"", "x".repeat(300 << 10))));
    let gateway = Setup::before(&backend).start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    for _ in 0..40 {
        at_once(8, |index| match index % 2 {
            0 => {
                Request::redeem("k", BODY).send(gateway.addr).is(200, "replayed", "");
            }
            _ => {
                let wrong = Request::redeem("k", r#"{"qr":"rsg:2"}"#).send(gateway.addr);
                wrong.is(422, "rejected", "key-reused");
            }
        });
    }
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_body_that_looks_like_a_refusal_arrives_as_it_is() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let body = "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno";
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    backend.always(Act::raw(head).then(Act::raw(body).after(&gate)));
    let gateway = Setup::before(&backend).start();
    let mut conn = Request::get("/batch").begin(gateway.addr);
    assert_eq!(conn.try_read_head().unwrap().0, 200);
    gate.open();
    assert_eq!(String::from_utf8_lossy(&conn.read_exact(body.len())), body);
}

#[test]
fn a_key_in_a_body_that_cannot_be_read_is_not_taken_for_no_key() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).route(IN_BODY).start();
    let deep = format!(r#"{{"requestId":"r","deep":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let cut = r#"{"requestId":"r","note":"\ud8"}"#;
    for body in [cut, &deep, r#"{"requestId":"r",}"#] {
        in_body(body).send(gateway.addr).is(400, "rejected", "body-invalid");
    }
    let packed = in_body("\u{1f}packed").header("content-encoding", "gzip").send(gateway.addr);
    packed.is(400, "rejected", "body-invalid");
    let unnamed = Request::new("POST", "/in-body").body(cut.as_bytes()).send(gateway.addr);
    unnamed.is(400, "rejected", "body-invalid");
    assert_eq!(backend.calls(), 0);
    in_body(r#"{"note":"no key"}"#).send(gateway.addr).is(200, "bypassed", "");
    in_body("").send(gateway.addr).is(200, "bypassed", "");
    let form = Request::new("POST", "/in-body").header("content-type", "text/plain");
    form.body(b"no JSON").send(gateway.addr).is(200, "bypassed", "");
    // Half an emoji, which many clients write and most backends read.
    let half = r#"{"requestId":"half","note":"\ud83d"}"#;
    for disposition in ["executed", "replayed"] {
        in_body(half).send(gateway.addr).is(200, disposition, "");
    }
}

#[test]
fn a_large_answer_without_an_end_is_not_passed_on_as_whole() {
    let backend = Backend::start();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\":\"";
    backend.always(Act::raw(format!("{head}{}", "x".repeat(100 << 10))).then(Act::close()));
    let gateway = Setup::before(&backend).redeem(r#"record.max_stored_body = "1KiB""#).start();
    Request::redeem("k", BODY).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    Request::redeem("k", BODY).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_client_that_takes_nothing_does_not_hold_the_backend_for_ever() {
    let backend = Backend::start();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 64 << 20);
    backend.always(Act::raw(head).then(Act::raw(vec![b'x'; 64 << 20])));
    let gateway = Setup::before(&backend).limits(r#"body_timeout = "1s""#).start();
    let _silent = Request::get("/large").begin(gateway.addr);
    backend.wait_calls(1);
    backend.wait_closed();
}

#[test]
fn the_status_of_a_key_is_found_whichever_route_took_it() {
    let backend = Backend::start();
    let uuids = "name = \"uuids\"\nmethods = [\"POST\"]\npath = \"/uuids\"\nkey.format = \"uuid\"";
    let short = "name = \"short\"\nmethods = [\"POST\"]\npath = \"/short\"\nkey.max_length = 4";
    let setup = Setup::before(&backend).redeem(r#"key.format = "uuid""#);
    let gateway = setup.route(uuids).route(short).start();
    let optional = Request::new("POST", "/optional").key("sale-789").json(BODY);
    optional.send(gateway.addr).is(200, "executed", "");
    let status = "/.well-known/idempotency/status";
    let reply = Request::get(status).key("sale-789").send(gateway.addr);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["state"], "final");
    let reply = Request::get(status).key("a,b").send(gateway.addr);
    reply.is(400, "rejected", "key-invalid");
}

#[test]
fn a_path_in_a_spelling_that_no_request_has_is_refused_at_the_start() {
    let backend = Backend::start();
    let route = |path: &str| format!("name = \"cafe\"\nmethods = [\"POST\"]\npath = \"{path}\"");
    let wide = "name = \"wide\"\nmethods = [\"POST\"]\npath = \"/{*all}\"\nmode = \"off\"";
    let setup = Setup::before(&backend).replacing("/{*rest}", "/rest");
    let refused = setup.clone().route(&route("/caf%c3%a9")).route(wide).try_start();
    let exit = refused.expect_err("a route that is never found");
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("%C3"), "{exit:?}");
    let gateway = setup.route(&route("/caf%C3%A9")).route(wide).start();
    for path in ["/caf%c3%a9", "/caf%C3%A9", "/%63af%c3%A9"] {
        let keyless = Request::new("POST", path).json(BODY).send(gateway.addr);
        keyless.is(400, "rejected", "key-missing");
    }
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_backend_that_accepts_no_connection_in_time_has_seen_nothing() {
    let backend = Backend::start();
    let (full, waiting) = full_port();
    let setup = Setup::before(&backend).upstream("timeout = \"300ms\"");
    let url = format!("http://{}", backend.addr());
    let gateway = setup.replacing(url, format!("http://{full}")).start();
    // Unknown for a moment when the two limits run out together.
    let reply = Request::redeem("k", BODY).send(gateway.addr);
    assert!([502, 504].contains(&reply.status), "{reply:?}");
    eventually("the claim is released", || {
        let reply = Request::redeem("k", BODY).send(gateway.addr);
        (reply.status != 409).then_some(())
    });
    drop(waiting);
}

/// A port whose queue is full, so that connecting hangs; and what fills it.
fn full_port() -> (SocketAddr, (OwnedFd, Vec<TcpStream>)) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let addr: SocketAddr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    let connect = || TcpStream::connect_timeout(&addr, Duration::from_millis(300)).ok();
    let filling = std::iter::from_fn(connect).take(16).collect();
    (addr, (socket, filling))
}

#[test]
fn the_length_of_an_answer_to_head_is_replayed() {
    let backend = Backend::start();
    backend.always(Act::raw("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"));
    let route = "name = \"head\"\nmethods = [\"HEAD\"]\npath = \"/head\"";
    let gateway = Setup::before(&backend).route(route).start();
    for disposition in ["executed", "replayed"] {
        let mut conn = Request::new("HEAD", "/head").key("k").begin(gateway.addr);
        let reply = conn.read_to_head();
        assert_eq!((reply.status, reply.disposition()), (200, disposition.to_owned()));
        assert_eq!(reply.header("content-length").as_deref(), Some("1234"), "{disposition}");
    }
    assert_eq!(backend.calls(), 1);
}
