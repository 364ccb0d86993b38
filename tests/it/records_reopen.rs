//! `reopen`: an operator takes back an answer that was stored as final and was none.

use serde_json::{Value, json};

use crate::support::{AdminClient, Backend, Request, Setup, TOKEN, answer, gateway};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// A gateway in front of a backend that reports a failure under 200 first, then succeeds.
fn frozen_failure() -> (Backend, crate::support::Gateway) {
    let backend = Backend::start();
    backend.script(|seen| match seen.number {
        0 => answer(200, r#"{"errors":["THROTTLED"]}"#),
        number => answer(200, &format!(r#"{{"execution":{number}}}"#)),
    });
    let gateway = AdminClient::guard(Setup::before(&backend)).start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    (backend, gateway)
}

fn reopen(gateway: &crate::support::Gateway, id: &str, body: &Value) -> crate::support::Response {
    AdminClient::of(gateway).reopen(id, body)
}

#[test]
fn a_reopened_key_is_free_and_its_history_says_who_and_why() {
    let (backend, gateway) = frozen_failure();
    let id = AdminClient::of(&gateway).id("k");
    let reply = reopen(
        &gateway,
        &id,
        &json!({ "reason": "throttled under 200", "by": "ada", "attempt": 1 }),
    );
    assert_eq!(reply.status, 200, "{reply:?}");
    let record = reply.json();
    assert_eq!(record["state"], "released");
    assert_eq!(record["history"][0]["what"], "reopened");
    assert_eq!(record["history"][0]["by"], "ada");
    assert_eq!(record["history"][0]["reason"], "throttled under 200");
    let executed = Request::redeem("k", BODY).send(gateway.addr);
    executed.is(200, "executed", "");
    Request::redeem("k", BODY).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 2);
    let shown = AdminClient::of(&gateway).show("k");
    assert_eq!(shown["history"][0]["what"], "reopened");
    assert_eq!(shown["attempts"], 2);
}

#[test]
fn only_a_final_record_of_the_attempt_that_was_looked_at_is_reopened() {
    let (backend, gateway) = frozen_failure();
    let id = AdminClient::of(&gateway).id("k");
    let reason = json!({ "reason": "not final" });
    for (body, status, code) in [
        (json!({}), 400, "body-invalid"),
        (json!({ "reason": " " }), 400, "reason-missing"),
        (json!({ "reason": "x", "as": "executed" }), 400, "body-invalid"),
        (json!({ "reason": "x", "attempt": 2 }), 409, "changed"),
    ] {
        let reply = reopen(&gateway, &id, &body);
        assert_eq!((reply.status, reply.json()["code"].as_str()), (status, Some(code)), "{body}");
    }
    Request::redeem("k", BODY).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(reopen(&gateway, &id, &reason).status, 200);
    // Released, and then unknown: neither is final.
    let again = reopen(&gateway, &id, &reason);
    assert_eq!((again.status, again.json()["code"].as_str()), (409, Some("not-final")));
    backend.always(answer(500, "{}"));
    Request::redeem("k", BODY).send(gateway.addr).is(500, "unknown", "");
    let unknown = reopen(&gateway, &id, &reason);
    assert_eq!((unknown.status, unknown.json()["code"].as_str()), (409, Some("unknown")));
    let absent = reopen(&gateway, &"0".repeat(32), &reason);
    assert_eq!(absent.status, 404, "{absent:?}");
    let wrong =
        AdminClient::request("GET", &format!("/api/records/{id}/reopen")).send(gateway.admin);
    assert_eq!((wrong.status, wrong.header("allow").as_deref()), (405, Some("POST")));
}

#[test]
fn the_command_reopens() {
    let (backend, gateway) = frozen_failure();
    let id = AdminClient::of(&gateway).id("k");
    let token = gateway.setup().dir().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let admin = format!("http://{}", gateway.admin);
    let arguments = [
        "records",
        "reopen",
        &id,
        "--reason",
        "throttled",
        "--by",
        "ada",
        "--admin",
        &admin,
        "--token-file",
        token.to_str().unwrap(),
    ];
    let reply = gateway::run(&arguments);
    assert_eq!(reply.code, Some(0), "{reply:?}");
    assert!(reply.stdout.starts_with("reopened: the key is free"), "{}", reply.stdout);
    assert!(reply.stdout.contains("reopened, attempt 1, by ada: throttled"), "{}", reply.stdout);
    assert_eq!(gateway::run(&arguments).code, Some(1));
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.calls(), 2);
}
