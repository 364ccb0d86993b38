//! Limits: what is too much is refused before the claim, never after.

use std::time::Duration;

use crate::support::{Backend, Conn, Gate, Gateway, Request, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// A gateway whose backend holds the first call, and the connection of that call.
fn held(setup: impl Fn(Setup) -> Setup, first: &Request) -> (Backend, Gate, Gateway, Conn) {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = setup(Setup::before(&backend)).start();
    let first = first.begin(gateway.addr);
    backend.wait_calls(1);
    (backend, gate, gateway, first)
}

#[test]
fn claims_at_once_are_limited() {
    let one = Request::redeem("k-1", BODY);
    let (backend, gate, gateway, mut first) = held(|setup| setup.limits("in_flight = 1"), &one);
    let two = Request::redeem("k-2", BODY);
    for _ in 0..3 {
        let reply = two.send(gateway.addr);
        reply.is(503, "rejected", "overloaded");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
    }
    // Whoever has a claim is served, whatever the load.
    let mut again = one.begin(gateway.addr);
    gate.open();
    first.read().is(200, "executed", "");
    again.read().is(200, "replayed", "");
    eventually("there is room again", || (two.send(gateway.addr).status == 200).then_some(()));
    assert_eq!(backend.calls(), 2);
}

#[test]
fn one_tenants_claims_are_limited_and_leave_room_for_others() {
    let one = Request::redeem("k-1", BODY).tenant("a");
    let limit = |setup: Setup| setup.limits("in_flight_per_tenant = 1");
    let (backend, gate, gateway, mut first) = held(limit, &one);
    let reply = Request::redeem("k-2", BODY).tenant("a").send(gateway.addr);
    reply.is(429, "rejected", "quota-exceeded");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    let mut other = Request::redeem("k-2", BODY).tenant("b").begin(gateway.addr);
    backend.wait_calls(2);
    gate.open();
    first.read().is(200, "executed", "");
    other.read().is(200, "executed", "");
    eventually("there is room again", || {
        let reply = Request::redeem("k-2", BODY).tenant("a").send(gateway.addr);
        (reply.disposition() == "executed").then_some(())
    });
    assert_eq!(backend.calls(), 3);
}

#[test]
fn all_buffered_bodies_together_are_limited() {
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(40_000));
    let one = Request::redeem("k-1", &large);
    let limit = |setup: Setup| setup.limits("max_body = \"48KiB\"\nbuffered = \"64KiB\"");
    let (backend, gate, gateway, mut first) = held(limit, &one);
    let two = Request::redeem("k-2", &large);
    let reply = two.send(gateway.addr);
    reply.is(503, "rejected", "overloaded");
    gate.open();
    first.read().is(200, "executed", "");
    eventually("there is room again", || (two.send(gateway.addr).status == 200).then_some(()));
    assert_eq!(backend.calls(), 2);
}

#[test]
fn connections_are_limited_and_freed() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).limits("connections = 2").start();
    let mut held: Vec<Conn> = (0..2).map(|_| Request::get("/").begin(gateway.addr)).collect();
    for conn in &mut held {
        assert_eq!(conn.read().status, 200);
    }
    let mut third = Request::get("/").begin(gateway.addr);
    if third.readable_within(Duration::from_millis(300)) {
        let reply = third.try_read(false);
        assert!(
            reply.as_ref().is_ok_and(|reply| reply.status == 503) || reply.is_err(),
            "{reply:?}"
        );
    }
    assert_eq!(backend.calls(), 2);
    drop((held, third));
    eventually("a connection is served again", || {
        Request::get("/").try_send(gateway.addr).ok().filter(|reply| reply.status == 200)
    });
}

#[test]
fn a_refusal_for_load_never_follows_a_claim() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).limits("in_flight = 4").start();
    let reply = crate::support::at_once(64, |index| {
        let body = format!("[{index}]");
        let request = Request::redeem(&format!("k-{index}"), &body);
        let mut refusals = 0;
        let last = eventually("a place is found", || {
            let reply = request.send(gateway.addr);
            refusals += usize::from(reply.error() == "overloaded");
            (reply.error() != "overloaded").then_some(reply)
        });
        (refusals, last.summary())
    });
    for (_, last) in &reply {
        assert_eq!(*last, (200, "executed".to_owned(), String::new()));
    }
    assert_eq!(backend.calls(), 64);
    assert!(backend.executions().values().all(|count| *count == 1));
}
