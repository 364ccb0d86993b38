//! How the gateway's own answers are written: problem details (RFC 9457) or a backend's envelope.

use crate::support::{Backend, Gate, Request, Response, Setup, answer};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

#[track_caller]
fn check_problem(response: &Response, slug: &str, retryable: bool) {
    assert_eq!(response.error(), slug);
    assert_eq!(response.header("content-type").as_deref(), Some("application/problem+json"));
    let links = response.all("link");
    let link = "</.well-known/idempotency>; rel=\"describedby\"";
    assert!(links.iter().any(|line| line == link), "{links:?}");
    let problem = response.json();
    assert_eq!(problem["type"], format!("/.well-known/idempotency#{slug}"));
    assert_eq!(problem["code"], slug);
    assert_eq!(problem["status"], response.status);
    assert_eq!(problem["retryable"], retryable, "{slug}");
    assert_eq!(response.header("retry-after").is_some(), retryable, "{slug}");
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()));
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(detail.ends_with('.') && detail.len() < 250, "not one plain sentence: {detail}");
    let instance = problem["instance"].as_str().expect("an instance");
    assert!(instance.starts_with("urn:uuid:") && instance.len() == 45, "{instance}");
}

#[test]
fn every_problem_has_the_members_of_the_contract() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let gateway = Setup::before(&backend).redeem(r#"duplicates.wait = "0s""#).start();
    let send = |request: Request| request.send(gateway.addr);
    check_problem(&send(Request::new("POST", "/v1/vouchers/redeem")), "key-missing", false);
    check_problem(&send(Request::redeem("a b", BODY)), "key-invalid", false);
    send(Request::redeem("k", BODY));
    check_problem(&send(Request::redeem("k", "{}")), "key-reused", false);
    backend.always(answer(200, "{}").after(&gate));
    let mut running = Request::redeem("slow", BODY).begin(gateway.addr);
    backend.wait_calls(2);
    check_problem(&send(Request::redeem("slow", BODY)), "request-in-progress", true);
    gate.open();
    running.read();
    backend.always(answer(500, "{}"));
    send(Request::redeem("lost", BODY));
    check_problem(&send(Request::redeem("lost", BODY)), "outcome-unknown", false);
    check_problem(&send(Request::new("DELETE", "/x")), "method-not-allowed", false);
}

#[test]
fn an_unreachable_backend_is_a_problem_that_may_be_retried() {
    let backend = Backend::refusing();
    let gateway = Setup::before(&backend).start();
    let refused = Request::redeem("k", BODY).send(gateway.addr);
    check_problem(&refused, "upstream-unreachable", true);
}

#[test]
fn each_problem_names_its_own_request_and_the_log_knows_it() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let send = || Request::new("POST", "/v1/vouchers/redeem").send(gateway.addr).json();
    let (one, two) = (send(), send());
    assert_ne!(one["instance"], two["instance"]);
    let id = one["instance"].as_str().unwrap().trim_start_matches("urn:uuid:").to_owned();
    crate::support::eventually("the log names the request", || {
        gateway.stderr().contains(&id).then_some(())
    });
}

#[test]
fn redeemsg_routes_speak_the_retailers_envelope() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let gateway =
        Setup::before(&backend).redeem("profile = \"redeemsg\"\nduplicates.wait = \"0s\"").start();
    let check = |request: Request, status: u16, code: Option<&str>, kind: &str| {
        let response = request.send(gateway.addr);
        assert_eq!(response.status, status, "{}", response.text());
        let error = &response.json()["error"];
        assert_eq!(error["type"], kind, "{error}");
        if let Some(code) = code {
            assert_eq!(error["code"], code);
        }
        let message = error["message"].as_str().expect("a message");
        assert!(message.len() < 250 && message.ends_with('.'), "{message}");
        assert!(!response.error().is_empty());
    };
    let keyless = Request::new("POST", "/v1/vouchers/redeem").json(BODY);
    check(keyless, 400, None, "invalid_request_error");
    check(Request::redeem("", BODY), 400, None, "invalid_request_error");
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    check(Request::redeem("k", "{}"), 409, None, "idempotency_error");
    backend.always(answer(200, "{}").after(&gate));
    let mut running = Request::redeem("slow", BODY).begin(gateway.addr);
    backend.wait_calls(2);
    let code = Some("idempotent_request_in_progress");
    check(Request::redeem("slow", BODY), 409, code, "idempotency_error");
    gate.open();
    running.read().is(200, "executed", "");
    backend.always(answer(500, "{}"));
    Request::redeem("lost", BODY).send(gateway.addr);
    check(Request::redeem("lost", BODY), 409, None, "api_error");
}

#[test]
fn stripe_routes_keep_failures_and_speak_its_envelope() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).redeem(r#"profile = "stripe""#).start();
    backend.always(answer(500, r#"{"boom":1}"#));
    Request::redeem("k", BODY).send(gateway.addr).is(500, "executed", "");
    let again = Request::redeem("k", BODY).send(gateway.addr);
    again.is(500, "replayed", "");
    assert_eq!(again.header("idempotent-replayed").as_deref(), Some("true"));
    assert_eq!(again.header("idempotency-replayed"), None);
    let reused = Request::redeem("k", "{}").send(gateway.addr);
    assert_eq!(reused.error(), "key-reused");
    assert_eq!(reused.json()["error"]["type"], "idempotency_error");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn the_backends_own_409_and_422_can_be_told_from_the_gateways() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend)
        .redeem("outcome.final = [\"2xx\", 409, \"4xx\"]\noutcome.unknown = [\"5xx\", 408]")
        .start();
    for status in [409, 422] {
        backend.always(answer(status, r#"{"own":true}"#));
        let key = format!("k-{status}");
        Request::redeem(&key, BODY).send(gateway.addr).is(status, "executed", "");
        Request::redeem(&key, BODY).send(gateway.addr).is(status, "replayed", "");
    }
}
