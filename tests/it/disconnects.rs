//! Clients that leave: after the claim nothing they do changes the call; before it, nothing is left.

use std::time::Duration;

use crate::support::{Act, Backend, Conn, Gate, Gateway, Request, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// A gateway whose backend has the first call and holds it.
fn held() -> (Backend, Gate, Gateway, Conn) {
    let (backend, gate) = (Backend::start(), Gate::default());
    let behind = gate.clone();
    backend.script(move |seen| {
        answer(200, &format!(r#"{{"execution":{}}}"#, seen.number)).after(&behind)
    });
    let gateway = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#).start();
    let first = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    (backend, gate, gateway, first)
}

#[track_caller]
fn check_kept(backend: &Backend, gate: &Gate, gateway: &Gateway) {
    let mut retry = Request::redeem("k", BODY).begin(gateway.addr);
    gate.open();
    let reply = retry.read();
    reply.is(200, "replayed", "");
    assert_eq!(reply.text(), r#"{"execution":0}"#);
    assert_eq!(backend.executions()[BODY], 1);
}

#[test]
fn a_client_that_resets_does_not_stop_the_call() {
    let (backend, gate, gateway, first) = held();
    first.reset();
    check_kept(&backend, &gate, &gateway);
}

#[test]
fn a_client_that_closes_does_not_stop_the_call() {
    let (backend, gate, gateway, first) = held();
    drop(first);
    check_kept(&backend, &gate, &gateway);
}

#[test]
fn a_client_that_half_closes_still_gets_its_answer() {
    let (backend, gate, gateway, mut first) = held();
    first.half_close();
    // The gateway has seen the end of the stream once it has served something sent after it.
    Request::get("/other").begin(gateway.addr);
    backend.wait_calls(2);
    check_kept(&backend, &gate, &gateway);
    first.read().is(200, "executed", "");
}

#[test]
fn a_request_that_half_closes_at_once_is_served_whole() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let mut conn = Request::redeem("k", BODY).begin(gateway.addr);
    conn.half_close();
    conn.read().is(200, "executed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn waiting_duplicates_may_leave_too() {
    let (backend, gate, gateway, mut first) = held();
    for index in 0..10 {
        let waiting = Request::redeem("k", BODY).begin(gateway.addr);
        if index % 2 == 0 { waiting.reset() } else { drop(waiting) }
    }
    check_kept(&backend, &gate, &gateway);
    first.read().is(200, "executed", "");
}

#[test]
fn clients_that_reset_at_once_execute_at_most_once() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    for _ in 0..50 {
        Request::redeem("k", BODY).begin(gateway.addr).reset();
    }
    let reply = eventually("the key settles", || {
        let reply = Request::redeem("k", BODY).send(gateway.addr);
        (reply.status == 200).then_some(reply)
    });
    assert_eq!(reply.text(), r#"{"execution":0}"#);
    assert_eq!(backend.calls(), 1);
}

#[test]
fn an_upload_cut_short_leaves_no_claim() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).redeem(r#"duplicates.wait = "0s""#).start();
    let framings = [
        "content-length: 14\r\n\r\n".to_owned(),
        "content-length: 14\r\n\r\n{\"qr\":".to_owned(),
        format!("content-length: 15\r\n\r\n{BODY}"),
        format!("transfer-encoding: chunked\r\n\r\ne\r\n{BODY}\r\n"),
        format!("transfer-encoding: chunked\r\n\r\ne\r\n{BODY}\r\n0\r\n"),
    ];
    let ends: [fn(Conn); 3] = [drop, Conn::reset, |mut conn| {
        conn.half_close();
        // Refused or simply closed: nobody can want an answer to half a request.
        if let Ok(reply) = conn.try_read(false) {
            assert_eq!(reply.status, 400, "{reply:?}");
        }
    }];
    for (at, framing) in framings.iter().enumerate() {
        for (how, end) in ends.iter().enumerate() {
            let key = format!("k-{at}-{how}");
            let head = "host: a\r\ncontent-type: application/json\r\nidempotency-key";
            for _ in 0..3 {
                let mut conn = Conn::open(gateway.addr);
                let sent = format!("{head}: {key}\r\n{framing}");
                conn.write(format!("POST /v1/vouchers/redeem HTTP/1.1\r\n{sent}"));
                end(conn);
            }
            let calls = backend.calls();
            Request::redeem(&key, BODY).send(gateway.addr).is(200, "executed", "");
            assert_eq!(backend.calls(), calls + 1, "{framing:?}");
        }
    }
    assert_eq!(backend.calls(), framings.len() * ends.len());
}

#[test]
fn a_head_that_never_ends_is_timed_out_with_408() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).limits(r#"header_timeout = "500ms""#).start();
    let mut conn = Conn::open(gateway.addr);
    conn.write("POST /v1/vouchers/redeem HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\n");
    if let Ok(reply) = conn.try_read(false) {
        assert_eq!(reply.status, 408, "{reply:?}");
    }
    conn.ends();
    assert_eq!(backend.calls(), 0);
}

#[test]
fn an_idle_connection_is_closed() {
    let backend = Backend::start();
    let limits = "header_timeout = \"500ms\"\nidle_timeout = \"500ms\"";
    let gateway = Setup::before(&backend).limits(limits).start();
    let mut idle = Conn::open(gateway.addr);
    idle.ends();
    let mut used = Conn::open(gateway.addr);
    used.write(Request::get("/").bytes());
    assert_eq!(used.read().status, 200);
    used.ends();
}

#[test]
fn a_body_that_never_ends_is_timed_out_with_408_and_claims_nothing() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).limits(r#"body_timeout = "500ms""#).start();
    let mut conn = Conn::open(gateway.addr);
    conn.write(
        "POST /v1/vouchers/redeem HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\n\
         content-type: application/json\r\ncontent-length: 14\r\n\r\n{",
    );
    conn.read().is(408, "rejected", "request-timeout");
    conn.ends();
    assert_eq!(backend.calls(), 0);
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let backend = Backend::start();
    backend.script(|seen| match seen.line.contains("/large") {
        true => Act::whole(200, &[], &vec![b'x'; 8 << 20]),
        false => answer(200, "{}"),
    });
    let gateway = Setup::before(&backend).start();
    let _lazy: Vec<_> = (0..8).map(|_| Request::get("/large").begin(gateway.addr)).collect();
    backend.wait_calls(8);
    let mut conn = Request::redeem("k", BODY).begin(gateway.addr);
    assert!(conn.readable_within(Duration::from_secs(10)));
    conn.read().is(200, "executed", "");
}
