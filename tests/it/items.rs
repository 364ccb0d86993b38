//! Batches: the worked example, exact texts, views, and what other parts of the gateway say of them.

use crate::support::rewards::{batch, coupons, issue, rows};
use crate::support::{Request, Rewards, answer};

const STORY: [(&str, &str, u64); 2] = [("a", "R1", 2), ("b", "R2", 2)];

#[test]
fn the_worked_example_spends_15_25_30_30() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    let reply = |wanted: (u16, &str, &str), points: u64| {
        let reply = issue(&batch("+65", &STORY)).send(gateway.addr);
        let replayed = (wanted.1 == "replayed").then(|| "true".to_owned());
        assert_eq!(reply.header("idempotency-replayed"), replayed);
        reply.is(wanted.0, wanted.1, "");
        assert_eq!((rows(&reply).as_str(), rewards.points()), (wanted.2, points));
        reply
    };
    rewards.limit("R1", 1);
    rewards.limit("R2", 1);
    reply((400, "executed", "a:1/2 8010, b:1/2 8010 = 8010"), 15);
    rewards.limit("R2", 2);
    reply((400, "executed", "a:1/2 8010, b:2/2 200 = 8010"), 25);
    rewards.unlimited();
    let third = reply((200, "executed", "a:2/2 200, b:2/2 200 = 200"), 30);
    let fourth = reply((200, "replayed", "a:2/2 200, b:2/2 200 = 200"), 30);
    assert_eq!(third.json()["rewards"], fourth.json()["rewards"]);
    assert_eq!((coupons(&fourth, 0), coupons(&fourth, 1)), (2, 2));
    assert_eq!(rewards.sent(), ["R1x2,R2x2", "R1x1,R2x1", "R1x1"]);
}

#[test]
fn a_complete_batch_is_replayed_after_a_restart_and_after_a_kill() {
    let rewards = Rewards::start();
    rewards.limit("R1", 1);
    let mut gateway = rewards.gateway("");
    let first = issue(&batch("+65", &STORY)).send(gateway.addr);
    assert_eq!(rows(&first), "a:1/2 8010, b:2/2 200 = 8010");
    gateway = gateway.killed_and_restarted();
    rewards.unlimited();
    let second = issue(&batch("+65", &STORY)).send(gateway.addr);
    second.is(200, "executed", "");
    gateway = gateway.restarted();
    let third = issue(&batch("+65", &STORY)).send(gateway.addr);
    third.is(200, "replayed", "");
    assert_eq!(third.header("idempotency-expires"), None);
    assert_eq!(second.json()["rewards"], third.json()["rewards"]);
    assert_eq!(rewards.sent(), ["R1x2,R2x2", "R1x1"]);
}

#[test]
fn what_the_gateway_does_not_own_goes_up_and_down_with_its_text() {
    let rewards = Rewards::start();
    let body = r#"{ "notes": "caf\u00e9 é", "transactionNumber": 12345678901234567890.10,
 "mobile": "+65", "rewards": [ {"rewardId":"R1", "x": 1.10, "quantity": 2, "requestId":"a"} ,
 {"quantity": 1, "rewardId":"R2", "requestId":"b"}, {"rewardId":"R3","quantity":3,"requestId":"c"} ], "z": [1e2] }"#;
    let answer_one = r#"{ "amount": 1.10, "big": 12345678901234567890, "rewards" : [
 {"requestId":"a","quantity":1,"intouch":[{"n":1.50}],"note":"\u00e9"},
 {"requestId":"b","quantity":1,"intouch":[{"n":2}]},{"requestId":"c","quantity":0,"intouch":[]}], "end": 1e2 }"#;
    rewards.backend.always(answer(200, answer_one));
    let gateway = rewards.gateway("");
    let reply = issue(body).send(gateway.addr);
    assert_eq!(rewards.backend.last().text(), body);
    for text in ["\"amount\": 1.10", "12345678901234567890", "[{\"n\":1.50}]", "\\u00e9", "1e2"] {
        assert!(reply.text().contains(text), "{text} in {}", reply.text());
    }
    let _ = issue(body).send(gateway.addr);
    assert_eq!(
        rewards.backend.last().text(),
        r#"{ "notes": "caf\u00e9 é", "transactionNumber": 12345678901234567890.10,
 "mobile": "+65", "rewards": [ {"rewardId":"R1", "x": 1.10, "quantity": 1, "requestId":"a"}, {"rewardId":"R3","quantity":3,"requestId":"c"} ], "z": [1e2] }"#
    );
}

#[test]
fn the_delta_view_shows_what_this_call_issued() {
    let rewards = Rewards::start();
    rewards.limit("R1", 1);
    let gateway = rewards.gateway("[route.items]\nview = \"delta\"");
    let first = issue(&batch("+65", &STORY)).send(gateway.addr);
    assert_eq!(rows(&first), "a:1/2 8010, b:2/2 200 = 8010");
    rewards.unlimited();
    let second = issue(&batch("+65", &STORY)).send(gateway.addr);
    assert_eq!(rows(&second), "a:1/2 200, b:0/2 200 = 200");
    assert_eq!((coupons(&second, 0), coupons(&second, 1)), (1, 0));
    let third = issue(&batch("+65", &STORY)).send(gateway.addr);
    assert_eq!(rows(&third), "a:0/2 200, b:0/2 200 = 200");
    assert_eq!(rewards.points(), 30);
}

#[test]
fn an_indivisible_item_is_sent_whole_or_not_at_all() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    let body = r#"{"mobile":"+65","rewards":[{"rewardId":"R1","quantity":500,"requestId":"a","indivisible":true}]}"#;
    rewards.refusing(200, r#"{"rewards":[{"requestId":"a","status":{"code":8003}}]}"#);
    assert_eq!(issue(body).send(gateway.addr).json()["rewards"][0]["quantity"], 0);
    rewards.honest();
    let reply = issue(body).send(gateway.addr);
    assert_eq!(rows(&reply), "a:500/500 200 = 200");
    issue(body).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(rewards.sent(), ["R1x500", "R1x500"]);
    // A part of one is a contradiction: nobody sends the rest.
    let body = body.replace("\"a\"", "\"b\"");
    rewards.limit("R1", 700);
    issue(&body).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    issue(&body).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    assert_eq!(rewards.sent().len(), 3);
}

#[test]
fn tenants_do_not_share_ids_and_neither_do_ledgers() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    let one = batch("+65", &[("a", "R1", 1)]);
    issue(&one).tenant("x").send(gateway.addr).is(200, "executed", "");
    issue(&one).tenant("y").send(gateway.addr).is(200, "executed", "");
    issue(&one).tenant("x").send(gateway.addr).is(200, "replayed", "");
    Request::redeem("a", "{}").tenant("x").send(gateway.addr);
    assert_eq!(rewards.sent().len(), 3);
}

#[test]
fn the_contract_lists_the_route_and_the_status_page_tells_an_item() {
    let rewards = Rewards::start();
    rewards.limit("R1", 1);
    let gateway = rewards.gateway("");
    issue(&batch("+65", &STORY)).send(gateway.addr);
    let contract = Request::get("/.well-known/idempotency").send(gateway.addr).json();
    let routes = contract["routes"].as_array().unwrap();
    let route = routes.iter().find(|route| route["name"] == "issue").unwrap();
    assert_eq!((&route["mode"], &route["items"]["id"]), (&"items".into(), &"/requestId".into()));
    let status =
        |id: &str| Request::get("/.well-known/idempotency/status").key(id).send(gateway.addr);
    let reply = status("a").json();
    assert_eq!((&reply["state"], &reply["fulfilled"]), (&"partial".into(), &1.into()), "{reply}");
    assert_eq!(status("b").json()["state"], "complete");
    status("c").is(404, "", "not-found");
}

#[test]
fn headers_about_the_old_bytes_do_not_survive_the_new_ones() {
    let rewards = Rewards::start();
    rewards.limit("R1", 1);
    rewards.answering(|_, status, body| {
        let headers = [
            ("etag", "\"1\""),
            ("x-trace", "t"),
            ("set-cookie", "c=1"),
            ("content-digest", "sha-256=:x:"),
        ];
        crate::support::Act::whole(status, &headers, body.to_string().as_bytes())
    });
    let gateway = rewards.gateway("");
    let send = || {
        issue(&batch("+65", &STORY))
            .header("content-digest", "sha-256=:y:")
            .key("whole")
            .send(gateway.addr)
    };
    send();
    assert_eq!(rewards.backend.last().header("content-digest").as_deref(), Some("sha-256=:y:"));
    assert_eq!(rewards.backend.last().header("idempotency-key"), None);
    assert_eq!(rewards.backend.last().header("accept-encoding").as_deref(), Some("identity"));
    let reply = send();
    assert_eq!(rewards.backend.last().header("content-digest"), None);
    assert_eq!((reply.header("etag"), reply.header("content-digest")), (None, None));
    assert_eq!(reply.header("x-trace").as_deref(), Some("t"));
    assert_eq!(reply.header("content-type").as_deref(), Some("application/json"));
}

#[test]
fn a_short_retention_keeps_the_quantities_until_the_tombstone_ends() {
    let rewards = Rewards::start();
    rewards.limit("R1", 1);
    let gateway = rewards.gateway("record.retention = \"1s\"\nrecord.tombstone = \"1h\"");
    let send = |id: &str| issue(&batch("+65", &[(id, "R1", 2)])).send(gateway.addr);
    assert!(send("partial").header("idempotency-expires").is_none());
    rewards.unlimited();
    let reply = send("done");
    assert!(reply.header("idempotency-expires").is_some());
    let reply = crate::support::eventually("the rows are gone", || {
        let reply = send("done");
        reply.is(200, "replayed", "");
        (coupons(&reply, 0) == 0).then_some(reply)
    });
    assert_eq!(rows(&reply), "done:2/2 200 = 200");
    // What is not complete never ends.
    assert_eq!(rows(&send("partial")), "partial:2/2 200 = 200");
    assert_eq!(rewards.sent(), ["R1x2", "R1x2", "R1x1"]);
}
