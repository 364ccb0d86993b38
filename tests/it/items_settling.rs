//! Unknown items that settle themselves by asking the backend, each on its own.

use serde_json::{Value, json};

use crate::support::{
    Act, AdminClient, Backend, Gateway, Request, Response, Setup, answer, eventually,
};

/// A batch API whose issued units can be listed, with `absent` and without.
fn setup(backend: &Backend, absent: &str) -> Setup {
    AdminClient::guard(Setup::before(backend)).upstream("timeout = \"300ms\"").route(&format!(
        "name = \"batch\"\nmethods = [\"POST\"]\npath = \"/batch\"\nmode = \"items\"\n\
         outcome.on_unknown = \"probe\"\n\
         [route.probe]\npath = \"/issued?since={{dispatched_at-2m|unix}}\"\nmin_age = \"0s\"\n\
         every = \"50ms\"\nrows = \"/data\"\n\
         match = {{ \"/item\" = \"{{/id}}\", \"/customer\" = \"{{body:/customer}}\" }}\n\
         executed = {{ pointer = \"/code\", present = true }}\n{absent}\n\
         [route.items]\nat = \"/list\"\nid = \"/id\"\nquantity = \"/units\"\n\
         [route.items.response]\nmatch = [\"id:/id\"]\nissued = {{ count = \"/units\" }}"
    ))
}

const ABSENT: &str = "absent = { after = \"10ms\", sightings = 2, look_back = \"1h\", \
     control = \"/health\" }";

/// The answers of all batches are lost; these rows are listed: item and code.
fn losing(backend: &Backend, rows: &[(&str, u64)]) {
    let row = |(item, code): &(&str, u64)| json!({ "item": item, "customer": 7, "code": code });
    let list = json!({ "data": rows.iter().map(row).collect::<Vec<_>>() }).to_string();
    backend.script(move |seen| match seen.target() {
        "/batch" => Act::reset(),
        "/health" => answer(200, "{}"),
        _ => answer(200, &list),
    });
}

fn send(gateway: &Gateway, items: &[(&str, u64)]) -> Response {
    let list: Vec<Value> =
        items.iter().map(|(id, units)| json!({ "id": id, "units": units })).collect();
    let body = json!({ "customer": "7", "list": list }).to_string();
    Request::new("POST", "/batch").json(&body).send(gateway.addr)
}

/// Waits until no unit of the item is unknown; gives the issued units.
#[track_caller]
fn settled(gateway: &Gateway, item: &str) -> u64 {
    eventually("the item is settled", || {
        let shown = AdminClient::of(gateway).show(item)["item"].clone();
        (shown["unknown"] == 0).then(|| shown["fulfilled"].as_u64().unwrap())
    })
}

#[test]
fn each_row_is_a_unit_and_the_missing_ones_are_sent_again() {
    let backend = Backend::start();
    losing(&backend, &[("a", 1), ("a", 2), ("b", 3), ("x", 4)]);
    let gateway = setup(&backend, ABSENT).start();
    send(&gateway, &[("a", 3), ("b", 1), ("c", 2)]).is(502, "unknown", "outcome-unknown");
    assert_eq!(settled(&gateway, "b"), 1);
    assert_eq!(settled(&gateway, "a"), 2);
    assert_eq!(settled(&gateway, "c"), 0);
    let history = AdminClient::of(&gateway).show("a")["history"].clone();
    let last = history.as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["what"], &last["units"]), (&json!("executed"), &json!(2)), "{history}");
    let rows = json!({ "list": [{ "id": "a", "units": 1 }, { "id": "c", "units": 2 }] });
    backend.always(answer(200, &rows.to_string()));
    let reply = send(&gateway, &[("a", 3), ("b", 1), ("c", 2)]);
    reply.is(200, "executed", "");
    let sent: Value = serde_json::from_str(&backend.last().text()).unwrap();
    assert_eq!(sent["list"], rows["list"], "only what is missing");
    let reply = reply.json();
    let units = |at: usize| reply["list"][at]["units"].as_u64();
    assert_eq!([units(0), units(1), units(2)], [Some(3), Some(1), Some(2)]);
}

#[test]
fn a_retry_settles_at_once_and_more_rows_than_units_settle_nothing() {
    let backend = Backend::start();
    losing(&backend, &[("a", 1), ("b", 1), ("b", 2)]);
    let gateway = setup(&backend, "").start();
    send(&gateway, &[("a", 1), ("b", 1), ("c", 1)]).is(502, "unknown", "outcome-unknown");
    let reply = send(&gateway, &[("a", 1)]);
    reply.is(200, "replayed", "");
    assert_eq!(reply.json()["list"][0]["units"], 1);
    // Two rows for one unit, and none without evidence of absence.
    let reply = send(&gateway, &[("a", 1), ("b", 1), ("c", 1)]);
    reply.is(409, "unknown", "outcome-unknown");
    eventually("it is alarmed", || {
        let series = "oncegate_alarms_total{route=\"batch\",reason=\"several\"}";
        (gateway.metric(series) == Some(1)).then_some(())
    });
    for item in ["b", "c"] {
        assert_eq!(AdminClient::of(&gateway).show(item)["item"]["unknown"], 1, "{item}");
    }
    assert_eq!(backend.calls_to("/batch"), 1);
}
