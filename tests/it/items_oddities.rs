//! What real backends answer: each oddity, and what the gateway makes of it.

use serde_json::{Value, json};

use crate::support::rewards::{batch, coupons, issue, rows};
use crate::support::{Rewards, answer};

fn story() -> String {
    batch("+65", &[("a", "R1", 2), ("b", "R2", 2)])
}

/// Issues one of each of two, answers with what `edit` makes of that; then sends the batch again
/// without limits, and says what was sent in all and what the two calls were told.
fn twice(
    status: u16,
    edit: impl Fn(&mut Value) + Send + Sync + 'static,
) -> (Vec<String>, Vec<String>) {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    rewards.limit("R1", 1);
    rewards.limit("R2", 1);
    rewards.editing(status, edit);
    let reply = |reply: crate::support::Response| match (reply.status, reply.error().as_str()) {
        (status, "") | (status @ 409, "outcome-unknown") => {
            format!("{status} {} {}", reply.disposition(), rows(&reply))
        }
        (status, error) => format!("{status} {error}"),
    };
    let first = reply(issue(&story()).send(gateway.addr));
    rewards.unlimited();
    rewards.honest();
    let second = reply(issue(&story()).send(gateway.addr));
    // Whatever the backend said: never more than was requested.
    assert!(rewards.issued("a") <= 2 && rewards.issued("b") <= 2, "{:?}", rewards.sent());
    (rewards.sent(), vec![first, second])
}

/// The oddity changes nothing: both calls end as if the answer had been tidy.
#[track_caller]
fn harmless(status: u16, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
    let (sent, reply) = twice(status, edit);
    assert_eq!(sent, ["R1x2,R2x2", "R1x1,R2x1"]);
    let first = format!("{status} executed a:1/2 8010, b:1/2 8010 = 8010");
    assert_eq!(reply, [first.as_str(), "200 executed a:2/2 200, b:2/2 200 = 200"]);
}

/// Item `a` is unknown and held, item `b` goes on.
#[track_caller]
fn holds_a(edit: impl Fn(&mut Value) + Send + Sync + 'static) {
    let (sent, reply) = twice(200, edit);
    assert_eq!(sent, ["R1x2,R2x2", "R2x1"]);
    let first = "409 unknown a:0/2 1010, b:1/2 8010 = 1010";
    assert_eq!(reply, [first, "409 unknown a:0/2 1010, b:2/2 200 = 1010"]);
}

#[test]
fn a_partial_issue_under_http_200_and_under_http_400_is_the_same() {
    harmless(200, |_| ());
    harmless(400, |_| ());
    harmless(500, |_| ());
}

#[test]
fn the_status_of_the_whole_proves_nothing() {
    harmless(200, |body| body["status"] = json!({ "success": true, "code": 200 }));
    harmless(400, |body| body["status"] = json!({ "success": false, "code": 8003 }));
    harmless(200, |body| drop(body.as_object_mut().unwrap().remove("status")));
}

#[test]
fn a_failed_row_that_carries_coupons_has_issued_them() {
    harmless(200, |body| {
        body["rewards"][0]["status"] = json!({ "success": false, "code": 8003 });
        body["rewards"][0]["quantity"] = Value::Null;
    });
}

#[test]
fn numbers_may_be_strings_and_arrays_null() {
    harmless(200, |body| {
        for row in body["rewards"].as_array_mut().unwrap() {
            row["quantity"] = json!("1");
            row["promotions"] = Value::Null;
            row["vendor"] = Value::Null;
        }
    });
}

#[test]
fn rows_may_come_in_another_order_and_with_another_reward() {
    harmless(200, |body| body["rewards"].as_array_mut().unwrap().reverse());
    harmless(200, |body| body["rewards"][0]["rewardId"] = json!("R9"));
}

#[test]
fn rows_without_ids_are_told_by_reward_or_by_place_in_what_was_sent() {
    #[track_caller]
    fn check(edit: impl Fn(&mut Value) + Send + Sync + 'static) {
        let (sent, reply) = twice(200, edit);
        assert_eq!(sent, ["R1x2,R2x2", "R1x1,R2x1"]);
        // The rows stay as the backend wrote them, in the client's order.
        let first = "200 executed null:1/2 8010, null:1/2 8010 = 8010";
        assert_eq!(reply, [first, "200 executed a:2/2 200, b:2/2 200 = 200"]);
    }
    check(|body| {
        for row in body["rewards"].as_array_mut().unwrap() {
            row.as_object_mut().unwrap().remove("requestId");
        }
        body["rewards"].as_array_mut().unwrap().reverse();
    });
    check(|body| {
        for row in body["rewards"].as_array_mut().unwrap() {
            row["requestId"] = Value::Null;
            row.as_object_mut().unwrap().remove("rewardId");
        }
    });
}

#[test]
fn a_count_and_a_list_that_differ_are_unknown() {
    holds_a(|body| body["rewards"][0]["quantity"] = json!(2));
    holds_a(|body| body["rewards"][0]["intouch"] = json!([]));
    holds_a(|body| body["rewards"][0]["vendor"] = json!("none"));
    holds_a(|body| body["rewards"][0]["quantity"] = json!(-1));
    holds_a(|body| body["rewards"][0]["quantity"] = json!("one"));
}

#[test]
fn missing_doubled_and_overfull_rows_are_unknown() {
    holds_a(|body| drop(body["rewards"].as_array_mut().unwrap().remove(0)));
    holds_a(|body| {
        let row = body["rewards"][0].clone();
        body["rewards"].as_array_mut().unwrap().push(row);
    });
    holds_a(|body| {
        body["rewards"][0]["quantity"] = json!(3);
        body["rewards"][0]["intouch"] = json!([1, 2, 3]);
    });
    holds_a(|body| body["rewards"][0]["requestId"] = json!("somebody else's"));
}

#[test]
fn a_row_that_says_it_does_not_know_is_unknown() {
    holds_a(|body| body["rewards"][0]["status"]["code"] = json!(1010));
}

#[test]
fn surplus_rows_are_nobodys() {
    harmless(200, |body| {
        body["rewards"].as_array_mut().unwrap().push(json!({ "requestId": "x", "quantity": 5 }));
    });
}

#[test]
fn coupons_of_all_tries_add_up_and_are_never_forgotten() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    let body = batch("+65", &[("a", "R1", 5)]);
    for limit in 1..=5 {
        rewards.limit("R1", limit);
        let reply = issue(&body).send(gateway.addr);
        assert_eq!(coupons(&reply, 0) as u64, limit);
    }
    let reply = issue(&body).send(gateway.addr);
    let names: Vec<String> = reply.json()["rewards"][0]["intouch"]
        .as_array()
        .unwrap()
        .iter()
        .map(|coupon| coupon["couponCode"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["C1", "C2", "C3", "C4", "C5"]);
    assert_eq!(rewards.sent(), ["R1x5", "R1x4", "R1x3", "R1x2", "R1x1"]);
}

#[test]
fn a_refusal_of_the_whole_batch_goes_to_the_client_as_it_came() {
    const REFUSAL: &str = r#"{"status": {"success":false,"code":10010,"message":"no such user"} }"#;
    for (status, disposition) in [(400, "executed"), (404, "executed"), (401, "not-executed")] {
        let rewards = Rewards::start();
        let gateway = rewards.gateway("");
        rewards.refusing(status, REFUSAL);
        let reply = issue(&story()).send(gateway.addr);
        reply.is(status, disposition, "");
        assert_eq!(reply.text(), REFUSAL);
        rewards.honest();
        let reply = issue(&story()).send(gateway.addr);
        assert_eq!(rows(&reply), "a:2/2 200, b:2/2 200 = 200");
        assert_eq!((rewards.points(), rewards.sent().len()), (30, 2));
    }
}

#[test]
fn a_refusal_after_a_part_was_issued_shows_what_was_issued() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    rewards.limit("R1", 1);
    issue(&story()).send(gateway.addr);
    for status in [400, 429] {
        rewards.refusing(status, r#"{"status":{"success":false,"code":10004}}"#);
        let reply = issue(&story()).send(gateway.addr);
        assert_eq!((reply.status, rows(&reply).as_str()), (status, "a:1/2 8010, b:2/2 200 = 8010"));
        assert_eq!(coupons(&reply, 0), 1);
    }
    rewards.unlimited();
    rewards.honest();
    let reply = issue(&story()).send(gateway.addr);
    assert_eq!((rows(&reply).as_str(), rewards.points()), ("a:2/2 200, b:2/2 200 = 200", 30));
}

#[test]
fn an_answer_that_says_nothing_of_what_was_issued_leaves_all_of_it_unknown() {
    for (status, body) in [
        (200, ""),
        (200, "OK"),
        (200, r#"{"status":{"success":true}}"#),
        (200, r#"{"rewards":[{"requestId":"a","quantity":2"#),
        (200, r#"{"rewards":[],"rewards":[]}"#),
        (500, r#"{"status":{"success":false}}"#),
        (502, "<html>"),
        (503, ""),
        (409, "{}"),
    ] {
        let rewards = Rewards::start();
        let gateway = rewards.gateway("");
        rewards.answering(move |_, _, _| answer(status, body));
        let reply = issue(&story()).send(gateway.addr);
        reply.is(status, "unknown", "");
        assert_eq!(reply.text(), body);
        rewards.honest();
        let more = batch("+65", &[("a", "R1", 2), ("c", "R1", 1)]);
        let reply = issue(&more).send(gateway.addr);
        reply.is(409, "unknown", "outcome-unknown");
        assert_eq!(rows(&reply), "a:0/2 1010, c:1/1 200 = 1010");
        assert_eq!((rewards.points(), rewards.sent().len()), (35, 2));
    }
}
