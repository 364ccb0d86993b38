//! `[route.outcome]`: the meaning of answers by status, header and body, seen from outside.

use crate::support::{Act, AdminClient, Backend, Request, Setup, answer};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// The lists under test: matchers over statuses, exact statuses over classes.
const LISTS: &str = r#"outcome = { final = ["2xx", "4xx", { status = 500, pointer = "/code", equals = "704" }], retry = [401, 429, { status = "2xx", pointer = "/errors/0/extensions/code", equals = "THROTTLED" }, { status = 503, header = { name = "server", equals = "envoy" } }], unknown = ["5xx", { status = 200, contains = "<html" }, { pointer = "/errors/0/extensions/code", one_of = ["MAYBE", "THROTTLED_MAYBE"] }, { pointer = "/both", equals = true }] }"#;

/// The first answer and the retry of a backend that always answers `act`.
fn first_and_retry(act: Act) -> ((u16, String, String), (u16, String, String), usize) {
    let backend = Backend::start();
    backend.always(act);
    let gateway = Setup::before(&backend).redeem(LISTS).start();
    let first = Request::redeem("k", BODY).send(gateway.addr).summary();
    let retry = Request::redeem("k", BODY).send(gateway.addr).summary();
    (first, retry, backend.calls())
}

fn expected(status: u16, disposition: &str, error: &str) -> (u16, String, String) {
    (status, disposition.to_owned(), error.to_owned())
}

#[test]
fn a_matcher_is_more_specific_than_a_status_and_a_status_than_a_class() {
    let json = |status, body: &str| answer(status, body);
    let envoy = Act::whole(503, &[("server", "envoy")], b"no healthy upstream");
    let other = Act::whole(503, &[("server", "nginx")], b"no healthy upstream");
    let throttled = r#"{"errors":[{"extensions":{"code":"THROTTLED"}}]}"#;
    let maybe = r#"{"errors":[{"extensions":{"code":"MAYBE"}}]}"#;
    for (act, first, calls) in [
        (json(200, r#"{"ok":true}"#), expected(200, "executed", ""), 1),
        (json(404, "{}"), expected(404, "executed", ""), 1),
        (json(429, "{}"), expected(429, "not-executed", ""), 2),
        (json(200, throttled), expected(200, "not-executed", ""), 2),
        (json(200, maybe), expected(200, "unknown", ""), 1),
        (json(500, r#"{"code":704}"#), expected(500, "executed", ""), 1),
        (json(500, r#"{"code":705}"#), expected(500, "unknown", ""), 1),
        (envoy, expected(503, "not-executed", ""), 2),
        (other, expected(503, "unknown", ""), 1),
        (Act::whole(200, &[], b"<html>login</html>"), expected(200, "unknown", ""), 1),
        // A body that cannot be read decides nothing; the status does.
        (Act::whole(200, &[], b"{\"errors\":["), expected(200, "executed", ""), 1),
        // Two lists that contradict each other prove nothing.
        (json(500, r#"{"code":"704","both":true}"#), expected(500, "unknown", ""), 1),
    ] {
        let (seen, retry, sent) = first_and_retry(act.clone());
        assert_eq!(seen, first, "{act:?}");
        assert_eq!(sent, calls, "{act:?}");
        let expected = match first.1.as_str() {
            "executed" => expected(first.0, "replayed", ""),
            "unknown" => expected(409, "unknown", "outcome-unknown"),
            _ => first,
        };
        assert_eq!(retry, expected, "{act:?}");
    }
}

#[test]
fn every_list_takes_every_kind_of_matcher() {
    let matchers = [
        (r#"header = { name = "x-result", equals = "R" }"#, "text/plain", ""),
        (r#"pointer = "/code", equals = "R""#, "application/json", r##"{"code":"#"}"##),
        (r#"xml = "/Reply/Code", equals = "R""#, "text/xml", "<Reply><Code>#</Code></Reply>"),
        (r#"form = "ACK", equals = "R""#, "application/x-www-form-urlencoded", "TIME=1&ACK=#"),
        (r#"contains = "verdict R""#, "text/plain", "the verdict # was given"),
    ];
    let list: Vec<String> = matchers.iter().map(|(it, ..)| format!("{{ {it} }}")).collect();
    for (name, status, taken, other) in [
        ("final", 500, "executed", "unknown"),
        ("retry", 200, "not-executed", "executed"),
        ("pending", 200, "pending", "executed"),
        ("unknown", 200, "unknown", "executed"),
    ] {
        let backend = Backend::start();
        let rules = format!("outcome.{name} = [{}]", list.join(", "));
        let gateway = Setup::before(&backend).redeem(&rules).start();
        for (number, (matcher, media, body)) in matchers.iter().enumerate() {
            for (result, expected) in [("R", taken), ("S", other)] {
                // The headers are those of the matcher about headers alone.
                let header = if body.is_empty() { result } else { "-" };
                let headers = [("content-type", *media), ("x-result", header)];
                let body = body.replace('#', result);
                backend.always(Act::whole(status, &headers, body.as_bytes()));
                let key = format!("k-{number}-{result}");
                let first = Request::redeem(&key, BODY).send(gateway.addr);
                let seen = (first.status, first.disposition());
                assert_eq!(seen, (status, expected.to_owned()), "{name} = {{ {matcher} }}: {body}");
            }
        }
    }
}

#[test]
fn a_key_whose_answer_asked_for_another_try_is_free_until_it_is_executed() {
    let backend = Backend::start();
    backend.script(|seen| match seen.number {
        0 => answer(200, r#"{"errors":[{"extensions":{"code":"THROTTLED"}}]}"#),
        number => answer(200, &format!(r#"{{"execution":{number}}}"#)),
    });
    let gateway = Setup::before(&backend).redeem(LISTS).start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "not-executed", "");
    let executed = Request::redeem("k", BODY).send(gateway.addr);
    executed.is(200, "executed", "");
    let replayed = Request::redeem("k", BODY).send(gateway.addr);
    replayed.is(200, "replayed", "");
    assert_eq!(executed.body, replayed.body);
    assert_eq!(backend.calls(), 2);
}

#[test]
fn an_answer_too_large_to_look_at_is_judged_by_its_head_or_unknown() {
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(4096));
    for (outcome, disposition) in [
        (r#"outcome.retry = [{ status = 200, pointer = "/busy", present = true }]"#, "unknown"),
        (r#"outcome.retry = [{ status = 503, pointer = "/busy", present = true }]"#, "executed"),
    ] {
        let backend = Backend::start();
        backend.always(answer(200, &large));
        let gateway = Setup::before(&backend)
            .redeem(outcome)
            .redeem(r#"record.max_stored_body = "1KiB""#)
            .start();
        let first = Request::redeem("k", BODY).send(gateway.addr);
        first.is(200, disposition, "");
        assert_eq!(first.body.len(), large.len());
        Request::redeem("k", BODY).send(gateway.addr);
        assert_eq!(backend.calls(), 1, "{outcome}");
    }
}

#[test]
fn an_accepted_and_undecided_answer_is_shown_until_an_operator_decides() {
    let backend = Backend::start();
    backend.always(answer(200, r#"{"status":"PENDING","job":7}"#));
    let setup = Setup::before(&backend)
        .redeem(r#"outcome.pending = [202, { pointer = "/status", equals = "PENDING" }]"#);
    let gateway = AdminClient::guard(setup).start();
    let first = Request::redeem("k", BODY).send(gateway.addr);
    first.is(200, "pending", "");
    // Nothing settles it by itself, so that obedient clients need not wait.
    assert_eq!(first.header("retry-after"), None);
    for _ in 0..2 {
        let again = Request::redeem("k", BODY).send(gateway.addr);
        again.is(200, "pending", "");
        assert_eq!((&again.body, again.header("retry-after")), (&first.body, None));
    }
    Request::redeem("k", r#"{"qr":"rsg:2"}"#).send(gateway.addr).is(422, "rejected", "key-reused");
    let gateway = gateway.killed_and_restarted();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "pending", "");
    let record = AdminClient::of(&gateway).show("k");
    assert_eq!(record["state"], "unknown");
    let reason = record["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("accepted, and not decided yet"), "{reason}");
    let id = AdminClient::of(&gateway).id("k");
    let settled = AdminClient::request("POST", &format!("/api/records/{id}/resolve"))
        .json(
            r#"{"as":"executed","reason":"job 7 is done","response":{"status":200,"body":"done"}}"#,
        )
        .send(gateway.admin);
    assert_eq!(settled.status, 200, "{settled:?}");
    let recovered = Request::redeem("k", BODY).send(gateway.addr);
    recovered.is(200, "recovered", "");
    assert_eq!((recovered.text().as_str(), backend.calls()), ("done", 1));
}
