//! Answers that are large, half readable or not at all: what was issued is known wherever it can be,
//! and what cannot be read is kept for whoever settles it.

use serde_json::{Value, json};

use crate::support::rewards::{batch, coupons, issue, rows};
use crate::support::{Act, AdminClient, Gate, Request, Rewards, answer, eventually};

const TWO: [(&str, &str, u64); 2] = [("a", "R1", 2), ("b", "R2", 1)];

#[test]
fn an_answer_larger_than_what_a_route_keeps_is_read_all_the_same() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("record.max_stored_body = \"1KiB\"");
    rewards.editing(200, |body| body["rewards"][0]["note"] = "x".repeat(3 << 20).into());
    let reply = issue(&batch("+65", &TWO)).send(gateway.addr);
    reply.is(200, "executed", "");
    assert_eq!((coupons(&reply, 0), coupons(&reply, 1)), (2, 1));
    let again = issue(&batch("+65", &TWO)).send(gateway.addr);
    again.is(200, "replayed", "");
    assert_eq!((coupons(&again, 0), coupons(&again, 1)), (2, 1));
    let gateway = gateway.killed_and_restarted();
    issue(&batch("+65", &TWO)).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(rewards.sent().len(), 1);
}

#[test]
fn an_answer_too_large_to_read_reaches_its_client_and_leaves_its_items_unknown() {
    let rewards = Rewards::start();
    let gateway = rewards.setup("").limits("buffered = \"1MiB\"").start();
    rewards.editing(200, |body| body["padding"] = "x".repeat(2 << 20).into());
    let reply = issue(&batch("+65", &TWO)).send(gateway.addr);
    reply.is(200, "unknown", "");
    assert!(reply.body.len() > 2 << 20, "{} bytes", reply.body.len());
    assert_eq!(coupons(&reply, 0), 2, "the coupons are not lost");
    rewards.honest();
    issue(&batch("+65", &TWO)).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    assert_eq!(rewards.points(), 20);
}

#[test]
fn strings_that_were_cut_in_the_middle_of_a_character_are_read() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    // Half of a pair, as programs write it that count in units of UTF-16; and a mark before it all.
    let row = r#"{"requestId":"a","quantity":1,"intouch":[{"code":"c1"}],"note":"\ud83d"}"#;
    rewards.backend.always(answer(200, &format!("\u{feff}{{\"rewards\":[{row}]}}")));
    let note = r#""note":"cut \ud83d","mobile""#;
    let body = batch("+65", &[("a", "R1", 1)]).replacen("\"mobile\"", note, 1);
    let reply = issue(&body).send(gateway.addr);
    reply.is(200, "executed", "");
    assert!(reply.text().contains(r#""note":"\ud83d""#), "{}", reply.text());
    let sent = rewards.backend.last().body;
    assert!(String::from_utf8(sent.to_vec()).unwrap().contains(note), "it goes up as it came");
    issue(&body).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(rewards.backend.calls(), 1);
}

#[test]
fn a_row_that_says_a_thing_twice_makes_its_own_item_doubtful_only() {
    let rewards = Rewards::start();
    let gateway = AdminClient::guard(rewards.setup("")).start();
    rewards.answering(|_, status, body| {
        let twice = body.to_string().replacen("\"quantity\":2", "\"quantity\":2,\"quantity\":1", 1);
        answer(status, &twice)
    });
    let reply = issue(&batch("+65", &TWO)).send(gateway.addr);
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(rows(&reply), "a:0/2 1010, b:1/1 200 = 1010");
    let evidence = AdminClient::of(&gateway).show("a")["item"]["evidence"].to_string();
    assert!(evidence.contains("coupon"), "{evidence}");
}

#[test]
fn the_start_of_an_answer_without_rows_is_kept_for_whoever_settles() {
    let rewards = Rewards::start();
    let gateway = AdminClient::guard(rewards.setup("")).start();
    for (id, status, body, reason) in [
        ("a", 200, "<html>all issued: ä</html>", "no rows"),
        ("b", 200, r#"{"rewards":[{"requestId":"a""#, "no rows"),
        ("c", 500, "upstream said: done", "the backend answered 500"),
    ] {
        rewards.answering(move |_, _, _| answer(status, body));
        let reply = issue(&batch("+65", &[(id, "R1", 1)])).send(gateway.addr);
        reply.is(status, "unknown", "");
        assert_eq!(reply.text(), body);
        let shown = AdminClient::of(&gateway).show(id);
        assert_eq!(shown["item"]["evidence"], json!(body));
        assert!(shown.to_string().contains(reason), "{shown}");
    }
}

#[test]
fn a_merged_answer_with_unknown_items_says_that_it_is_the_gateways() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    rewards.answering(|_, _, _| Act::reset());
    issue(&batch("+65", &TWO)).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    rewards.honest();
    let more = batch("+65", &[("a", "R1", 2), ("b", "R2", 1), ("c", "R3", 1)]);
    // Once with something sent, once with nothing.
    for _ in 0..2 {
        let reply = issue(&more).send(gateway.addr);
        reply.is(409, "unknown", "outcome-unknown");
        assert_eq!(reply.header("retry-after"), None, "{reply:?}");
    }
    assert_eq!(rewards.sent().len(), 2);
}

#[test]
fn the_status_page_takes_an_id_in_both_spellings() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    let ids = ["plain", "tillä", "with space"];
    for id in ids {
        issue(&batch("+65", &[(id, "R1", 1)])).send(gateway.addr).is(200, "executed", "");
    }
    let status =
        |key: &str| Request::get("/.well-known/idempotency/status").key(key).send(gateway.addr);
    for key in ["plain", "\"plain\"", "tillä", "with space", "\"with space\""] {
        let reply = status(key);
        assert_eq!(reply.status, 200, "{key}: {reply:?}");
        let shown = reply.json();
        assert_eq!(shown["state"], "complete");
        assert_eq!(shown["status"], Value::Null);
        assert!(shown["completed_at"].is_string(), "{shown}");
    }
    status("\"plain").is(400, "rejected", "key-invalid");
    status("\"other\"").is(404, "", "not-found");
}

#[test]
fn a_hang_up_reloads_and_ends_nothing() {
    let (rewards, gate) = (Rewards::start(), Gate::default());
    let gateway = rewards.gateway("");
    let held = gate.clone();
    rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&held));
    let mut client = issue(&batch("+65", &TWO)).begin(gateway.addr);
    rewards.backend.wait_calls(1);
    gateway.hang_up();
    let received = || gateway.stderr().contains("the configuration was reloaded").then_some(());
    eventually("the reading of the file is logged", received);
    gate.open();
    client.read().is(200, "executed", "");
    issue(&batch("+65", &TWO)).send(gateway.addr).is(200, "replayed", "");
}

#[test]
fn matchers_of_the_outcome_decide_about_answers_without_rows() {
    let rewards = Rewards::start();
    let outcome = "outcome.retry = [429, { header = { name = \"server\", equals = \"gate\" } }, \
                   { pointer = \"/code\", equals = \"THROTTLED\" }]\n\
                   outcome.pending = [{ status = 202, pointer = \"/code\", equals = \"QUEUED\" }]\n\
                   outcome.unknown = [\"5xx\", { status = 400, contains = \"timed out\" }]";
    let gateway = AdminClient::guard(rewards.setup(outcome)).start();
    let send = |id: &str, act: Act| {
        rewards.answering(move |_, _, _| act.clone());
        let reply = issue(&batch("+65", &[(id, "R1", 1)])).send(gateway.addr);
        rewards.honest();
        reply
    };
    let reason = |id: &str| AdminClient::of(&gateway).show(id)["reason"].to_string();
    // The body or a header proves that nothing was issued, whatever the status.
    for (id, act) in [
        ("body", answer(500, r#"{"code":"THROTTLED"}"#)),
        ("header", Act::whole(503, &[("server", "gate")], b"busy")),
    ] {
        assert_eq!(send(id, act).disposition(), "not-executed", "{id}");
        issue(&batch("+65", &[(id, "R1", 1)])).send(gateway.addr).is(200, "executed", "");
    }
    // Other answers of the same status prove nothing, nor does one that is cut off.
    for (id, act) in [
        ("other", answer(500, r#"{"code":"BROKEN"}"#)),
        ("cut", answer(500, r#"{"code":"THROTTLED","rewards":[{"#)),
        ("late", answer(400, "the database timed out")),
    ] {
        assert_eq!(send(id, act).disposition(), "unknown", "{id}");
        let reply = issue(&batch("+65", &[(id, "R1", 1)])).send(gateway.addr);
        reply.is(409, "unknown", "outcome-unknown");
    }
    assert_eq!(send("queued", answer(202, r#"{"code":"QUEUED"}"#)).disposition(), "unknown");
    assert!(reason("queued").contains("not decided yet"), "{}", reason("queued"));
    assert_eq!(gateway.metric("oncegate_unknown_records"), Some(3));
}
