//! `/.well-known/idempotency/answer?wait=…` while an outcome is being settled: every waiting client
//! reads the answer as soon as there is one, and none waits longer than it asked for.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::admin::Place;
use crate::support::{Act, AdminClient, Backend, Conn, Gate, Gateway, Request, Setup, answer};

const BODY: &str = r#"{"qr":"rsg:1"}"#;
const REDEEM: &str = "/v1/vouchers/redeem";
const ANSWER: &str = "/.well-known/idempotency/answer";

fn redeem(key: &str) -> Request {
    Request::redeem(key, BODY)
}

fn ask(key: &str, wait: &str) -> Request {
    Request::get(&format!("{ANSWER}?wait={wait}")).key(key)
}

/// Clients that wait at all gateways. Bounded by the wait of the client, they outlast the test.
fn waiting(gateways: &[Gateway], key: &str) -> Vec<Conn> {
    let clients = gateways.iter().cycle().take(4);
    clients.map(|gateway| ask(key, "28s").begin(gateway.addr)).collect()
}

fn setup(backend: &Backend) -> Setup {
    let setup = AdminClient::guard(Setup::before(backend));
    setup.redeem(r#"duplicates.wait = "28s""#)
}

/// All read `body`; one of them, or an earlier client, reads it as the first.
#[track_caller]
fn all_read(clients: Vec<Conn>, body: &str) {
    for mut client in clients {
        let reply = client.read();
        assert_eq!((reply.status, reply.text().as_str()), (200, body), "{reply:?}");
        assert!(["recovered", "replayed"].contains(&reply.disposition().as_str()), "{reply:?}");
        assert_eq!(reply.all("cache-control"), ["no-store"]);
    }
}

#[track_caller]
fn none_has_read(clients: &mut [Conn]) {
    for client in clients {
        assert!(!client.readable_within(Duration::from_millis(50)), "there is no answer yet");
    }
}

#[test]
fn waiting_clients_read_what_a_probe_settles() {
    Place::each(|place| {
        let (backend, gate) = (Backend::start(), Gate::default());
        let held = gate.clone();
        backend.script(move |seen| match seen.target() {
            REDEEM => Act::reset(),
            _ => answer(200, r#"{"status":"paid"}"#).after(&held),
        });
        let setup = setup(&backend)
            .upstream(r#"timeout = "60s""#)
            .redeem(r#"outcome.on_unknown = "probe""#)
            .redeem(r#"probe.path = "/sales/{key}""#)
            .redeem(r#"probe.min_age = "0s""#)
            .redeem(r#"probe.executed = { pointer = "/status", equals = "paid" }"#)
            .redeem(r#"probe.response = { body = '{"probed":true}' }"#);
        let gateways = place.start(&setup);
        redeem("k").send(gateways[0].addr).is(502, "unknown", "outcome-unknown");
        let mut clients = waiting(&gateways, "k");
        backend.wait_calls(2);
        none_has_read(&mut clients);
        gate.open();
        all_read(clients, r#"{"probed":true}"#);
        assert_eq!(backend.calls_to(REDEEM), 1);
    });
}

#[test]
fn waiting_clients_read_what_an_operator_decides() {
    Place::each(|place| {
        let backend = Backend::start();
        backend.always(Act::reset());
        let gateways = place.start(&setup(&backend));
        for key in ["done", "not-done"] {
            redeem(key).send(gateways[0].addr).is(502, "unknown", "outcome-unknown");
        }
        let (mut done, mut free) = (waiting(&gateways, "done"), waiting(&gateways, "not-done"));
        none_has_read(&mut done);
        none_has_read(&mut free);
        let admin = AdminClient::of(&gateways[0]);
        let response = json!({ "status": 200, "headers": {}, "body": "seen" });
        let decision = json!({ "as": "executed", "reason": "looked", "response": response });
        assert_eq!(admin.resolve(&admin.id("done"), &decision).status, 200);
        admin.settle("not-done", "not-executed");
        all_read(done, "seen");
        for mut client in free {
            let reply = client.read();
            assert_eq!((reply.status, reply.error().as_str()), (404, "not-found"), "{reply:?}");
        }
        assert_eq!(backend.calls(), 2);
    });
}

#[test]
fn waiting_clients_read_what_a_repetition_settles() {
    Place::each(|place| {
        let (backend, gate) = (Backend::start(), Gate::default());
        backend.always(Act::reset());
        let setup = setup(&backend)
            .upstream(r#"timeout = "60s""#)
            .redeem("key.forward = true")
            .redeem(r#"outcome.on_unknown = "resend""#)
            .redeem(r#"resend.within = "1h""#);
        let gateways = place.start(&setup);
        redeem("k").send(gateways[0].addr).is(502, "unknown", "outcome-unknown");
        let clients = waiting(&gateways, "k");
        backend.always(answer(200, r#"{"repeated":true}"#).after(&gate));
        let mut retry = redeem("k").begin(gateways[gateways.len() - 1].addr);
        backend.wait_calls(2);
        let mut clients: Vec<Conn> = clients.into_iter().chain(waiting(&gateways, "k")).collect();
        none_has_read(&mut clients);
        gate.open();
        all_read(clients, r#"{"repeated":true}"#);
        retry.read().is(200, "recovered", "");
        assert_eq!(backend.calls(), 2);
    });
}

#[test]
fn a_wait_ends_in_time_with_what_is_known() {
    let backend = Backend::start();
    backend.script(|seen| match seen.text().as_str() {
        BODY => Act::reset(),
        _ => answer(202, r#"{"job":1}"#),
    });
    let gateway = setup(&backend)
        .redeem("outcome.pending = [202]")
        .redeem("duplicates.max_waiters = 1")
        .start();
    redeem("lost").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let pending = Request::redeem("pending", "{}");
    assert_eq!(pending.send(gateway.addr).disposition(), "pending");
    let begun = Instant::now();
    ask("lost", "700ms").send(gateway.addr).is(409, "unknown", "outcome-unknown");
    assert!(begun.elapsed() >= Duration::from_millis(700));
    let reply = ask("pending", "300ms").send(gateway.addr);
    reply.is(202, "pending", "");
    assert_eq!(reply.text(), r#"{"job":1}"#);
    ask("lost", "0s").send(gateway.addr).is(409, "unknown", "outcome-unknown");

    // A client that finds no place to wait reads the present state at once.
    let mut first = ask("lost", "28s").begin(gateway.addr);
    let mut second = ask("lost", "28s").begin(gateway.addr);
    let reply = match second.readable_within(Duration::from_secs(10)) {
        true => second.read(),
        false => first.read(),
    };
    reply.is(409, "unknown", "outcome-unknown");
    assert!(begun.elapsed() < Duration::from_secs(28), "one of them did not wait");
}

#[test]
fn an_open_answer_says_when_a_policy_may_have_settled_it() {
    for (policy, lines, comes) in [
        (
            "probe",
            r#"probe = { path = "/sales", min_age = "1h", executed = { status = 200 } }"#,
            true,
        ),
        // A look repeats nothing, and nothing else settles these.
        ("resend", r#"resend = { within = "1h" }"#, false),
        ("hold", "", false),
    ] {
        let backend = Backend::start();
        backend.script(|seen| match seen.body.is_empty() {
            true => answer(202, "{}"),
            false => Act::reset(),
        });
        let gateway = Setup::before(&backend)
            .redeem(&format!("outcome = {{ on_unknown = \"{policy}\", pending = [202] }}"))
            .redeem(lines)
            .start();
        redeem("lost").send(gateway.addr).is(502, "unknown", "outcome-unknown");
        Request::redeem("pending", "").send(gateway.addr).is(202, "pending", "");
        let lost = Request::get(ANSWER).key("lost").send(gateway.addr);
        lost.is(409, "unknown", "outcome-unknown");
        assert_eq!(lost.json()["retryable"], comes, "{policy}: {lost:?}");
        let pending = Request::get(ANSWER).key("pending").send(gateway.addr);
        pending.is(202, "pending", "");
        for reply in [lost, pending] {
            assert_eq!(reply.header("retry-after").is_some(), comes, "{policy}: {reply:?}");
        }
    }
}
