//! The published contract and the status of a key: `/.well-known/idempotency`.

use crate::support::{Act, Backend, Gate, Gateway, Request, Response, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;
const CONTRACT: &str = "/.well-known/idempotency";
const STATUS: &str = "/.well-known/idempotency/status";

fn status(gateway: &Gateway, tenant: &str, key: &str) -> Response {
    Request::get(STATUS).key(key).tenant(tenant).send(gateway.addr)
}

#[track_caller]
fn check_state(reply: &Response, state: &str) -> serde_json::Value {
    assert_eq!(reply.status, 200, "{reply:?}");
    let document = reply.json();
    assert_eq!(document["state"], state, "{document}");
    for member in ["status", "first_seen", "completed_at", "expires_at", "attempts"] {
        assert!(document.get(member).is_some(), "no {member} in {document}");
    }
    document
}

#[test]
fn the_contract_is_published_as_json() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).store(r#"retention = "3d""#).start();
    let reply = Request::get(CONTRACT).header("accept", "application/json").send(gateway.addr);
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").unwrap().starts_with("application/json"));
    let text = reply.text();
    let document = reply.json();
    assert!(document["routes"].as_array().is_some_and(|routes| !routes.is_empty()), "{text}");
    for part in ["/v1/vouchers/redeem", "key-reused", "outcome-unknown"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(text.to_lowercase().contains("idempotency-key"), "{text}");
    for secret in [backend.addr().to_string(), gateway.setup().dir().display().to_string()] {
        assert!(!text.contains(&secret), "{secret} is nobody's business");
    }
    assert_eq!(backend.calls(), 0);
}

#[test]
fn the_contract_is_published_as_a_page() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let reply = Request::get(CONTRACT).header("accept", "text/html,*/*;q=0.8").send(gateway.addr);
    assert_eq!(reply.status, 200);
    assert!(reply.header("content-type").unwrap().starts_with("text/html"));
    let text = reply.text();
    for part in ["/v1/vouchers/redeem", "id=\"key-reused\"", "id=\"outcome-unknown\""] {
        assert!(text.contains(part), "{part} is missing");
    }
    assert_eq!(backend.calls(), 0);
}

#[test]
fn the_contract_is_for_reading_only_and_never_the_backends() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    for path in [CONTRACT, STATUS] {
        let reply = Request::new("POST", path).key("k").json(BODY).send(gateway.addr);
        assert_eq!((reply.status, reply.error()), (405, "method-not-allowed".to_owned()));
    }
    let head = Request::new("HEAD", CONTRACT).send(gateway.addr);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_key_has_a_status_in_each_of_its_states() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let held = gate.clone();
    backend.script(move |seen| match seen.text().as_str() {
        "[\"slow\"]" => answer(201, "{}").after(&held),
        "[\"lost\"]" => Act::close(),
        _ => answer(200, "{}"),
    });
    let gateway = Setup::before(&backend).start();
    let send = |key: &str, body: &str| Request::redeem(key, body).tenant("t").begin(gateway.addr);
    let mut slow = send("slow", "[\"slow\"]");
    backend.wait_calls(1);
    let reply = check_state(&status(&gateway, "t", "slow"), "in_flight");
    assert_eq!((&reply["attempts"], &reply["status"]), (&1.into(), &serde_json::Value::Null));
    send("lost", "[\"lost\"]").read();
    check_state(&status(&gateway, "t", "lost"), "unknown");
    gate.open();
    slow.read().is(201, "executed", "");
    let reply = check_state(&status(&gateway, "t", "slow"), "final");
    assert_eq!(reply["status"], 201);
    assert!(!reply["first_seen"].is_null() && !reply["completed_at"].is_null(), "{reply}");
    assert!(!reply["expires_at"].is_null(), "{reply}");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn an_expired_key_is_a_tombstone() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).store(r#"retention = "1s""#).start();
    Request::redeem("k", BODY).tenant("t").send(gateway.addr).is(200, "executed", "");
    let reply = eventually("the answer expires", || {
        let reply = status(&gateway, "t", "k");
        (reply.json()["state"] == "tombstone").then_some(reply)
    });
    check_state(&reply, "tombstone");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_key_that_is_not_the_callers_is_not_known() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    Request::redeem("k", BODY).tenant("a").send(gateway.addr).is(200, "executed", "");
    check_state(&status(&gateway, "a", "k"), "final");
    for (tenant, key) in [("b", "k"), ("a", "other")] {
        let reply = status(&gateway, tenant, key);
        assert_eq!((reply.status, reply.error()), (404, "not-found".to_owned()));
    }
    let anonymous = Request::get(STATUS).key("k").send(gateway.addr);
    assert_eq!(anonymous.status, 404);
    assert_eq!(backend.calls(), 1);
    let reply = Request::redeem("other", BODY).tenant("a").send(gateway.addr);
    reply.is(200, "executed", "");
}

#[test]
fn a_status_needs_a_key() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let reply = Request::get(STATUS).send(gateway.addr);
    assert_eq!((reply.status, reply.error()), (400, "key-missing".to_owned()));
    let reply = status(&gateway, "a", "x,y");
    assert_eq!((reply.status, reply.error()), (400, "key-invalid".to_owned()));
}

#[test]
fn a_status_shows_neither_answer_nor_request() {
    let backend = Backend::start();
    backend.always(answer(200, r#"{"hidden":"answer"}"#));
    let gateway = Setup::before(&backend).start();
    Request::redeem("k", r#"{"qr":"hidden"}"#).tenant("t").send(gateway.addr);
    let reply = status(&gateway, "t", "k");
    assert!(!reply.text().contains("hidden"), "{}", reply.text());
    assert!(!reply.headers.iter().any(|(_, value)| value.starts_with(b"hidden")));
}
