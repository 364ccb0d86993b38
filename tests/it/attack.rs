//! Requests and answers made to mislead: each of these once got a wrong answer.

use crate::support::{Backend, Request, Setup, answer, at_once};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

#[test]
fn a_retry_that_meets_a_wrong_request_with_its_key_still_gets_its_answer() {
    let backend = Backend::start();
    // Too large for the answers kept in memory: each duplicate asks the store.
    backend.always(answer(200, &format!("\"{}\"", "x".repeat(300 << 10))));
    let gateway = Setup::before(&backend).start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    for _ in 0..40 {
        at_once(8, |index| match index % 2 {
            0 => {
                Request::redeem("k", BODY).send(gateway.addr).is(200, "replayed", "");
            }
            _ => {
                let wrong = Request::redeem("k", r#"{"qr":"rsg:2"}"#).send(gateway.addr);
                wrong.is(422, "rejected", "key-reused");
            }
        });
    }
    assert_eq!(backend.calls(), 1);
}
