//! Answers of unusual form, the connections they come on, and what a proxy behind the gateway sees.

use std::time::Duration;

use crate::support::gateway::run;
use crate::support::{Act, Backend, Request, Setup, answer};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// The key headers that a client may send at once.
const KEY_HEADERS: [&str; 3] = ["idempotency-key", "x-idempotency-key", "paypal-request-id"];

#[test]
fn no_key_header_goes_upstream_of_a_keyed_route_unless_it_is_forwarded() {
    let backend = Backend::start();
    let route = |name: &str, lines: &str| {
        format!("name = \"{name}\"\nmethods = [\"POST\", \"DELETE\"]\npath = \"/{name}\"\n{lines}")
    };
    let gateway = Setup::before(&backend)
        .route(&route("paypal", "key.header = \"PayPal-Request-Id\""))
        .route(&route("pointer", "key.pointer = \"/qr\""))
        .route(&route("forwarded", "key.forward = true"))
        .route(&route(
            "items",
            "mode = \"items\"\nitems.at = \"\"\nitems.id = \"/id\"\n\
             items.response.match = [\"id:/id\"]\nitems.response.issued = { count = \"/n\" }",
        ))
        .route("name = \"off\"\nmethods = [\"POST\"]\npath = \"/off\"\nmode = \"off\"")
        .start();
    let forwards = |method: &str, path: &str, body: Option<&str>| {
        let request = Request::new(method, path);
        let request = body.into_iter().fold(request, |request, body| request.json(body));
        let key = format!("{method}-{path}");
        let request = KEY_HEADERS.iter().fold(request, |request, name| request.header(name, &key));
        request.send(gateway.addr);
        let seen = backend.last();
        KEY_HEADERS.map(|name| seen.all(name).len())
    };
    // Each case: own key header kept back, and those that others look for.
    assert_eq!(forwards("POST", "/v1/vouchers/redeem", Some(BODY)), [0, 0, 1]);
    assert_eq!(forwards("POST", "/optional", None), [0, 0, 1]);
    assert_eq!(forwards("DELETE", "/paypal", None), [0, 0, 0]);
    assert_eq!(forwards("POST", "/paypal", Some(BODY)), [0, 0, 0]);
    assert_eq!(forwards("POST", "/pointer", Some(BODY)), [0, 0, 1]);
    assert_eq!(forwards("POST", "/items", Some(r#"[{"id":"a"}]"#)), [0, 0, 1]);
    assert_eq!(forwards("DELETE", "/forwarded", None), [1, 1, 1]);
    assert_eq!(forwards("POST", "/off", None), [1, 1, 1]);
    assert_eq!(backend.calls(), 8);
    // Without its key, a request of an optional route is none of the gateway's business to repeat.
    Request::new("PUT", "/optional").header("x-idempotency-key", "k").send(gateway.addr);
    assert_eq!(backend.last().all("x-idempotency-key"), [""; 0]);
}

/// Sends two requests one after the other, of which the first is answered with `first`; returns
/// whether both came on one connection.
#[track_caller]
fn shares_a_connection(first: &str, head: bool) -> bool {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let first_answer = first.to_owned();
    backend.script(move |seen| match seen.number {
        0 => Act::raw(first_answer.clone()),
        _ => answer(200, "{\"own\":true}"),
    });
    if head {
        Request::new("HEAD", "/x").send(gateway.addr);
    } else {
        Request::redeem("k-1", BODY).send(gateway.addr);
    }
    let second = Request::redeem("k-2", BODY).send(gateway.addr);
    second.is(200, "executed", "");
    assert_eq!(second.text(), "{\"own\":true}", "after {first:?}");
    let seen = backend.seen();
    assert_eq!(seen.len(), 2);
    seen[0].connection == seen[1].connection
}

#[test]
fn an_answer_that_announces_a_body_it_may_not_have_ends_its_connection() {
    for (lines, shares) in [
        ("", true),
        ("content-length: 0\r\n", true),
        ("content-length: 5\r\n", false),
        ("content-length: 05\r\n", false),
        ("transfer-encoding: chunked\r\n", false),
    ] {
        for (status, head) in [("204 No Content", false), ("304 Not Modified", false)] {
            let first = format!("HTTP/1.1 {status}\r\n{lines}\r\n");
            assert_eq!(shares_a_connection(&first, head), shares, "{first:?}");
        }
        let to_head = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        assert_eq!(shares_a_connection(&to_head, true), shares, "HEAD: {to_head:?}");
    }
}

#[test]
fn an_answer_of_many_lines_is_executed_and_replayed_with_all_of_them() {
    for count in [101, 1000, 2000] {
        let backend = Backend::start();
        let gateway = Setup::before(&backend).start();
        // Content-Type and Content-Length are lines as well.
        let lines: Vec<(String, String)> =
            (0..count - 2).map(|at| (format!("x-{at}"), at.to_string())).collect();
        let mut headers: Vec<(&str, &str)> =
            lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.push(("content-type", "application/json"));
        backend.always(Act::whole(200, &headers, b"{}"));
        let send = || Request::redeem("k", BODY).send(gateway.addr);
        for disposition in ["executed", "replayed"] {
            let reply = send();
            reply.is(200, disposition, "");
            for (name, value) in &lines {
                assert_eq!(reply.header(name).as_ref(), Some(value), "{name} of {count}");
            }
        }
        assert_eq!(backend.calls(), 1);
    }
}

#[test]
fn an_answer_whose_head_is_too_large_is_unknown() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let long = "x".repeat(66_000);
    backend.always(Act::whole(200, &[("x-long", &long)], b"{}"));
    Request::redeem("k", BODY).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_backend_says_how_long_its_connection_may_be_idle() {
    // Each: the backend's line, idle milliseconds, whether the connection is used again.
    let cases = [
        ("", 1100, true),
        ("keep-alive: timeout=1\r\n", 1100, false),
        ("keep-alive: timeout=1\r\n", 0, true),
        ("keep-alive: max=100, Timeout=\"1\"\r\n", 1100, false),
        ("keep-alive: timeout=60\r\nkeep-alive: timeout=1\r\n", 1100, false),
        ("keep-alive: timeout=5, max=100\r\n", 1100, true),
        ("keep-alive: timeout=0\r\n", 0, false),
        ("keep-alive: timeout=5, max=0\r\n", 0, false),
        ("keep-alive: whatever, timeout=, timeout=x\r\n", 1100, true),
    ];
    let check = |(line, idle, again): (&str, u64, bool)| {
        let backend = Backend::start();
        let gateway = Setup::before(&backend).upstream("keep_alive = \"60s\"").start();
        backend.always(Act::raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{line}\r\n{{}}")));
        Request::redeem("k-1", BODY).send(gateway.addr).is(200, "executed", "");
        // The time itself is what is tested.
        std::thread::sleep(Duration::from_millis(idle));
        Request::redeem("k-2", BODY).send(gateway.addr).is(200, "executed", "");
        let seen = backend.seen();
        assert_eq!(seen[0].connection == seen[1].connection, again, "{line:?} after {idle} ms");
    };
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || check(case));
        }
    });
}

#[test]
fn the_backend_sees_the_host_that_is_configured() {
    let backend = Backend::start();
    let own = backend.addr().to_string();
    for (line, host) in [
        ("", own.as_str()),
        ("host = \"upstream\"", own.as_str()),
        ("host = \"client\"", "shop.example"),
        ("host = \"vouchers.internal:8443\"", "vouchers.internal:8443"),
    ] {
        let gateway = Setup::before(&backend).upstream(line).start();
        Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
        assert_eq!(backend.last().header("host").as_deref(), Some(host), "{line}");
        Request::get("/x").send(gateway.addr);
        assert_eq!(backend.last().header("host").as_deref(), Some(host), "{line}");
        assert_eq!(backend.last().header("x-forwarded-host").as_deref(), Some("shop.example"));
    }
    // HTTP/1.0 needs no Host; the backend does.
    let gateway = Setup::before(&backend).upstream("host = \"client\"").start();
    let mut conn = crate::support::Conn::open(gateway.addr);
    conn.write("GET /x HTTP/1.0\r\n\r\n");
    assert_eq!(conn.read().status, 200);
    assert_eq!(backend.last().header("host").as_deref(), Some(own.as_str()));
}

#[test]
fn an_answer_without_a_length_is_whole_when_it_shows_its_end_or_is_trusted() {
    // Each: the body, and whether it counts as whole when checked.
    let cases = [
        (r#"{"ok":true}"#, true),
        ("true", true),
        ("<?xml version=\"1.0\"?><ok/>", true),
        ("<e:Envelope xmlns:e=\"x\"><e:Body>1 &gt; 0</e:Body></e:Envelope>\n", true),
        ("<ok>", false),
        ("<e:Envelope xmlns:e=\"x\"><e:Body>", false),
        ("OK", false),
        ("12", false),
        ("", false),
    ];
    for close_delimited in ["checked", "trusted"] {
        let backend = Backend::start();
        let gateway = Setup::before(&backend)
            .upstream(&format!("close_delimited = \"{close_delimited}\""))
            .start();
        for (at, (body, whole)) in cases.iter().enumerate() {
            let head = "HTTP/1.0 200 OK\r\ncontent-type: text/xml\r\n\r\n";
            backend.always(Act::raw(format!("{head}{body}")).then(Act::close()));
            let send = || Request::redeem(&format!("k-{at}"), BODY).send(gateway.addr);
            if *whole || close_delimited == "trusted" {
                for disposition in ["executed", "replayed"] {
                    let reply = send();
                    reply.is(200, disposition, "");
                    assert_eq!(reply.text(), *body);
                }
            } else {
                send().is(502, "unknown", "outcome-unknown");
                send().is(409, "unknown", "outcome-unknown");
            }
        }
        assert_eq!(backend.calls(), cases.len());
    }
}

#[test]
fn a_mistaken_setting_of_an_upstream_is_told_with_what_to_write() {
    let backend = Backend::start();
    for (line, expected) in [
        ("host = \"http://a\"", "\"client\""),
        ("host = \"a:b\"", "\"client\""),
        ("host = \"\"", "\"client\""),
        ("host = \"me@a\"", "\"client\""),
        ("close_delimited = \"trust\"", "\"trusted\""),
    ] {
        let setup = Setup::before(&backend).upstream(line);
        let exit = run(&["check", "--config", &setup.write_config()]);
        assert_eq!(exit.code, Some(2), "{line}");
        assert!(exit.stderr.contains(expected), "{line}: {}", exit.stderr);
    }
}
