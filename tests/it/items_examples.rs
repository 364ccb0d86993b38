//! The two example configurations that need no profile and no code, against backends of their kind.

use std::path::Path;

use crate::support::rewards::{batch, rows};
use crate::support::{Backend, Request, Rewards, Setup, answer};

/// The routes of an example, before this backend.
fn routes(setup: Setup, name: &str) -> Setup {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let upstream = text.split("[[upstream]]").nth(1).unwrap();
    let upstream = upstream.split("name = \"").nth(1).unwrap().split('"').next().unwrap();
    let wanted = format!("upstream = \"{upstream}\"");
    text.split("[[route]]").skip(1).fold(setup, |setup, lines| {
        assert!(lines.contains(&wanted));
        setup.route(&lines.replace(&wanted, ""))
    })
}

#[test]
fn a_body_that_is_the_array_is_answered_by_position() {
    let backend = Backend::start();
    let gateway = routes(Setup::before(&backend), "currency.toml").start();
    let credit =
        |body: &str| Request::new("POST", "/v1/users/7/currencies").json(body).send(gateway.addr);
    let body =
        r#"[{"uniqueId":"a","value":5},{"uniqueId":"b","value":7},{"uniqueId":"c","value":1}]"#;
    backend.always(answer(
        200,
        r#"{"data":[{"status":"SUCCESS","balance":5},{"status":"FAILED"},{"status":"?"}],"errors":[]}"#,
    ));
    let reply = credit(body);
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(backend.last().text(), body);
    backend.always(answer(200, r#"{"data":[{"status":"SUCCESS","balance":12}],"errors":[]}"#));
    let reply = credit(body);
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(backend.last().text(), r#"[{"uniqueId":"b","value":7}]"#);
    let data = &reply.json()["data"];
    assert_eq!(
        data,
        &serde_json::json!([
            { "status": "SUCCESS", "balance": 5 },
            { "status": "SUCCESS", "balance": 12 },
            { "status": "UNKNOWN" },
        ])
    );
    let known = r#"[{"value":7,"uniqueId":"b"},{"uniqueId":"a","value":5}]"#;
    let reply = credit(known);
    reply.is(200, "replayed", "");
    assert_eq!(reply.json()["data"][1]["balance"], 5);
    credit(r#"[{"uniqueId":"a","value":6}]"#).is(422, "rejected", "key-reused");
    let other = Request::new("POST", "/v1/users/8/currencies").json(known).send(gateway.addr);
    other.is(422, "rejected", "key-reused");
    let many: Vec<String> = (0..11).map(|id| format!(r#"{{"uniqueId":"{id}"}}"#)).collect();
    credit(&format!("[{}]", many.join(","))).is(413, "rejected", "too-many-items");
    credit("{}").is(400, "rejected", "body-invalid");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn a_single_reward_and_a_batch_share_their_ids() {
    let rewards = Rewards::start();
    let gateway = routes(Setup::before(&rewards.backend), "single-reward.toml").start();
    let bulk_path = "/api_gateway/rewards/core/v1/user/rewards/issue";
    let one = |body: &str| {
        Request::new("POST", "/api_gateway/rewards/core/v1/user/reward/issue")
            .json(body)
            .send(gateway.addr)
    };
    rewards.limit("R1", 1);
    rewards.answering(|seen, status, mut body| {
        // The single endpoint answers with the row itself.
        let single = seen.line.contains("/reward/issue");
        let body = if single { body["rewards"][0].take() } else { body };
        answer(status, &body.to_string())
    });
    let body = r#"{"mobile":"+65","requestId":"a","rewardId":"R1","quantity":2}"#;
    let reply = one(body);
    reply.is(400, "executed", "");
    let row = reply.json();
    assert_eq!((&row["quantity"], &row["status"]["code"]), (&1.into(), &8010.into()), "{row}");
    rewards.unlimited();
    // The bulk endpoint sends the rest.
    let reply = Request::new("POST", bulk_path)
        .json(&batch("+65", &[("a", "R1", 2), ("b", "R2", 1)]))
        .send(gateway.addr);
    assert_eq!(rows(&reply), "a:2/2 200, b:1/1 200 = 200");
    let reply = one(body);
    reply.is(200, "replayed", "");
    assert_eq!(reply.json()["quantity"], 2);
    assert_eq!(reply.json()["intouch"].as_array().map(Vec::len), Some(2));
    one(r#"{"mobile":"+65","requestId":"a","rewardId":"R1","quantity":3}"#).is(
        422,
        "rejected",
        "key-reused",
    );
    assert_eq!(rewards.points(), 20);
    assert_eq!(rewards.sent(), ["R1x2", "R1x1,R2x1"]);
}
