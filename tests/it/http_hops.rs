//! The gateway as one hop among others: paths and queries byte for byte, what proxies say of each
//! other, and loops.

use crate::support::{Act, Backend, Conn, Gateway, Request, Response, Setup};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// Routes with a keyed path parameter, and all other paths passed through.
fn gateway(backend: &Backend) -> Gateway {
    voucher_setup(backend).start()
}

fn voucher_setup(backend: &Backend) -> Setup {
    let keyed = "name = \"voucher\"\nmethods = [\"POST\"]\n\
                 path = \"/v1/vouchers/{code}/redemption\"";
    let query = "name = \"query\"\nmethods = [\"POST\", \"QUERY\"]\npath = \"/free/{*rest}\"\n\
                 mode = \"off\"";
    Setup::before(backend).route(keyed).route(query)
}

fn raw(gateway: &Gateway, bytes: impl AsRef<[u8]>) -> Response {
    let mut conn = Conn::open(gateway.addr);
    conn.write(bytes);
    conn.read()
}

#[test]
fn a_path_of_its_keyed_route_reaches_the_backend_byte_for_byte() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for (number, code) in
        ["50%25OFF", "50%25", "%25", "a%2Db%7E", "%e4", "caf%C3%A9", "50%25-%2530", "A;B", "%3bA"]
            .iter()
            .enumerate()
    {
        let path = format!("/v1/vouchers/{code}/redemption");
        let request = Request::new("POST", &path).key(&format!("k-{number}")).json(BODY);
        request.send(gateway.addr).is(200, "executed", "");
        assert_eq!(backend.last().line, format!("POST {path} HTTP/1.1"));
        request.send(gateway.addr).is(200, "replayed", "");
        assert_eq!(backend.calls(), number + 1);
    }
}

#[test]
fn a_path_that_a_second_decoding_turns_into_another_is_refused_everywhere() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for code in [
        "x%252e%252e%252fadmin",
        "%252e%252e",
        "%252e",
        "x%252fy",
        "x%255cy",
        "x%2500",
        "x%250a",
        "x%253by",
        "x%25252fy",
        "..%2fx",
        "%2e%2e",
    ] {
        for path in [format!("/v1/vouchers/{code}/redemption"), format!("/free/{code}/x")] {
            let request = Request::new("POST", &path).key("k").json(BODY);
            request.send(gateway.addr).is(400, "rejected", "request-invalid");
        }
    }
    // Outside its keyed route, an encoded percent sign is still in doubt.
    let request = Request::new("POST", "/free/50%25OFF").json(BODY);
    request.send(gateway.addr).is(400, "rejected", "request-invalid");
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_passed_through_target_reaches_the_backend_as_it_came() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for target in [
        "/a%7Eb",
        "/%e4",
        "/a?b=%7e|[]{}^`'+%2f~!$&()*,;=:@/?",
        "/?",
        "/a%2Db?%7E",
        "/50%25OFF?50%25OFF",
        "/a?x=ä",
    ] {
        let reply = raw(&gateway, format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert_eq!(reply.status, 200, "{target}");
        assert_eq!(backend.last().line, format!("GET {target} HTTP/1.1"));
    }
}

#[test]
fn a_query_may_have_quotes_and_angle_brackets() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let mut conn = Conn::open(gateway.addr);
    for (sent, expected) in [
        (r#"/a?q="x""#, "/a?q=%22x%22"),
        ("/a?q=<b>&c", "/a?q=%3Cb%3E&c"),
        (r#"/a?"<>"#, "/a?%22%3C%3E"),
        (r#"/a"b?""#, r#"/a"b?%22"#),
    ] {
        conn.write(format!("GET {sent} HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert_eq!(conn.read().status, 200, "{sent}");
        assert_eq!(backend.last().line, format!("GET {expected} HTTP/1.1"));
    }
    conn.write(r#"POST /v1/vouchers/redeem?x="y" HTTP/1.1"#);
    conn.write(format!(
        "\r\nhost: a\r\nidempotency-key: k\r\ncontent-type: application/json\r\n\
         content-length: 14\r\n\r\n{BODY}"
    ));
    conn.read().is(200, "executed", "");
    assert_eq!(backend.last().line, "POST /v1/vouchers/redeem?x=%22y%22 HTTP/1.1");
}

#[test]
fn an_absolute_form_may_name_the_default_port() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for (target, host, status) in [
        ("http://g:80/x", "g", 200),
        ("http://g/x", "g:80", 200),
        ("http://g/x", "g", 200),
        ("http://g:443/x", "g", 400),
        ("http://g:8080/x", "g", 400),
        ("http://h/x", "g", 400),
    ] {
        let reply = raw(&gateway, format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(reply.status, status, "{target} {host}");
    }
    assert_eq!(backend.last().line, "GET /x HTTP/1.1");
    assert_eq!(backend.calls(), 3);
}

#[test]
fn only_the_contract_and_what_is_below_it_are_the_gateways_own() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for path in ["X", "-key", ".json", "status", "%58"] {
        let reply = Request::get(&format!("/.well-known/idempotency{path}")).send(gateway.addr);
        assert_eq!(reply.text(), format!(r#"{{"execution":{}}}"#, backend.calls() - 1));
    }
    assert_eq!(backend.calls(), 5);
    for (path, status) in [("", 200), ("/", 404), ("/x", 404), ("?x", 200), ("/status", 400)] {
        let reply = Request::get(&format!("/.well-known/idempotency{path}")).send(gateway.addr);
        assert_eq!(reply.status, status, "{path}");
    }
    assert_eq!(backend.calls(), 5);
}

#[test]
fn max_forwards_is_obeyed() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let ask = |method: &str, path: &str, left: &str| {
        Request::new(method, path).header("max-forwards", left).send(gateway.addr)
    };
    for path in ["/a", "/v1/vouchers/redeem"] {
        let reply = ask("OPTIONS", path, "0");
        assert_eq!(reply.status, 204);
        assert!(reply.header("allow").unwrap().contains("OPTIONS"), "{reply:?}");
    }
    assert_eq!(ask("TRACE", "/a", "0").status, 405);
    assert_eq!(backend.calls(), 0);
    for (given, sent) in [
        ("1", "0"),
        ("10", "9"),
        ("99999999999999999999999", "18446744073709551614"),
        ("x", "x"),
        ("-1", "-1"),
    ] {
        assert_eq!(ask("OPTIONS", "/a", given).status, 200);
        assert_eq!(backend.last().header("max-forwards").as_deref(), Some(sent));
    }
    // It has no meaning for other methods.
    assert_eq!(ask("GET", "/a", "0").status, 200);
    assert_eq!(backend.last().header("max-forwards").as_deref(), Some("0"));
}

#[test]
fn via_names_the_version_that_was_received_on_both_ways() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for (client, server) in [("1.0", "1.1"), ("1.1", "1.0"), ("1.0", "1.0"), ("1.1", "1.1")] {
        let close = if server == "1.0" { Act::close() } else { Act(Vec::new()) };
        let head = format!("HTTP/{server} 200 OK\r\nvia: 1.1 b\r\ncontent-length: 2\r\n\r\n{{}}");
        backend.always(Act::raw(head).then(close));
        for head in ["GET /a", "POST /v1/vouchers/redeem"] {
            let reply = raw(
                &gateway,
                format!(
                    "{head} HTTP/{client}\r\nhost: a\r\nidempotency-key: k-{client}-{server}\r\n\
                     content-length: 0\r\n\r\n"
                ),
            );
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(reply.all("via").join(", "), format!("1.1 b, {server} oncegate"));
            assert_eq!(backend.last().header("via"), Some(format!("{client} oncegate")));
        }
    }
}

#[test]
fn a_loop_ends_after_three_passages() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let passed = |via: &str| Request::get("/a").header("via", via).send(gateway.addr);
    assert_eq!(passed("1.1 oncegate, 1.0 nginx, 1.1 oncegate").status, 200);
    assert_eq!(backend.calls(), 1);
    passed("1.1 oncegate, 1.0 nginx, 1.1 oncegate, 1.1 oncegate").is(
        508,
        "rejected",
        "request-invalid",
    );
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_gateway_in_front_of_itself_answers_508_at_once() {
    let backend = Backend::start();
    let mut first = gateway(&backend);
    let setup = voucher_setup(&backend).listen(first.addr.to_string());
    let setup = setup.replacing(backend.addr().to_string(), first.addr.to_string());
    first.stop();
    let gateway = setup.start();
    assert_eq!(Request::get("/a").send(gateway.addr).status, 508);
    assert_eq!(backend.calls(), 0);
}

#[test]
fn query_is_a_safe_method() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for path in ["/free/a//b", "/free/a;b", "/free/50%25OFF"] {
        let reply = Request::new("QUERY", path).json("{}").send(gateway.addr);
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(backend.last().line, format!("QUERY {path} HTTP/1.1"));
        assert_eq!(Request::new("POST", path).json("{}").send(gateway.addr).status, 400);
    }
    assert_eq!(backend.calls(), 3);
}

const CLAIMS: [(&str, &str); 7] = [
    ("x-forwarded-for", "203.0.113.1"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "public.example"),
    ("x-forwarded-port", "443"),
    ("x-real-ip", "203.0.113.1"),
    ("forwarded", "for=203.0.113.1;proto=https"),
    ("proxy", "http://evil.example"),
];

/// Sends the claims and gives what the backend saw of them.
fn seen_of(gateway: &Gateway, backend: &Backend, request: Request) -> Vec<Option<String>> {
    let with = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
    assert_eq!(CLAIMS.iter().fold(request, with).send(gateway.addr).status, 200);
    CLAIMS.iter().map(|(name, _)| backend.last().header(name)).collect()
}

#[test]
fn forwarding_headers_are_kept_from_trusted_proxies_only() {
    let backend = Backend::start();
    let text = |text: &str| Some(text.to_owned());
    let set = [text("127.0.0.1"), text("http"), text("shop.example"), None, None, None, None];
    let kept = [
        text("203.0.113.1, 127.0.0.1"),
        text("https"),
        text("public.example"),
        text("443"),
        text("203.0.113.1"),
        text("for=203.0.113.1;proto=https, for=127.0.0.1;proto=http;host=\"shop.example\""),
        None,
    ];
    for (trusted, expected) in [
        ("", &set),
        ("trusted_proxies = []", &set),
        ("trusted_proxies = [\"10.0.0.0/8\", \"::1\"]", &set),
        ("trusted_proxies = [\"10.0.0.0/8\", \"127.0.0.0/8\"]", &kept),
        ("trusted_proxies = [\"127.0.0.1\"]", &kept),
    ] {
        let gateway = voucher_setup(&backend).server(trusted).start();
        assert_eq!(seen_of(&gateway, &backend, Request::get("/a")), expected, "{trusted}");
        let keyed = Request::redeem(&format!("k-{}", backend.calls()), BODY);
        assert_eq!(seen_of(&gateway, &backend, keyed), expected, "{trusted}");
    }
}

#[test]
fn a_network_that_is_none_is_refused_with_its_line() {
    let backend = Backend::start();
    for network in ["10.0.0.0/33", "10.1.0.0/8", "proxy.example", ""] {
        let setup = voucher_setup(&backend).server(&format!("trusted_proxies = [\"{network}\"]"));
        let exit = setup.try_start().unwrap_err();
        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert!(exit.stderr.contains(":3:20: `trusted_proxies`"), "{exit:?}");
    }
}
