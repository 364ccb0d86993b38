//! The stored answer of a key by the key alone: `/.well-known/idempotency/answer`.

use std::time::{Duration, Instant};

use crate::support::admin::AdminClient;
use crate::support::{Act, Backend, Gate, Gateway, Request, Response, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;
const ANSWER: &str = "/.well-known/idempotency/answer";

fn ask(gateway: &Gateway, query: &str, key: &str) -> Response {
    Request::get(&format!("{ANSWER}{query}")).key(key).tenant("t").send(gateway.addr)
}

fn redeem(key: &str) -> Request {
    Request::redeem(key, BODY).tenant("t")
}

#[test]
fn the_answer_of_a_key_is_replayed_and_nothing_is_executed() {
    let backend = Backend::start();
    let headers = [("content-type", "text/plain"), ("x-own", "1"), ("cache-control", "max-age=60")];
    backend.always(Act::whole(201, &headers, b"redeemed"));
    let gateway = Setup::before(&backend).start();
    let first = redeem("k").send(gateway.addr);
    first.is(201, "executed", "");
    for query in ["", "?wait=5s", "?wait=0s", "?x=1&wait=1m"] {
        let reply = ask(&gateway, query, "k");
        reply.is(201, "replayed", "");
        assert_eq!(reply.header("idempotency-replayed").as_deref(), Some("true"));
        assert_eq!(reply.header("idempotency-expires"), first.header("idempotency-expires"));
        assert_eq!(reply.body, first.body);
        for name in ["content-type", "x-own", "date"] {
            assert_eq!(reply.header(name), first.header(name), "{name}");
        }
        // A cache in between does not know that the answer is one caller's.
        assert_eq!(reply.all("cache-control"), ["no-store"]);
    }
    let head = Request::new("HEAD", ANSWER).key("k").tenant("t").send(gateway.addr);
    assert_eq!((head.status, head.body.len()), (201, 0));
    assert_eq!(backend.calls(), 1);
}

#[test]
fn the_answer_is_given_as_the_route_that_claimed_the_key_gives_it() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend)
        .route(
            "name = \"refund\"\nmethods = [\"POST\"]\npath = \"/v1/refunds\"\n\
             duplicates = { wait = \"0s\", replayed_header = \"X-Again\" }",
        )
        .start();
    let refund = Request::new("POST", "/v1/refunds").key("refunded").tenant("t").json(BODY);
    refund.send(gateway.addr).is(200, "executed", "");
    redeem("redeemed").send(gateway.addr).is(200, "executed", "");
    for (key, header, other) in [
        ("refunded", "x-again", "idempotency-replayed"),
        ("redeemed", "idempotency-replayed", "x-again"),
    ] {
        let reply = ask(&gateway, "", key);
        reply.is(200, "replayed", "");
        assert_eq!(reply.header(header).as_deref(), Some("true"), "{reply:?}");
        assert_eq!(reply.header(other), None, "{reply:?}");
    }
}

#[test]
fn a_key_without_an_answer_says_why() {
    let backend = Backend::start();
    backend.script(|seen| match seen.text().as_str() {
        r#"["lost"]"# => Act::close(),
        r#"["large"]"# => Act::whole(200, &[], &[b'x'; 5000]),
        _ => answer(200, "{}"),
    });
    let gateway = Setup::before(&backend)
        .store("retention = \"1s\"")
        .redeem("record.max_stored_body = \"1KiB\"")
        .start();
    let send = |key: &str, body: &str| {
        Request::redeem(key, body).tenant("t").send(gateway.addr);
    };
    send("lost", r#"["lost"]"#);
    ask(&gateway, "?wait=200ms", "lost").is(409, "unknown", "outcome-unknown");
    send("large", r#"["large"]"#);
    ask(&gateway, "", "large").is(409, "rejected", "response-not-retained");
    send("old", BODY);
    eventually("the answer expires", || (ask(&gateway, "", "old").status == 410).then_some(()));
    ask(&gateway, "", "old").is(410, "rejected", "key-expired");
    ask(&gateway, "", "never").is(404, "", "not-found");
    let other = Request::get(ANSWER).key("lost").tenant("u").send(gateway.addr);
    other.is(404, "", "not-found");
    let keyless = Request::get(ANSWER).tenant("t").send(gateway.addr);
    assert_eq!((keyless.status, keyless.error()), (400, "key-missing".to_owned()));
    for query in ["?wait=", "?wait=soon", "?wait=5", "?wait=%zz"] {
        let reply = ask(&gateway, query, "lost");
        assert_eq!((reply.status, reply.error()), (400, "request-invalid".to_owned()), "{query}");
    }
    let posted = Request::new("POST", ANSWER).key("k").json(BODY).send(gateway.addr);
    assert_eq!(posted.status, 405);
    assert_eq!(backend.calls(), 3);
}

#[test]
fn a_call_in_flight_is_waited_for_within_the_routes_wait() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, r#"{"late":1}"#).after(&gate));
    let gateway = Setup::before(&backend).redeem("duplicates.wait = \"20s\"").start();
    let mut first = redeem("k").begin(gateway.addr);
    backend.wait_calls(1);
    ask(&gateway, "", "k").is(409, "in-progress", "request-in-progress");
    ask(&gateway, "?wait=100ms", "k").is(409, "in-progress", "request-in-progress");
    let request = Request::get(&format!("{ANSWER}?wait=20s")).key("k").tenant("t");
    let mut waiting = request.begin(gateway.addr);
    assert!(!waiting.readable_within(Duration::from_millis(200)));
    gate.open();
    let reply = waiting.read();
    reply.is(200, "replayed", "");
    assert_eq!(reply.text(), r#"{"late":1}"#);
    first.read().is(200, "executed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn the_wait_of_the_route_bounds_every_wait_and_its_waiters_are_counted() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend)
        .redeem("duplicates.wait = \"300ms\"\nduplicates.max_waiters = 0")
        .start();
    let mut first = redeem("k").begin(gateway.addr);
    backend.wait_calls(1);
    let started = Instant::now();
    ask(&gateway, "?wait=1h", "k").is(409, "in-progress", "request-in-progress");
    assert!(started.elapsed() < Duration::from_secs(5));
    gate.open();
    first.read().is(200, "executed", "");
}

#[test]
fn a_settled_key_gives_its_settled_answer() {
    let backend = Backend::start();
    backend.always(Act::close());
    let gateway = AdminClient::guard(Setup::before(&backend)).start();
    redeem("k").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let response = r#"{"as":"executed","response":{"status":200,"headers":{},"body":"{}"}}"#;
    let id = AdminClient::of(&gateway).id("k");
    let mut decision: serde_json::Value = serde_json::from_str(response).unwrap();
    decision["reason"] = "seen in the books".into();
    decision["by"] = "ops".into();
    assert_eq!(AdminClient::of(&gateway).resolve(&id, &decision).status, 200);
    ask(&gateway, "", "k").is(200, "recovered", "");
    ask(&gateway, "", "k").is(200, "replayed", "");
    redeem("k").send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}
