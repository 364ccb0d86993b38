//! Decisions against others: a late true answer of the attempt, and another operator.

use serde_json::{Value, json};

use crate::support::admin::Place;
use crate::support::{
    Act, AdminClient, Backend, Gate, Gateway, Request, Setup, answer, at_once, eventually,
};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn setup(backend: &Backend) -> Setup {
    let setup = AdminClient::guard(Setup::before(backend)).upstream("timeout = \"3s\"");
    setup.redeem(r#"duplicates.wait = "0s""#)
}

fn redeem(key: &str) -> Request {
    Request::redeem(key, BODY)
}

/// A key that ran into the timeout, and whose true answer comes when the gate opens.
#[track_caller]
fn time_out(key: &str, backend: &Backend, gateway: &Gateway) -> Gate {
    let gate = Gate::default();
    backend.always(answer(200, r#"{"late":"truth"}"#).after(&gate));
    redeem(key).send(gateway.addr).is(504, "unknown", "outcome-unknown");
    gate
}

fn said(gateway: &Gateway, what: &str) {
    eventually("the late answer meets a decision", || {
        gateway.stderr().contains(what).then_some(())
    });
}

#[test]
fn a_late_answer_does_not_overwrite_a_decision() {
    Place::each(|place| {
        for how in ["executed", "not-executed"] {
            let backend = Backend::start();
            let gateways = place.start(&setup(&backend));
            let (owner, other) = (&gateways[0], &gateways[gateways.len() - 1]);
            let key = format!("k-{how}");
            let gate = time_out(&key, &backend, owner);
            let decided = AdminClient::of(other).settle(&key, how);
            gate.open();
            said(owner, "settled by an operator or another process");
            let shown = AdminClient::of(owner).show(&key);
            for member in ["state", "status", "attempts", "first_seen", "completed"] {
                assert_eq!(shown[member], decided[member], "{shown}");
            }
            // The late answer is kept behind the decision, as what contradicts it.
            let history =
                |record: &Value| record["history"].as_array().cloned().unwrap_or_default();
            assert!(history(&shown).starts_with(&history(&decided)), "{shown}");
            backend.always(answer(200, r#"{"second":"run"}"#));
            let reply = redeem(&key).send(owner.addr);
            match how {
                "executed" => {
                    reply.is(200, "recovered", "");
                    assert!(reply.text().contains("an operator has confirmed"), "{reply:?}");
                    assert_eq!(backend.calls(), 1);
                }
                _ => {
                    reply.is(200, "executed", "");
                    assert_eq!(reply.text(), r#"{"second":"run"}"#);
                    assert_eq!(backend.calls(), 2);
                }
            }
        }
    });
}

#[test]
fn a_late_answer_does_not_overwrite_the_attempt_that_came_after_a_release() {
    Place::each(|place| {
        let backend = Backend::start();
        let gateways = place.start(&setup(&backend));
        let (owner, other) = (&gateways[0], &gateways[gateways.len() - 1]);
        let gate = time_out("k", &backend, owner);
        AdminClient::of(other).settle("k", "not-executed");
        // The second attempt is lost as well: its record is unknown again, and another's.
        backend.always(Act::reset());
        redeem("k").send(other.addr).is(502, "unknown", "outcome-unknown");
        gate.open();
        said(owner, "settled by an operator or another process");
        let shown = AdminClient::of(owner).show("k");
        assert_eq!((&shown["state"], &shown["attempts"]), (&json!("unknown"), &json!(2)));
        redeem("k").send(owner.addr).is(409, "unknown", "outcome-unknown");
        assert_eq!(backend.calls(), 2);
    });
}

#[test]
fn a_decision_loses_against_a_late_answer_that_came_first() {
    Place::each(|place| {
        let backend = Backend::start();
        let gateways = place.start(&setup(&backend));
        let (owner, other) = (&gateways[0], &gateways[gateways.len() - 1]);
        let gate = time_out("k", &backend, owner);
        let admin = AdminClient::of(other);
        let id = admin.id("k");
        gate.open();
        eventually("the late answer is recorded", || {
            (admin.show("k")["state"] == "final").then_some(())
        });
        for how in ["executed", "not-executed"] {
            let reply = admin.resolve(&id, &json!({ "as": how, "reason": "looked" }));
            assert_eq!((reply.status, &reply.json()["code"]), (409, &json!("not-unknown")));
        }
        let reply = redeem("k").send(other.addr);
        reply.is(200, "replayed", "");
        assert_eq!((reply.text().as_str(), backend.calls()), (r#"{"late":"truth"}"#, 1));
        assert_eq!(admin.show("k")["history"], json!([]));
    });
}

#[test]
fn of_many_operators_one_decides_and_the_others_are_told() {
    Place::each(|place| {
        let backend = Backend::start();
        let gateways = place.start(&setup(&backend));
        for round in 0..5 {
            let key = format!("k-{round}");
            backend.always(Act::reset());
            redeem(&key).send(gateways[0].addr).is(502, "unknown", "outcome-unknown");
            backend.always(answer(200, "{}"));
            let id = AdminClient::of(&gateways[0]).id(&key);
            let reply = at_once(8, |index| {
                let how = ["executed", "not-executed"][index % 2];
                let body = json!({ "as": how, "reason": "looked", "by": format!("op-{index}") });
                AdminClient::of(&gateways[index % gateways.len()]).resolve(&id, &body)
            });
            let won: Vec<usize> = (0..8).filter(|at| reply[*at].status == 200).collect();
            let lost = reply.iter().filter(|reply| reply.status == 409).count();
            assert_eq!((won.len(), lost), (1, 7), "{reply:?}");
            let shown = AdminClient::of(&gateways[0]).show(&key);
            assert_eq!(shown["history"].as_array().map(Vec::len), Some(1));
            assert_eq!(shown["history"][0]["by"], format!("op-{}", won[0]));
        }
    });
}

#[test]
fn of_many_clients_one_is_told_of_the_settlement_first() {
    Place::each(|place| {
        let backend = Backend::start();
        let setup = setup(&backend)
            .redeem("")
            .replacing(r#"duplicates.wait = "0s""#, r#"duplicates.wait = "30s""#);
        let gateways = place.start(&setup);
        backend.always(Act::reset());
        redeem("k").send(gateways[0].addr).is(502, "unknown", "outcome-unknown");
        AdminClient::of(&gateways[0]).settle("k", "executed");
        let reply = at_once(20, |at| redeem("k").send(gateways[at % gateways.len()].addr));
        let kept = reply[0].kept();
        assert!(reply.iter().all(|reply| reply.status == 200 && reply.kept() == kept), "{reply:?}");
        let count = |what: &str| reply.iter().filter(|reply| reply.disposition() == what).count();
        assert_eq!((count("recovered"), count("replayed")), (1, 19), "{reply:?}");
        assert_eq!(backend.calls(), 1);
    });
}
