//! Batches and answers made to mislead: each of these once got a wrong answer.

use crate::support::rewards::{batch, issue};
use crate::support::{Rewards, answer};

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
