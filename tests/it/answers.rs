//! What a client is told in each situation: the table of answers, row by row, each with the count
//! of what reached the backend.

use crate::support::{Act, Backend, Gate, Request, Setup, answer};

const BODY: &str = r#"{"qr":"rsg:1","metadata":"receipt_number:789"}"#;

#[test]
fn a_first_request_is_executed_and_a_duplicate_of_it_is_replayed() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let first = Request::redeem("k-1", BODY).send(gateway.addr);
    first.is(200, "executed", "");
    assert_eq!(first.header("idempotency-replayed"), None);
    let again = Request::redeem("k-1", BODY).send(gateway.addr);
    again.is(200, "replayed", "");
    assert_eq!(again.header("idempotency-replayed").as_deref(), Some("true"));
    assert_eq!(first.kept(), again.kept());
    assert_eq!(backend.calls(), 1);
}

#[test]
fn executed_and_replayed_answers_say_until_when_they_are_kept() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).store(r#"retention = "2h""#).start();
    let first = Request::redeem("k", BODY).send(gateway.addr);
    let again = Request::redeem("k", BODY).send(gateway.addr);
    let expires = first.header("idempotency-expires").expect("an expiry");
    assert_eq!(again.header("idempotency-expires"), Some(expires.clone()));
    let at = httpdate::parse_http_date(&expires).expect("an HTTP-date");
    let ahead = at.duration_since(file_time(gateway.setup().dir())).expect("in the future");
    assert!((7000..7400).contains(&ahead.as_secs()), "{ahead:?}");
}

/// The time of a file just made: the wall clock as the system sees it.
fn file_time(dir: &std::path::Path) -> std::time::SystemTime {
    let path = dir.join("now");
    std::fs::write(&path, "").unwrap();
    std::fs::metadata(path).unwrap().modified().unwrap()
}

#[test]
fn answers_kept_for_ever_name_no_expiry() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).store(r#"retention = "forever""#).start();
    let first = Request::redeem("k", BODY).send(gateway.addr);
    first.is(200, "executed", "");
    assert_eq!(first.header("idempotency-expires"), None);
}

#[test]
fn a_missing_key_is_refused_where_one_is_required() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let request = Request::new("POST", "/v1/vouchers/redeem").json(BODY);
    request.send(gateway.addr).is(400, "rejected", "key-missing");
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_key_is_not_taken_for_another_request_and_no_value_is_shown() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    Request::redeem("k", r#"{"qr":"secret-1","a":1,"b":2}"#).send(gateway.addr);
    let other = Request::redeem("k", r#"{"qr":"secret-2","a":1,"c":3}"#).send(gateway.addr);
    other.is(422, "rejected", "key-reused");
    let text = other.text();
    for name in [r#""qr""#, r#""b""#, r#""c""#] {
        assert!(text.contains(name), "{name} is not named in {text}");
    }
    assert!(!text.contains(r#""a""#), "{text}");
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(backend.calls(), 1);
    Request::redeem("k", r#"{"c":0}"#).send(gateway.addr).is(422, "rejected", "key-reused");
    let back = Request::redeem("k", r#"{"qr":"secret-1","a":1,"b":2}"#).send(gateway.addr);
    back.is(200, "replayed", "");
}

#[test]
fn method_path_query_and_media_type_belong_to_the_request() {
    let backend = Backend::start();
    let route = "name = \"any\"\nmethods = [\"POST\", \"PUT\"]\npath = \"/any/{id}\"";
    let gateway = Setup::before(&backend).route(route).start();
    let any = |method: &str, target: &str| Request::new(method, target).key("k");
    any("POST", "/any/1?x=1").json(BODY).send(gateway.addr).is(200, "executed", "");
    let others = [
        any("PUT", "/any/1?x=1").json(BODY),
        any("POST", "/any/2?x=1").json(BODY),
        any("POST", "/any/1?x=2").json(BODY),
        any("POST", "/any/1").json(BODY),
        any("POST", "/any/1?x=1").header("content-type", "text/plain").body(BODY.as_bytes()),
    ];
    for other in others {
        other.send(gateway.addr).is(422, "rejected", "key-reused");
    }
    assert_eq!(backend.calls(), 1);
    any("POST", "/any/1?x=1").json(BODY).send(gateway.addr).is(200, "replayed", "");
}

#[test]
fn json_bodies_are_compared_by_meaning_and_numbers_by_their_text() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).redeem(r#"fingerprint.exclude = ["/sent_at"]"#).start();
    let send = |body: &str| Request::redeem("k", body).send(gateway.addr);
    send(r#"{"a":1,"b":[12345678901234567890],"sent_at":1}"#).is(200, "executed", "");
    send(r#"{ "b" : [ 12345678901234567890 ], "a" : 1 , "sent_at":2}"#).is(200, "replayed", "");
    send(r#"{"a":1,"b":[12345678901234567891],"sent_at":1}"#).is(422, "rejected", "key-reused");
    send(r#"{"a":1.0,"b":[12345678901234567890],"sent_at":1}"#).is(422, "rejected", "key-reused");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_backend_that_is_not_there_leaves_the_key_free() {
    let backend = Backend::refusing();
    let gateway = Setup::before(&backend).start();
    for _ in 0..2 {
        let refused = Request::redeem("k", BODY).send(gateway.addr);
        refused.is(502, "not-executed", "upstream-unreachable");
    }
    backend.listen();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn statuses_by_which_a_backend_says_it_did_nothing_release_the_key() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    for (calls, status) in [401, 407, 425, 429].into_iter().enumerate() {
        backend.always(answer(status, r#"{"not":"done"}"#));
        let reply = Request::redeem("k", BODY).send(gateway.addr);
        reply.is(status, "not-executed", "");
        assert_eq!(reply.text(), r#"{"not":"done"}"#);
        assert_eq!(backend.calls(), calls + 1);
    }
    backend.always(answer(200, "{}"));
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
}

#[test]
fn other_refusals_of_the_backend_are_final() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    for status in [400, 402, 403, 404, 410, 422, 451] {
        backend.always(answer(status, r#"{"error":{"code":"redemption_vouchers_used"}}"#));
        let key = format!("k-{status}");
        let first = Request::redeem(&key, BODY).send(gateway.addr);
        first.is(status, "executed", "");
        backend.always(answer(200, "{}"));
        let again = Request::redeem(&key, BODY).send(gateway.addr);
        again.is(status, "replayed", "");
        assert_eq!(first.kept(), again.kept());
    }
    assert_eq!(backend.calls(), 7);
}

#[test]
fn statuses_that_do_not_tell_are_unknown_and_stay_unknown() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    for (calls, status) in [500, 502, 503, 504, 599, 408, 409].into_iter().enumerate() {
        backend.always(answer(status, r#"{"so":"what"}"#));
        let key = format!("k-{status}");
        let first = Request::redeem(&key, BODY).send(gateway.addr);
        assert_eq!((first.status, first.disposition()), (status, "unknown".to_owned()));
        assert_eq!(first.text(), r#"{"so":"what"}"#);
        for _ in 0..2 {
            let again = Request::redeem(&key, BODY).send(gateway.addr);
            again.is(409, "unknown", "outcome-unknown");
            assert_eq!(again.header("retry-after"), None, "{again:?}");
        }
        assert_eq!(backend.calls(), calls + 1);
    }
}

#[test]
fn the_most_specific_entry_of_the_outcome_wins() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend)
        .redeem("outcome.final = [\"2xx\", \"3xx\", \"4xx\", 503]")
        .redeem("outcome.retry = [402]\noutcome.unknown = [\"5xx\", 404]")
        .start();
    let send = |status: u16| {
        backend.always(answer(status, "{}"));
        Request::redeem(&format!("k-{status}"), BODY).send(gateway.addr).disposition()
    };
    assert_eq!(send(503), "executed");
    assert_eq!(send(402), "not-executed");
    assert_eq!(send(404), "unknown");
    assert_eq!(send(500), "unknown");
    assert_eq!(send(403), "executed");
}

#[test]
fn a_duplicate_of_a_call_in_flight_is_told_so_when_it_may_not_wait() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend).redeem(r#"duplicates.wait = "0s""#).start();
    let mut first = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    let second = Request::redeem("k", BODY).send(gateway.addr);
    second.is(409, "in-progress", "request-in-progress");
    assert!(second.header("retry-after").is_some(), "{second:?}");
    gate.open();
    first.read().is(200, "executed", "");
    Request::redeem("k", BODY).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn the_first_client_is_told_when_its_patience_ends_and_the_call_goes_on() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, r#"{"late":true}"#).after(&gate));
    let gateway = Setup::before(&backend)
        .redeem("duplicates.answer_within = \"100ms\"\nduplicates.wait = \"30s\"")
        .start();
    let first = Request::redeem("k", BODY).send(gateway.addr);
    assert_eq!((first.status, first.error()), (504, "request-in-progress".to_owned()));
    let mut retry = Request::redeem("k", BODY).begin(gateway.addr);
    gate.open();
    let retry = retry.read();
    retry.is(200, "replayed", "");
    assert_eq!(retry.text(), r#"{"late":true}"#);
    assert_eq!(backend.calls(), 1);
}

#[test]
fn an_answer_too_large_to_keep_is_given_once_and_never_asked_for_again() {
    let backend = Backend::start();
    let large = vec![b'x'; 300_000];
    backend.always(Act::whole(201, &[], &large));
    let gateway = Setup::before(&backend).redeem(r#"record.max_stored_body = "64KiB""#).start();
    let first = Request::redeem("k", BODY).send(gateway.addr);
    first.is(201, "executed", "");
    assert!(first.body == large);
    for _ in 0..2 {
        let again = Request::redeem("k", BODY).send(gateway.addr);
        again.is(409, "rejected", "response-not-retained");
        let text = again.text();
        assert!(text.contains("201"), "the original status is missing: {text}");
    }
    assert_eq!(backend.calls(), 1);
    let gateway = gateway.restarted();
    let again = Request::redeem("k", BODY).send(gateway.addr);
    again.is(409, "rejected", "response-not-retained");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn an_optional_key_that_is_absent_bypasses_and_one_that_is_there_counts() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    for calls in 1..=2 {
        let bypassed = Request::new("POST", "/optional").json(BODY).send(gateway.addr);
        bypassed.is(200, "bypassed", "");
        assert_eq!(backend.calls(), calls);
    }
    for disposition in ["executed", "replayed"] {
        let keyed = Request::new("POST", "/optional").key("k").json(BODY).send(gateway.addr);
        keyed.is(200, disposition, "");
    }
    assert_eq!(backend.calls(), 3);
}

#[test]
fn a_route_without_keys_says_that_a_key_counts_for_nothing() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    Request::get("/balance").send(gateway.addr).is(200, "", "");
    Request::get("/balance").key("ignored").send(gateway.addr).is(200, "bypassed", "");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn no_unsafe_method_falls_through_to_a_backend() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let deleted = Request::new("DELETE", "/v1/vouchers/redeem").send(gateway.addr);
    assert_eq!((deleted.status, deleted.error()), (405, "method-not-allowed".to_owned()));
    let allow = deleted.header("allow").expect("Allow");
    assert!(allow.contains("POST"), "{allow}");
    let posted = Request::new("POST", "/elsewhere").key("k").json(BODY).send(gateway.addr);
    assert_eq!((posted.status, posted.error()), (405, "method-not-allowed".to_owned()));
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_path_that_no_route_names_is_not_found() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).replacing("/{*rest}", "/only").start();
    let missing = Request::get("/elsewhere").send(gateway.addr);
    assert_eq!((missing.status, missing.error()), (404, "no-route".to_owned()));
    assert_eq!(backend.calls(), 0);
}
