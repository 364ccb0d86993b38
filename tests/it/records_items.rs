//! An operator's decisions about items of batches.

use serde_json::json;

use crate::support::admin::Place;
use crate::support::rewards::{batch, issue, rows};
use crate::support::{Act, AdminClient, Gateway, Request, Rewards, Setup, eventually};

fn setup(rewards: &Rewards) -> Setup {
    AdminClient::guard(rewards.setup(""))
}

fn story() -> String {
    batch("+65", &[("a", "R1", 2), ("b", "R2", 2)])
}

/// Sends the batch; R1 was issued once before, and now the answer is lost.
#[track_caller]
fn lose(rewards: &Rewards, gateway: &Gateway) {
    rewards.limit("R1", 1);
    issue(&story()).send(gateway.addr).is(400, "executed", "");
    rewards.unlimited();
    rewards.answering(|_, _, _| Act::reset());
    issue(&story()).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    rewards.honest();
    let reply = issue(&story()).send(gateway.addr);
    assert_eq!(rows(&reply), "a:1/2 1010, b:2/2 200 = 1010");
}

#[test]
fn units_that_were_issued_count_and_are_not_sent_again() {
    Place::each(|place| {
        let rewards = Rewards::start();
        let gateways = place.start(&setup(&rewards));
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        lose(&rewards, first);
        let admin = AdminClient::of(last);
        let shown = admin.show("a");
        assert_eq!(shown["state"], "unknown");
        assert_eq!(
            shown["item"]["unknown"].as_u64().zip(shown["item"]["fulfilled"].as_u64()),
            Some((1, 1))
        );
        let settled = admin.settle("a", "executed");
        assert_eq!(settled["state"], "complete");
        assert_eq!(settled["history"][0]["units"], 1);
        for gateway in &gateways {
            let reply = issue(&story()).send(gateway.addr);
            reply.is(200, "replayed", "");
            assert_eq!(rows(&reply), "a:2/2 200, b:2/2 200 = 200");
        }
        assert_eq!(rewards.sent(), ["R1x2,R2x2", "R1x1"]);
        assert_eq!(rewards.points(), 30);
    });
}

#[test]
fn units_that_were_not_issued_are_sent_by_the_next_batch() {
    Place::each(|place| {
        let rewards = Rewards::start();
        let gateways = place.start(&setup(&rewards));
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        rewards.limit("R1", 1);
        issue(&story()).send(first.addr);
        // Never carried out this time.
        rewards.backend.always(Act::reset());
        issue(&story()).send(first.addr).is(502, "unknown", "outcome-unknown");
        rewards.honest();
        rewards.unlimited();
        let settled = AdminClient::of(last).settle("a", "not-executed");
        assert_eq!(
            (&settled["state"], &settled["item"]["unknown"]),
            (&json!("partial"), &json!(0))
        );
        let reply = issue(&story()).send(last.addr);
        reply.is(200, "executed", "");
        assert_eq!(rows(&reply), "a:2/2 200, b:2/2 200 = 200");
        assert_eq!(rewards.points(), 30);
        let shown = AdminClient::of(first).show("a");
        assert_eq!((&shown["attempts"], &shown["history"][0]["attempt"]), (&json!(3), &json!(2)));
    });
}

#[test]
fn a_part_of_the_unknown_units_may_have_been_issued() {
    let rewards = Rewards::start();
    let gateway = setup(&rewards).start();
    let body = batch("+65", &[("a", "R1", 5)]);
    rewards.backend.always(Act::reset());
    issue(&body).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    rewards.honest();
    let admin = AdminClient::of(&gateway);
    let id = admin.id("a");
    let resolve = |units: u64| {
        admin.resolve(&id, &json!({ "as": "executed", "units": units, "reason": "looked" }))
    };
    for wrong in [0, 6] {
        let reply = resolve(wrong);
        assert_eq!((reply.status, &reply.json()["code"]), (400, &json!("units-invalid")));
    }
    let response = json!({ "as": "executed", "reason": "r", "response": { "status": 200 } });
    let reply = admin.resolve(&id, &response);
    assert_eq!((reply.status, &reply.json()["code"]), (400, &json!("wrong-kind")));
    assert_eq!(resolve(2).status, 200);
    let reply = issue(&body).send(gateway.addr);
    assert_eq!(rows(&reply), "a:5/5 200 = 200");
    assert_eq!(rewards.sent(), ["R1x3"]);
    assert_eq!(resolve(1).status, 409);
}

#[test]
fn a_late_answer_does_not_undo_what_was_decided_about_its_items() {
    Place::each(|place| {
        let rewards = Rewards::start();
        let gateways = place.start(&setup(&rewards).upstream("timeout = \"3s\""));
        let (owner, other) = (&gateways[0], &gateways[gateways.len() - 1]);
        let gate = crate::support::Gate::default();
        let held = gate.clone();
        rewards.answering(move |_, status, body| {
            crate::support::answer(status, &body.to_string()).after(&held)
        });
        issue(&story()).send(owner.addr).is(504, "unknown", "outcome-unknown");
        AdminClient::of(other).settle("a", "not-executed");
        gate.open();
        let admin = AdminClient::of(other);
        eventually("the late answer settles the other item", || {
            (admin.show("b")["state"] == "complete").then_some(())
        });
        assert_eq!(admin.show("a")["state"], "none");
        assert!(
            owner.stderr().contains("settled by an operator or another process"),
            "{}",
            owner.stderr()
        );
        // As the operator said: missing again.
        let reply = issue(&story()).send(other.addr);
        assert_eq!(rows(&reply), "a:2/2 200, b:2/2 200 = 200");
        assert_eq!(rewards.sent(), ["R1x2,R2x2", "R1x2"]);
    });
}

#[test]
fn a_purged_item_keeps_its_quantities_and_is_not_sent_again() {
    Place::each(|place| {
        let rewards = Rewards::start();
        let gateways = place.start(&setup(&rewards));
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        issue(&story()).send(first.addr).is(200, "executed", "");
        for gateway in &gateways {
            assert_eq!(crate::support::rewards::coupons(&issue(&story()).send(gateway.addr), 0), 2);
        }
        let admin = AdminClient::of(last);
        let reply = admin.purge(&admin.id("a"));
        assert_eq!((reply.status, &reply.json()["state"]), (200, &json!("complete")), "{reply:?}");
        assert_eq!(reply.json()["item"]["outcomes"], json!({}));
        for gateway in &gateways {
            // The merged answer of the whole batch was in memory as well.
            let reply = eventually("the coupons are gone", || {
                let reply = issue(&story()).send(gateway.addr);
                (!reply.text().contains("\"C1\"")).then_some(reply)
            });
            assert_eq!(rows(&reply), "a:2/2 200, b:2/2 200 = 200");
        }
        assert_eq!(rewards.sent().len(), 1);
        let status = Request::get("/.well-known/idempotency/status").key("a").send(first.addr);
        assert_eq!(status.json()["fulfilled"], 2);
    });
}

#[test]
fn an_item_is_purged_to_the_end_when_the_operator_is_gone() {
    let rewards = Rewards::start();
    let gateway = setup(&rewards).start();
    let admin = AdminClient::of(&gateway);
    for round in 0..10 {
        let key = format!("a-{round}");
        let body = batch(&format!("+{round}"), &[(&key, "R1", 1)]);
        issue(&body).send(gateway.addr).is(200, "executed", "");
        // The merged answer is in memory from here on.
        for _ in 0..2 {
            let reply = issue(&body).send(gateway.addr);
            assert_eq!(crate::support::rewards::coupons(&reply, 0), 1, "{reply:?}");
        }
        let purge = AdminClient::request("DELETE", &format!("/api/records/{}", admin.id(&key)));
        drop(purge.begin(gateway.admin));
        eventually("the coupon is gone", || {
            let reply = issue(&body).send(gateway.addr);
            (crate::support::rewards::coupons(&reply, 0) == 0).then_some(())
        });
    }
}
