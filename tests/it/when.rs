//! `when`: several routes on one path, told apart by a header, the query, a member of the body, a
//! form field or an XML element.

use crate::support::{Act, Backend, Gateway, Request, Setup, answer};

/// Routes on `/rpc`: `pay` and `void` are keyed under a `when`, the rest passes.
fn routes(pay: &str, void: &str) -> [String; 3] {
    let on_path = "methods = [\"POST\"]\npath = \"/rpc\"\n";
    [
        format!("name = \"pay\"\n{on_path}when = {pay}\n[route.key]\nheader = \"X-Ref\""),
        format!("name = \"void\"\n{on_path}when = {void}\n[route.key]\nheader = \"X-Ref\""),
        format!("name = \"others\"\n{on_path}mode = \"off\""),
    ]
}

fn gateway(backend: &Backend, routes: &[String]) -> Gateway {
    let setup = Setup::before(backend);
    routes.iter().fold(setup, |setup, route| setup.route(route)).start()
}

fn post(key: &str, media: &str, body: &str) -> Request {
    Request::new("POST", "/rpc")
        .header("x-ref", key)
        .header("content-type", media)
        .body(body.as_bytes())
}

#[test]
fn a_member_of_the_body_names_the_operation() {
    let backend = Backend::start();
    let routes = routes(
        r#"{ pointer = "/method", one_of = ["pay", "pay2"] }"#,
        r#"{ pointer = "/method", equals = "void" }"#,
    );
    let gateway = gateway(&backend, &routes);
    let json = |key: &str, body: &str| post(key, "application/json", body).send(gateway.addr);
    json("k", r#"{"method":"pay","id":1}"#).is(200, "executed", "");
    json("k", r#"{"method":"pay","id":1}"#).is(200, "replayed", "");
    json("k", r#"{"method":"pay","id":2}"#).is(422, "rejected", "key-reused");
    json("v", r#"{"method":"void"}"#).is(200, "executed", "");
    assert_eq!(backend.calls(), 2);
    // What no `when` takes passes, each time.
    for _ in 0..2 {
        let passed = json("k", r#"{"method":"list"}"#);
        assert_eq!((passed.status, passed.error()), (200, String::new()), "{passed:?}");
    }
    assert_eq!(backend.calls(), 4);
    assert_eq!(backend.last().text(), r#"{"method":"list"}"#);
}

#[test]
fn a_body_that_may_name_the_operation_and_cannot_be_read_is_refused() {
    let backend = Backend::start();
    let routes = routes(
        r#"{ pointer = "/method", equals = "pay" }"#,
        r#"{ pointer = "/method", equals = "void" }"#,
    );
    let gateway = gateway(&backend, &routes);
    for (media, body) in [
        ("application/json", r#"{"method":"list","method":"pay"}"#),
        ("application/json", r#"{"method":"pay""#),
        ("application/json", r#"[{"method":"pay"}]"#),
        ("text/plain", r#" [{"method":"pay"}]"#),
        ("text/plain", r#"{"method":"pay""#),
    ] {
        let refused = post("k", media, body).send(gateway.addr);
        refused.is(400, "rejected", "body-invalid");
    }
    let coded = post("k", "application/json", "x").header("content-encoding", "br");
    coded.send(gateway.addr).is(400, "rejected", "body-invalid");
    assert_eq!(backend.calls(), 0);
    for (media, body) in [("text/plain", "hello"), ("application/octet-stream", "\u{1}")] {
        assert_eq!(post("k", media, body).send(gateway.addr).status, 200, "{body}");
    }
    assert_eq!(Request::new("POST", "/rpc").body(b"").send(gateway.addr).status, 200);
    assert_eq!(backend.calls(), 3);
}

#[test]
fn headers_queries_forms_elements_and_operation_names_tell_routes_apart() {
    let soap =
        "<e:Envelope xmlns:e=\"urn:e\"><e:Body><Pay><Ref>1</Ref></Pay></e:Body></e:Envelope>";
    let target = |target: &str| Request::new("POST", target).header("x-ref", "k").json("{}");
    let graphql = |name: &str| {
        let body = format!(r#"{{"operationName":"{name}","query":"mutation {name} {{ x }}"}}"#);
        post("k", "application/json", &body)
    };
    let cases: [(&str, &str, Request, Request); 5] = [
        (
            r#"{ pointer = "/operationName", equals = "Pay" }"#,
            r#"{ pointer = "/operationName", equals = "Void" }"#,
            graphql("Pay"),
            graphql("Get"),
        ),
        (
            r#"{ header = "soapaction", one_of = ["urn:pay", "\"urn:pay\""] }"#,
            r#"{ header = "soapaction", equals = "urn:void" }"#,
            post("k", "text/xml", "<a/>").header("soapaction", "\"urn:pay\""),
            post("k", "text/xml", "<a/>").header("soapaction", "urn:get"),
        ),
        (
            r#"{ query = "op", equals = "pay" }"#,
            r#"{ query = "op", equals = "void" }"#,
            target("/rpc?a=1&op=pay"),
            target("/rpc?op=get"),
        ),
        (
            r#"{ form = "METHOD", equals = "Pay" }"#,
            r#"{ form = "METHOD", equals = "Void" }"#,
            post("k", "application/x-www-form-urlencoded", "A=1&METHOD=Pay"),
            post("k", "application/x-www-form-urlencoded", "A=1&METHOD=Get"),
        ),
        (
            r#"{ xml = "/Envelope/Body/Pay", present = true }"#,
            r#"{ xml = "/Envelope/Body/Pay", absent_or_null = true, unless = { xml = "/Envelope/Body/Void", absent_or_null = true } }"#,
            post("k", "text/xml", soap),
            post("k", "text/xml", &soap.replace("Pay>", "Get>")),
        ),
    ];
    for (pay, void, operation, other) in cases {
        let backend = Backend::start();
        let gateway = gateway(&backend, &routes(pay, void));
        operation.send(gateway.addr).is(200, "executed", "");
        operation.send(gateway.addr).is(200, "replayed", "");
        assert_eq!(backend.calls(), 1, "{pay}");
        other.send(gateway.addr);
        other.send(gateway.addr);
        assert_eq!(backend.calls(), 3, "{pay}");
    }
}

#[test]
fn a_request_that_two_routes_would_take_is_refused() {
    let backend = Backend::start();
    let routes =
        routes(r#"{ header = "x-op", equals = "pay" }"#, r#"{ header = "x-op", equals = "void" }"#);
    let gateway = gateway(&backend, &routes);
    let both = post("k", "text/plain", "").header("x-op", "pay").header("x-op", "void");
    both.send(gateway.addr).is(400, "rejected", "request-invalid");
    assert_eq!(backend.calls(), 0);
}

#[test]
fn without_a_route_for_the_rest_what_no_condition_takes_is_not_served() {
    let backend = Backend::start();
    let [pay, ..] = routes(r#"{ pointer = "/method", equals = "pay" }"#, "{}");
    let setup = Setup::before(&backend).route(&pay);
    let gateway = setup.limits("max_body = \"64B\"").start();
    let other = post("k", "application/json", r#"{"method":"get"}"#).send(gateway.addr);
    assert_eq!((other.status, other.error()), (404, "no-route".to_owned()), "{other:?}");
    let large = format!(r#"{{"method":"get","a":"{}"}}"#, "x".repeat(100));
    let large = post("k", "application/json", &large).send(gateway.addr);
    large.is(413, "rejected", "body-too-large");
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_body_that_was_read_for_the_choice_goes_upstream_byte_for_byte() {
    let backend = Backend::start();
    backend.always(Act::whole(200, &[], b"ok"));
    let routes = routes(
        r#"{ pointer = "/method", equals = "pay" }"#,
        r#"{ pointer = "/method", equals = "void" }"#,
    );
    let gateway = gateway(&backend, &routes);
    for body in ["{ \"method\" : \"pay\" , \"n\":1.0}", "{ \"method\" : \"get\" , \"n\":1.0}"] {
        post("k", "application/json", body).send(gateway.addr);
        assert_eq!(backend.last().text(), body);
    }
}

#[test]
fn conditions_that_can_meet_are_refused_with_what_to_write() {
    let backend = Backend::start();
    for (pay, void, is_told_apart) in [
        (r#"{ pointer = "/m", equals = "a" }"#, r#"{ pointer = "/m", equals = "b" }"#, true),
        (
            r#"{ pointer = "/m", one_of = ["a", "b"] }"#,
            r#"{ pointer = "/m", equals = "b" }"#,
            false,
        ),
        (r#"{ pointer = "/m", equals = "a" }"#, r#"{ header = "m", equals = "b" }"#, false),
        (
            r#"{ pointer = "/m", equals = "a" }"#,
            r#"{ header = "m", equals = "b", unless = { pointer = "/m", equals = "a" } }"#,
            true,
        ),
        (r#"{ query = "m", present = true }"#, r#"{ query = "m", absent_or_null = true }"#, true),
        (r#"{ pointer = "/m", present = true }"#, r#"{ pointer = "/m", equals = "a" }"#, false),
        (r#"{ contains = "a" }"#, r#"{ contains = "b" }"#, false),
    ] {
        let setup = Setup::before(&backend);
        let setup = routes(pay, void).iter().fold(setup, |setup, route| setup.route(route));
        let exit = crate::support::gateway::run(&["check", "--config", &setup.write_config()]);
        assert_eq!(exit.code == Some(0), is_told_apart, "{pay} {void}: {}", exit.stderr);
        if !is_told_apart {
            let advice = "`when` can hold for a request that `when` of route \"pay\" takes too";
            assert!(exit.stderr.contains(advice), "{}", exit.stderr);
        }
    }
    let setup = Setup::before(&backend);
    let [_, void, _] = routes("{}", r#"{ status = 200, header = "a", equals = 1 }"#);
    let exit =
        crate::support::gateway::run(&["check", "--config", &setup.route(&void).write_config()]);
    assert!(exit.stderr.contains("`status` has no use here"), "{}", exit.stderr);
}

#[test]
fn each_condition_has_its_own_names_in_the_store() {
    let backend = Backend::start();
    let [pay, void, others] = routes(
        r#"{ pointer = "/method", equals = "pay" }"#,
        r#"{ pointer = "/method", equals = "void" }"#,
    );
    let setup = Setup::before(&backend);
    let both = setup.clone().route(&pay).route(&void.replace("X-Ref", "X-Void")).route(&others);
    both.start().stop();
    // The order does not matter, nor does a route for the rest.
    setup.clone().route(&void.replace("X-Ref", "X-Void")).route(&pay).start().stop();
    let moved = setup.clone().route(&pay.replace("X-Ref", "X-Other")).route(&others);
    let refused = moved.try_start().expect_err("another place of the key");
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("header = \\\"x-ref\\\"") || refused.stderr.contains("x-ref"),
        "{}",
        refused.stderr
    );
    // The same requests under a condition that is written in another way.
    let reworded =
        pay.replace("X-Ref", "X-Other").replace("equals = \"pay\"", "one_of = [\"pay\", \"p\"]");
    let refused = setup.clone().route(&reworded).route(&others).try_start();
    assert_eq!(refused.expect_err("another place of the key").code, Some(2));
    let gateway = both.start();
    let first = Request::new("POST", "/rpc").header("x-void", "k").json(r#"{"method":"void"}"#);
    first.send(gateway.addr).is(200, "executed", "");
    backend.always(answer(500, "{}"));
    first.send(gateway.addr).is(200, "replayed", "");
}
