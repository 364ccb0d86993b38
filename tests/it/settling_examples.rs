//! The shipped configurations that settle unknown outcomes, against backends of their kind.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{
    Act, AdminClient, Backend, Gateway, Request, Response, Setup, answer, eventually,
};

/// The keyed route of an example before this backend, with times for tests.
fn example(backend: &Backend, name: &str, edits: &[(&str, &str)]) -> Setup {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let keyed = text.split("[[route]]").nth(1).unwrap();
    let lines = keyed.lines().filter(|line| !line.starts_with("upstream = "));
    let mut route = lines.collect::<Vec<_>>().join("\n");
    for (this, that) in edits {
        assert!(route.contains(this), "no {this:?} in {name}");
        route = route.replace(this, that);
    }
    // The route of the common setup makes way for the example's.
    AdminClient::guard(Setup::before(backend))
        .replacing(
            "name = \"redeem\"\nmethods = [\"POST\"]\npath = \"/v1/vouchers/redeem\"",
            "name = \"unused\"\nmethods = [\"POST\"]\npath = \"/unused\"",
        )
        .route(&route.replace("name = \"redeem\"", "name = \"example\""))
}

fn send(gateway: &Gateway, path: &str, key: &str, body: &str) -> Response {
    let request = Request::new("POST", path).key(key).header("x-api-key", "retailer-1");
    request.json(body).send(gateway.addr)
}

#[expect(clippy::disallowed_methods, reason = "the times of a backend")]
fn now(before: u64) -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_secs() - before
}

#[test]
fn redeemsg_a_lost_redemption_is_found_among_the_transactions() {
    let backend = Backend::start();
    let edits = [("min_age = \"2s\"", "min_age = \"0s\""), ("every = \"2s\"", "every = \"50ms\"")];
    let gateway = example(&backend, "redeemsg.toml", &edits).start();
    let redeem = |key: &str| {
        let body = r#"{"qr":"rsg:A","metadata":"receipt_number:789"}"#;
        send(&gateway, "/v1/vouchers/redeem", key, body)
    };
    let transaction = |id: &str, metadata: &str, before: u64| json!({ "id": id, "value": 5, "metadata": metadata, "created_at": now(before) });
    let page = |rows: Vec<Value>, next: Value| {
        answer(200, &json!({ "data": rows, "next": next }).to_string())
    };
    let first = page(vec![transaction("t9", "receipt_number:788", 0)], json!("t9"));
    let found = page(
        vec![
            transaction("t1", "receipt_number:789", 3600),
            transaction("t2", "receipt_number:789", 0),
        ],
        Value::Null,
    );
    backend.script(move |seen| match seen.target() {
        "/v1/vouchers/redeem" => Act::reset(),
        target if target.ends_with("&after=t9") => found.clone(),
        _ => first.clone(),
    });
    let lost = redeem("sale-1");
    assert_eq!((lost.status, lost.disposition().as_str()), (502, "unknown"));
    let reply = redeem("sale-1");
    reply.is(200, "recovered", "");
    assert_eq!(reply.json()["status"], "succeeded");
    assert_eq!(reply.json()["transaction"]["id"], "t2");
    let asked = backend.last();
    assert_eq!(asked.header("x-api-key").as_deref(), Some("retailer-1"));
    assert!(asked.target().starts_with("/v1/transactions?start="), "{}", asked.target());
    redeem("sale-1").is(200, "replayed", "");

    // Two transactions that fit prove nothing: a person decides.
    let twice = page(
        vec![
            transaction("t3", "receipt_number:789", 1),
            transaction("t4", "receipt_number:789", 0),
        ],
        Value::Null,
    );
    backend.script(move |seen| match seen.target() {
        "/v1/vouchers/redeem" => Act::reset(),
        _ => twice.clone(),
    });
    redeem("sale-2");
    let reply = redeem("sale-2");
    assert_eq!((reply.status, reply.disposition().as_str()), (409, "unknown"), "{reply:?}");
    gateway.logs(&["WARN", "several"]);
    assert_eq!(backend.calls_to("/v1/vouchers/redeem"), 2);
    let mut keys: Vec<String> = Vec::new();
    let (records, _) = AdminClient::of(&gateway).list("state=final");
    keys.extend(records.iter().map(|record| record["key"].to_string()));
    assert_eq!(keys, ["\"sale-1\""]);
}

/// The voucher API with its rules: a voucher is used once, and its list of transactions shows what a
/// test lets it show.
fn voucher_api(backend: &Backend, shown: &Arc<Mutex<Vec<Value>>>) {
    let (shown, used) = (shown.clone(), Mutex::new(HashSet::new()));
    backend.script(move |seen| match seen.target() {
        "/v1/vouchers/redeem" => {
            let body: Value = serde_json::from_slice(&seen.body).unwrap();
            match used.lock().unwrap().insert(body["qr"].to_string()) {
                true if body["metadata"].as_str().unwrap().ends_with("lost") => Act::reset(),
                true => answer(200, r#"{"status":"succeeded"}"#),
                false => answer(402, r#"{"error":{"code":"redemption_vouchers_used"}}"#),
            }
        }
        target if target.contains("limit=1&") || target.ends_with("limit=1") => answer(200, "{}"),
        _ => {
            let rows = shown.lock().unwrap().clone();
            answer(200, &json!({ "data": rows, "next": null }).to_string())
        }
    });
}

#[test]
fn redeemsg_another_key_for_the_same_voucher_reads_its_own_refusal_and_the_earlier_key() {
    let backend = Backend::start();
    let shown = Arc::default();
    voucher_api(&backend, &shown);
    let edits = [("min_age = \"2s\"", "min_age = \"0s\""), ("every = \"2s\"", "every = \"50ms\"")];
    let gateway = example(&backend, "redeemsg.toml", &edits).start();
    let redeem = |key: &str, qr: &str, metadata: &str| {
        let body = json!({ "qr": qr, "metadata": metadata }).to_string();
        send(&gateway, "/v1/vouchers/redeem", key, &body)
    };
    assert_eq!(redeem("scan-1", "rsg:A", "receipt:lost").status, 502);
    let again = redeem("scan-2", "rsg:A", "receipt:2");
    again.is(402, "executed", "");
    assert_eq!(again.json()["error"]["code"], "redemption_vouchers_used");
    let earlier = again.header("idempotency-earlier").expect("the earlier key");
    assert!(earlier.starts_with("key=\"scan-1\", state=unknown, at=\""), "{earlier}");
    // The first key is settled on its own, and then told as what it was.
    shown.lock().unwrap().push(json!(
        { "id": "t1", "value": 5, "metadata": "receipt:lost", "created_at": now(0) }
    ));
    redeem("scan-1", "rsg:A", "receipt:lost").is(200, "recovered", "");
    let third = redeem("scan-3", "rsg:A", "receipt:3");
    third.is(402, "executed", "");
    let refused = redeem("scan-2", "rsg:A", "receipt:2");
    refused.is(402, "replayed", "");
    // A voucher that somebody else had used is a refusal like every other.
    assert_eq!(redeem("other", "rsg:A", "receipt:4").disposition(), "executed");
}

#[test]
fn redeemsg_the_refusal_of_an_own_lost_redemption_is_settled_and_no_failure() {
    let backend = Backend::start();
    let shown = Arc::default();
    voucher_api(&backend, &shown);
    let edits = [
        ("min_age = \"2s\"", "min_age = \"0s\""),
        ("every = \"2s\"", "every = \"50ms\""),
        ("after = \"2m\", sightings = 3", "after = \"10ms\", sightings = 2"),
    ];
    let setup = example(&backend, "redeemsg.toml", &edits).upstream("timeout = \"1s\"");
    let gateway = setup.start();
    let redeem = |key: &str| {
        let body = json!({ "qr": key, "metadata": format!("{key} lost") }).to_string();
        send(&gateway, "/v1/vouchers/redeem", key, &body)
    };
    for key in ["late", "never"] {
        let before = backend.calls_to("/v1/vouchers/redeem");
        assert_eq!(redeem(key).disposition(), "unknown");
        // The list hides the redemption too long: its key is freed, and the retry is refused.
        let reply = eventually("the retry is sent", || {
            let reply = redeem(key);
            (backend.calls_to("/v1/vouchers/redeem") == before + 2).then_some(reply)
        });
        assert_eq!(reply.disposition(), "unknown", "{reply:?}");
        assert_eq!(reply.json()["error"]["code"], "outcome-unknown", "{reply:?}");
        let record = eventually("the refusal is kept", || {
            let record = AdminClient::of(&gateway).show(key);
            record.to_string().contains("an earlier attempt was executed").then_some(record)
        });
        assert_eq!((&record["state"], &record["attempts"]), (&json!("unknown"), &json!(2)));
    }
    shown.lock().unwrap().push(json!(
        { "id": "t1", "value": 5, "metadata": "late lost", "created_at": now(0) }
    ));
    let reply = eventually("the transaction is found", || {
        let reply = redeem("late");
        (reply.status == 200).then_some(reply)
    });
    reply.is(200, "recovered", "");
    assert_eq!(reply.json()["transaction"]["id"], "t1");
    // Absence proves nothing against the backend's word, however often it is seen.
    let looks = backend.calls();
    eventually("the backend is asked", || {
        let reply = redeem("never");
        assert_eq!((reply.status, reply.disposition().as_str()), (409, "unknown"), "{reply:?}");
        (backend.calls() > looks + 8).then_some(())
    });
    assert_eq!(backend.calls_to("/v1/vouchers/redeem"), 4);
    assert_eq!(AdminClient::of(&gateway).show("never")["state"], "unknown");
}

#[test]
fn gift_card_a_lost_redemption_is_undone() {
    let backend = Backend::start();
    let edits =
        [("min_age = \"30s\"", "min_age = \"0s\""), ("every = \"30s\"", "every = \"50ms\"")];
    let setup = example(&backend, "gift-card.toml", &edits).upstream("timeout = \"300ms\"");
    let gateway = setup.start();
    let redeem =
        |key: &str| send(&gateway, "/cards/C-7/redeem", key, r#"{"reference":"R1","amount":9.90}"#);
    backend.script(|seen| match seen.target() {
        "/cards/C-7/void" => answer(200, r#"{"status":"voided"}"#),
        _ => Act::reset(),
    });
    redeem("a").is(502, "unknown", "outcome-unknown");
    AdminClient::of(&gateway).show_in("a", "released");
    assert_eq!(backend.last().text(), r#"{"reference":"R1","amount":9.90}"#);
    backend.script(|seen| match seen.target() {
        "/cards/C-7/void" => answer(404, r#"{"code":"NO_SUCH_REDEMPTION"}"#),
        _ => answer(200, "{}"),
    });
    redeem("a").is(200, "executed", "");
}

#[test]
fn payment_a_pending_answer_is_shown_until_the_payment_is_decided() {
    let backend = Backend::start();
    let edits = [("min_age = \"5s\"", "min_age = \"0s\""), ("every = \"10s\"", "every = \"50ms\"")];
    let gateway = example(&backend, "payment.toml", &edits).start();
    let pay = || send(&gateway, "/payments", "order-5", r#"{"order":"5","amount":3}"#);
    backend.script(|seen| match seen.target() {
        "/payments" => answer(202, r#"{"state":"pending"}"#),
        _ => answer(200, r#"{"id":77,"state":"processing"}"#),
    });
    let first = pay();
    assert_eq!((first.status, first.disposition().as_str()), (202, "pending"), "{first:?}");
    let again = pay();
    assert_eq!((again.status, again.disposition().as_str()), (202, "pending"), "{again:?}");
    assert_eq!(again.text(), first.text());
    assert!(again.header("retry-after").is_some());
    assert_eq!(AdminClient::of(&gateway).show("order-5")["state"], "unknown");
    backend.script(|seen| match seen.target() {
        "/payments" => answer(202, r#"{"state":"pending"}"#),
        _ => answer(200, r#"{"id":77,"state":"paid"}"#),
    });
    AdminClient::of(&gateway).show_in("order-5", "final");
    let reply = pay();
    reply.is(200, "recovered", "");
    assert_eq!(reply.json(), json!({ "order": "5", "state": "paid", "payment": 77 }));
    assert_eq!(backend.calls_to("/payments"), 1);
    let asked = backend.last();
    assert_eq!(asked.target(), "/payments/by-order/5");
    assert_eq!(asked.header("authorization").as_deref(), Some("Bearer for-look-ups"));
}

#[test]
fn deduplicating_a_lost_order_is_sent_again_with_its_key() {
    let backend = Backend::start();
    let gateway = example(&backend, "deduplicating.toml", &[]).start();
    let order = |key: &str| send(&gateway, "/orders", key, r#"{"number":"N1"}"#);
    backend.always(Act::reset());
    order("a").is(502, "unknown", "outcome-unknown");
    backend.always(answer(409, r#"{"error":{"code":"DUPLICATE_ORDER"}}"#));
    let reply = order("a");
    reply.is(200, "recovered", "");
    assert_eq!(reply.json(), json!({ "order": "N1", "status": "accepted" }));
    let again = backend.last();
    assert_eq!(again.header("idempotency-key").as_deref(), Some("a"));
    assert_eq!(again.header("x-repeat").as_deref(), Some("true"));
    order("a").is(200, "replayed", "");
    assert_eq!(backend.calls(), 2);
}
