//! A changed fingerprint rule: a byte-identical retry of a request that was executed is replayed.

use crate::support::rewards::{batch, issue, rows};
use crate::support::{Backend, Gate, Request, Rewards, Setup, answer};

const BODY: &str = r#"{"qr":"rsg:1","t":1,"u":2}"#;
const OTHER: &str = r#"{"qr":"rsg:2","t":1,"u":2}"#;

/// Executes under one rule, restarts under another, and sends the same and another request.
#[track_caller]
fn check(earlier: &str, later: &str) {
    let backend = Backend::start();
    let rule = |rule: &str| if rule.is_empty() { String::new() } else { format!("{rule}\n") };
    let setup = Setup::before(&backend).redeem("record.subject = \"/qr\"");
    let gateway = setup.clone().redeem(&rule(earlier)).start();
    let request = |body: &str| Request::redeem("k", body).header("x-shop", "1");
    request(BODY).send(gateway.addr).is(200, "executed", "");
    request(BODY).send(gateway.addr).is(200, "replayed", "");
    drop(gateway);
    let gateway = setup.redeem(&rule(later)).start();
    for _ in 0..2 {
        request(BODY).send(gateway.addr).is(200, "replayed", "");
    }
    let reply = request(OTHER).send(gateway.addr);
    reply.is(422, "rejected", "key-reused");
    let problem = reply.json();
    assert!(problem.get("differing").is_none(), "{earlier} then {later}: {problem}");
    assert_eq!(backend.calls(), 1, "{earlier} then {later}");
}

#[test]
fn a_byte_identical_retry_is_replayed_whatever_the_rule_has_become() {
    let rules = [
        "fingerprint.exclude = [\"/t\"]",
        "fingerprint.exclude = [\"/t\", \"/u\"]",
        "fingerprint.include = [\"/qr\"]",
        "fingerprint.body = \"raw\"",
        "fingerprint.headers = [\"x-shop\"]",
        "fingerprint.headers = [\"host\", \"x-shop\"]",
    ];
    for rule in rules {
        check("", rule);
        check(rule, "");
    }
    check(rules[0], rules[1]);
    check(rules[1], rules[0]);
}

#[test]
fn a_call_that_was_lost_stays_unknown_under_another_rule() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend).start();
    let _lost = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    let mut gateway = gateway;
    gateway.kill9();
    let setup = gateway.setup().clone().redeem("fingerprint.exclude = [\"/t\"]");
    drop(gateway);
    gate.open();
    let gateway = setup.start();
    Request::redeem("k", BODY).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    Request::redeem("k", OTHER).send(gateway.addr).is(422, "rejected", "key-reused");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn an_item_of_the_same_bytes_is_the_same_item_under_another_rule() {
    for line in ["items.same = [\"/rewardId\"]", "items.shared = [\"/mobile\", \"/notes\"]"] {
        for (earlier, later) in [("", line), (line, "")] {
            let rewards = Rewards::start();
            rewards.limit("R1", 1);
            let gateway = rewards.setup(earlier).start();
            let body = batch("+65", &[("a", "R1", 2), ("b", "R2", 2)]);
            let reply = issue(&body).send(gateway.addr);
            assert_eq!(rows(&reply), "a:1/2 8010, b:2/2 200 = 8010");
            let mut setup = gateway.setup().clone();
            drop(gateway);
            setup = match later {
                "" => setup.replacing(line, ""),
                _ => setup.replacing(
                    "profile = \"capillary\"\n",
                    format!("profile = \"capillary\"\n{line}\n"),
                ),
            };
            let gateway = setup.start();
            rewards.unlimited();
            issue(&body).send(gateway.addr).is(200, "executed", "");
            issue(&body).send(gateway.addr).is(200, "replayed", "");
            // Of one item alone as well, and another item is still refused.
            issue(&batch("+65", &[("b", "R2", 2)])).send(gateway.addr).is(200, "replayed", "");
            let other = issue(&batch("+65", &[("a", "R3", 2)])).send(gateway.addr);
            assert_eq!(other.header("idempotency-status").as_deref(), Some("rejected"));
            assert_eq!(rewards.sent(), ["R1x2,R2x2", "R1x1"], "{earlier} then {later}");
        }
    }
}
