//! Lost answers: exactly the units that were sent are unknown, the rest goes on, and points never
//! exceed what was requested.

use crate::startup::soon_full;
use crate::support::rewards::{batch, coupons, issue, rows};
use crate::support::{Act, Backend, Gate, Request, Rewards, answer, eventually};

fn story() -> String {
    batch("+65", &[("a", "R1", 2), ("b", "R2", 2)])
}

#[test]
fn a_lost_answer_leaves_what_was_sent_unknown_and_the_rest_goes_on() {
    let losses: [fn() -> Act; 4] = [
        Act::reset,
        Act::close,
        || {
            Act::raw("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"rewards\":[")
                .then(Act::close())
        },
        || Act::raw("HTTP/1.1 200 OK\r\n\r\n{\"rewards\":[").then(Act::close()),
    ];
    for loss in losses {
        let rewards = Rewards::start();
        let gateway = rewards.gateway("");
        rewards.limit("R1", 1);
        issue(&story()).send(gateway.addr).is(400, "executed", "");
        rewards.unlimited();
        rewards.answering(move |_, _, _| loss());
        // R1 x 1 is sent and issued, and the answer is lost.
        issue(&story()).send(gateway.addr).is(502, "unknown", "outcome-unknown");
        rewards.honest();
        let more = batch("+65", &[("a", "R1", 2), ("b", "R2", 2), ("c", "R3", 1)]);
        let reply = issue(&more).send(gateway.addr);
        reply.is(409, "unknown", "outcome-unknown");
        assert_eq!(rows(&reply), "a:1/2 1010, b:2/2 200, c:1/1 200 = 1010");
        assert_eq!(coupons(&reply, 0), 1, "what is known to be issued is shown");
        issue(&story()).send(gateway.addr).is(409, "unknown", "outcome-unknown");
        let gateway = gateway.killed_and_restarted();
        let reply = issue(&more).send(gateway.addr);
        assert_eq!(rows(&reply), "a:1/2 1010, b:2/2 200, c:1/1 200 = 1010");
        assert_eq!(reply.header("idempotency-replayed"), None);
        assert_eq!(rewards.sent(), ["R1x2,R2x2", "R1x1", "R3x1"]);
        assert_eq!(rewards.points(), 45);
    }
}

#[test]
fn a_kill_between_dispatch_and_answer_makes_exactly_the_dispatched_units_unknown() {
    let (rewards, gate) = (Rewards::start(), Gate::default());
    let gateway = rewards.gateway("");
    rewards.limit("R1", 1);
    issue(&story()).send(gateway.addr);
    rewards.unlimited();
    let held = gate.clone();
    rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&held));
    let more = batch("+65", &[("a", "R1", 2), ("b", "R2", 2), ("c", "R3", 1)]);
    let _cut = issue(&more).begin(gateway.addr);
    rewards.backend.wait_calls(2);
    let gateway = gateway.killed_and_restarted();
    gate.open();
    rewards.honest();
    let reply = issue(&more).send(gateway.addr);
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(rows(&reply), "a:1/2 1010, b:2/2 200, c:0/1 1010 = 1010");
    let reply = issue(&batch("+65", &[("d", "R1", 1)])).send(gateway.addr);
    reply.is(200, "executed", "");
    let status = Request::get("/.well-known/idempotency/status").key("a").send(gateway.addr).json();
    assert_eq!((&status["state"], &status["unknown"]), (&"unknown".into(), &1.into()));
    assert_eq!(rewards.sent(), ["R1x2,R2x2", "R1x1,R3x1", "R1x1"]);
}

#[test]
fn a_late_answer_settles_what_the_timeout_left_unknown() {
    let (rewards, gate) = (Rewards::start(), Gate::default());
    let gateway = rewards.setup("").upstream("timeout = \"2s\"").start();
    let held = gate.clone();
    rewards.limit("R1", 1);
    rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&held));
    issue(&story()).send(gateway.addr).is(504, "unknown", "outcome-unknown");
    let reply = issue(&story()).send(gateway.addr);
    assert_eq!((reply.status, rows(&reply).as_str()), (409, "a:0/2 1010, b:0/2 1010 = 1010"));
    gate.open();
    rewards.honest();
    rewards.unlimited();
    let reply = eventually("the late answer counts", || {
        let reply = issue(&story()).send(gateway.addr);
        (reply.status != 409).then_some(reply)
    });
    reply.is(200, "executed", "");
    assert_eq!(rows(&reply), "a:2/2 200, b:2/2 200 = 200");
    assert_eq!(rewards.sent(), ["R1x2,R2x2", "R1x1"]);
    assert_eq!(rewards.points(), 30);
}

#[test]
fn a_backend_that_cannot_be_reached_leaves_nothing_behind() {
    let backend = Backend::refusing();
    let gateway = crate::support::Setup::before(&backend)
        .route(
            "name = \"issue\"\nmethods = [\"POST\"]\npath = \"/issue\"\nmode = \"items\"\n\
             profile = \"capillary\"",
        )
        .start();
    let reply = issue(&story()).send(gateway.addr);
    reply.is(502, "not-executed", "upstream-unreachable");
    // The ids are free, even for other items.
    let other = batch("+65", &[("a", "R2", 1)]);
    issue(&other).send(gateway.addr).is(502, "not-executed", "upstream-unreachable");
    let row = r#"{"rewards":[{"requestId":"a","quantity":1,"intouch":[1]}]}"#;
    backend.always(answer(200, row));
    backend.listen();
    assert_eq!(rows(&issue(&other).send(gateway.addr)), "a:1/1 200 = 200");
}

#[test]
fn a_client_that_leaves_does_not_stop_its_batch() {
    let (rewards, gate) = (Rewards::start(), Gate::default());
    let gateway = rewards.gateway("");
    let held = gate.clone();
    rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&held));
    let gone = issue(&story()).begin(gateway.addr);
    rewards.backend.wait_calls(1);
    drop(gone);
    gate.open();
    let reply = eventually("the batch ends", || {
        let reply = issue(&story()).send(gateway.addr);
        (reply.status == 200).then_some(reply)
    });
    reply.is(200, "replayed", "");
    assert_eq!(rewards.points(), 30);
}

#[test]
fn a_drain_waits_for_a_batch() {
    let (rewards, gate) = (Rewards::start(), Gate::default());
    let mut gateway = rewards.gateway("");
    let held = gate.clone();
    rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&held));
    let mut client = issue(&story()).begin(gateway.addr);
    rewards.backend.wait_calls(1);
    gateway.sigterm();
    gate.open();
    client.read().is(200, "executed", "");
    assert_eq!(gateway.wait().code(), Some(0));
    let gateway = gateway.setup().clone().start();
    issue(&story()).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(rewards.points(), 30);
}

#[test]
fn a_full_disk_stops_batches_before_they_are_sent_and_nothing_is_stuck() {
    let rewards = Rewards::start();
    let setup = rewards.setup("");
    setup.start().stop();
    // Files may grow to a size that the store reaches soon.
    let limit = soon_full(&setup.store_path());
    let mut gateway = setup.clone().file_size_limit(Some(limit)).start();
    let ids = |number: usize| [format!("a{number}"), format!("b{number}")];
    let request = |number: usize| {
        let [a, b] = ids(number);
        issue(&batch(&format!("+{number}"), &[(&a, "R1", 2), (&b, "R2", 1)]))
    };
    let (mut recorded, mut unrecorded) = (Vec::new(), Vec::new());
    let refused = (0..5000).find(|number| {
        // After an outcome that could not be recorded, the process may have ended already.
        let Ok(reply) = request(*number).try_send(gateway.addr) else { return true };
        match (reply.status, reply.disposition().as_str()) {
            (200, "executed") => recorded.push(*number),
            // The claim was durable, the outcome was not: told, and never sent again.
            (200, "unrecorded") => unrecorded.push(*number),
            _ => {
                reply.is(503, "rejected", "store-unavailable");
                assert!(reply.header("retry-after").is_some(), "{reply:?}");
                return true;
            }
        }
        false
    });
    let refused = refused.expect("the disk is full at last");
    let sent = rewards.sent().len();
    assert_eq!(sent, recorded.len() + unrecorded.len(), "nothing is sent without a claim");
    assert_eq!(gateway.wait().code(), Some(1), "the process ends, so that it is restarted");
    assert_eq!(rewards.sent().len(), sent, "nothing is sent without a claim");
    drop(gateway);
    assert!(!recorded.is_empty(), "the disk was full from the start");
    let gateway = setup.start();
    for number in &recorded {
        request(*number).send(gateway.addr).is(200, "replayed", "");
    }
    for number in &unrecorded {
        request(*number).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    }
    assert_eq!(rewards.sent().len(), sent);
    // A claim of which nothing or only a part was written is none.
    for number in [refused, 6000] {
        request(number).send(gateway.addr).is(200, "executed", "");
        assert!(ids(number).iter().all(|id| rewards.issued(id) > 0));
    }
    rewards.books(|books| {
        let most = |id: &str| if id.starts_with('a') { 2 } else { 1 };
        assert!(books.issued.iter().all(|(id, units)| *units == most(id)), "{:?}", books.issued);
    });
}
