//! A route's own words for the gateway's problems (`[route.errors]`), and what contract, log and
//! metrics then say.

use crate::support::gateway::run;
use crate::support::{Act, Backend, Gateway, Request, Response, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn errors(backend: &Backend, lines: &str) -> Gateway {
    Setup::before(backend).redeem(&format!("errors = {{ {lines} }}")).start()
}

fn reused(gateway: &Gateway) -> Response {
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    Request::redeem("k", "{}").header("x-till", "7 \"a\"").send(gateway.addr)
}

#[test]
fn status_body_and_headers_are_the_routes_own() {
    let backend = Backend::start();
    let gateway = errors(
        &backend,
        r#"key-reused = { status = 409, body = '{"error":"{code}","why":"{detail}","till":"{header:x-till}"}', headers = { x-reason = "{code}", x-request = "{request_id}" } }"#,
    );
    let reply = reused(&gateway);
    reply.is(409, "rejected", "key-reused");
    assert_eq!(reply.header("content-type").as_deref(), Some("application/json"));
    let body = reply.json();
    assert_eq!(body["error"], "key-reused");
    assert!(body["why"].as_str().unwrap().ends_with('.'), "{body}");
    assert_eq!(body["till"], "7 \"a\"", "a value ends no string");
    assert_eq!(reply.header("x-reason").as_deref(), Some("key-reused"));
    assert_eq!(reply.header("x-request"), reply.header("x-request-id"));
    // Other problems keep the form of the profile.
    let missing = Request::new("POST", "/v1/vouchers/redeem").json(BODY).send(gateway.addr);
    assert_eq!(missing.header("content-type").as_deref(), Some("application/problem+json"));
    assert_eq!(backend.calls(), 1);
}

#[test]
fn contract_log_and_metrics_say_what_was_sent() {
    let backend = Backend::start();
    let gateway = errors(&backend, "key-reused = { status = 418 }");
    let reply = reused(&gateway);
    reply.is(418, "rejected", "key-reused");
    assert_eq!(reply.json()["status"], 418, "the document names the status on the wire");
    let contract = Request::get("/.well-known/idempotency").send(gateway.addr).json();
    let routes = contract["routes"].as_array().unwrap();
    let route = routes.iter().find(|route| route["name"] == "redeem").unwrap();
    assert_eq!(route["errors"]["statuses"]["key-reused"], serde_json::json!([418]));
    assert_eq!(route["errors"]["format"], "problem+json");
    let line = eventually("the log", || {
        let log = gateway.stderr();
        log.lines().find(|line| line.contains("key-reused")).map(str::to_owned)
    });
    assert!(line.contains("418") && !line.contains("422"), "{line}");
    let series = "oncegate_requests_total{route=\"redeem\",outcome=\"key-reused\"}";
    assert_eq!(gateway.metric(series), Some(1));
}

#[test]
fn the_statuses_of_profiles_are_published_and_logged() {
    let backend = Backend::start();
    for (profile, status, in_progress) in
        [("redeemsg", 409, vec![409]), ("stripe", 400, vec![409]), ("ietf", 422, vec![409, 504])]
    {
        let gateway = Setup::before(&backend).redeem(&format!("profile = {profile:?}")).start();
        Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
        let reply = Request::redeem("k", "{}").send(gateway.addr);
        assert_eq!((reply.status, reply.error()), (status, "key-reused".to_owned()), "{profile}");
        let contract = Request::get("/.well-known/idempotency").send(gateway.addr).json();
        let statuses = &contract["routes"][0]["errors"]["statuses"];
        assert_eq!(statuses["key-reused"], serde_json::json!([status]), "{profile}");
        assert_eq!(statuses["request-in-progress"], serde_json::json!(in_progress), "{profile}");
        let line = eventually("the log", || {
            let log = gateway.stderr();
            log.lines().find(|line| line.contains("key-reused")).map(str::to_owned)
        });
        assert!(line.contains(&status.to_string()), "{profile}: {line}");
    }
}

#[test]
fn xml_and_plain_texts_have_their_media_types() {
    let backend = Backend::start();
    for (body, media_type, text) in [
        ("<error code='{code}'/>", "application/xml", "<error code='key-reused'/>"),
        ("Refused: {code}", "text/plain; charset=utf-8", "Refused: key-reused"),
    ] {
        let gateway = errors(&backend, &format!("key-reused = {{ body = {body:?} }}"));
        let reply = reused(&gateway);
        reply.is(422, "rejected", "key-reused");
        assert_eq!(reply.header("content-type").as_deref(), Some(media_type));
        assert_eq!(reply.text(), text);
    }
}

#[test]
fn what_has_no_value_leaves_the_form_of_the_profile() {
    let backend = Backend::start();
    let gateway = errors(&backend, "key-reused = { body = '{\"till\":\"{header:x-other}\"}' }");
    let reply = reused(&gateway);
    assert_eq!(reply.json()["code"], "key-reused", "{}", reply.text());
}

#[test]
fn stripes_libraries_are_told_when_a_repetition_helps() {
    let backend = Backend::start();
    backend.script(|seen| match seen.text().as_str() {
        "[\"lost\"]" => Act::close(),
        "[\"busy\"]" => crate::support::answer(429, "{}"),
        "[\"broken\"]" => crate::support::answer(500, "{}"),
        _ => crate::support::answer(200, "{}"),
    });
    let gateway = Setup::before(&backend).redeem("profile = \"stripe\"").start();
    let send = |key: &str, body: &str| Request::redeem(key, body).send(gateway.addr);
    for (key, body, status, retry) in [
        ("ok", "[]", 200, None),
        ("ok", "[]", 200, None),
        ("lost", "[\"lost\"]", 502, Some("false")),
        ("lost", "[\"lost\"]", 409, Some("false")),
        ("busy", "[\"busy\"]", 429, Some("true")),
        ("broken", "[\"broken\"]", 500, None),
        ("broken", "[\"broken\"]", 500, Some("false")),
        ("ok", "{}", 400, Some("false")),
    ] {
        let reply = send(key, body);
        assert_eq!(reply.status, status, "{key} {body}: {reply:?}");
        assert_eq!(
            reply.header("stripe-should-retry").as_deref(),
            retry,
            "{key} {body}: {reply:?}"
        );
        let is_own = !reply.error().is_empty();
        assert_eq!(reply.header("request-id").is_some(), is_own, "{key} {body}: {reply:?}");
        if is_own {
            assert_eq!(reply.header("request-id"), reply.header("x-request-id"));
        }
    }
    let refused = Request::new("POST", "/v1/vouchers/redeem").json(BODY).send(gateway.addr);
    assert_eq!(refused.json()["error"]["type"], "invalid_request_error");
    assert_eq!(send("ok", "{}").json()["error"]["type"], "idempotency_error");
    assert_eq!(send("lost", "[\"lost\"]").json()["error"]["type"], "api_error");
    let refusing = Backend::refusing();
    let gateway = Setup::before(&refusing).redeem("profile = \"stripe\"").start();
    let unsent = Request::redeem("k", BODY).send(gateway.addr);
    unsent.is(502, "not-executed", "upstream-unreachable");
    assert_eq!(unsent.header("stripe-should-retry").as_deref(), Some("true"));
}

#[test]
fn mistakes_come_with_what_to_write() {
    let backend = Backend::start();
    for (lines, words) in [
        ("key-resued = { status = 409 }", "did you mean `key-reused`?"),
        ("key-reused = { status = 100 }", "200 to 599"),
        ("key-reused = { status = 204 }", "no body"),
        ("key-reused = { stat = 409 }", "known here: `status`, `body` or `headers`"),
        ("key-reused = { body = '{\"a\":{/qr}}' }", "has no value"),
        ("key-reused = { body = '{\"a\":\"{header:authorization}\"}' }", "has no value"),
        ("key-reused = { body = '{\"a\":{oops}}' }", "{oops}"),
        ("key-reused = { headers = { content-length = \"1\" } }", "the gateway itself"),
        ("key-reused = 409", "must be a table"),
    ] {
        let setup = Setup::before(&backend).redeem(&format!("errors = {{ {lines} }}"));
        let exit = run(&["check", "--config", &setup.write_config()]);
        assert_eq!(exit.code, Some(2), "{lines}: {exit:?}");
        assert!(exit.stderr.contains(words), "{lines}: {}", exit.stderr);
    }
}

#[test]
fn the_answer_of_a_reversed_request_has_the_form_of_the_profile() {
    let backend = Backend::start();
    backend.script(|seen| match seen.target() {
        "/void" => answer(200, "{}"),
        _ => Act::close(),
    });
    let setup = || {
        Setup::before(&backend)
            .upstream(r#"timeout = "300ms""#)
            .redeem("profile = \"redeemsg\"\noutcome.on_unknown = \"reverse\"")
            .redeem("reverse.path = \"/void\"\nreverse.every = \"50ms\"\nreverse.then = \"fail\"")
            .redeem("reverse.done = { status = 200 }")
    };
    let gateway = setup().start();
    let redeem = || Request::redeem("k", BODY).send(gateway.addr);
    redeem().is(502, "unknown", "outcome-unknown");
    let reply = eventually("the reversal", || {
        let reply = redeem();
        (reply.header("idempotency-error").as_deref() == Some("reversed")).then_some(reply)
    });
    assert_eq!(reply.status, 409);
    assert_eq!(reply.json()["error"]["code"], "reversed");
    assert_eq!(reply.header("content-type").as_deref(), Some("application/json"));
    assert_eq!(redeem().body, reply.body, "every client reads the same");
    // Words that would never be sent are refused.
    let setup = setup().redeem("errors = { reversed = { status = 410 } }");
    let exit = run(&["check", "--config", &setup.write_config()]);
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("write it as `response` in [route.reverse]"), "{}", exit.stderr);
}
