//! An operator's decisions about requests: unknown outcomes settled either way, answers purged.

use serde_json::{Value, json};

use crate::support::admin::Place;
use crate::support::{
    Act, AdminClient, Backend, Conn, Gate, Gateway, Request, Setup, answer, eventually,
};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn setup(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend)).redeem(r#"duplicates.wait = "0s""#)
}

fn redeem(key: &str) -> Request {
    Request::redeem(key, BODY)
}

fn honest(backend: &Backend) {
    backend.script(|seen| answer(200, &format!(r#"{{"execution":{}}}"#, seen.number)));
}

/// A key whose outcome is unknown, because the backend's answer was lost.
#[track_caller]
fn lose(key: &str, backend: &Backend, gateway: &Gateway) {
    backend.always(Act::reset());
    redeem(key).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    honest(backend);
}

#[track_caller]
fn conflict(reply: &crate::support::Response, code: &str) {
    assert_eq!((reply.status, reply.json()["code"].as_str()), (409, Some(code)), "{reply:?}");
    assert_eq!(reply.header("content-type").as_deref(), Some("application/problem+json"));
}

#[test]
fn what_was_executed_is_recovered_once_and_then_replayed_for_ever() {
    Place::each(|place| {
        let backend = Backend::start();
        let gateways = place.start(&setup(&backend));
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        lose("k", &backend, first);
        redeem("k").send(last.addr).is(409, "unknown", "outcome-unknown");
        let admin = AdminClient::of(last);
        let reply = admin.resolve(
            &admin.id("k"),
            &json!({
                "as": "executed",
                "reason": "voucher 1 is in the books",
                "by": "ann",
                "response": {
                    "status": 201,
                    "headers": { "x-shop": ["a", "b"] },
                    "body": "{\"redeemed\": true}",
                },
            }),
        );
        assert_eq!(reply.status, 200, "{reply:?}");
        let shown = reply.json();
        assert_eq!((&shown["state"], &shown["status"]), (&json!("final"), &json!(201)));
        assert_eq!(shown["history"][0]["by"], "ann");
        assert_eq!(shown["history"][0]["reason"], "voucher 1 is in the books");
        assert_eq!(shown["history"][0]["what"], "executed");

        let recovered = redeem("k").send(first.addr);
        recovered.is(201, "recovered", "");
        assert_eq!(recovered.text(), r#"{"redeemed": true}"#);
        assert_eq!(recovered.all("x-shop"), ["a", "b"]);
        assert_eq!(recovered.header("content-type").as_deref(), Some("application/json"));
        assert!(recovered.header("idempotency-expires").is_some());
        assert_eq!(recovered.header("idempotency-replayed"), None);
        for gateway in gateways.iter().chain(&gateways) {
            let replayed = redeem("k").send(gateway.addr);
            replayed.is(201, "replayed", "");
            assert_eq!(replayed.kept(), recovered.kept());
        }
        Request::redeem("k", "{}").send(last.addr).is(422, "rejected", "key-reused");
        assert_eq!(backend.calls(), 1);
    });
}

#[test]
fn without_a_response_the_client_reads_that_an_operator_has_confirmed_it() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    lose("k", &backend, &gateway);
    AdminClient::of(&gateway).settle("k", "executed");
    let reply = redeem("k").send(gateway.addr);
    reply.is(200, "recovered", "");
    let body = reply.json();
    assert_eq!(body["status"], "executed");
    assert!(body["message"].as_str().unwrap().contains("an operator has confirmed"), "{body}");
    assert!(!reply.text().contains("looked"), "what operators write is theirs");
    redeem("k").send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn what_was_not_executed_runs_again_also_with_another_body() {
    Place::each(|place| {
        let backend = Backend::start();
        let gateways = place.start(&setup(&backend));
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        lose("k", &backend, first);
        let status =
            || Request::get("/.well-known/idempotency/status").key("k").send(last.addr).status;
        assert_eq!(status(), 200);
        let shown = AdminClient::of(first).settle("k", "not-executed");
        assert_eq!((&shown["state"], &shown["attempts"]), (&json!("released"), &json!(1)));
        assert_eq!(status(), 404, "for clients it is not there");
        // Whoever still looks at the first attempt does not decide about a later one.
        lose("late", &backend, first);
        AdminClient::of(first).settle("late", "not-executed");
        lose("late", &backend, last);
        let about = |attempt: u32| {
            let body = json!({ "as": "executed", "reason": "looked", "attempt": attempt });
            AdminClient::of(last).resolve(&AdminClient::of(last).id("late"), &body)
        };
        let refused = about(1);
        conflict(&refused, "changed");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("attempt 2 is the current one"), "{detail}");
        assert_eq!(about(2).status, 200);
        let calls = backend.calls();
        // What the backend says it did not execute leaves the history where it was.
        backend.always(answer(429, "{}"));
        Request::redeem("k", r#"{"qr":"rsg:2"}"#).send(last.addr).is(429, "not-executed", "");
        let shown = AdminClient::of(last).show("k");
        assert_eq!((&shown["state"], &shown["attempts"]), (&json!("released"), &json!(2)));
        honest(&backend);
        let other = Request::redeem("k", r#"{"qr":"rsg:3"}"#);
        let reply = other.send(last.addr);
        reply.is(200, "executed", "");
        assert_eq!(other.send(first.addr).is(200, "replayed", "").kept(), reply.kept());
        redeem("k").send(first.addr).is(422, "rejected", "key-reused");
        let shown = AdminClient::of(first).show("k");
        assert_eq!((&shown["state"], &shown["attempts"]), (&json!("final"), &json!(3)));
        assert_eq!(shown["history"][0]["what"], "not-executed");
        assert_eq!(shown["history"][0]["attempt"], 1);
        assert_eq!(backend.calls(), calls + 2);
    });
}

#[test]
fn only_what_is_unknown_is_settled() {
    Place::each(|place| {
        let (backend, gate) = (Backend::start(), Gate::default());
        let gateways = place.start(&setup(&backend));
        let (gateway, admin) = (&gateways[0], AdminClient::of(&gateways[gateways.len() - 1]));
        let executed = json!({ "as": "executed", "reason": "looked" });
        redeem("final").send(gateway.addr).is(200, "executed", "");
        conflict(&admin.resolve(&admin.id("final"), &executed), "not-unknown");
        backend.always(answer(200, "{}").after(&gate));
        let mut call = redeem("flying").begin(gateway.addr);
        backend.wait_calls(2);
        conflict(&admin.resolve(&admin.id("flying"), &executed), "in-flight");
        conflict(&admin.purge(&admin.id("flying")), "in-flight");
        gate.open();
        call.read().is(200, "executed", "");
        for id in ["0".repeat(32), "f".repeat(32)] {
            for reply in [admin.resolve(&id, &executed), admin.purge(&id)] {
                assert_eq!(
                    (reply.status, &reply.json()["code"]),
                    (404, &json!("record-not-found"))
                );
            }
        }
        lose("lost", &backend, gateway);
        conflict(&admin.purge(&admin.id("lost")), "unknown");
        admin.settle("lost", "not-executed");
        conflict(&admin.resolve(&admin.id("lost"), &executed), "not-unknown");
        conflict(&admin.purge(&admin.id("lost")), "no-answer");
    });
}

#[test]
fn a_purged_answer_is_gone_on_every_replica_and_its_key_does_not_run() {
    Place::each(|place| {
        let backend = Backend::start();
        let gateways = place.start(&setup(&backend));
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        redeem("k").send(first.addr).is(200, "executed", "");
        // In the memory of each.
        for gateway in gateways.iter().chain(&gateways) {
            redeem("k").send(gateway.addr).is(200, "replayed", "");
        }
        let admin = AdminClient::of(last);
        let id = admin.id("k");
        let reply = admin.purge(&id);
        assert_eq!((reply.status, &reply.json()["state"]), (200, &json!("tombstone")), "{reply:?}");
        redeem("k").send(last.addr).is(410, "rejected", "key-expired");
        eventually("the other replica hears of it", || {
            (redeem("k").send(first.addr).status == 410).then_some(())
        });
        Request::redeem("k", "{}").send(first.addr).is(422, "rejected", "key-reused");
        let shown = AdminClient::of(first).show("k");
        assert_eq!((&shown["status"], &shown["response"]), (&json!(200), &Value::Null));
        assert_eq!(shown["history"][0]["by"], "bob");
        // Once more changes nothing.
        let again = admin.purge(&id).json();
        assert_eq!(again["history"].as_array().map(Vec::len), Some(1));
        assert_eq!(backend.calls(), 1);
    });
}

#[test]
fn a_decision_is_carried_to_its_end_when_the_operator_is_gone() {
    Place::each(|place| {
        let backend = Backend::start();
        honest(&backend);
        let gateways = place.start(&setup(&backend));
        let gateway = &gateways[gateways.len() - 1];
        let admin = AdminClient::of(gateway);
        let logged = |id: &str| {
            eventually("the decision is logged", || {
                let log = gateway.stderr();
                let mut lines = log.lines().filter(|line| line.contains("decision recorded"));
                lines.any(|line| line.contains(id)).then_some(())
            });
        };
        let gone = |key: &str| {
            eventually("the purged answer is gone from memory as well", || {
                (redeem(key).send(gateway.addr).status == 410).then_some(())
            });
        };
        let begin = |key: &str| {
            redeem(key).send(gateway.addr).is(200, "executed", "");
            redeem(key).send(gateway.addr).is(200, "replayed", "");
            let id = admin.id(key);
            let purge = AdminClient::request("DELETE", &format!("/api/records/{id}"));
            (purge.begin(gateway.admin), id)
        };
        for round in 0..10 {
            let key = format!("closed-{round}");
            let (conn, id) = begin(&key);
            drop(conn);
            gone(&key);
            logged(&id);
            // A reset may take the request back; what was decided is decided for everybody.
            let key = format!("reset-{round}");
            let (conn, id) = begin(&key);
            conn.reset();
            if admin.show(&key)["state"] == "tombstone" {
                gone(&key);
                logged(&id);
            }
            let key = format!("settled-{round}");
            lose(&key, &backend, gateway);
            let id = admin.id(&key);
            let resolve = AdminClient::request("POST", &format!("/api/records/{id}/resolve"));
            let body = r#"{"as":"not-executed","reason":"looked"}"#;
            drop(resolve.json(body).begin(gateway.admin));
            eventually("the released key runs again", || {
                (redeem(&key).send(gateway.addr).disposition() == "executed").then_some(())
            });
            logged(&id);
        }
    });
}

#[test]
fn a_purge_does_not_shorten_the_time_for_which_a_key_is_kept() {
    let backend = Backend::start();
    // The profile keeps no tombstones: a purge must not free the key sooner than a day.
    let gateway = setup(&backend).redeem("profile = \"redeemsg\"").start();
    redeem("k").send(gateway.addr).is(200, "executed", "");
    let admin = AdminClient::of(&gateway);
    let before = admin.show("k");
    let purged = admin.purge(&admin.id("k")).json();
    assert_eq!(purged["expires"], before["expires"]);
    redeem("k").send(gateway.addr).is(410, "rejected", "key-expired");
}

#[test]
fn decisions_survive_a_kill_and_so_does_that_nobody_was_told() {
    for how in ["executed", "not-executed"] {
        let backend = Backend::start();
        let gateway = setup(&backend).start();
        lose("k", &backend, &gateway);
        AdminClient::of(&gateway).settle("k", how);
        let gateway = gateway.killed_and_restarted();
        let shown = AdminClient::of(&gateway).show("k");
        assert_eq!(shown["history"][0]["what"], how);
        let gateway = gateway.restarted();
        assert_eq!(AdminClient::of(&gateway).show("k"), shown);
        let reply = redeem("k").send(gateway.addr);
        let expected = if how == "executed" { "recovered" } else { "executed" };
        reply.is(200, expected, "");
        let gateway = gateway.killed_and_restarted();
        let again = redeem("k").send(gateway.addr);
        again.is(200, "replayed", "");
        assert_eq!(again.kept(), reply.kept());
        assert_eq!(AdminClient::of(&gateway).show("k")["history"], shown["history"]);
    }
}

#[test]
fn a_decision_is_logged_without_key_body_or_token() {
    let backend = Backend::start();
    let mut gateway = setup(&backend).start();
    lose("the-key", &backend, &gateway);
    let admin = AdminClient::of(&gateway);
    let id = admin.id("the-key");
    let body = json!({
        "as": "executed", "reason": "the-reason", "by": "ann", "response": { "status": 200, "body": "the-body" },
    });
    assert_eq!(admin.resolve(&id, &body).status, 200);
    assert_eq!(admin.purge(&id).status, 200);
    gateway.stop();
    let log = gateway.stderr();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("decision recorded")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    for (line, (what, by)) in lines.iter().zip([("executed", "ann"), ("purged", "bob")]) {
        assert!(line.contains(&id) && line.contains(what) && line.contains(by), "{line}");
    }
    for secret in ["the-key", "the-reason", "the-body", "rsg:1", crate::support::TOKEN] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[test]
fn operators_who_take_nothing_lose_their_places() {
    /// As many as the listener has.
    const PLACES: usize = 64;
    let backend = Backend::start();
    let gateway = setup(&backend).redeem("record.max_stored_body = \"2MiB\"").start();
    backend.always(answer(200, &"x".repeat(1 << 20)));
    redeem("k").send(gateway.addr).is(200, "executed", "");
    let id = AdminClient::of(&gateway).id("k");
    let idle = gateway.descriptors();
    // More than the system buffers for a connection.
    let asked = AdminClient::request("GET", &format!("/api/records/{id}")).bytes().repeat(8);
    let conns: Vec<Conn> = (0..PLACES)
        .map(|_| {
            let mut conn = Conn::open(gateway.admin);
            conn.write(&asked);
            conn
        })
        .collect();
    // A probe takes the place of the oldest at once, and in time all the others lose theirs.
    let health = Request::get("/healthz").send(gateway.admin);
    assert_eq!(health.status, 200, "{health:?}");
    eventually("their connections have ended", || {
        (gateway.descriptors() <= idle + 2).then_some(())
    });
    drop(conns);
}

#[test]
fn bodies_that_do_not_arrive_hold_up_nobody() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    lose("k", &backend, &gateway);
    let admin = AdminClient::of(&gateway);
    let target = format!("/api/records/{}/resolve", admin.id("k"));
    let slow = AdminClient::request("POST", &target).header("content-type", "application/json");
    let slow = slow.header("content-length", "100").header("expect", "100-continue");
    // More than are worked on at once. Each is let in to send its body, and does not.
    let mut conns: Vec<Conn> = (0..8).map(|_| slow.begin(gateway.admin)).collect();
    for conn in &mut conns {
        assert_eq!(conn.try_read_head().unwrap().0, 100);
    }
    admin.settle("k", "executed");
    for conn in &mut conns {
        let still = !conn.readable_within(std::time::Duration::from_millis(1));
        assert!(still, "the others were waited for");
    }
}
