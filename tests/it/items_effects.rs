//! Unknown items that settle by an effect on the backend: sent again with the batch, or undone.

use std::sync::Mutex;

use serde_json::{Value, json};

use crate::support::admin::{Place, steps};
use crate::support::{
    Act, AdminClient, Backend, Gate, Gateway, Request, Response, Setup, answer, eventually,
};

/// A batch API with the lines of a policy.
fn setup(backend: &Backend, policy: &str) -> Setup {
    AdminClient::guard(Setup::before(backend)).route(&format!(
        "name = \"batch\"\nmethods = [\"POST\"]\npath = \"/batch\"\nmode = \"items\"\n{policy}\n\
         [route.items]\nat = \"/list\"\nid = \"/id\"\nquantity = \"/units\"\n\
         [route.items.response]\nmatch = [\"id:/id\"]\nissued = {{ count = \"/units\" }}\n\
         retry = {{ pointer = \"/code\", one_of = [\"none\", \"twice\"] }}"
    ))
}

const RESEND: &str = "outcome.on_unknown = \"resend\"\n\
     resend = { within = \"1h\", attempts = 2, mark = { body = { \"/again\" = true } } }\n\
     already_done = { pointer = \"/code\", equals = \"twice\", then = \"succeed\" }";

const REVERSE: &str = "outcome.on_unknown = \"reverse\"\n\
     reverse = { path = \"/void/{key}?of={body:/customer}\", every = \"50ms\", \
     done = { status = \"2xx\" }, nothing = { status = 404 } }";

fn send(gateway: &Gateway, items: &[(&str, u64)]) -> Response {
    let list: Vec<Value> =
        items.iter().map(|(id, units)| json!({ "id": id, "units": units })).collect();
    let body = json!({ "customer": "7", "list": list }).to_string();
    Request::new("POST", "/batch").json(&body).send(gateway.addr)
}

fn rows(rows: &Value) -> Act {
    answer(200, &json!({ "list": rows }).to_string())
}

/// The items that the last batch carried.
fn sent(backend: &Backend) -> Value {
    let mut batches = backend.seen().into_iter().filter(|seen| seen.target() == "/batch");
    let last = batches.next_back().expect("a batch");
    serde_json::from_slice::<Value>(&last.body).unwrap()["list"].clone()
}

fn item(gateway: &Gateway, key: &str) -> Value {
    AdminClient::of(gateway).show(key)["item"].clone()
}

#[test]
fn unknown_items_are_sent_again_marked_beside_new_ones() {
    Place::each(|place| {
        let backend = Backend::start();
        backend.always(Act::reset());
        let gateways = place.start(&setup(&backend, RESEND));
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        let lost = send(first, &[("a", 2), ("b", 1)]);
        lost.is(502, "unknown", "outcome-unknown");
        assert_eq!(lost.header("retry-after").as_deref(), Some("1"));
        assert_eq!(sent(&backend), json!([{ "id": "a", "units": 2 }, { "id": "b", "units": 1 }]));
        backend.script(|seen| {
            let body: Value = serde_json::from_slice(&seen.body).unwrap();
            let row = |item: &Value| match item["id"].as_str() {
                Some("b") => json!({ "id": "b", "units": 0, "code": "twice" }),
                _ => json!({ "id": item["id"], "units": item["units"] }),
            };
            rows(&body["list"].as_array().unwrap().iter().map(row).collect())
        });
        // The clock of another replica may be a little behind that of the first: then it sends only
        // the new item, and says when to come back.
        let reply = eventually("the items are sent again", || {
            let reply = send(last, &[("a", 2), ("b", 1), ("c", 1)]);
            (reply.status == 200).then_some(reply)
        });
        let units: Vec<_> = reply.json()["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["units"].clone())
            .collect();
        assert_eq!(units, [json!(2), json!(1), json!(1)], "{reply:?}");
        assert!(
            !reply.text().contains("twice"),
            "an issued item has no row of a refusal: {reply:?}"
        );
        let later = backend.seen().into_iter().skip(1).flat_map(|seen| {
            let body: Value = serde_json::from_slice(&seen.body).unwrap();
            body["list"].as_array().unwrap().clone()
        });
        let mut later: Vec<Value> = later.collect();
        later.sort_by_key(|item| item["id"].to_string());
        let again = [
            json!({ "id": "a", "units": 2, "again": true }),
            json!({ "id": "b", "units": 1, "again": true }),
            json!({ "id": "c", "units": 1 }),
        ];
        assert_eq!(later, again, "each once more, and only the repeated ones marked");
        let calls = backend.calls();
        eventually("the outcome is recorded", || {
            let reply = send(first, &[("a", 2), ("b", 1), ("c", 1)]);
            (reply.disposition() == "replayed").then_some(())
        });
        assert_eq!(backend.calls(), calls);
        let shown = AdminClient::of(first).show("a");
        assert_eq!(steps(&shown), ["resend", "executed"], "{shown}");
        assert_eq!(shown["attempts"], 2, "{shown}");
    });
}

#[test]
fn an_answer_to_a_repetition_without_all_its_units_says_nothing_of_the_first_try() {
    let backend = Backend::start();
    backend.always(Act::reset());
    let gateway = setup(&backend, RESEND).start();
    send(&gateway, &[("a", 2), ("b", 1)]).is(502, "unknown", "outcome-unknown");
    backend.always(rows(&json!([
        { "id": "a", "units": 1 }, { "id": "b", "units": 0, "code": "none" },
        { "id": "c", "units": 1 },
    ])));
    let reply = send(&gateway, &[("a", 2), ("b", 1), ("c", 1)]);
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(reply.header("retry-after").as_deref(), Some("1"), "one repetition is left");
    for (key, unknown, fulfilled) in [("a", 2, 0), ("b", 1, 0), ("c", 0, 1)] {
        let shown = item(&gateway, key);
        assert_eq!((&shown["unknown"], &shown["fulfilled"]), (&json!(unknown), &json!(fulfilled)));
    }
    backend.always(answer(503, "{}"));
    assert_eq!(send(&gateway, &[("a", 2), ("b", 1), ("c", 1)]).disposition(), "unknown");
    assert_eq!(backend.calls(), 3);
    let reply = send(&gateway, &[("a", 2), ("b", 1), ("c", 1)]);
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(reply.header("retry-after"), None, "nothing more is tried");
    gateway.logs(&["WARN", "gave_up"]);
    assert_eq!(backend.calls(), 3, "the batch and two repetitions");
}

#[test]
fn a_late_true_answer_settles_items_that_are_sent_again() {
    let backend = Backend::start();
    let (first, second) = (Gate::default(), Gate::default());
    let gates = Mutex::new(vec![second.clone(), first.clone()]);
    backend.script(move |_| {
        let gate = gates.lock().unwrap().pop().expect("two calls");
        rows(&json!([{ "id": "a", "units": 2 }])).after(&gate)
    });
    let gateway = setup(&backend, RESEND).upstream("timeout = \"6s\"").start();
    send(&gateway, &[("a", 2)]).is(504, "unknown", "outcome-unknown");
    let body = json!({ "customer": "7", "list": [{ "id": "a", "units": 2 }] }).to_string();
    let mut retry = Request::new("POST", "/batch").json(&body).begin(gateway.addr);
    backend.wait_calls(2);
    first.open();
    eventually("the item is issued", || (item(&gateway, "a")["fulfilled"] == 2).then_some(()));
    second.open();
    let reply = retry.read();
    assert_eq!(reply.json()["list"][0]["units"], 2, "{reply:?}");
    let shown = item(&gateway, "a");
    assert_eq!((&shown["fulfilled"], &shown["unknown"]), (&json!(2), &json!(0)));
}

#[test]
fn lost_items_are_undone_each_on_its_own_and_sent_again() {
    Place::each(|place| {
        let backend = Backend::start();
        backend.script(|seen| match seen.target() {
            "/batch" => Act::reset(),
            "/void/a?of=7" => answer(200, "{}"),
            _ => answer(404, "{}"),
        });
        let setup = setup(&backend, REVERSE).upstream("timeout = \"500ms\"");
        let gateways = place.start(&setup);
        let reply = send(&gateways[0], &[("a", 2), ("b", 1)]);
        assert_eq!(reply.disposition(), "unknown", "{reply:?}");
        for key in ["a", "b"] {
            eventually("the item is undone", || {
                (item(&gateways[0], key)["unknown"] == 0).then_some(())
            });
            let shown = AdminClient::of(&gateways[0]).show(key);
            assert_eq!(steps(&shown), ["reversal", "not-executed"], "{shown}");
        }
        let issued = rows(&json!([{ "id": "a", "units": 2 }, { "id": "b", "units": 1 }]));
        backend.script(move |_| issued.clone());
        let reply = send(&gateways[gateways.len() - 1], &[("a", 2), ("b", 1)]);
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(backend.calls_to("/batch"), 2);
    });
}

#[test]
fn an_item_that_was_issued_in_part_is_not_undone() {
    let backend = Backend::start();
    backend.always(rows(
        &json!([{ "id": "a", "units": 1 }, { "id": "b", "units": 0, "code": "none" }]),
    ));
    let setup = setup(&backend, &REVERSE.replace("every", "then = \"fail\", every"));
    let gateway = setup.upstream("timeout = \"500ms\"").start();
    send(&gateway, &[("a", 2), ("b", 1)]).is(200, "executed", "");
    backend.script(|seen| match seen.target() {
        "/batch" => Act::reset(),
        _ => answer(200, "{}"),
    });
    assert_eq!(send(&gateway, &[("a", 2), ("b", 1)]).disposition(), "unknown");
    eventually("the other is undone", || (item(&gateway, "b")["unknown"] == 0).then_some(()));
    gateway.logs(&["WARN", "gave_up"]);
    assert_eq!(item(&gateway, "a")["unknown"], 1);
    assert_eq!(backend.calls_to("/void/a?of=7"), 0, "that would undo the issued unit as well");
    // With `fail` an undone item is closed: no more units of it are sent.
    let reply = send(&gateway, &[("b", 1)]);
    reply.is(200, "replayed", "");
    assert_eq!(reply.json()["list"][0]["units"], 0);
    assert_eq!(backend.calls_to("/batch"), 2);
}

#[test]
fn a_late_row_after_a_decision_is_kept_as_a_contradiction() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let late = gate.clone();
    backend.script(move |_| {
        let issued = json!([{ "id": "a", "units": 2 }, { "id": "b", "units": 1 }]);
        rows(&issued).after(&late)
    });
    let gateway = setup(&backend, "").upstream("timeout = \"6s\"").start();
    send(&gateway, &[("a", 2), ("b", 1)]).is(504, "unknown", "outcome-unknown");
    let (admin, reason) = (AdminClient::of(&gateway), json!("looked"));
    let one = json!({ "as": "executed", "units": 1, "reason": reason });
    assert_eq!(admin.resolve(&admin.id("a"), &one).status, 200);
    assert_eq!(
        admin.resolve(&admin.id("b"), &json!({ "as": "executed", "reason": reason })).status,
        200
    );
    gate.open();
    for (key, fulfilled) in [("a", 1), ("b", 1)] {
        eventually("the late row is kept", || {
            steps(&admin.show(key)).contains(&"contradiction".to_owned()).then_some(())
        });
        assert_eq!(item(&gateway, key)["fulfilled"], fulfilled, "the decision stands");
    }
    // The row of `b` agrees with the decision.
    let series = "oncegate_alarms_total{route=\"batch\",reason=\"contradiction\"}";
    assert_eq!(gateway.metric(series), Some(1));
}
