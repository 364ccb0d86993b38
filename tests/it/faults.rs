//! Backends that fail: what is proven not to have run may run again, everything else is unknown,
//! and unknown is sticky.

use crate::support::{Act, Backend, Gate, Gateway, Request, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// The key `k` is unknown, stays so, and the backend is not asked again, a restart included.
#[track_caller]
fn check_sticky(backend: &Backend, gateway: Gateway) {
    let calls = backend.calls();
    backend.always(answer(200, r#"{"second":"execution"}"#));
    let check = |gateway: &Gateway| {
        for _ in 0..3 {
            let reply = Request::redeem("k", BODY).send(gateway.addr);
            reply.is(409, "unknown", "outcome-unknown");
            assert_eq!(reply.header("retry-after"), None, "{reply:?}");
        }
        let other = Request::redeem("k", r#"{"qr":"other"}"#).send(gateway.addr);
        other.is(422, "rejected", "key-reused");
    };
    check(&gateway);
    let gateway = gateway.restarted();
    check(&gateway);
    let gateway = gateway.killed_and_restarted();
    check(&gateway);
    assert_eq!(backend.calls(), calls);
    Request::redeem("another", BODY).send(gateway.addr).is(200, "executed", "");
}

/// A backend that breaks off as told leaves the outcome unknown.
#[track_caller]
fn check_broken(act: Act) {
    let backend = Backend::start();
    backend.always(act);
    let gateway = Setup::before(&backend).start();
    Request::redeem("k", BODY).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    assert_eq!(backend.calls(), 1);
    check_sticky(&backend, gateway);
}

#[test]
fn a_backend_that_closes_after_reading_leaves_the_outcome_unknown() {
    check_broken(Act::close());
}

#[test]
fn a_backend_that_resets_after_reading_leaves_the_outcome_unknown() {
    check_broken(Act::reset());
}

#[test]
fn half_a_head_is_no_answer() {
    check_broken(Act::raw("HTTP/1.1 200 OK\r\ncontent-le").then(Act::close()));
}

#[test]
fn a_body_shorter_than_its_length_is_no_answer() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"status\":\"succeeded\"";
    check_broken(Act::raw(head).then(Act::close()));
    check_broken(Act::raw(head).then(Act::reset()));
}

#[test]
fn chunks_that_do_not_end_are_no_answer() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    check_broken(Act::raw(format!("{head}2\r\n{{}}\r\n")).then(Act::close()));
    check_broken(Act::raw(format!("{head}5\r\n{{}}")).then(Act::close()));
    check_broken(Act::raw(format!("{head}zz\r\n{{}}\r\n0\r\n\r\n")).then(Act::close()));
}

#[test]
fn bytes_that_are_not_http_are_no_answer() {
    check_broken(Act::raw("220 mail.example ESMTP\r\n").then(Act::close()));
}

#[test]
fn an_upgrade_leaves_the_outcome_unknown() {
    check_broken(Act::raw(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ));
}

#[test]
fn a_server_error_leaves_the_outcome_unknown() {
    let backend = Backend::start();
    backend.always(answer(500, r#"{"error":{"type":"api_error"}}"#));
    let gateway = Setup::before(&backend).start();
    let reply = Request::redeem("k", BODY).send(gateway.addr);
    assert_eq!((reply.status, reply.disposition()), (500, "unknown".to_owned()));
    assert_eq!(reply.text(), r#"{"error":{"type":"api_error"}}"#);
    check_sticky(&backend, gateway);
}

#[test]
fn a_backend_that_hangs_is_timed_out_and_its_outcome_is_unknown() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend).upstream(r#"timeout = "200ms""#).start();
    Request::redeem("k", BODY).send(gateway.addr).is(504, "unknown", "outcome-unknown");
    assert_eq!(backend.calls(), 1);
    let reply = Request::redeem("k", BODY).send(gateway.addr);
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(reply.header("retry-after"), None, "{reply:?}");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_backend_that_hangs_within_its_answer_is_timed_out_too() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let part = Act::raw("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab");
    backend.always(part.then(Act::raw("cdefghij").after(&gate)));
    let gateway = Setup::before(&backend).upstream(r#"timeout = "200ms""#).start();
    Request::redeem("k", BODY).send(gateway.addr).is(504, "unknown", "outcome-unknown");
    Request::redeem("k", BODY).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_true_answer_that_comes_after_the_timeout_completes_the_record() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, r#"{"late":true}"#).after(&gate));
    let gateway = Setup::before(&backend).upstream(r#"timeout = "200ms""#).start();
    Request::redeem("k", BODY).send(gateway.addr).is(504, "unknown", "outcome-unknown");
    Request::redeem("k", BODY).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    gate.open();
    let reply = eventually("the late answer is recorded", || {
        let reply = Request::redeem("k", BODY).send(gateway.addr);
        (reply.status == 200).then_some(reply)
    });
    assert_eq!(reply.text(), r#"{"late":true}"#);
    assert!(["replayed", "recovered"].contains(&reply.disposition().as_str()), "{reply:?}");
    assert_eq!(backend.calls(), 1);
    let gateway = gateway.killed_and_restarted();
    let again = Request::redeem("k", BODY).send(gateway.addr);
    assert_eq!((again.status, again.text()), (200, r#"{"late":true}"#.to_owned()));
    assert_eq!(backend.calls(), 1);
}

#[test]
fn no_fault_makes_the_gateway_call_twice_by_itself() {
    let backend = Backend::start();
    backend.script(|seen| match seen.number {
        0 => Act::close(),
        1 => Act::reset(),
        2 => answer(503, "{}"),
        3 => Act::whole(503, &[("retry-after", "0")], b""),
        4 => Act::whole(307, &[("location", "/v1/vouchers/redeem")], b""),
        5 => Act::whole(408, &[("connection", "close")], b""),
        _ => Act::raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").then(Act::close()),
    });
    let gateway = Setup::before(&backend).start();
    for calls in 1..=7 {
        Request::redeem(&format!("k-{calls}"), BODY).send(gateway.addr);
        assert_eq!(backend.calls(), calls);
    }
    // A fresh connection, closed as soon as it has been used once, is a retry's temptation too.
    backend.always(answer(200, "{}").then(Act::close()));
    for calls in 8..=12 {
        let reply = Request::redeem(&format!("k-{calls}"), BODY).send(gateway.addr);
        assert_eq!(reply.status, 200);
        assert_eq!(backend.calls(), calls);
        // A request that meets the end of its connection would be one of unknown outcome.
        backend.wait_closed();
    }
}

#[test]
fn a_kept_alive_connection_that_the_backend_closed_is_not_used() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    for round in 0..10 {
        let reply = Request::redeem(&format!("k-{round}"), BODY).send(gateway.addr);
        reply.is(200, "executed", "");
        backend.close_connections();
    }
    assert_eq!((backend.calls(), backend.connections()), (10, 10));
}

#[test]
fn connections_to_the_backend_are_kept_alive() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    for round in 0..10 {
        Request::redeem(&format!("k-{round}"), BODY).send(gateway.addr).is(200, "executed", "");
    }
    assert_eq!((backend.calls(), backend.connections()), (10, 1));
}

#[test]
fn a_stale_connection_that_takes_the_request_and_closes_is_unknown_not_retried() {
    let backend = Backend::start();
    backend.script(|seen| match seen.number {
        0 => answer(200, "{}"),
        _ => Act::close(),
    });
    let gateway = Setup::before(&backend).start();
    Request::redeem("first", BODY).send(gateway.addr).is(200, "executed", "");
    Request::redeem("k", BODY).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let connections: Vec<_> = backend.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0], "the second call was to go out on the first's connection");
    check_sticky(&backend, gateway);
}

#[test]
fn an_answer_left_over_on_a_connection_is_never_taken_for_the_next_ones() {
    let backend = Backend::start();
    let double = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst";
    let stray = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray";
    backend.script(move |seen| match seen.number {
        0 => Act::raw(format!("{double}{stray}")),
        _ => answer(200, "second"),
    });
    let gateway = Setup::before(&backend).start();
    assert_eq!(Request::redeem("k-1", BODY).send(gateway.addr).text(), "first");
    let reply = Request::redeem("k-2", BODY).send(gateway.addr);
    assert_ne!(reply.text(), "stray", "{reply:?}");
    assert!(backend.executions()[BODY] <= 2);
}

#[test]
fn of_several_addresses_the_one_that_refuses_is_passed_over() {
    let (down, up) = (Backend::refusing(), Backend::start());
    let setup = Setup::before(&up);
    let urls = format!("urls = [\"http://{}\", \"http://{}\"]", down.addr(), up.addr());
    let one = format!("url = \"http://{}\"", up.addr());
    let gateway = setup.replacing(one, urls).start();
    let received: Vec<_> = (0..10)
        .map(|round| Request::redeem(&format!("k-{round}"), BODY).send(gateway.addr).summary())
        .collect();
    let served = received.iter().filter(|one| one.0 == 200).count();
    let refused = received.iter().filter(|one| one.1 == "not-executed").count();
    assert_eq!(served + refused, 10, "{received:?}");
    assert!(served >= 8, "a failing address is avoided: {received:?}");
    assert_eq!(up.calls(), served);
}

#[test]
fn an_unresolvable_name_is_proof_that_nothing_ran() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let one = format!("http://{}", backend.addr());
    let gateway = setup.replacing(one, "http://backend.invalid:80").start();
    for _ in 0..2 {
        let reply = Request::redeem("k", BODY).send(gateway.addr);
        reply.is(502, "not-executed", "upstream-unreachable");
    }
}
