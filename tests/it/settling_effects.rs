//! Unknown outcomes that settle by an effect on the backend: the request sent again, or undone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::admin::{Place, steps};
use crate::support::{Act, AdminClient, Backend, Gate, Request, Setup, answer, eventually};

const BODY: &str = r#"{"card":"C1","amount":5}"#;

fn resending(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend))
        .redeem("key.forward = true")
        .redeem(r#"outcome.on_unknown = "resend""#)
        .redeem(r#"resend.within = "1h""#)
        .redeem("resend.attempts = 2")
        .redeem(r#"resend.mark = { header = { name = "x-repeat", value = "yes" }, body = { "/repeat" = true } }"#)
}

fn reversing(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend))
        .upstream(r#"timeout = "300ms""#)
        .redeem(r#"outcome.on_unknown = "reverse""#)
        .redeem(r#"reverse.path = "/cards/{/card}/void""#)
        .redeem(r#"reverse.body = '{"reference":"{key}","amount":{/amount}}'"#)
        .redeem(r#"reverse.every = "50ms""#)
        .redeem(r#"reverse.done = { status = "2xx" }"#)
        .redeem("reverse.nothing = { status = 404 }")
}

fn redeem(key: &str) -> Request {
    Request::redeem(key, BODY)
}

fn redemptions(backend: &Backend) -> usize {
    backend.calls_to("/v1/vouchers/redeem")
}

#[test]
fn a_lost_request_is_sent_again_marked_on_the_retry_only() {
    Place::each(|place| {
        let backend = Backend::start();
        backend.always(Act::reset());
        let gateways = place.start(&resending(&backend));
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        redeem("a").send(first.addr).is(502, "unknown", "outcome-unknown");
        assert_eq!(backend.last().header("x-repeat"), None);
        assert_eq!(backend.last().header("idempotency-key").as_deref(), Some("a"));
        backend.script(|_| answer(200, r#"{"order":1}"#));
        let reply = redeem("a").send(last.addr);
        reply.is(200, "recovered", "");
        assert_eq!(reply.text(), r#"{"order":1}"#);
        let again = backend.last();
        assert_eq!(again.header("x-repeat").as_deref(), Some("yes"));
        assert_eq!(again.header("idempotency-key").as_deref(), Some("a"));
        let body: Value = serde_json::from_slice(&again.body).unwrap();
        assert_eq!(body, json!({ "card": "C1", "amount": 5, "repeat": true }));
        redeem("a").send(first.addr).is(200, "replayed", "");
        let shown = AdminClient::of(first).show("a");
        assert_eq!(steps(&shown), ["resend", "executed"], "{shown}");
        assert_eq!((&shown["attempts"], backend.calls()), (&json!(2), 2));
    });
}

#[test]
fn what_is_lost_again_stays_unknown_and_the_number_of_repetitions_is_limited() {
    let backend = Backend::start();
    backend.always(Act::reset());
    let gateway = resending(&backend).start();
    for _ in 0..3 {
        redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    }
    let reply = redeem("a").send(gateway.addr);
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(reply.header("retry-after"), None, "nothing more is tried");
    assert_eq!(backend.calls(), 3, "the request and two repetitions");
    gateway.logs(&["WARN", "gave_up"]);
}

#[test]
fn a_repetition_that_was_not_executed_says_nothing_of_the_first_try() {
    let backend = Backend::start();
    backend.always(Act::reset());
    let gateway = resending(&backend).start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    backend.always(answer(429, "{}"));
    let reply = redeem("a").send(gateway.addr);
    assert_eq!((reply.status, reply.disposition().as_str()), (429, "unknown"), "{reply:?}");
    assert_eq!(AdminClient::of(&gateway).show("a")["state"], "unknown");
    backend.always(answer(200, "{}"));
    redeem("a").send(gateway.addr).is(200, "recovered", "");
    assert_eq!(backend.calls(), 3);
}

#[test]
fn a_refusal_because_the_first_try_was_executed_is_no_failure() {
    let already = |then: &str| {
        let backend = Backend::start();
        backend.always(Act::reset());
        let response = match then {
            "succeed" => "already_done.response = { status = 201, body = '{\"key\":\"{key}\"}' }",
            _ => "",
        };
        let gateway = resending(&backend)
            .redeem("already_done.status = 409")
            .redeem(r#"already_done.pointer = "/code""#)
            .redeem(r#"already_done.equals = "DUPLICATE""#)
            .redeem(&format!("already_done.then = \"{then}\""))
            .redeem(response)
            .start();
        redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
        backend.always(answer(409, r#"{"code":"DUPLICATE"}"#));
        (gateway, backend)
    };
    let (gateway, backend) = already("succeed");
    let reply = redeem("a").send(gateway.addr);
    reply.is(201, "recovered", "");
    assert_eq!(reply.text(), r#"{"key":"a"}"#);
    redeem("a").send(gateway.addr).is(201, "replayed", "");
    assert_eq!(backend.calls(), 2);

    let (gateway, _backend) = already("hold");
    redeem("a").send(gateway.addr).is(409, "unknown", "outcome-unknown");
    assert_eq!(AdminClient::of(&gateway).show("a")["state"], "unknown");
}

#[test]
fn a_late_true_answer_during_a_repetition_settles_both() {
    let backend = Backend::start();
    let (first, second) = (Gate::default(), Gate::default());
    let gates = [first.clone(), second.clone()];
    let calls = AtomicUsize::new(0);
    backend.script(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        answer(200, &format!("{{\"call\":{call}}}")).after(&gates[call.min(1)])
    });
    let gateway = resending(&backend).upstream(r#"timeout = "2s""#).start();
    redeem("a").send(gateway.addr).is(504, "unknown", "outcome-unknown");
    let retry = redeem("a").begin(gateway.addr);
    backend.wait_calls(2);
    first.open();
    let shown = AdminClient::of(&gateway).show_in("a", "final");
    second.open();
    let mut retry = retry;
    let reply = retry.read();
    assert_eq!(reply.text(), r#"{"call":0}"#, "the first true answer counts: {reply:?}");
    assert_eq!(shown["response"]["body"], r#"{"call":0}"#);
}

#[test]
fn a_lost_call_is_undone_and_its_key_is_free() {
    Place::each(|place| {
        let backend = Backend::start();
        backend.script(|seen| match seen.target() {
            "/v1/vouchers/redeem" => Act::reset(),
            _ => answer(200, "{}"),
        });
        let gateways = place.start(&reversing(&backend));
        redeem("a").send(gateways[0].addr).is(502, "unknown", "outcome-unknown");
        let shown = AdminClient::of(&gateways[gateways.len() - 1]).show_in("a", "released");
        assert_eq!(steps(&shown), ["reversal", "not-executed"], "{shown}");
        let reversal = backend.last();
        assert_eq!(reversal.line, "POST /cards/C1/void HTTP/1.1");
        assert_eq!(reversal.text(), r#"{"reference":"a","amount":5}"#);
        backend.script(|_| answer(200, "{}"));
        redeem("a").send(gateways[0].addr).is(200, "executed", "");
        assert_eq!((redemptions(&backend), backend.calls()), (2, 3));
    });
}

#[test]
fn a_reversal_is_sent_until_it_is_acknowledged_across_a_restart() {
    Place::each(|place| {
        let backend = Backend::start();
        backend.script(|seen| match seen.target() {
            "/v1/vouchers/redeem" => Act::reset(),
            _ => answer(500, "{}"),
        });
        let setup = reversing(&backend).redeem(r#"reverse.then = "fail""#);
        let gateways = place.start(&setup);
        redeem("a").send(gateways[0].addr).is(502, "unknown", "outcome-unknown");
        backend.wait_calls(4);
        drop(gateways);
        backend.script(|seen| match seen.target() {
            "/v1/vouchers/redeem" => answer(200, "{}"),
            _ => answer(404, "{}"),
        });
        let gateways = place.start(&setup);
        AdminClient::of(&gateways[0]).show_in("a", "final");
        let reply = redeem("a").send(gateways[0].addr);
        reply.is(409, "recovered", "reversed");
        assert_eq!(reply.json()["code"], "reversed");
        assert_eq!(reply.json()["title"], "Request reversed");
        assert!(reply.header("link").unwrap().contains("/.well-known/idempotency"));
        redeem("a").send(gateways[0].addr).is(409, "replayed", "reversed");
        assert_eq!(redemptions(&backend), 1);
    });
}

#[test]
fn a_reversal_waits_for_the_time_of_the_call_and_a_later_answer_contradicts_it() {
    let backend = Backend::start();
    let gate = Gate::default();
    let late = gate.clone();
    backend.script(move |seen| match seen.target() {
        "/v1/vouchers/redeem" => answer(200, "{}").after(&late),
        _ => answer(503, "{}"),
    });
    let gateway =
        reversing(&backend).replacing("timeout = \"300ms\"", "timeout = \"1500ms\"").start();
    let begun = std::time::Instant::now();
    redeem("a").send(gateway.addr).is(504, "unknown", "outcome-unknown");
    backend.wait_calls(2);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(1500));
    gate.open();
    let shown = eventually("the late answer is kept", || {
        let shown = AdminClient::of(&gateway).show("a");
        steps(&shown).contains(&"contradiction".to_owned()).then_some(shown)
    });
    assert_eq!(shown["state"], "unknown", "{shown}");
    gateway.logs(&["WARN", "contradiction"]);
    backend.script(|_| answer(200, "{}"));
    AdminClient::of(&gateway).show_in("a", "released");
}

#[test]
fn a_failed_request_answers_with_the_configured_response() {
    let backend = Backend::start();
    backend.script(|seen| match seen.target() {
        "/v1/vouchers/redeem" => Act::reset(),
        _ => answer(200, r#"{"void":8}"#),
    });
    let gateway = reversing(&backend)
        .redeem(r#"reverse.then = "fail""#)
        .redeem(r#"reverse.response = { status = 402, body = '{"void":{row:/void}}' }"#)
        .start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    AdminClient::of(&gateway).show_in("a", "final");
    let reply = redeem("a").send(gateway.addr);
    reply.is(402, "recovered", "");
    assert_eq!(reply.text(), r#"{"void":8}"#);
    let _ = Arc::new(());
}
