//! Batches at the same time: identical ones, ones that share an item, ones of the same customer.

use crate::support::rewards::{batch, issue, rows};
use crate::support::{Gate, Rewards, answer, at_once, eventually};

#[test]
fn thirty_identical_batches_at_once_issue_once() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    let body = batch("+65", &[("a", "R1", 2), ("b", "R2", 2)]);
    let reply = at_once(30, |_| issue(&body).send(gateway.addr));
    let executed = reply.iter().filter(|reply| reply.disposition() == "executed").count();
    for reply in &reply {
        assert_eq!((reply.status, rows(reply).as_str()), (200, "a:2/2 200, b:2/2 200 = 200"));
    }
    assert_eq!((executed, rewards.points(), rewards.sent().len()), (1, 30, 1));
}

#[test]
fn thirty_identical_batches_under_a_limit_never_issue_more_than_was_requested() {
    let rewards = Rewards::start();
    rewards.limit("R1", 1);
    let gateway = rewards.gateway("");
    let body = batch("+65", &[("a", "R1", 2)]);
    // Each of them tries the rest once more, one after the other.
    let reply = at_once(30, |_| issue(&body).send(gateway.addr));
    assert!(reply.iter().all(|reply| rows(reply) == "a:1/2 8010 = 8010"));
    rewards.unlimited();
    at_once(30, |_| issue(&body).send(gateway.addr));
    assert_eq!((rewards.issued("a"), rewards.points()), (2, 10));
}

#[test]
fn ten_batches_that_share_an_item_issue_it_once_and_all_end() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    for round in 0..5 {
        let shared = format!("shared-{round}");
        let reply = at_once(10, |index| {
            let own = format!("own-{round}-{index}");
            let next = format!("own-{round}-{}", (index + 1) % 10);
            // Of different customers would be different items; so all are of one. Each batch also
            // has an item of its neighbor's, in another order: a circle.
            let mut items = [(own.as_str(), "R1", 1), (shared.as_str(), "R2", 1), (&next, "R1", 1)];
            items.rotate_left(index % 3);
            issue(&batch("+65", &items)).send(gateway.addr)
        });
        for reply in &reply {
            assert_eq!(reply.status, 200, "{reply:?}");
            assert!(rows(reply).ends_with("= 200"));
        }
        assert_eq!(rewards.issued(&shared), 1);
        assert!((0..10).all(|index| rewards.issued(&format!("own-{round}-{index}")) == 1));
    }
    assert_eq!(rewards.points(), 5 * (10 + 10 * 5));
}

#[test]
fn batches_of_different_customers_run_side_by_side_and_those_of_one_do_not() {
    let (rewards, gate) = (Rewards::start(), Gate::default());
    let gateway = rewards.gateway("duplicates.wait = \"0s\"");
    let held = gate.clone();
    rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&held));
    let mut first = issue(&batch("+65", &[("a", "R1", 1)])).begin(gateway.addr);
    rewards.backend.wait_calls(1);
    let mut other = issue(&batch("+66", &[("b", "R1", 1)])).begin(gateway.addr);
    rewards.backend.wait_calls(2);
    // The same customer, another item: refused in the backend's words.
    let reply = issue(&batch("+65", &[("c", "R1", 1)])).send(gateway.addr);
    reply.is(409, "in-progress", "request-in-progress");
    assert_eq!(reply.json()["status"]["code"], 10004);
    assert!(reply.header("retry-after").is_some());
    // The same item, which comes first.
    let reply = issue(&batch("+65", &[("a", "R1", 1)])).send(gateway.addr);
    reply.is(409, "in-progress", "request-in-progress");
    // A number is the same customer.
    let reply = issue(r#"{"mobile":"+65","externalId":5,"rewards":[{"requestId":"x"}]}"#);
    reply.send(gateway.addr).is(409, "in-progress", "request-in-progress");
    gate.open();
    first.read().is(200, "executed", "");
    other.read().is(200, "executed", "");
    issue(&batch("+65", &[("c", "R1", 1)])).send(gateway.addr).is(200, "executed", "");
    assert_eq!(rewards.backend.calls(), 3);
}

#[test]
fn a_batch_waits_for_another_of_its_customer_and_then_goes_on() {
    let (rewards, gate) = (Rewards::start(), Gate::default());
    let gateway = rewards.gateway("");
    let held = gate.clone();
    rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&held));
    let mut first = issue(&batch("+65", &[("a", "R1", 1)])).begin(gateway.addr);
    rewards.backend.wait_calls(1);
    let mut second = issue(&batch("+65", &[("b", "R1", 1), ("a", "R1", 1)])).begin(gateway.addr);
    assert!(!second.readable_within(std::time::Duration::from_millis(100)));
    assert_eq!(rewards.backend.calls(), 1);
    gate.open();
    first.read().is(200, "executed", "");
    let reply = second.read();
    assert_eq!(rows(&reply), "b:1/1 200, a:1/1 200 = 200");
    assert_eq!(rewards.points(), 10);
}

#[test]
fn waiting_batches_are_bounded_in_number_and_time() {
    let (rewards, gate) = (Rewards::start(), Gate::default());
    let gateway = rewards.gateway("duplicates.wait = \"300ms\"\nduplicates.max_waiters = 2");
    let held = gate.clone();
    rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&held));
    let body = batch("+65", &[("a", "R1", 1)]);
    let mut first = issue(&body).begin(gateway.addr);
    rewards.backend.wait_calls(1);
    let reply = at_once(10, |_| issue(&body).send(gateway.addr));
    assert!(
        reply
            .iter()
            .all(|reply| reply.summary()
                == (409, "in-progress".into(), "request-in-progress".into()))
    );
    gate.open();
    first.read().is(200, "executed", "");
    issue(&body).send(gateway.addr).is(200, "replayed", "");
}

#[test]
fn a_quota_counts_batches() {
    let (rewards, gate) = (Rewards::start(), Gate::default());
    let gateway = rewards.setup("").limits("in_flight_per_tenant = 1").start();
    let held = gate.clone();
    rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&held));
    let mut first = issue(&batch("+65", &[("a", "R1", 1)])).begin(gateway.addr);
    rewards.backend.wait_calls(1);
    let second = batch("+66", &[("b", "R1", 1)]);
    issue(&second).send(gateway.addr).is(429, "rejected", "quota-exceeded");
    gate.open();
    first.read().is(200, "executed", "");
    issue(&second).send(gateway.addr).is(200, "executed", "");
}

#[test]
fn a_customers_next_batch_does_not_begin_while_a_call_that_ran_out_of_time_is_open() {
    let (rewards, gate) = (Rewards::start(), Gate::default());
    // So long it is waited for, and so long again for a late answer.
    let setup = rewards.setup("duplicates.wait = \"0s\"").upstream("timeout = \"3s\"");
    let gateway = setup.start();
    let held = gate.clone();
    rewards.answering(move |seen, status, body| {
        let act = answer(status, &body.to_string());
        if seen.number == 0 { act.after(&held) } else { act }
    });
    let first = batch("+65", &[("a", "R1", 1)]);
    issue(&first).send(gateway.addr).is(504, "unknown", "outcome-unknown");
    // The same is told what is known; another one of this customer has to wait, others need not.
    issue(&first).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    let next = issue(&batch("+65", &[("b", "R1", 1)]));
    next.clone().send(gateway.addr).is(409, "in-progress", "request-in-progress");
    issue(&batch("+66", &[("c", "R1", 1)])).send(gateway.addr).is(200, "executed", "");
    gate.open();
    eventually("its turn comes when the late answer is there", || {
        let reply = next.clone().send(gateway.addr);
        (reply.disposition() == "executed").then_some(())
    });
    issue(&first).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(rewards.sent(), ["R1x1"; 3]);
}
