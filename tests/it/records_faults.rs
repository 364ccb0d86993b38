//! Decisions while the store cannot take them, and claims of released keys that it did not confirm.

use serde_json::json;

use crate::servers::Direction;
use crate::startup::soon_full;
use crate::support::rewards::{batch, issue, rows};
use crate::support::{
    Act, AdminClient, Backend, Gate, Gateway, Kind, Request, Rewards, Setup, Shop, answer, at_once,
    eventually,
};

const BODY: &str = r#"{"qr":"rsg:1"}"#;
const SHORT: &str = "timeout = \"500ms\"\nconnect_timeout = \"500ms\"";

fn setup(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend)).redeem(r#"duplicates.wait = "200ms""#)
}

fn redeem(key: &str) -> Request {
    Request::redeem(key, BODY)
}

#[track_caller]
fn lose(key: &str, backend: &Backend, gateway: &Gateway) {
    backend.always(Act::reset());
    redeem(key).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    backend.always(Act::whole(200, &[], b"done"));
}

#[test]
fn a_full_disk_ends_the_process_and_settlements_outlive_it() {
    let backend = Backend::start();
    let setup = setup(&backend);
    setup.start().stop();
    let limit = soon_full(&setup.store_path());
    let mut gateway = setup.clone().file_size_limit(Some(limit)).start();
    lose("settled", &backend, &gateway);
    lose("lost", &backend, &gateway);
    AdminClient::of(&gateway).settle("settled", "executed");
    // The client of the failing write reads 503 or `unrecorded`; later ones may find nobody.
    let full = (0..5000).any(|n| {
        let reply = redeem(&format!("k-{n}")).try_send(gateway.addr);
        reply.map_or(true, |reply| reply.status == 503)
    });
    assert!(full, "the disk is full at last");
    assert_eq!(gateway.wait().code(), Some(1), "the process ends, so that it is restarted");
    drop(gateway);
    let gateway = setup.start();
    redeem("settled").send(gateway.addr).is(200, "recovered", "");
    redeem("settled").send(gateway.addr).is(200, "replayed", "");
    let shown = AdminClient::of(&gateway).show("lost");
    assert_eq!((&shown["state"], &shown["history"]), (&json!("unknown"), &json!([])));
    let reply = AdminClient::of(&gateway).purge(&AdminClient::of(&gateway).id("settled"));
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[test]
fn a_decision_that_the_store_did_not_confirm_is_made_once_or_not_at_all() {
    Kind::both(|kind| {
        let backend = Backend::start();
        let setup = setup(&backend);
        let shop = Shop::borrow(kind);
        let (cut, chaos) = shop.replica_behind(&setup, SHORT);
        let whole = shop.replica(&setup, "");
        let resolve = |gateway: &Gateway, id: &str, reason: &str| {
            let body = json!({ "as": "executed", "reason": reason });
            AdminClient::of(gateway).resolve(id, &body).status
        };
        let mut cuts = 0;
        for direction in [Direction::ToServer, Direction::ToClient] {
            for count in 0..6 {
                let key = format!("k-{direction:?}-{count}");
                lose(&key, &backend, &whole);
                let id = AdminClient::of(&whole).id(&key);
                chaos.cut_after_messages(direction, count);
                let first = resolve(&cut, &id, "first");
                cuts += usize::from(!chaos.cut_is_due());
                chaos.keep();
                // Asked again and found out, nearly always.
                assert!([200, 503].contains(&first), "{first}");
                let second = resolve(&whole, &id, "second");
                assert!([200, 409].contains(&second), "{second}");
                assert!(first == 503 || second == 409, "both were confirmed");
                let shown = AdminClient::of(&whole).show(&key);
                assert_eq!(shown["history"].as_array().map(Vec::len), Some(1), "{shown}");
                let stands = if second == 200 { "second" } else { "first" };
                assert_eq!(shown["history"][0]["reason"], stands);
                redeem(&key).send(whole.addr).is(200, "recovered", "");
                redeem(&key).send(whole.addr).is(200, "replayed", "");
            }
        }
        assert!(cuts > 0, "nothing was cut");
        assert!(backend.executions().values().all(|count| *count == 12));
    });
}

#[test]
fn a_purge_that_a_replica_did_not_hear_of_is_repaired_by_another() {
    let backend = Backend::start();
    let shop = Shop::pooled();
    let replicas = shop.replicas(&setup(&backend), 2);
    redeem("k").send(replicas[0].addr).is(200, "executed", "");
    redeem("k").send(replicas[0].addr).is(200, "replayed", "");
    let id = AdminClient::of(&replicas[1]).id("k");
    assert_eq!(AdminClient::of(&replicas[1]).purge(&id).status, 200);
    // The pooler delivers no messages.
    redeem("k").send(replicas[0].addr).is(200, "replayed", "");
    assert_eq!(AdminClient::of(&replicas[0]).purge(&id).status, 200);
    redeem("k").send(replicas[0].addr).is(410, "rejected", "key-expired");
    let history = AdminClient::of(&replicas[0]).show("k")["history"].as_array().map(Vec::len);
    assert_eq!(history, Some(1));
}

#[test]
fn a_claim_of_a_released_key_that_was_not_confirmed_leaves_its_history() {
    Kind::both(|kind| {
        let backend = Backend::start();
        let setup = setup(&backend);
        let shop = Shop::borrow(kind);
        let (cut, chaos) = shop.replica_behind(&setup, SHORT);
        let whole = shop.replica(&setup, "");
        lose("k", &backend, &cut);
        AdminClient::of(&whole).settle("k", "not-executed");
        // The claim is on its way when it is given up, and may arrive yet.
        chaos.freeze(true);
        redeem("k").send(cut.addr).is(503, "rejected", "store-unavailable");
        // Meanwhile another replica takes the key: the withdrawal must not take its claim away.
        let reply = redeem("k").send(whole.addr);
        reply.is(200, "executed", "");
        chaos.keep();
        eventually("it is ready by itself", || {
            (Request::get("/readyz").send(cut.admin).status == 200).then_some(())
        });
        for gateway in [&cut, &whole] {
            let again = redeem("k").send(gateway.addr);
            assert_eq!(again.is(200, "replayed", "").kept(), reply.kept());
        }
        // And once more without anybody else.
        lose("alone", &backend, &whole);
        AdminClient::of(&whole).settle("alone", "not-executed");
        chaos.freeze(true);
        redeem("alone").send(cut.addr).is(503, "rejected", "store-unavailable");
        chaos.keep();
        let calls = backend.calls();
        eventually("the key is free", || {
            (redeem("alone").send(whole.addr).disposition() == "executed").then_some(())
        });
        assert_eq!(backend.calls(), calls + 1);
        let shown = AdminClient::of(&whole).show("alone");
        assert_eq!(shown["history"][0]["what"], "not-executed", "{shown}");
        assert_eq!(shop.in_flight(), 0);
    });
}

#[test]
fn a_filter_that_matches_little_gives_short_pages_and_goes_on() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    // The oldest record is the only one of its route.
    Request::new("POST", "/optional")
        .key("first")
        .json(BODY)
        .send(gateway.addr)
        .is(200, "executed", "");
    at_once(8, |at| {
        for n in 0..600 {
            let key = format!("k-{at}-{n}");
            redeem(&key).send(gateway.addr).is(200, "executed", "");
        }
    });
    let admin = AdminClient::of(&gateway);
    let (mut found, mut pages, mut cursor) = (0, 0, String::new());
    loop {
        let (records, next) = admin.list(&format!("route=optional&cursor={cursor}"));
        (found, pages) = (found + records.len(), pages + 1);
        match next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert_eq!(found, 1);
    assert!(pages > 1, "4800 records were read for one answer");
}

#[test]
fn an_outcome_that_waits_for_the_store_is_recorded_beside_a_decision() {
    Kind::both(|kind| {
        let (rewards, gate) = (Rewards::start(), Gate::default());
        let held = gate.clone();
        rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&held));
        let setup = AdminClient::guard(rewards.setup(""));
        let shop = Shop::borrow(kind);
        let (owner, chaos) = shop.replica_behind(&setup, "lease = \"2s\"");
        let other = shop.replica(&setup, "lease = \"2s\"");
        let story = issue(&batch("+65", &[("a", "R1", 2), ("b", "R2", 2)]));
        let mut call = story.begin(owner.addr);
        rewards.backend.wait_calls(1);
        chaos.refuse(true);
        chaos.cut_all();
        gate.open();
        call.read().is(200, "unrecorded", "");
        let admin = AdminClient::of(&other);
        // The owner is taken for dead: what it sent is unknown.
        for key in ["a", "b"] {
            eventually("it is unknown", || (admin.show(key)["state"] == "unknown").then_some(()));
        }
        admin.settle("a", "not-executed");
        chaos.keep();
        eventually("the owner records what it knows of the other", || {
            (admin.show("b")["state"] == "complete").then_some(())
        });
        assert_eq!(admin.show("a")["state"], "none");
        let reply = story.send(other.addr);
        assert_eq!(rows(&reply), "a:2/2 200, b:2/2 200 = 200");
        assert_eq!(rewards.sent(), ["R1x2,R2x2", "R1x2"]);
        assert_eq!(shop.in_flight(), 0);
    });
}
