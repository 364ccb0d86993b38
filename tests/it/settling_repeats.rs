//! Repetitions that decide nothing: what the key, its pending answer and the duplicates become.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{
    Act, AdminClient, Backend, Gate, Request, Response, Setup, answer, eventually,
};

const BODY: &str = r#"{"card":"C1","amount":5}"#;

fn redeem(key: &str) -> Request {
    Request::redeem(key, BODY)
}

fn resending(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend))
        .redeem("key.forward = true")
        .redeem(r#"outcome.on_unknown = "resend""#)
        .redeem(r#"resend.within = "1h""#)
        .redeem(r#"resend.mark = { header = { name = "x-repeat", value = "yes" } }"#)
}

fn may_be_retried(reply: &Response) -> bool {
    reply.header("retry-after").is_some()
}

#[test]
fn a_late_refusal_of_a_repetition_does_not_free_the_key() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let held = gate.clone();
    backend.script(move |seen| match seen.header("x-repeat") {
        None => Act::reset(),
        Some(_) => answer(429, "{}").after(&held),
    });
    let setup = resending(&backend).upstream(r#"timeout = "12s""#).redeem("resend.attempts = 1");
    let gateway = setup.start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    redeem("a").send(gateway.addr).is(504, "unknown", "outcome-unknown");
    gate.open();
    gateway.logs(&["INFO", "a late answer decides nothing"]);
    // Freed, the key would run once more, with this body or another, although the first try may
    // have acted.
    redeem("a").send(gateway.addr).is(409, "unknown", "outcome-unknown");
    let other = Request::redeem("a", "{}").send(gateway.addr);
    other.is(422, "rejected", "key-reused");
    assert_eq!(AdminClient::of(&gateway).show("a")["state"], "unknown");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn a_late_answer_that_decides_nothing_does_not_keep_a_lost_repetition_in_flight() {
    for late in [503, 202] {
        let (backend, calls) = (Backend::start(), AtomicUsize::new(0));
        let (first, second) = (Gate::default(), Gate::default());
        let gates = [first.clone(), second.clone()];
        backend.script(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => answer(late, "{}").after(&gates[0]),
            1 => Act::reset().after(&gates[1]),
            _ => answer(200, "{}"),
        });
        let gateway = resending(&backend)
            .redeem("outcome.pending = [202]")
            .upstream(r#"timeout = "12s""#)
            .start();
        redeem("a").send(gateway.addr).is(504, "unknown", "outcome-unknown");
        let mut repetition = redeem("a").begin(gateway.addr);
        backend.wait_calls(2);
        first.open();
        gateway.logs(&["INFO", "a late answer decides nothing"]);
        second.open();
        let reply = repetition.read();
        assert_eq!(reply.error(), "outcome-unknown", "late {late}: {reply:?}");
        let shown = AdminClient::of(&gateway).show("a");
        assert_eq!(shown["state"], "unknown", "late {late}: {shown}");
        redeem("a").send(gateway.addr).is(200, "recovered", "");
        assert_eq!(backend.calls(), 3);
    }
}

#[test]
fn an_accepted_request_stays_pending_through_repetitions_that_decide_nothing() {
    let (backend, calls) = (Backend::start(), AtomicUsize::new(0));
    backend.script(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => answer(202, r#"{"job":1}"#),
        1 => answer(202, r#"{"job":2}"#),
        2 => answer(429, "{}"),
        3 => answer(500, "{}"),
        _ => Act::reset(),
    });
    let gateway =
        resending(&backend).redeem("outcome.pending = [202]").redeem("resend.attempts = 4").start();
    for job in [r#"{"job":1}"#, r#"{"job":2}"#] {
        let reply = redeem("a").send(gateway.addr);
        reply.is(202, "pending", "");
        assert_eq!(reply.text(), job);
        assert!(may_be_retried(&reply), "{reply:?}");
    }
    // The backend's own answers, which say nothing of the accepted try.
    redeem("a").send(gateway.addr).is(429, "unknown", "");
    redeem("a").send(gateway.addr).is(500, "unknown", "");
    // A lost repetition, and then none is left.
    for _ in 0..2 {
        let reply = redeem("a").send(gateway.addr);
        reply.is(202, "pending", "");
        assert_eq!(reply.text(), r#"{"job":2}"#);
        assert!(!may_be_retried(&reply), "{reply:?}");
    }
    assert_eq!(backend.calls(), 5);
    let shown = AdminClient::of(&gateway).show("a");
    assert!(shown["reason"].as_str().unwrap().contains("not decided yet"), "{shown}");
}

#[test]
fn duplicates_of_a_lost_call_read_when_a_retry_may_settle_it() {
    for (policy, retried) in [("resend", true), ("hold", false)] {
        let (backend, gate) = (Backend::start(), Gate::default());
        let held = gate.clone();
        backend.script(move |seen| match seen.header("x-repeat") {
            None => Act::reset().after(&held),
            Some(_) => Act::reset(),
        });
        let setup = match policy {
            "resend" => resending(&backend).redeem("resend.attempts = 2"),
            _ => Setup::before(&backend),
        };
        let gateway = setup.redeem(r#"duplicates.wait = "60s""#).start();
        let mut first = redeem("a").begin(gateway.addr);
        backend.wait_calls(1);
        let mut duplicate = redeem("a").begin(gateway.addr);
        eventually("the duplicate waits", || {
            (gateway.metric("oncegate_waiters") == Some(1)).then_some(())
        });
        gate.open();
        let first = first.read();
        first.is(502, "unknown", "outcome-unknown");
        assert_eq!(may_be_retried(&first), retried, "{policy}: {first:?}");
        let duplicate = duplicate.read();
        duplicate.is(409, "unknown", "outcome-unknown");
        assert_eq!(may_be_retried(&duplicate), retried, "{policy}: {duplicate:?}");
        if retried {
            // A repetition that is lost says so as long as another may follow.
            let reply = redeem("a").send(gateway.addr);
            reply.is(502, "unknown", "outcome-unknown");
            assert!(may_be_retried(&reply), "{reply:?}");
            let reply = redeem("a").send(gateway.addr);
            reply.is(502, "unknown", "outcome-unknown");
            assert!(!may_be_retried(&reply), "{reply:?}");
        }
    }
}
