//! Batches and answers made to mislead: each of these once got a wrong answer.

use crate::support::rewards::{batch, issue, rows};
use crate::support::{Backend, Request, Rewards, Setup, answer};

#[test]
fn rows_without_the_object_around_them_are_not_a_refusal() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    rewards.answering(|_, _, body| answer(200, &body["rewards"].to_string()));
    let body = batch("+65", &[("a", "R1", 2)]);
    for (status, error) in [(502, "outcome-unknown"), (409, "")] {
        issue(&body).send(gateway.addr).is(status, "unknown", error);
    }
    assert_eq!((rewards.issued("a"), rewards.sent().len()), (2, 1));
    // An object that lacks the rows still says that there are none.
    rewards.refusing(400, r#"{"status":{"success":false,"code":8003}}"#);
    let told = issue(&batch("+65", &[("b", "R1", 1)])).send(gateway.addr);
    told.is(400, "executed", "");
}

/// A route without a profile, whose rows say "all of it" or a code.
const ALL: &str = r#"name = "credit"
methods = ["POST"]
path = "/credit"
mode = "items"
[route.items]
at = "/list"
id = "/id"
[route.items.response]
match = ["id:/id"]
issued = { all = { pointer = "/success", equals = true } }
retry = { pointer = "/code", equals = 8003 }"#;

#[test]
fn a_row_that_confirms_and_denies_is_unknown() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).route(ALL).start();
    let credit = Request::new("POST", "/credit").json(r#"{"list":[{"id":"a"}]}"#);
    backend.always(answer(200, r#"{"list":[{"id":"a","success":true,"code":8003}]}"#));
    for _ in 0..2 {
        credit.send(gateway.addr).is(409, "unknown", "");
    }
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_place_proves_nothing_when_the_known_rows_stand_elsewhere() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    rewards.limit("R2", 0);
    // In the order b, c, a; only b's row has an id, and none names its reward.
    rewards.answering(|_, status, mut body| {
        let list = body["rewards"].as_array_mut().unwrap();
        list.rotate_left(1);
        for row in list.iter_mut().map(|row| row.as_object_mut().unwrap()) {
            row.remove("rewardId");
            if row["requestId"] != "b" {
                row.remove("requestId");
            }
        }
        answer(status, &body.to_string())
    });
    let body = batch("+65", &[("a", "R2", 1), ("b", "R1", 1), ("c", "R1", 1)]);
    let told = issue(&body).send(gateway.addr);
    assert_eq!(rows(&told), "a:0/1 1010, b:1/1 200, c:0/1 1010 = 1010");
    rewards.honest();
    issue(&body).send(gateway.addr).is(409, "unknown", "");
    assert_eq!((rewards.issued("c"), rewards.sent().len()), (1, 1));
}

#[test]
fn a_place_proves_nothing_when_another_row_names_another_reward() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    // In the order b, c, a, d, without ids: each reward stands twice, and the third row, a's, is of
    // the reward that c has too.
    rewards.answering(|_, status, mut body| {
        let list = body["rewards"].as_array_mut().unwrap();
        list[..3].rotate_left(1);
        for row in list.iter_mut() {
            row.as_object_mut().unwrap().remove("requestId");
        }
        // The backend could not give a's: it went to somebody else meanwhile.
        list[2]["quantity"] = 0.into();
        list[2]["intouch"] = serde_json::json!([]);
        answer(status, &body.to_string())
    });
    let body = batch("+65", &[("a", "R1", 1), ("b", "R2", 1), ("c", "R1", 1), ("d", "R2", 1)]);
    let told = issue(&body).send(gateway.addr);
    told.is(409, "unknown", "");
    rewards.honest();
    issue(&body).send(gateway.addr).is(409, "unknown", "");
    assert_eq!((rewards.issued("c"), rewards.sent().len()), (1, 1));
}
