//! Suspected duplicates (`[route.suspect]`): another key of one caller for one subject.

use std::thread;

use crate::support::admin::AdminClient;
use crate::support::gateway::run;
use crate::support::{Act, Backend, Gate, Gateway, Request, Response, Setup, answer, eventually};

fn body(voucher: &str, sale: &str) -> String {
    format!(r#"{{"qr":"{voucher}","sale":"{sale}"}}"#)
}

fn setup(backend: &Backend, then: &str) -> Setup {
    Setup::before(backend)
        .redeem("record.subject = \"/qr\"")
        .redeem(&format!("suspect = {{ within = \"10m\", then = \"{then}\" }}"))
}

fn redeem(gateway: &Gateway, key: &str, voucher: &str) -> Response {
    Request::redeem(key, &body(voucher, key)).tenant("t").send(gateway.addr)
}

#[test]
fn an_earlier_key_for_the_same_voucher_is_told() {
    let backend = Backend::start();
    let gateway = setup(&backend, "tell").start();
    let first = redeem(&gateway, "k-1", "v");
    first.is(200, "executed", "");
    assert_eq!(first.header("idempotency-earlier"), None);
    let second = redeem(&gateway, "k-2", "v");
    second.is(200, "executed", "");
    let earlier = second.header("idempotency-earlier").expect("the earlier key");
    assert!(earlier.starts_with("key=\"k-1\", state=final, status=200, at=\"20"), "{earlier}");
    assert!(earlier.ends_with("Z\""), "{earlier}");
    // The latest of several; a retry under its own key has its own answer.
    let third = Request::redeem("k\"3\\", &body("v", "3")).tenant("t").send(gateway.addr);
    assert!(third.header("idempotency-earlier").unwrap().starts_with("key=\"k-2\""));
    let fourth = redeem(&gateway, "k-4", "v");
    assert!(fourth.header("idempotency-earlier").unwrap().starts_with(r#"key="k\"3\\", "#));
    redeem(&gateway, "k-1", "v").is(200, "replayed", "");
    for (key, voucher) in [("k-5", "another"), ("k-6", "a third")] {
        assert_eq!(redeem(&gateway, key, voucher).header("idempotency-earlier"), None);
    }
    let other = Request::redeem("k-7", &body("v", "x")).tenant("u").send(gateway.addr);
    assert_eq!(other.header("idempotency-earlier"), None, "another caller's key is nobody's");
}

#[test]
fn an_attempt_that_changed_nothing_is_no_suspect() {
    let backend = Backend::start();
    let gateway = AdminClient::guard(setup(&backend, "refuse")).start();
    backend.always(answer(422, "{}"));
    redeem(&gateway, "refused", "v").is(422, "executed", "");
    backend.always(answer(429, "{}"));
    redeem(&gateway, "released", "v").is(429, "not-executed", "");
    backend.always(Act::close());
    redeem(&gateway, "lost", "v").is(502, "unknown", "outcome-unknown");
    // An unknown outcome may have changed something, until an operator knows.
    let reply = redeem(&gateway, "k", "v");
    reply.is(409, "rejected", "suspected-duplicate");
    let earlier = reply.header("idempotency-earlier").unwrap();
    assert!(earlier.starts_with("key=\"lost\", state=unknown, at="), "{earlier}");
    AdminClient::of(&gateway).settle("lost", "not-executed");
    backend.always(answer(200, "{}"));
    redeem(&gateway, "k", "v").is(200, "executed", "");
}

#[test]
fn a_released_key_is_a_suspect_like_a_new_one() {
    let backend = Backend::start();
    let gateway = AdminClient::guard(setup(&backend, "refuse")).start();
    backend.always(Act::close());
    redeem(&gateway, "lost", "v").is(502, "unknown", "outcome-unknown");
    AdminClient::of(&gateway).settle("lost", "not-executed");
    // The cashier scans again before the till retries: the retry would be the second redemption.
    backend.always(answer(200, "{}"));
    redeem(&gateway, "k", "v").is(200, "executed", "");
    let retry = redeem(&gateway, "lost", "v");
    retry.is(409, "rejected", "suspected-duplicate");
    assert!(retry.header("idempotency-earlier").unwrap().starts_with("key=\"k\", state=final"));
    assert_eq!(backend.calls(), 2);
}

#[test]
fn many_records_of_a_voucher_hide_no_earlier_key() {
    let backend = Backend::start();
    backend.script(|seen| match seen.header("x-refuse") {
        Some(_) => answer(422, "{}"),
        None => answer(200, "{}"),
    });
    let gateway = setup(&backend, "refuse").start();
    redeem(&gateway, "k-1", "v").is(200, "executed", "");
    // Another caller's records, and the caller's own that changed nothing.
    thread::scope(|scope| {
        for start in 0..10 {
            let gateway = &gateway;
            scope.spawn(move || {
                for number in start * 30..(start + 1) * 30 {
                    let key = format!("r-{number}");
                    let tenant = if number % 2 == 0 { "t" } else { "u" };
                    let request = Request::redeem(&key, &body("v", &key)).tenant(tenant);
                    let request = request.header("idempotency-override", "suspected-duplicate");
                    request.header("x-refuse", "1").send(gateway.addr).is(422, "executed", "");
                }
            });
        }
    });
    redeem(&gateway, "k-2", "v").is(409, "rejected", "suspected-duplicate");
    // A key that has an answer is replayed, however many records are newer.
    let gateway = gateway.killed_and_restarted();
    redeem(&gateway, "k-1", "v").is(200, "replayed", "");
    let retry = Request::redeem("r-0", &body("v", "r-0")).tenant("t").send(gateway.addr);
    retry.is(422, "replayed", "");
    assert_eq!(backend.calls(), 301);
}

#[test]
fn a_suspicious_request_is_refused_until_the_client_insists() {
    let backend = Backend::start();
    let gateway = setup(&backend, "refuse").start();
    redeem(&gateway, "k-1", "v").is(200, "executed", "");
    let refused = redeem(&gateway, "k-2", "v");
    refused.is(409, "rejected", "suspected-duplicate");
    assert_eq!(refused.header("retry-after"), None);
    assert_eq!(refused.json()["retryable"], false);
    assert!(refused.header("idempotency-earlier").unwrap().starts_with("key=\"k-1\", state=final"));
    assert_eq!(backend.calls(), 1);
    let insist = |key: &str, value: &str| {
        let request = Request::redeem(key, &body("v", key)).tenant("t");
        request.header("idempotency-override", value).send(gateway.addr)
    };
    insist("k-2", "yes").is(409, "rejected", "suspected-duplicate");
    let insisted = insist("k-2", "suspected-duplicate");
    insisted.is(200, "executed", "");
    assert!(insisted.header("idempotency-earlier").is_some());
    assert_eq!(backend.last().header("idempotency-override"), None, "it does not go upstream");
    assert_eq!(backend.calls(), 2);
    // Its own retry needs no insisting.
    redeem(&gateway, "k-2", "v").is(200, "replayed", "");
    redeem(&gateway, "k-1", "v").is(200, "replayed", "");
}

#[test]
fn a_call_in_flight_is_an_earlier_attempt() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let held = gate.clone();
    backend.script(move |seen| match seen.header("x-slow") {
        Some(_) => answer(200, "{}").after(&held),
        None => answer(200, "{}"),
    });
    let gateway = setup(&backend, "refuse").start();
    let slow = Request::redeem("slow", &body("v", "slow")).tenant("t").header("x-slow", "1");
    let mut slow = slow.begin(gateway.addr);
    backend.wait_calls(1);
    let reply = redeem(&gateway, "k", "v");
    reply.is(409, "rejected", "suspected-duplicate");
    assert!(reply.header("idempotency-earlier").unwrap().contains("state=in_flight"));
    gate.open();
    slow.read().is(200, "executed", "");
}

#[test]
fn after_the_time_another_key_is_another_sale() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend)
        .redeem("record.subject = \"/qr\"")
        .redeem("suspect = { within = \"1s\", then = \"refuse\" }")
        .start();
    redeem(&gateway, "k-1", "v").is(200, "executed", "");
    redeem(&gateway, "k-2", "v").is(409, "rejected", "suspected-duplicate");
    eventually("the time is over", || (redeem(&gateway, "k-2", "v").status == 200).then_some(()));
    assert_eq!(backend.calls(), 2);
}

#[test]
fn a_restart_forgets_no_earlier_key() {
    let backend = Backend::start();
    let gateway = setup(&backend, "refuse").start();
    redeem(&gateway, "k-1", "v").is(200, "executed", "");
    let gateway = gateway.killed_and_restarted();
    redeem(&gateway, "k-2", "v").is(409, "rejected", "suspected-duplicate");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn the_table_needs_a_subject_and_a_time() {
    let backend = Backend::start();
    for (line, words) in [
        ("suspect = { within = \"10m\" }", "needs a `subject`"),
        ("record.subject = \"/qr\"\nsuspect = { then = \"tell\" }", "no `within`"),
        ("record.subject = \"/qr\"\nsuspect = { within = \"10m\", then = \"shout\" }", "then"),
        ("record.subject = \"/qr\"\nsuspect = { within = \"90d\" }", "within"),
    ] {
        let setup = Setup::before(&backend).redeem(line);
        let exit = run(&["check", "--config", &setup.write_config()]);
        assert_eq!(exit.code, Some(2), "{line}: {exit:?}");
        assert!(exit.stderr.contains(words), "{line}: {}", exit.stderr);
    }
}
