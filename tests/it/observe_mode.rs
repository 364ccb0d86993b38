//! Observe mode: towards clients and backend a route without keys, and records as in request mode.
//!
//! Another route of the setup has keys in the same header, so a key is answered `bypassed` here, as
//! on any route without keys.

use crate::support::admin::AdminClient;
use crate::support::{Act, Backend, Gate, Gateway, Request, Response, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn setup(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend).redeem("mode = \"observe\""))
}

fn redeem(gateway: &Gateway, key: &str, body: &str) -> Response {
    Request::redeem(key, body).tenant("t").send(gateway.addr)
}

/// The requests that request mode would have given this outcome.
fn observed(gateway: &Gateway, outcome: &str) -> u64 {
    let series = format!("oncegate_observed_total{{route=\"redeem\",outcome=\"{outcome}\"}}");
    gateway.metric(&series).unwrap_or_default()
}

#[track_caller]
fn wait_observed(gateway: &Gateway, outcome: &str, count: u64) {
    eventually(outcome, || (observed(gateway, outcome) == count).then_some(()));
}

#[test]
fn every_request_is_executed_and_what_request_mode_would_do_is_counted() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    redeem(&gateway, "k", BODY).is(200, "bypassed", "");
    wait_observed(&gateway, "executed", 1);
    redeem(&gateway, "k", BODY).is(200, "bypassed", "");
    wait_observed(&gateway, "replayed", 1);
    redeem(&gateway, "k", "{}").is(200, "bypassed", "");
    wait_observed(&gateway, "key-reused", 1);
    Request::new("POST", "/v1/vouchers/redeem").json(BODY).send(gateway.addr).is(200, "", "");
    wait_observed(&gateway, "key-missing", 1);
    redeem(&gateway, "a b", BODY).is(200, "bypassed", "");
    wait_observed(&gateway, "key-invalid", 1);
    backend.always(answer(429, "{}"));
    redeem(&gateway, "busy", BODY).is(429, "bypassed", "");
    wait_observed(&gateway, "not-executed", 1);
    backend.always(answer(500, "{}"));
    redeem(&gateway, "broken", BODY).is(500, "bypassed", "");
    wait_observed(&gateway, "unknown", 1);
    redeem(&gateway, "broken", BODY).is(500, "bypassed", "");
    wait_observed(&gateway, "outcome-unknown", 1);
    assert_eq!(backend.calls(), 8);
    let prevented = gateway.metric("oncegate_prevented_total{route=\"redeem\"}");
    assert_eq!(prevented.unwrap_or_default(), 0);
    let stats = AdminClient::of(&gateway).get("/api/stats").json();
    assert_eq!(stats["observed"]["redeem"]["replayed"], 1, "{stats}");
    assert_eq!(stats["observed"]["optional"], serde_json::Value::Null, "{stats}");
    eventually("the log tells it", || {
        gateway.stderr().contains("would have answered this request without a call").then_some(())
    });
}

#[test]
fn a_key_that_request_mode_would_suspect_is_counted_so() {
    let backend = Backend::start();
    let gateway = setup(&backend)
        .redeem("record.subject = \"/qr\"")
        .redeem("suspect = { within = \"10m\", then = \"refuse\" }")
        .start();
    redeem(&gateway, "k-1", BODY).is(200, "bypassed", "");
    wait_observed(&gateway, "executed", 1);
    redeem(&gateway, "k-2", BODY).is(200, "bypassed", "");
    wait_observed(&gateway, "suspected-duplicate", 1);
    let insisted = Request::redeem("k-3", BODY).tenant("t");
    let insisted = insisted.header("idempotency-override", "suspected-duplicate");
    insisted.send(gateway.addr).is(200, "bypassed", "");
    wait_observed(&gateway, "executed", 2);
    assert_eq!(backend.calls(), 3);
}

#[test]
fn client_and_backend_see_a_route_without_keys() {
    let backend = Backend::start();
    backend.always(answer(200, "{}"));
    let off = "name = \"off\"\nmethods = [\"POST\", \"PUT\"]\npath = \"/off\"\nmode = \"off\"";
    let watched =
        "name = \"watched\"\nmethods = [\"POST\"]\npath = \"/watched\"\nmode = \"observe\"";
    let wide =
        "name = \"wide\"\nmethods = [\"POST\", \"PUT\"]\npath = \"/{*rest}\"\nmode = \"off\"";
    let gateway = setup(&backend)
        .replacing(
            "path = \"/optional\"\nkey.required = false",
            "path = \"/optional\"\nmode = \"off\"",
        )
        .route(off)
        .route(watched)
        .route(wide)
        .start();
    for body in ["", "short", &"x".repeat(3 << 20)] {
        let send = |path: &str| {
            let request = Request::new("POST", path).key("k").header("accept-encoding", "gzip");
            let reply = request.body(body.as_bytes()).send(gateway.addr);
            (reply, backend.last())
        };
        let ((off, upstream_off), (watched, upstream)) = (send("/off"), send("/watched"));
        let names = |headers: &[(String, Vec<u8>)]| {
            let names = headers.iter().map(|(name, _)| name.clone());
            names.collect::<Vec<_>>()
        };
        assert_eq!((watched.status, watched.body), (off.status, off.body));
        assert_eq!(names(&watched.headers), names(&off.headers));
        assert_eq!(names(&upstream.headers), names(&upstream_off.headers));
        assert_eq!(upstream.body, upstream_off.body);
        assert_eq!(upstream.header("idempotency-key").as_deref(), Some("k"));
        assert_eq!(upstream.header("accept-encoding").as_deref(), Some("gzip"));
    }
    // Other methods of the path go where they went before.
    assert_eq!(Request::new("PUT", "/watched").body(b"x").send(gateway.addr).status, 200);
    let contract = Request::get("/.well-known/idempotency").send(gateway.addr).text();
    assert!(!contract.contains("watched"), "no key counts there: {contract}");
}

#[test]
fn a_call_in_flight_makes_nobody_wait() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = setup(&backend).start();
    let mut first = Request::redeem("k", BODY).tenant("t").begin(gateway.addr);
    backend.wait_calls(1);
    eventually("the claim", || {
        let (records, _) = AdminClient::of(&gateway).list("key=k");
        (records.len() == 1).then_some(())
    });
    let mut second = Request::redeem("k", BODY).tenant("t").begin(gateway.addr);
    backend.wait_calls(2);
    gate.open();
    first.read().is(200, "bypassed", "");
    second.read().is(200, "bypassed", "");
    wait_observed(&gateway, "request-in-progress", 1);
    wait_observed(&gateway, "executed", 1);
}

#[test]
fn records_are_honored_after_a_switch_to_request_mode() {
    let backend = Backend::start();
    backend.always(answer(201, r#"{"first":true}"#));
    let gateway = setup(&backend).start();
    redeem(&gateway, "k", BODY).is(201, "bypassed", "");
    wait_observed(&gateway, "executed", 1);
    backend.always(Act::close());
    let lost = redeem(&gateway, "lost", BODY);
    assert_eq!(lost.status, 502);
    wait_observed(&gateway, "outcome-unknown", 1);
    // The first final answer of the key is kept, be it the second call's.
    backend.always(answer(200, r#"{"second":true}"#));
    redeem(&gateway, "lost", BODY).is(200, "bypassed", "");
    wait_observed(&gateway, "outcome-unknown", 2);
    eventually("the record is final", || {
        (AdminClient::of(&gateway).show("lost")["state"] == "final").then_some(())
    });
    let mut gateway = gateway;
    gateway.stop();
    let kept = gateway.setup().clone().replacing("mode = \"observe\"", "mode = \"request\"");
    drop(gateway);
    let gateway = kept.start();
    let replayed = redeem(&gateway, "k", BODY);
    replayed.is(201, "replayed", "");
    assert_eq!(replayed.text(), r#"{"first":true}"#);
    redeem(&gateway, "lost", BODY).is(200, "replayed", "");
    assert_eq!(backend.calls(), 3);
}
