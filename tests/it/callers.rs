//! Callers keep their keys when something around their credentials changes.

use crate::support::{Backend, Request, Setup};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

#[test]
fn a_caller_keeps_its_keys_when_the_names_of_its_headers_are_written_in_another_order() {
    let backend = Backend::start();
    let gateway =
        Setup::before(&backend).tenant(r#"headers = ["authorization", "x-api-key"]"#).start();
    let request = Request::redeem("k", BODY).tenant("a").header("authorization", "Bearer t");
    request.send(gateway.addr).is(200, "executed", "");
    // The same credentials, as other clients and hops write them.
    let again = |scheme: &str, more: &[(&str, &str)]| {
        let value = format!("{scheme} t");
        let request = Request::redeem("k", BODY).header("Authorization", value).tenant("a");
        more.iter().fold(request, |request, (name, value)| request.header(name, value))
    };
    let swapped = gateway
        .setup()
        .clone()
        .replacing(r#"["authorization", "x-api-key"]"#, r#"["x-api-key", "authorization"]"#);
    drop(gateway);
    let gateway = swapped.start();
    request.send(gateway.addr).is(200, "replayed", "");
    again("bearer", &[]).send(gateway.addr).is(200, "replayed", "");
    again("BEARER", &[("x-api-key", "a")]).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
    // Others are still others.
    Request::redeem("k", BODY).tenant("a").send(gateway.addr).is(200, "executed", "");
    Request::redeem("k", BODY).tenant("A").send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.calls(), 3);
}

#[test]
fn a_header_that_is_absent_or_empty_names_nobody() {
    let backend = Backend::start();
    let headers = r#"headers = ["authorization", "x-api-key", "x-shop"]"#;
    let gateway = Setup::before(&backend).tenant(headers).start();
    let anonymous = Request::redeem("k", BODY);
    anonymous.send(gateway.addr).is(200, "executed", "");
    anonymous.clone().tenant("").send(gateway.addr).is(200, "replayed", "");
    anonymous.clone().header("x-shop", "").send(gateway.addr).is(200, "replayed", "");
    let known = anonymous.tenant("a");
    known.send(gateway.addr).is(200, "executed", "");
    known.clone().header("authorization", " ").send(gateway.addr).is(200, "replayed", "");
    known.header("x-shop", "1").send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.calls(), 3);
}

#[test]
fn callers_may_be_told_apart_by_the_host_they_call() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).tenant(r#"headers = ["host"]"#).start();
    let to = |host: &str| Request::to_host(host, "k", BODY).send(gateway.addr);
    to("one.example").is(200, "executed", "");
    to("two.example").is(200, "executed", "");
    to("One.Example").is(200, "replayed", "");
    assert_eq!(backend.calls(), 2);
}
