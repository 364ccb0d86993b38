//! What a restart keeps, and what time takes away.

use crate::support::{Act, Backend, Gate, Request, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

#[test]
fn answers_are_replayed_alike_after_a_restart_and_after_a_kill() {
    let backend = Backend::start();
    let body: Vec<u8> = (0..=255).collect();
    let headers = [("x-note", "1"), ("x-note", "2"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
    backend.always(Act::whole(201, &headers, &body));
    let gateway = Setup::before(&backend).start();
    let first = Request::redeem("k", BODY).send(gateway.addr);
    first.is(201, "executed", "");
    let gateway = gateway.restarted();
    let again = Request::redeem("k", BODY).send(gateway.addr);
    again.is(201, "replayed", "");
    let gateway = gateway.killed_and_restarted();
    let third = Request::redeem("k", BODY).send(gateway.addr);
    third.is(201, "replayed", "");
    assert_eq!(first.kept(), again.kept());
    assert_eq!(again.kept(), third.kept());
    assert_eq!(first.header("idempotency-expires"), third.header("idempotency-expires"));
    Request::redeem("k", "{}").send(gateway.addr).is(422, "rejected", "key-reused");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_call_cut_off_by_a_kill_is_unknown_for_ever() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend).start();
    let _cut = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    let mut gateway = gateway.killed_and_restarted();
    gate.open();
    for round in 0..3 {
        let reply = Request::redeem("k", BODY).send(gateway.addr);
        reply.is(409, "unknown", "outcome-unknown");
        assert_eq!(reply.header("retry-after"), None, "{reply:?}");
        Request::redeem("k", "{}").send(gateway.addr).is(422, "rejected", "key-reused");
        gateway = if round % 2 == 0 { gateway.restarted() } else { gateway.killed_and_restarted() };
    }
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_released_key_is_free_after_a_kill() {
    let backend = Backend::start();
    backend.always(answer(429, "{}"));
    let gateway = Setup::before(&backend).start();
    Request::redeem("k", BODY).send(gateway.addr).is(429, "not-executed", "");
    let gateway = gateway.killed_and_restarted();
    backend.always(answer(200, "{}"));
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
}

#[test]
fn an_answer_past_its_retention_leaves_a_tombstone() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).redeem(r#"record.retention = "1s""#).start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    let reply = eventually("the answer expires", || {
        let reply = Request::redeem("k", BODY).send(gateway.addr);
        (reply.disposition() != "replayed").then_some(reply)
    });
    reply.is(410, "rejected", "key-expired");
    let gateway = gateway.killed_and_restarted();
    Request::redeem("k", BODY).send(gateway.addr).is(410, "rejected", "key-expired");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn without_a_tombstone_an_expired_key_runs_again() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend)
        .redeem("record.retention = \"1s\"\nrecord.tombstone = \"0s\"")
        .start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    let reply = eventually("the key is forgotten", || {
        let reply = Request::redeem("k", BODY).send(gateway.addr);
        (reply.disposition() != "replayed").then_some(reply)
    });
    reply.is(200, "executed", "");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn a_tombstone_ends_as_configured() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).store("retention = \"1s\"\ntombstone = \"1s\"").start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    let mut reply = Vec::new();
    eventually("the key is forgotten", || {
        reply.push(Request::redeem("k", BODY).send(gateway.addr).disposition());
        (reply.last().unwrap() == "executed").then_some(())
    });
    reply.dedup();
    assert_eq!(reply, ["replayed", "rejected", "executed"]);
    assert_eq!(backend.calls(), 2);
}

#[test]
fn nothing_in_flight_or_unknown_expires() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let held = gate.clone();
    backend.script(move |seen| match seen.text().as_str() {
        "[\"slow\"]" => answer(200, "{}").after(&held),
        "[\"lost\"]" => Act::close(),
        _ => answer(200, "{}"),
    });
    let gateway = Setup::before(&backend)
        .store("retention = \"1s\"\ntombstone = \"0s\"")
        .redeem("duplicates.wait = \"0s\"")
        .start();
    let mut slow = Request::redeem("slow", "[\"slow\"]").begin(gateway.addr);
    backend.wait_calls(1);
    let lost = Request::redeem("lost", "[\"lost\"]");
    lost.send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let other = Request::redeem("final", BODY);
    other.send(gateway.addr).is(200, "executed", "");
    eventually("a final answer made later is forgotten", || {
        (other.send(gateway.addr).disposition() == "executed").then_some(())
    });
    lost.send(gateway.addr).is(409, "unknown", "outcome-unknown");
    let reply = Request::redeem("slow", "[\"slow\"]").send(gateway.addr);
    reply.is(409, "in-progress", "request-in-progress");
    gate.open();
    slow.read().is(200, "executed", "");
    let gateway = gateway.killed_and_restarted();
    lost.send(gateway.addr).is(409, "unknown", "outcome-unknown");
}

#[test]
fn a_route_that_is_renamed_or_reordered_keeps_its_records() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let mut gateway = setup.start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    gateway.stop();
    let gateway = setup.replacing("name = \"redeem\"", "name = \"burn\"").start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}
