//! Batches that are refused: nothing is sent, nothing is claimed, and the words are right.

use std::time::{Duration, Instant};

use crate::support::rewards::{batch, issue};
use crate::support::{Request, Rewards};

#[track_caller]
fn check(status: u16, error: &str, bodies: &[&str]) {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    for body in bodies {
        let reply = issue(body).send(gateway.addr);
        reply.is(status, "rejected", error);
    }
    assert_eq!(rewards.backend.calls(), 0);
    // Nothing was claimed: the id is as good as new.
    issue(&batch("+65", &[("a", "R1", 2)])).send(gateway.addr).is(200, "executed", "");
}

#[test]
fn what_is_no_batch_is_refused() {
    check(
        400,
        "body-invalid",
        &[
            "",
            "x",
            "{",
            "[]",
            "{}",
            "null",
            r#"{"rewards":null}"#,
            r#"{"rewards":{}}"#,
            r#"{"rewards":[]}"#,
            r#"{"rewards":[1]}"#,
            r#"{"rewards":[{"requestId":"a"},null]}"#,
            r#"{"rewards":[{"requestId":"a","quantity":2}]} x"#,
            r#"{"rewards":[{"requestId":"a","requestId":"b"}]}"#,
            r#"{"rewards":[{"requestId":"a"}],"rewards":[{"requestId":"b"}]}"#,
            "{\"rewards\":[{\"requestId\":\"\u{0}\"}]}",
        ],
    );
}

#[test]
fn a_compressed_batch_is_refused_with_the_reason() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    let request = issue("\u{1f}\u{8b}").header("content-encoding", "gzip");
    let reply = request.send(gateway.addr);
    reply.is(400, "rejected", "body-invalid");
    assert!(reply.text().contains("compressed (Content-Encoding)"), "{reply:?}");
    assert_eq!(rewards.backend.calls(), 0);
}

#[test]
fn an_item_without_an_id_is_refused() {
    check(
        400,
        "key-missing",
        &[
            r#"{"rewards":[{"quantity":2}]}"#,
            r#"{"rewards":[{"requestId":"a","quantity":2},{"requestId":null}]}"#,
            r#"{"rewards":[{"requestId":""}]}"#,
        ],
    );
}

#[test]
fn an_id_that_is_none_is_refused() {
    let long = format!(r#"{{"rewards":[{{"requestId":"{}"}}]}}"#, "x".repeat(4097));
    let bodies = [
        r#"{"rewards":[{"requestId":[]}]}"#,
        r#"{"rewards":[{"requestId":{"a":1}}]}"#,
        r#"{"rewards":[{"requestId":true}]}"#,
        &long,
    ];
    check(400, "key-invalid", &bodies);
}

#[test]
fn a_quantity_that_is_none_is_refused() {
    let bodies: Vec<String> = [
        "0", "-1", "1.5", "1.0", "\"2\"", "1e3", "null", "[]", "true", "1000001",
        "99999999999999999999999999", "-0",
    ]
    .iter()
    .map(|text| {
        format!(
            r#"{{"rewards":[{{"requestId":"a","quantity":2}},{{"requestId":"b","quantity":{text}}}]}}"#
        )
    })
    .collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    check(400, "quantity-invalid", &bodies);
}

#[test]
fn an_id_that_stands_twice_is_refused_in_the_backends_words() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    let body = batch("+65", &[("a", "R1", 2), ("b", "R1", 1), ("a", "R2", 1)]);
    let reply = issue(&body).send(gateway.addr);
    reply.is(400, "rejected", "duplicate-item");
    let status = &reply.json()["status"];
    assert_eq!((&status["code"], &status["message"]), (&400.into(), &"Duplicate requestId".into()));
    // A number and a string are one id as well.
    let body = r#"{"rewards":[{"requestId":1},{"requestId":"1"}]}"#;
    issue(body).send(gateway.addr).is(400, "rejected", "duplicate-item");
    assert_eq!(rewards.backend.calls(), 0);
}

#[test]
fn a_changed_item_is_refused_for_the_whole_batch_in_the_backends_words() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    issue(&batch("+65", &[("a", "R1", 2)])).send(gateway.addr).is(200, "executed", "");
    let changed = [
        batch("+65", &[("a", "R1", 3), ("new", "R2", 1)]),
        batch("+65", &[("new", "R2", 1), ("a", "R2", 2)]),
        batch("+66", &[("a", "R1", 2), ("new", "R2", 1)]),
    ];
    for body in &changed {
        let reply = issue(body).send(gateway.addr);
        reply.is(422, "rejected", "key-reused");
        let status = &reply.json()["status"];
        assert_eq!((&status["code"], &status["success"]), (&10003.into(), &false.into()));
        assert_eq!(reply.header("content-type").as_deref(), Some("application/json"));
    }
    assert_eq!(rewards.sent(), ["R1x2"]);
    // What may change: the order of members and items, and members nobody compares.
    let body = r#"{"notes":"second","rewards":[{"requestId":"a","quantity":2,"rewardId":"R1","comment":"x"}],"mobile":"+65"}"#;
    issue(body).send(gateway.addr).is(200, "replayed", "");
}

#[test]
fn without_words_of_its_own_a_problem_names_what_differs() {
    let rewards = Rewards::start();
    let gateway = rewards
        .setup("")
        .route(
            "name = \"plain\"\nmethods = [\"POST\"]\npath = \"/plain\"\nmode = \"items\"\n\
             [route.items]\nat = \"/rewards\"\nid = \"/requestId\"\nquantity = \"/quantity\"\n\
             [route.items.response]\nmatch = [\"id:/requestId\"]\nissued = { count = \"/quantity\" }",
        )
        .start();
    let send = |body: &str| Request::new("POST", "/plain").json(body).send(gateway.addr);
    send(&batch("+65", &[("a", "R1", 2)])).is(200, "executed", "");
    let reply = send(&batch("+66", &[("a", "R1", 3)]));
    reply.is(422, "rejected", "key-reused");
    let problem = reply.json();
    assert_eq!(problem["differing"], serde_json::json!(["/mobile", "quantity"]), "{problem}");
    assert_eq!(problem["item"], 1);
    send(&batch("+65", &[("b", "R1", 1), ("b", "R1", 1)])).is(400, "rejected", "duplicate-item");
}

#[test]
fn more_items_than_allowed_and_deep_nesting_are_refused_in_bounded_time() {
    let rewards = Rewards::start();
    let gateway = rewards.setup("").limits("max_body = \"8MiB\"").start();
    let many = |count: usize| {
        let ids: Vec<String> = (0..count).map(|id| format!("id-{id}")).collect();
        let items: Vec<(&str, &str, u64)> = ids.iter().map(|id| (id.as_str(), "R1", 1)).collect();
        batch("+65", &items)
    };
    let begun = Instant::now();
    issue(&many(10_001)).send(gateway.addr).is(413, "rejected", "too-many-items");
    issue(&many(1001)).send(gateway.addr).is(413, "rejected", "too-many-items");
    let deep = format!("{{\"rewards\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    issue(&deep).send(gateway.addr).is(400, "rejected", "body-invalid");
    let deep = format!(
        r#"{{"rewards":[{{"requestId":"a","x":{}{}}}]}}"#,
        "{\"x\":".repeat(200_000),
        "1".to_owned() + &"}".repeat(200_000)
    );
    issue(&deep).send(gateway.addr).is(400, "rejected", "body-invalid");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(rewards.backend.calls(), 0);
}

#[test]
fn ten_thousand_items_go_through_in_one_claim() {
    let rewards = Rewards::start();
    rewards.limit("R1", 6000);
    // Rows as short as they can be: an answer of more than 100,000 values is not read.
    rewards.editing(200, |body| {
        for row in body["rewards"].as_array_mut().unwrap() {
            row.as_object_mut()
                .unwrap()
                .retain(|name, _| name == "requestId" || name == "quantity");
        }
    });
    let gateway = rewards
        .setup("record.max_stored_body = \"8MiB\"\n[route.items]\nmax_items = 10000")
        .limits("max_body = \"4MiB\"")
        .start();
    let ids: Vec<String> = (0..10_000).map(|id| format!("id-{id}")).collect();
    let items: Vec<(&str, &str, u64)> = ids.iter().map(|id| (id.as_str(), "R1", 1)).collect();
    let body = batch("+65", &items);
    let reply = issue(&body).send(gateway.addr);
    reply.is(200, "executed", "");
    assert_eq!(rewards.points(), 6000 * 5);
    rewards.unlimited();
    let reply = issue(&body).send(gateway.addr);
    reply.is(200, "executed", "");
    assert_eq!(reply.json()["rewards"].as_array().map(Vec::len), Some(10_000));
    issue(&body).send(gateway.addr).is(200, "replayed", "");
    assert_eq!((rewards.points(), rewards.backend.calls()), (50_000, 2));
}
