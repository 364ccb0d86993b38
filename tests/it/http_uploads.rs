//! Uploads that break off or stall: the client's fault is told as such, never as the backend's.

use crate::support::{Backend, Conn, Gate, Gateway, Response, Setup, answer};

/// Heads of a streamed route, an optional key that is absent, and a key.
const HEADS: [&str; 3] = [
    "PUT /files/a HTTP/1.1\r\nhost: a\r\n",
    "POST /optional HTTP/1.1\r\nhost: a\r\n",
    "POST /v1/vouchers/redeem HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\n\
     content-type: application/json\r\n",
];

fn setup(backend: &Backend) -> Setup {
    let files = "name = \"files\"\nmethods = [\"PUT\"]\npath = \"/files/{name}\"\nmode = \"off\"";
    Setup::before(backend).route(files)
}

#[track_caller]
fn check(gateway: &Gateway, reply: &Response, status: u16, error: &str) {
    assert_eq!((reply.status, reply.error()), (status, error.to_owned()), "{reply:?}");
    assert_ne!(reply.disposition(), "unknown");
    assert!(!gateway.stderr().contains("the backend did not answer"), "{}", gateway.stderr());
}

#[test]
fn a_broken_upload_is_the_clients_error() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    for head in HEADS {
        for (rest, half_closes) in [
            (format!("{chunked}zz\r\n"), false),
            (format!("{chunked}2\r\n{{}}\r\nzz\r\n"), false),
            (format!("{chunked}2\r\n{{}}xx"), false),
            (format!("{chunked}fffffffffffffffff\r\n{{}}"), false),
            (format!("{chunked}2\r\n{{}}\r\n"), true),
            ("content-length: 14\r\n\r\n{".to_owned(), true),
            ("content-length: 14\r\n\r\n".to_owned(), true),
        ] {
            let mut conn = Conn::open(gateway.addr);
            conn.write(format!("{head}{rest}"));
            if half_closes {
                conn.half_close();
            }
            check(&gateway, &conn.read(), 400, "request-invalid");
            conn.ends();
        }
    }
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_stalled_upload_is_the_clients_error() {
    let backend = Backend::start();
    let by_body = setup(&backend).limits("body_timeout = \"300ms\"").start();
    // The backend's time runs out first, but it is the client that is waited for.
    let by_backend = setup(&backend).upstream("timeout = \"300ms\"").start();
    for (gateway, heads) in [(&by_body, &HEADS[..]), (&by_backend, &HEADS[..2])] {
        for head in heads {
            for rest in [
                "content-length: 14\r\n\r\n{",
                "content-length: 14\r\n\r\n",
                "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
            ] {
                let mut conn = Conn::open(gateway.addr);
                conn.write(format!("{head}{rest}"));
                check(gateway, &conn.read(), 408, "request-timeout");
                conn.ends();
            }
        }
    }
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_backend_that_fails_after_a_whole_upload_is_not_blamed_on_the_client() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let gateway = setup(&backend).upstream("timeout = \"300ms\"").start();
    backend.always(answer(200, "{}").after(&gate));
    for (head, disposition) in HEADS[..2].iter().zip(["", "unknown"]) {
        let mut conn = Conn::open(gateway.addr);
        conn.write(format!("{head}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"));
        conn.read().is(504, disposition, "upstream-failed");
    }
    gate.open();
}
