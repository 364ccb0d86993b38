//! What stands beside the rows of a batch's answer, answers without rows, and the text that a row
//! shows of this request.

use serde_json::json;

use crate::support::rewards::{batch, issue, rows};
use crate::support::{Act, Backend, Gateway, Request, Response, Rewards, Setup, answer};

/// A batch API whose answer is the array of rows, told by their places.
const LISTS: &str = "name = \"lists\"\nmethods = [\"POST\"]\npath = \"/lists\"\nmode = \"items\"\n\
     [route.items]\nat = \"/records\"\nid = \"/ref\"\n\
     [route.items.response]\nat = \"\"\nmatch = [\"position\"]\n\
     issued = { all = { pointer = \"/success\", equals = true } }\n\
     retry = { pointer = \"/success\", equals = false }\n";

/// A batch API whose answer has members beside the rows, found by a member of this request alone.
const REQUESTS: &str = "name = \"requests\"\nmethods = [\"POST\"]\npath = \"/requests\"\n\
     mode = \"items\"\n\
     [route.items]\nat = \"/requests\"\nid = \"/ref\"\nsame = [\"/body\"]\nshared = []\n\
     [route.items.response]\nat = \"/data\"\nmatch = [\"member:/id\"]\n\
     issued = { all = { pointer = \"/status\", equals = 202 } }\n\
     retry = { pointer = \"/status\", equals = 429 }\n";

const TWO: &str = r#"{"records":[{"ref":"a"},{"ref":"b"}]}"#;

fn start(backend: &Backend) -> Gateway {
    Setup::before(backend).route(LISTS).route(REQUESTS).start()
}

fn send(gateway: &Gateway, path: &str, body: &str) -> Response {
    Request::new("POST", path).json(body).send(gateway.addr)
}

#[test]
fn a_refusal_that_is_written_as_an_array_is_a_refusal() {
    const ERRORS: &str = r#"[ {"message":"Session expired","errorCode":"INVALID_SESSION_ID"} ]"#;
    for (status, body, disposition) in [
        (401, ERRORS, "not-executed"),
        (401, "[]", "not-executed"),
        (401, r#"["expired"]"#, "not-executed"),
        (429, ERRORS, "not-executed"),
        (403, ERRORS, "executed"),
        (403, r#"[{"message":"a"},{"message":"b"}]"#, "executed"),
    ] {
        let backend = Backend::start();
        let gateway = start(&backend);
        backend.always(answer(status, body));
        let reply = send(&gateway, "/lists", TWO);
        reply.is(status, disposition, "");
        assert_eq!(reply.text(), body);
        backend.always(answer(200, r#"[{"success":true},{"success":true}]"#));
        send(&gateway, "/lists", TWO).is(200, "executed", "");
        send(&gateway, "/lists", TWO).is(200, "replayed", "");
        assert_eq!(backend.calls(), 2, "{status} {body}");
    }
}

#[test]
fn an_array_of_errors_under_a_status_that_proves_nothing_leaves_the_items_unknown() {
    for status in [409, 422, 500, 503] {
        let backend = Backend::start();
        let gateway = start(&backend);
        let errors = r#"[{"message":"try later"}]"#;
        backend.always(answer(status, errors));
        let reply = send(&gateway, "/lists", TWO);
        reply.is(status, "unknown", "");
        assert_eq!(reply.text(), errors);
        backend.always(answer(200, r#"[{"success":true},{"success":true}]"#));
        send(&gateway, "/lists", TWO).is(409, "unknown", "outcome-unknown");
        assert_eq!(backend.calls(), 1, "{status}");
    }
    // One readable row makes it an answer with rows, whatever its status says.
    let backend = Backend::start();
    let gateway = start(&backend);
    backend.always(answer(401, r#"[{"success":true},{"message":"x"}]"#));
    send(&gateway, "/lists", TWO).is(409, "unknown", "outcome-unknown");
    backend.always(answer(200, "[]"));
    let reply = send(&gateway, "/lists", r#"{"records":[{"ref":"a"}]}"#);
    reply.is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn an_answer_without_readable_rows_reaches_its_client_as_it_came() {
    for (status, media_type, body) in [
        (201, "application/json", r#"{"batch_header":{"payout_batch_id":"P1"}}"#),
        (202, "application/json", "{}"),
        (200, "text/plain", "accepted"),
        (200, "application/json", r#"{ "errors":[{"message":"Unauthorized"}],"data":null }"#),
        (503, "text/html", "<html>busy"),
        (200, "application/json", ""),
    ] {
        let backend = Backend::start();
        let gateway = start(&backend);
        let headers = [("content-type", media_type), ("x-batch", "P1"), ("etag", "\"1\"")];
        backend.always(Act::whole(status, &headers, body.as_bytes()));
        let wanted = r#"{"requests":[{"ref":"a","id":"1","body":1}]}"#;
        let reply = send(&gateway, "/requests", wanted);
        reply.is(status, "unknown", "");
        assert_eq!(reply.text(), body);
        for (name, value) in headers {
            assert_eq!(reply.header(name).as_deref(), Some(value), "{reply:?}");
        }
        send(&gateway, "/requests", wanted).is(409, "unknown", "outcome-unknown");
        assert_eq!(backend.calls(), 1, "{body}");
    }
}

#[test]
fn an_answer_that_arrived_is_not_called_lost() {
    let backend = Backend::start();
    let gateway = start(&backend);
    let detail = |act: Act, key: &str| {
        backend.always(act);
        let reply = Request::redeem(key, "{}").send(gateway.addr);
        reply.is(502, "unknown", "outcome-unknown");
        reply.json()["detail"].as_str().unwrap().to_owned()
    };
    let arrived = "The answer arrived and could not be read";
    for (at, head) in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad line\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nno end",
    ]
    .into_iter()
    .enumerate()
    {
        let reply = detail(Act::raw(head).then(Act::close()), &format!("k-{at}"));
        assert!(reply.starts_with(arrived), "{head:?}: {reply}");
    }
    for (key, act) in [("closed", Act::close()), ("reset", Act::reset())] {
        assert!(detail(act, key).starts_with("The answer was lost"), "{key}");
    }
}

#[test]
fn members_beside_the_rows_media_type_and_headers_stay_in_answers_from_the_ledger() {
    let backend = Backend::start();
    let mut gateway = start(&backend);
    let headers = [
        ("content-type", "application/vnd.api+json"),
        ("x-trace", "t-1"),
        ("set-cookie", "c=1"),
        ("etag", "\"1\""),
    ];
    let first = r#"{ "status":true,"message":"2 queued", "data":[{"id":"1","status":202}, {"id":"2","status":429}],"meta":{"n":1.10} }"#;
    backend.always(Act::whole(200, &headers, first.as_bytes()));
    let wanted = r#"{"requests":[{"ref":"a","id":"1","body":1},{"ref":"b","id":"2","body":2}]}"#;
    let reply = send(&gateway, "/requests", wanted);
    reply.is(200, "executed", "");
    assert_eq!(reply.header("content-type").as_deref(), Some("application/vnd.api+json"));
    let second = r#"{"status":true,"message":"1 queued","data":[{"id":"2","status":202}]}"#;
    let headers = [("content-type", "application/vnd.api+json"), ("x-trace", "t-2")];
    backend.always(Act::whole(200, &headers, second.as_bytes()));
    let merged = json!({
        "status": true,
        "message": "1 queued",
        "data": [{ "id": "1", "status": 202 }, { "id": "2", "status": 202 }],
    });
    let reply = send(&gateway, "/requests", wanted);
    reply.is(200, "executed", "");
    assert_eq!(reply.json(), merged);
    // From the records, from memory, and from the records after a restart.
    for round in 0..4 {
        if round == 2 {
            gateway = gateway.restarted();
        }
        let reply = send(&gateway, "/requests", wanted);
        reply.is(200, "replayed", "");
        assert_eq!(reply.json(), merged, "{round}");
        assert_eq!(reply.header("content-type").as_deref(), Some("application/vnd.api+json"));
        assert_eq!(reply.header("x-trace").as_deref(), Some("t-2"));
        assert_eq!((reply.header("set-cookie"), reply.header("etag")), (None, None));
        assert_eq!(reply.all("via").len(), 1, "{reply:?}");
    }
    // A batch of other items shows what was said when they were sent.
    let reply = send(&gateway, "/requests", r#"{"requests":[{"ref":"a","id":"1","body":1}]}"#);
    reply.is(200, "replayed", "");
    assert_eq!(reply.json()["message"], "2 queued");
    assert_eq!(reply.json()["meta"]["n"].to_string(), "1.1");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn a_large_envelope_is_kept_once_and_a_huge_one_not_at_all() {
    for (size, kept) in [(500, true), (5_000, true), (60_000, true), (70_000, false)] {
        let backend = Backend::start();
        let gateway = start(&backend);
        let note = "n".repeat(size);
        let body = format!(
            r#"{{"note":"{note}","data":[{{"id":"1","status":202}},{{"id":"2","status":202}}]}}"#
        );
        let headers = [("content-type", "application/hal+json")];
        backend.always(Act::whole(200, &headers, body.as_bytes()));
        let wanted =
            r#"{"requests":[{"ref":"a","id":"1","body":1},{"ref":"b","id":"2","body":2}]}"#;
        send(&gateway, "/requests", wanted).is(200, "executed", "");
        let reply = send(&gateway, "/requests", wanted);
        reply.is(200, "replayed", "");
        assert_eq!(reply.json()["note"].as_str().is_some(), kept, "{size}");
        assert_eq!(reply.header("content-type").as_deref(), Some("application/hal+json"));
        assert_eq!(reply.json()["data"][1]["status"], 202);
    }
}

#[test]
fn a_template_and_the_gateway_come_before_what_the_backend_said() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    rewards.answering(|_, status, mut body| {
        body["status"] = json!({ "code": 7 });
        body["trace"] = json!("x");
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-status", "unknown"),
            ("idempotency-replayed", "false"),
        ];
        Act::whole(status, &headers, body.to_string().as_bytes())
    });
    let body = batch("+65", &[("a", "R1", 2)]);
    for disposition in ["executed", "replayed", "replayed"] {
        let reply = issue(&body).send(gateway.addr);
        reply.is(200, disposition, "");
        assert_eq!(rows(&reply), "a:2/2 200 = 200");
        assert_eq!(reply.json()["trace"], "x", "{disposition}");
    }
}

#[test]
fn a_row_that_was_found_by_a_member_shows_the_value_of_this_request() {
    let backend = Backend::start();
    let gateway = start(&backend);
    let wanted = |first: (&str, &str), second: (&str, &str)| {
        format!(
            r#"{{"requests":[{{"ref":"{}","id":{},"body":1}},{{"ref":"{}","id":{},"body":1}}]}}"#,
            first.0, first.1, second.0, second.1
        )
    };
    let ids = |reply: &Response| {
        let data = reply.json()["data"].as_array().unwrap().clone();
        data.iter().map(|row| format!("{}:{}", row["id"], row["status"])).collect::<Vec<_>>()
    };
    let rows = |first: u16, second: u16| {
        answer(
            200,
            &format!(
                r#"{{"data":[{{"id":"1","status":{first}}},{{"id":"2","status":{second}}}]}}"#
            ),
        )
    };
    backend.always(rows(202, 429));
    let reply = send(&gateway, "/requests", &wanted(("x", "\"1\""), ("y", "\"2\"")));
    assert_eq!(ids(&reply), ["\"1\":202", "\"2\":429"]);
    // Only y is sent, as 1; x is 2 in this batch.
    backend.always(answer(200, r#"{"data":[{"id":"1","status":429}]}"#));
    let reply = send(&gateway, "/requests", &wanted(("y", "\"1\""), ("x", "\"2\"")));
    assert_eq!(ids(&reply), ["\"1\":429", "\"2\":202"]);
    backend.always(answer(200, r#"{"data":[{"id":"7","status":202}]}"#));
    let reply = send(&gateway, "/requests", &wanted(("y", "\"7\""), ("x", "\"8\"")));
    assert_eq!(ids(&reply), ["\"7\":202", "\"8\":202"]);
    // From the ledger, written as the rows write it.
    let reply = send(&gateway, "/requests", &wanted(("y", "5"), ("x", "6")));
    reply.is(200, "replayed", "");
    assert_eq!(ids(&reply), ["\"5\":202", "\"6\":202"]);
    assert_eq!(backend.calls(), 3);
}
