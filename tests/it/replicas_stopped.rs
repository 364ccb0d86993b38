//! A replica that dies or stands still while its call is in flight: others never run it again, and
//! what it still learns is the truth if nobody has decided.

use crate::support::{
    Backend, Conn, Gate, Gateway, Kind, Request, Response, Setup, Shop, answer, eventually,
};

const BODY: &str = r#"{"qr":"rsg:1"}"#;
const SHORT: &str = "lease = \"2s\"";

fn redeem() -> Request {
    Request::redeem("k", BODY)
}

/// A backend whose first call waits for the gate, and a gateway's configuration.
fn held(gate: &Gate) -> (Backend, Setup) {
    let backend = Backend::start();
    let gate = gate.clone();
    backend.script(move |seen| {
        let act = answer(200, &format!(r#"{{"execution":{}}}"#, seen.number));
        if seen.number == 0 { act.after(&gate) } else { act }
    });
    let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "200ms""#);
    (backend, setup)
}

/// Asks until the call counts as lost; until then it is in progress.
#[track_caller]
fn until_unknown(replica: &Gateway) {
    eventually("the call of the dead counts as lost", || {
        let reply = redeem().send(replica.addr);
        match reply.disposition().as_str() {
            "unknown" => Some(reply.is(409, "unknown", "outcome-unknown").clone()),
            _ => {
                reply.is(409, "in-progress", "request-in-progress");
                None
            }
        }
    });
}

/// The true answer; it may be told before the store has it.
#[track_caller]
fn settled(call: &mut Conn) -> Response {
    let reply = call.read();
    let said = reply.disposition();
    assert!(reply.status == 200 && ["executed", "unrecorded"].contains(&&*said), "{reply:?}");
    reply.kept()
}

#[track_caller]
fn replays(replica: &Gateway, kept: &Response) {
    let reply = eventually("it is recorded", || {
        let reply = redeem().send(replica.addr);
        (reply.disposition() == "replayed").then_some(reply)
    });
    assert_eq!(&reply.kept(), kept);
}

#[test]
fn a_call_of_a_killed_replica_becomes_unknown_and_never_runs_again() {
    Kind::all(|kind| {
        let gate = Gate::default();
        let (backend, setup) = held(&gate);
        let shop = Shop::borrow(kind);
        let (mut owner, other) = (shop.replica(&setup, SHORT), shop.replica(&setup, SHORT));
        let call = redeem().begin(owner.addr);
        backend.wait_calls(1);
        redeem().send(other.addr).is(409, "in-progress", "request-in-progress");
        owner.kill9();
        drop(call);
        until_unknown(&other);
        let owner = owner.setup().clone().start();
        gate.open();
        for replica in [&owner, &other] {
            redeem().send(replica.addr).is(409, "unknown", "outcome-unknown");
        }
        assert_eq!((backend.calls(), shop.in_flight()), (1, 0));
    });
}

#[test]
fn a_restart_of_the_killed_replica_before_its_lease_ends_changes_nothing() {
    Kind::both(|kind| {
        let gate = Gate::default();
        let (backend, setup) = held(&gate);
        let shop = Shop::borrow(kind);
        let (mut owner, other) = (shop.replica(&setup, SHORT), shop.replica(&setup, SHORT));
        let call = redeem().begin(owner.addr);
        backend.wait_calls(1);
        owner.kill9();
        drop(call);
        let owner = owner.setup().clone().start();
        until_unknown(&owner);
        until_unknown(&other);
        assert_eq!(backend.calls(), 1);
    });
}

#[test]
fn a_replica_that_leaves_in_order_lets_go_of_its_calls_before_its_lease_ends() {
    Kind::both(|kind| {
        let gate = Gate::default();
        let (backend, setup) = held(&gate);
        let shop = Shop::borrow(kind);
        // So long that nobody would notice its death within the patience of this test.
        let lease = "lease = \"100s\"";
        let mut owner = shop.replica(&setup.clone().server("drain = \"100ms\""), lease);
        let other = shop.replica(&setup, SHORT);
        let call = redeem().begin(owner.addr);
        backend.wait_calls(1);
        owner.sigterm();
        owner.wait();
        drop(call);
        until_unknown(&other);
        assert_eq!(backend.calls(), 1);
    });
}

#[test]
fn a_replica_that_stood_still_between_claim_and_dispatch_sends_nothing() {
    Kind::all(|kind| {
        let backend = Backend::start();
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "200ms""#);
        let shop = Shop::borrow(kind);
        let stops = setup.clone().env("ONCEGATE_PAUSE_AT", "after-claim:1");
        let (owner, other) = (shop.replica(&stops, SHORT), shop.replica(&setup, SHORT));
        let mut call = redeem().begin(owner.addr);
        owner.wait_paused();
        until_unknown(&other);
        owner.resume();
        call.read().is(503, "rejected", "store-unavailable");
        assert_eq!(backend.calls(), 0, "sent after its lease had ended");
        // It knows that nothing was sent, so the key is free.
        redeem().send(other.addr).is(200, "executed", "");
        eventually("it lives again", || {
            let reply = redeem().send(owner.addr);
            (reply.disposition() == "replayed").then_some(())
        });
        assert_eq!((backend.calls(), shop.in_flight()), (1, 0));
    });
}

#[test]
fn the_true_answer_of_a_replica_that_stood_still_settles_its_call() {
    Kind::all(|kind| {
        let gate = Gate::default();
        let (backend, setup) = held(&gate);
        let shop = Shop::borrow(kind);
        let (owner, other) = (shop.replica(&setup, SHORT), shop.replica(&setup, SHORT));
        let mut call = redeem().begin(owner.addr);
        backend.wait_calls(1);
        owner.pause();
        until_unknown(&other);
        gate.open();
        owner.resume();
        let reply = settled(&mut call);
        replays(&other, &reply);
        replays(&owner, &reply);
        assert_eq!((backend.calls(), shop.in_flight()), (1, 0));
    });
}

#[test]
fn a_replica_that_stood_still_after_the_answer_records_it_all_the_same() {
    Kind::both(|kind| {
        let backend = Backend::start();
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "200ms""#);
        let shop = Shop::borrow(kind);
        let stops = setup.clone().env("ONCEGATE_PAUSE_AT", "after-answer:1");
        let (owner, other) = (shop.replica(&stops, SHORT), shop.replica(&setup, SHORT));
        let mut call = redeem().begin(owner.addr);
        owner.wait_paused();
        until_unknown(&other);
        owner.resume();
        replays(&other, &settled(&mut call));
        assert_eq!(backend.calls(), 1);
    });
}

#[test]
fn a_replica_that_stood_still_does_not_write_over_what_was_decided_meanwhile() {
    Kind::both(|kind| {
        let gate = Gate::default();
        let (backend, setup) = held(&gate);
        let shop = Shop::borrow(kind);
        let (owner, other) = (shop.replica(&setup, SHORT), shop.replica(&setup, SHORT));
        let mut call = redeem().begin(owner.addr);
        backend.wait_calls(1);
        owner.pause();
        until_unknown(&other);
        // An operator says that nothing ran; so the key is used again.
        shop.forget_records();
        let decided = redeem().send(other.addr);
        decided.is(200, "executed", "");
        gate.open();
        owner.resume();
        assert_eq!(call.read().kept(), decided.kept(), "told what stands");
        replays(&owner, &decided.kept());
        replays(&other, &decided.kept());
        assert_eq!((backend.calls(), shop.in_flight()), (2, 0));
    });
}

#[test]
fn a_replica_that_stood_still_does_not_bring_back_what_was_removed_meanwhile() {
    Kind::both(|kind| {
        let gate = Gate::default();
        let (backend, setup) = held(&gate);
        let shop = Shop::borrow(kind);
        let (owner, other) = (shop.replica(&setup, SHORT), shop.replica(&setup, SHORT));
        let mut call = redeem().begin(owner.addr);
        backend.wait_calls(1);
        owner.pause();
        until_unknown(&other);
        shop.forget_records();
        gate.open();
        owner.resume();
        let reply = call.read();
        assert_eq!(reply.disposition(), "unknown", "{reply:?}");
        redeem().send(other.addr).is(200, "executed", "");
        assert_eq!((backend.calls(), shop.in_flight()), (2, 0));
    });
}
