//! Unknown outcomes that settle themselves by asking the backend.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::admin::{Place, steps};
use crate::support::{
    Act, AdminClient, Backend, Gate, Gateway, Request, Setup, answer, eventually,
};

const BODY: &str = r#"{"qr":"rsg:1","metadata":"receipt:7","amount":12.50}"#;

/// A route that asks for one object by the key, quickly.
fn probing(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend))
        .redeem(r#"outcome.on_unknown = "probe""#)
        .redeem(r#"probe.path = "/sales/{key}""#)
        .redeem(r#"probe.min_age = "0s""#)
        .redeem(r#"probe.every = "50ms""#)
        .redeem(r#"probe.executed = { pointer = "/status", equals = "paid" }"#)
        .redeem(r#"probe.not_executed = { pointer = "/status", equals = "declined" }"#)
        .redeem(r#"probe.pending = { pointer = "/status", equals = "processing" }"#)
        .redeem(r#"probe.response = { status = 201, body = '{"id":{row:/id},"key":"{key}"}' }"#)
}

/// The same route with a list.
fn listing(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend))
        .redeem(r#"outcome.on_unknown = "probe""#)
        .redeem(r#"probe.path = "/sales?from={dispatched_at-2m|unix}""#)
        .redeem(r#"probe.min_age = "0s""#)
        .redeem(r#"probe.every = "50ms""#)
        .redeem(r#"probe.rows = "/data""#)
        .redeem(r#"probe.match = { "/metadata" = "{/metadata}", "/value" = "{/amount}" }"#)
        .redeem(r#"probe.window = { at = "/created_at", before = "2m", after = "2m" }"#)
        .redeem(r#"probe.next = { pointer = "/next", query = "after" }"#)
        .redeem(r#"probe.executed = { pointer = "/id", present = true }"#)
        .redeem(r#"probe.response = { body = '{"transaction":{row:}}' }"#)
}

fn absence(setup: Setup, sightings: u32) -> Setup {
    setup.upstream(r#"timeout = "300ms""#).redeem(&format!(
        "probe.absent = {{ after = \"10ms\", sightings = {sightings}, look_back = \"1h\", \
         control = \"/health\" }}"
    ))
}

fn redeem(key: &str) -> Request {
    Request::redeem(key, BODY)
}

/// The calls of the clients' own requests.
fn redemptions(backend: &Backend) -> usize {
    backend.calls_to("/v1/vouchers/redeem")
}

/// Loses the answer of every redemption, and answers other requests by `probe`.
fn losing(backend: &Backend, probe: impl Fn(&str) -> Act + Send + Sync + 'static) {
    backend.script(move |seen| match seen.target() {
        "/v1/vouchers/redeem" => Act::reset(),
        target => probe(target),
    });
}

#[track_caller]
fn metric(gateway: &Gateway, line: &str) {
    eventually(line, || {
        let text = Request::get("/metrics").send(gateway.admin).text();
        text.lines().any(|it| it.starts_with(line)).then_some(())
    });
}

#[test]
fn a_row_settles_a_lost_answer_on_the_retry_and_in_the_background() {
    Place::each(|place| {
        let backend = Backend::start();
        losing(&backend, |_| answer(200, r#"{"id":7,"status":"paid"}"#));
        let gateways = place.start(&probing(&backend));
        let (first, last) = (&gateways[0], &gateways[gateways.len() - 1]);
        redeem("a").send(first.addr).is(502, "unknown", "outcome-unknown");
        let recovered = redeem("a").send(last.addr);
        recovered.is(201, "recovered", "");
        assert_eq!(recovered.text(), r#"{"id":7,"key":"a"}"#);
        let replayed = redeem("a").send(first.addr);
        replayed.is(201, "replayed", "");
        assert_eq!(replayed.text(), recovered.text());

        redeem("b").send(first.addr).is(502, "unknown", "outcome-unknown");
        let shown = AdminClient::of(last).show_in("b", "final");
        assert_eq!(steps(&shown), ["probe", "executed"], "{shown}");
        assert_eq!(shown["history"][1]["by"], "probe");
        redeem("b").send(last.addr).is(201, "recovered", "");
        assert_eq!(redemptions(&backend), 2);
        Request::redeem("b", "{}").send(last.addr).is(422, "rejected", "key-reused");
    });
}

#[test]
fn a_settlement_and_an_alarm_are_counted() {
    let backend = Backend::start();
    losing(&backend, |_| answer(200, r#"{"id":7,"status":"paid"}"#));
    let gateway = probing(&backend).start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    redeem("a").send(gateway.addr).is(201, "recovered", "");
    metric(&gateway, r#"oncegate_settled_total{route="redeem",by="probe",as="executed"} 1"#);
}

#[test]
fn a_declined_request_frees_its_key() {
    let backend = Backend::start();
    losing(&backend, |_| answer(200, r#"{"id":7,"status":"declined"}"#));
    let gateway = probing(&backend).start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let shown = AdminClient::of(&gateway).show_in("a", "released");
    assert_eq!(steps(&shown), ["probe", "not-executed"], "{shown}");
    backend.script(|_| answer(200, "{}"));
    redeem("a").send(gateway.addr).is(200, "executed", "");
    assert_eq!(redemptions(&backend), 2);
}

#[test]
fn an_undecided_request_stays_unknown_and_the_retry_reads_when_to_come_back() {
    let backend = Backend::start();
    losing(&backend, |_| answer(200, r#"{"id":7,"status":"processing"}"#));
    let gateway = probing(&backend).redeem(r#"duplicates.wait = "2s""#).start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let reply = redeem("a").send(gateway.addr);
    reply.is(409, "unknown", "outcome-unknown");
    let after: u64 = reply.header("retry-after").expect("a time").parse().unwrap();
    assert!(after >= 1);
    assert_eq!(reply.json()["retryable"], true, "{reply:?}");
    losing(&backend, |_| answer(200, r#"{"id":7,"status":"paid"}"#));
    AdminClient::of(&gateway).show_in("a", "final");
    assert_eq!(redemptions(&backend), 1);
}

#[test]
fn before_its_time_no_probe_is_sent() {
    let backend = Backend::start();
    losing(&backend, |_| answer(200, r#"{"id":7,"status":"paid"}"#));
    let setup = probing(&backend).replacing("probe.min_age = \"0s\"", "probe.min_age = \"1h\"");
    let gateway = setup.start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let reply = redeem("a").send(gateway.addr);
    reply.is(409, "unknown", "outcome-unknown");
    let after: u64 = reply.header("retry-after").expect("a time").parse().unwrap();
    assert!((3500..=3600).contains(&after), "{after}");
    assert_eq!(backend.calls(), 1);
}

/// A page of a list, with the rows that the test wants.
fn page(rows: &[Value], next: Option<&str>) -> Act {
    answer(200, &json!({ "data": rows, "next": next }).to_string())
}

fn row(id: u32, metadata: &str) -> Value {
    json!({ "id": id, "metadata": metadata, "value": "12.5", "created_at": now() })
}

#[expect(clippy::disallowed_methods, reason = "the times of a backend")]
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

#[test]
fn a_row_on_the_third_page_is_found() {
    Place::each(|place| {
        let backend = Backend::start();
        losing(&backend, |target| match target {
            _ if target.ends_with("&after=p3") => page(&[row(3, "receipt:7")], None),
            _ if target.ends_with("&after=p2") => page(&[row(2, "receipt:2")], Some("p3")),
            _ => page(&[row(1, "receipt:1")], Some("p2")),
        });
        let gateways = place.start(&listing(&backend));
        redeem("a").send(gateways[0].addr).is(502, "unknown", "outcome-unknown");
        let reply = redeem("a").send(gateways[gateways.len() - 1].addr);
        reply.is(200, "recovered", "");
        assert_eq!(reply.json()["transaction"]["id"], 3);
        assert_eq!(redemptions(&backend), 1);
    });
}

#[test]
fn a_row_that_appears_late_is_found_and_its_absence_before_frees_nothing() {
    let backend = Backend::start();
    let looks = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&looks);
    losing(&backend, move |target| match target {
        "/health" => answer(200, "{}"),
        _ if seen.fetch_add(1, Ordering::SeqCst) < 4 => page(&[row(1, "other")], None),
        _ => page(&[row(9, "receipt:7")], None),
    });
    // Five sightings are needed, and the row shows up before.
    let gateway = absence(listing(&backend), 5).start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let shown = AdminClient::of(&gateway).show_in("a", "final");
    assert!(looks.load(Ordering::SeqCst) >= 5);
    assert!(steps(&shown).contains(&"executed".to_owned()), "{shown}");
    assert_eq!(redemptions(&backend), 1);
}

#[test]
fn two_rows_that_fit_prove_nothing_and_are_alarmed_once() {
    let backend = Backend::start();
    losing(&backend, |_| page(&[row(1, "receipt:7"), row(2, "receipt:7")], None));
    let gateway = listing(&backend).start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let alarm = gateway.logs(&["WARN", "several"]);
    assert!(alarm.contains(&AdminClient::of(&gateway).id("a")), "{alarm}");
    let looks = backend.calls();
    backend.wait_calls(looks + 3);
    assert_eq!(AdminClient::of(&gateway).show("a")["state"], "unknown");
    redeem("a").send(gateway.addr).is(409, "unknown", "outcome-unknown");
    metric(&gateway, r#"oncegate_alarms_total{route="redeem",reason="several"} 1"#);
    assert_eq!(redemptions(&backend), 1);
}

#[test]
fn rows_outside_the_window_or_of_another_value_are_no_rows() {
    let backend = Backend::start();
    losing(&backend, |_| {
        let old =
            json!({ "id": 1, "metadata": "receipt:7", "value": 12.5, "created_at": now() - 300 });
        let dear = json!({ "id": 2, "metadata": "receipt:7", "value": 13, "created_at": now() });
        let good = json!({ "id": 3, "metadata": "receipt:7", "value": 12.50, "created_at": now() });
        page(&[old, dear, good], None)
    });
    let gateway = listing(&backend).start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let reply = redeem("a").send(gateway.addr);
    reply.is(200, "recovered", "");
    assert_eq!(reply.json()["transaction"]["id"], 3);
}

#[test]
fn answers_of_an_outage_free_no_key() {
    let outage: Vec<(&str, Act)> = vec![
        ("404 for a list", answer(404, r#"{"error":"no such list"}"#)),
        ("403", answer(403, r#"{"data":[]}"#)),
        ("500", answer(500, r#"{"data":[]}"#)),
        ("an empty body", answer(200, "")),
        (
            "a page for people",
            Act::whole(200, &[("content-type", "text/html")], b"<html>ok</html>"),
        ),
        ("truncated JSON", answer(200, r#"{"data":["#)),
        (
            "a broken transfer",
            Act::raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"data\":[]}")
                .then(Act::close()),
        ),
        ("no array", answer(200, r#"{"data":{}}"#)),
        ("a list without an end", page(&[], Some("again"))),
    ];
    for (what, act) in outage {
        println!("{what}");
        let backend = Backend::start();
        losing(&backend, move |target| match target {
            "/health" => answer(200, "{}"),
            _ => act.clone(),
        });
        let gateway = absence(listing(&backend), 1).start();
        redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
        backend.wait_calls(8);
        let shown = AdminClient::of(&gateway).show("a");
        assert_eq!(shown["state"], "unknown", "{what}: {shown}");
        assert_eq!(redemptions(&backend), 1, "{what}");
    }
}

#[test]
fn absence_counts_only_while_the_control_answers_and_after_enough_looks() {
    Place::each(|place| {
        let backend = Backend::start();
        let healthy = Arc::new(Mutex::new(503));
        let status = Arc::clone(&healthy);
        losing(&backend, move |target| match target {
            "/health" => answer(*status.lock().unwrap(), "{}"),
            _ => page(&[row(1, "other")], None),
        });
        let gateways = place.start(&absence(listing(&backend), 3));
        let gateway = &gateways[gateways.len() - 1];
        redeem("a").send(gateways[0].addr).is(502, "unknown", "outcome-unknown");
        eventually("the control is asked", || (backend.calls_to("/health") > 3).then_some(()));
        assert_eq!(AdminClient::of(gateway).show("a")["state"], "unknown");
        *healthy.lock().unwrap() = 204;
        let shown = AdminClient::of(gateway).show_in("a", "released");
        let history = shown["history"].as_array().expect("a history");
        let last = history.last().expect("an entry");
        assert_eq!((&last["what"], &last["by"]), (&json!("not-executed"), &json!("probe")));
        backend.script(|_| answer(200, "{}"));
        redeem("a").send(gateway.addr).is(200, "executed", "");
        assert_eq!(redemptions(&backend), 2);
    });
}

#[test]
fn a_true_answer_after_a_verdict_is_kept_as_a_contradiction() {
    let backend = Backend::start();
    let gate = Gate::default();
    let late = gate.clone();
    backend.script(move |seen| match seen.target() {
        "/v1/vouchers/redeem" => answer(200, r#"{"late":true}"#).after(&late),
        _ => answer(200, r#"{"status":"declined"}"#),
    });
    let gateway = probing(&backend).upstream(r#"timeout = "1500ms""#).start();
    redeem("a").send(gateway.addr).is(504, "unknown", "outcome-unknown");
    AdminClient::of(&gateway).show_in("a", "released");
    gate.open();
    let shown = eventually("the contradiction is kept", || {
        let shown = AdminClient::of(&gateway).show("a");
        steps(&shown).contains(&"contradiction".to_owned()).then_some(shown)
    });
    assert_eq!(shown["state"], "released", "the first decision stands: {shown}");
    metric(&gateway, r#"oncegate_alarms_total{route="redeem",reason="contradiction"} 1"#);
}

#[test]
fn a_late_true_answer_during_a_probe_settles_the_record() {
    let backend = Backend::start();
    let (call, probe) = (Gate::default(), Gate::default());
    let gates = (call.clone(), probe.clone());
    backend.script(move |seen| match seen.target() {
        "/v1/vouchers/redeem" => answer(200, r#"{"late":true}"#).after(&gates.0),
        _ => answer(200, r#"{"id":1,"status":"paid"}"#).after(&gates.1),
    });
    let gateway = probing(&backend).upstream(r#"timeout = "2s""#).start();
    redeem("a").send(gateway.addr).is(504, "unknown", "outcome-unknown");
    backend.wait_calls(2);
    call.open();
    AdminClient::of(&gateway).show_in("a", "final");
    probe.open();
    let reply = redeem("a").send(gateway.addr);
    assert_eq!(reply.text(), r#"{"late":true}"#, "{reply:?}");
    let shown = eventually("the probe's result is kept", || {
        let shown = AdminClient::of(&gateway).show("a");
        steps(&shown).contains(&"contradiction".to_owned()).then_some(shown)
    });
    assert_eq!(shown["state"], "final", "{shown}");
    assert!(!gateway.stderr().contains("contradicts"), "both say executed");
}

#[test]
fn after_its_time_nobody_asks_any_more_and_operators_are_alarmed() {
    let backend = Backend::start();
    losing(&backend, |_| answer(200, r#"{"status":"processing"}"#));
    let gateway = probing(&backend).redeem(r#"probe.give_up_after = "200ms""#).start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    gateway.logs(&["WARN", "gave_up"]);
    metric(&gateway, r#"oncegate_alarms_total{route="redeem",reason="gave_up"} 1"#);
    let reply = redeem("a").send(gateway.addr);
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(reply.header("retry-after"), None, "as under hold");
    AdminClient::of(&gateway).settle("a", "not-executed");
}

#[test]
fn a_restart_goes_on_asking() {
    Place::each(|place| {
        let backend = Backend::start();
        losing(&backend, |_| answer(503, ""));
        // The lease of a step that was killed ends soon.
        let setup = probing(&backend).upstream(r#"timeout = "300ms""#);
        let gateways = place.start(&setup);
        redeem("a").send(gateways[0].addr).is(502, "unknown", "outcome-unknown");
        backend.wait_calls(3);
        drop(gateways);
        losing(&backend, |_| answer(200, r#"{"id":1,"status":"paid"}"#));
        let gateways = place.start(&setup);
        AdminClient::of(&gateways[0]).show_in("a", "final");
        redeem("a").send(gateways[0].addr).is(201, "recovered", "");
        assert_eq!(redemptions(&backend), 1);
    });
}

#[test]
fn headers_of_the_retry_are_taken_over_and_not_stored() {
    let backend = Backend::start();
    losing(&backend, |_| answer(200, r#"{"id":1,"status":"paid"}"#));
    let gateway = probing(&backend).redeem(r#"probe.forward = ["x-api-key"]"#).start();
    let request = || redeem("a").header("x-api-key", "shop-secret");
    request().send(gateway.addr).is(502, "unknown", "outcome-unknown");
    request().send(gateway.addr).is(201, "recovered", "");
    assert_eq!(backend.last().header("x-api-key").as_deref(), Some("shop-secret"));
    assert_eq!(backend.calls(), 2, "no probe without a retry");
    let path = gateway.setup().store_path();
    let kept = bytes_below(&path);
    assert!(!kept.windows(11).any(|bytes| bytes == b"shop-secret"));
}

/// The contents of all files below a folder.
fn bytes_below(folder: &std::path::Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map_while(Result::ok) {
        let path = entry.path();
        match path.is_dir() {
            true => bytes.extend(bytes_below(&path)),
            false => bytes.extend(std::fs::read(&path).unwrap_or_default()),
        }
    }
    bytes
}

#[test]
fn a_value_that_a_template_needs_and_the_request_lacks_is_told() {
    let backend = Backend::start();
    losing(&backend, |_| answer(200, r#"{"id":1,"status":"paid"}"#));
    let setup = probing(&backend)
        .replacing("probe.path = \"/sales/{key}\"", "probe.path = \"/sales/{/receipt}\"");
    let gateway = setup.start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let line = gateway.logs(&["WARN", "nothing was sent to settle", "/receipt"]);
    assert!(line.contains(&AdminClient::of(&gateway).id("a")), "{line}");
    let reply = redeem("a").send(gateway.addr);
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!((backend.calls(), reply.header("retry-after")), (1, None));
}

#[test]
fn an_operator_and_the_probes_of_two_replicas_settle_once() {
    Place::each(|place| {
        let backend = Backend::start();
        losing(&backend, |_| answer(200, r#"{"id":7,"status":"paid"}"#));
        let gateways = place.start(&probing(&backend));
        for round in 0..6 {
            let key = format!("race-{round}");
            redeem(&key).send(gateways[0].addr).is(502, "unknown", "outcome-unknown");
            let id = AdminClient::of(&gateways[0]).id(&key);
            let body = json!({ "as": "executed", "reason": "looked" });
            let reply = AdminClient::of(&gateways[0]).resolve(&id, &body);
            assert!(matches!(reply.status, 200 | 409), "{reply:?}");
            let shown = AdminClient::of(&gateways[gateways.len() - 1]).show_in(&key, "final");
            let decisions = steps(&shown).into_iter().filter(|what| what == "executed");
            assert_eq!(decisions.count(), 1, "{shown}");
            let first = redeem(&key).send(gateways[0].addr);
            first.is(first.status, "recovered", "");
        }
        assert_eq!(redemptions(&backend), 6);
    });
}
