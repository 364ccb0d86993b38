//! Hostile callers: tokens nobody signed, key sets that do not arrive, names that a client gives
//! itself, and questions of the authorization service that must not be mistaken for others.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use sha2::{Digest as _, Sha256};

use crate::callers_named::certificates;
use crate::support::certificates::{Authority, connect, over};
use crate::support::http2::Http2;
use crate::support::issuer::{TokenIssuer, claims, jwt, now, set};
use crate::support::{
    Act, Backend, Conn, Gate, Gateway, Request, Response, Setup, answer, at_once, eventually,
};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn write(setup: &Setup, name: &str, text: &str) {
    std::fs::write(setup.dir().join(name), text).unwrap();
}

fn digest(credential: &str) -> String {
    Sha256::digest(credential).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn authorized(value: &str) -> Request {
    Request::redeem("k", BODY).header("authorization", value)
}

/// A gateway that believes `issuer`, before whose callers a first one has stored an answer.
fn believing(issuer: &TokenIssuer, backend: &Backend) -> Gateway {
    let setup = Setup::before(backend).tenant(&jwt("keys_file = \"jwks.json\""));
    write(&setup, "jwks.json", &set(&[issuer]));
    let gateway = setup.start();
    let own = format!("Bearer {}", issuer.token("till-7", 600));
    authorized(&own).send(gateway.addr).is(200, "executed", "");
    gateway
}

/// Tokens that would name `till-7` if anything about them were believed.
fn forged(issuer: &TokenIssuer) -> Vec<String> {
    let good = claims("till-7", 600);
    let header = r#"{"alg":"ES256","kid":"a"}"#;
    let text =
        |header: &str, claims: &str| format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let none = |alg: &str| format!("{}.", text(&format!(r#"{{"alg":"{alg}","kid":"a"}}"#), &good));
    let keyed = |secret: &str| {
        let message = text(r#"{"alg":"HS256","kid":"a"}"#, &good);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        format!("{message}.{}", BASE64.encode(hmac::sign(&key, message.as_bytes())))
    };
    let stranger = TokenIssuer::new("a");
    let own_key = format!(r#"{{"alg":"ES256","kid":"a","jwk":{}}}"#, stranger.key());
    let own_url =
        r#"{"alg":"ES256","kid":"a","jku":"http://127.0.0.1:1/","x5u":"http://127.0.0.1:1/"}"#;
    let real = issuer.token("till-7", 600);
    let (message, signature) = real.rsplit_once('.').unwrap();
    let (first, payload) = message.split_once('.').unwrap();
    let changed = BASE64.encode(claims("till-8", 600).replace("till-8", "till-7"));
    let swap = |from: &str, to: &str| issuer.signed(header, &good.replace(from, to));
    let mut tokens = vec![
        none("none"),
        none("None"),
        none(""),
        none("ES256"),
        keyed(&issuer.key()),
        keyed(&set(&[issuer])),
        keyed(""),
        stranger.signed(header, &good),
        stranger.signed(&own_key, &good),
        stranger.signed(own_url, &good),
        format!("{first}.{changed}.{signature}x"),
        format!("{first}.{payload}.{}", "A".repeat(86)),
        format!("{first}.{payload}.{}", &signature[..80]),
        // Signed, and still no token for this gateway.
        issuer.signed(r#"{"alg":"RS256","kid":"a"}"#, &good),
        issuer.signed(r#"{"alg":"es256","kid":"a"}"#, &good),
        issuer.signed(r#"{"alg":["ES256"],"kid":"a"}"#, &good),
        issuer.signed(r#"{"kid":"a"}"#, &good),
        issuer.signed(r#"{"alg":"ES256","kid":1}"#, &good),
        issuer.signed(r#"{"alg":"ES256","kid":null}"#, &good),
        issuer.signed(r#"{"alg":"ES256","kid":"../a"}"#, &good),
        issuer.signed(r#"{"alg":"ES256","kid":"a","crit":["exp"]}"#, &good),
        issuer.signed(r#"{"alg":"ES256","kid":"a","alg":"none"}"#, &good),
        issuer.signed(r#"{"alg":"ES256","kid":"a","\u0061lg":"none"}"#, &good),
        issuer.signed(r#" {"alg":"none"}"#, &good),
        issuer.signed("{\n\"alg\":\"none\"}", &good),
        issuer.signed("[]", &good).replacen(&BASE64.encode("[]"), &BASE64.encode("{}"), 1),
        issuer.signed(header, &format!("[{good}]")),
        issuer.signed(header, &real),
        issuer.signed(header, &format!("{good}{good}")),
        issuer.signed(header, &good.replace('}', r#","client_id":"till-8"}"#)),
        issuer.signed(header, &good.replace('}', r#","aud":"others"}"#)),
        issuer.signed(header, &good.replace('}', r#","\u0065xp":1}"#)),
        issuer.signed(header, &format!("{good:17000}")),
        issuer.signed(header, &"[".repeat(9000)),
        swap(r#""vouchers""#, r#"["others"]"#),
        swap(r#""vouchers""#, r#"[["vouchers"]]"#),
        swap(r#""vouchers""#, r#"{"vouchers":"vouchers"}"#),
        swap(r#""vouchers""#, r#""vouchers ""#),
        swap(r#""vouchers""#, "[]"),
        swap("https://id.example", "https://id.example/"),
        swap("https://id.example", "https://ID.example"),
        swap(r#""till-7""#, r#"["till-7"]"#),
        swap(r#""till-7""#, "7"),
        swap("till-7", r"till-7\u0000"),
        swap("till-7", ""),
    ];
    let time = |claim: &str| good.replace(r#""exp":"#, &format!(r#"{claim},"was":"#));
    for claim in [
        format!(r#""exp":{}"#, now() - 90),
        format!(r#""exp":"{}""#, now() + 600),
        r#""exp":1e400"#.to_owned(),
        r#""exp":-1"#.to_owned(),
        r#""exp":null"#.to_owned(),
        format!(r#""exp":{},"nbf":{}"#, now() + 900, now() + 600),
        format!(r#""exp":{},"nbf":"{}""#, now() + 900, now() - 600),
        r#""exp2":1"#.to_owned(),
    ] {
        tokens.push(issuer.signed(header, &time(&claim)));
    }
    tokens
}

#[test]
fn tokens_that_are_not_all_right_name_nobody_and_read_no_answer() {
    let backend = Backend::start();
    let issuer = TokenIssuer::new("a");
    let gateway = believing(&issuer, &backend);
    for token in forged(&issuer) {
        for scheme in ["Bearer ", "bearer  ", "BEARER\t"] {
            let reply = authorized(&format!("{scheme}{token}")).send(gateway.addr);
            let expected = (401, "rejected".to_owned(), "caller-unknown".to_owned());
            assert_eq!(reply.summary(), expected, "{scheme}{token}");
        }
        let status = Request::get("/.well-known/idempotency/answer").key("k");
        let status = status.header("authorization", format!("Bearer {token}"));
        assert_eq!(status.send(gateway.addr).status, 401, "{token}");
    }
    assert_eq!(backend.calls(), 1);
}

/// Credentials that are no tokens name other callers, never the caller of a token.
#[test]
fn what_looks_like_a_token_in_part_is_another_caller() {
    let backend = Backend::start();
    let issuer = TokenIssuer::new("a");
    let gateway = believing(&issuer, &backend);
    let good = issuer.token("till-7", 600);
    for (calls, value) in [
        format!("Bearer {good}.{good}"),
        format!("Bearer {good},{good}"),
        format!("Bearer \"{good}\""),
        format!("Bearer {good}="),
        format!("Basic {good}"),
        format!("Bearer{good}"),
        good.clone(),
        "Bearer till-7".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        authorized(&value).send(gateway.addr).is(200, "executed", "");
        assert_eq!(backend.calls(), calls + 2, "{value}");
    }
    // Two tokens are one caller only if both say so.
    let line = |client: &str| format!("Bearer {}", issuer.token(client, 600));
    let two = |client: &str| authorized(&line("till-7")).header("authorization", line(client));
    two("till-7").send(gateway.addr).is(200, "replayed", "");
    two("till-8").send(gateway.addr).is(401, "rejected", "caller-unknown");
    let expired = format!("Bearer {}", issuer.token("till-7", -90));
    let both = authorized(&line("till-7")).header("authorization", expired);
    both.send(gateway.addr).is(401, "rejected", "caller-unknown");
    // Spellings of one token are one caller.
    for value in [format!("bearer\t{good}"), format!("BEARER   {good} ")] {
        authorized(&value).send(gateway.addr).is(200, "replayed", "");
    }
    let spaced = issuer.signed("\n{ \"kid\":\"a\",\r\n \"alg\":\"ES256\" }", &claims("till-7", 9));
    authorized(&format!("Bearer {spaced}")).send(gateway.addr).is(200, "replayed", "");
}

#[test]
fn an_issuer_that_does_not_answer_is_waited_for_once_by_all() {
    let (backend, keys, shut) = (Backend::start(), Backend::start(), Gate::default());
    keys.always(answer(200, "{}").after(&shut));
    let url = format!("keys_url = \"http://{}/jwks.json\"", keys.addr());
    let gateway = Setup::before(&backend).tenant(&jwt(&url)).start();
    let token = format!("Bearer {}", TokenIssuer::new("a").token("till", 600));
    let reply = at_once(24, |_| authorized(&token).send(gateway.addr).summary());
    let expected = (503, "rejected".to_owned(), "authorization-unavailable".to_owned());
    assert!(reply.iter().all(|reply| *reply == expected), "{reply:?}");
    // One after the other, each would have asked anew after the time limit of the one before.
    assert!(keys.calls() <= 6, "{} fetches", keys.calls());
    assert_eq!(backend.calls(), 0);
    shut.open();
}

#[test]
fn a_client_that_leaves_does_not_end_the_fetch_of_a_key_set() {
    let (backend, authority) = (Backend::start(), Authority::new("servers"));
    let issuer = TokenIssuer::new("a");
    let token = format!("Bearer {}", issuer.token("till", 600));
    // The fetch has a time limit of its own, which a machine that stalls may reach.
    eventually("the set of a fetch whose client has left is used", || {
        let (keys, shut) = (Backend::start(), Gate::default());
        keys.always(answer(200, &set(&[&issuer])).after(&shut));
        let url = format!("keys_url = \"http://{}/jwks.json\"", keys.addr());
        let setup = Setup::before(&backend)
            .server("tls = { cert = \"server.crt\", key = \"server.key\" }")
            .tenant(&jwt(&url));
        authority.server().write(setup.dir(), "server");
        let gateway = setup.start();
        let client = Http2::open(gateway.addr, &authority);
        let left = client.begin(&authorized(&token));
        keys.wait_calls(1);
        drop((left, client));
        shut.open();
        let mut client = Http2::open(gateway.addr, &authority);
        let reply = client.send(&authorized(&token));
        (reply.status == 200 && keys.calls() == 1).then_some(())
    });
}

/// A gateway over TLS that asks the service `auth`, which names callers by `x-tenant`.
fn asking(backend: &Backend, auth: &Backend, headers: &str, authority: &Authority) -> Gateway {
    let authorize = format!(
        "authorize = {{ upstream = \"auth\", path = \"/check\", headers = [{headers}], \
         tenant_header = \"x-tenant\", cache = \"60s\" }}"
    );
    let setup = Setup::before(backend)
        .server("tls = { cert = \"server.crt\", key = \"server.key\" }")
        .tenant(&authorize)
        .authorization_service(auth, "30s");
    authority.server().write(setup.dir(), "server");
    setup.start()
}

fn secure(gateway: &Gateway, authority: &Authority, request: &Request) -> Response {
    let config = Arc::new(authority.trusting(None));
    over(&mut connect(gateway.addr, &config).unwrap(), request).unwrap()
}

#[test]
fn a_client_cannot_name_itself_in_any_spelling_on_any_route() {
    let (backend, auth) = (Backend::start(), Backend::start());
    let authority = Authority::new("servers");
    auth.always(Act::whole(200, &[("x-tenant", "shop-1")], b""));
    let gateway = asking(&backend, &auth, "\"authorization\"", &authority);
    let claiming = |request: Request| {
        let names = ["x-tenant", "X-Tenant", "x_tenant", "X_TENANT", "x-tenant"];
        names.iter().fold(request, |request, name| request.header(name, "shop-2"))
    };
    let forwarded = |request: Request| {
        let names = ["X_Forwarded_For", "x-forwarded_proto", "X_Real_IP", "x-real-ip"];
        names.iter().fold(request, |request, name| request.header(name, "10.9.8.7"))
    };
    let clean = |how: &str| {
        let seen = backend.last();
        for (name, value) in &seen.headers {
            let value = String::from_utf8_lossy(value);
            assert!(!value.contains("shop-2") && !value.contains("10.9.8.7"), "{how}: {name}");
        }
    };
    let mut calls = 0;
    for request in [
        Request::redeem("k", BODY),
        Request::new("POST", "/optional").json(BODY),
        Request::new("POST", "/optional").key("o").json(BODY),
        Request::get("/open"),
    ] {
        let request = forwarded(claiming(request));
        assert_eq!(secure(&gateway, &authority, &request).status, 200);
        calls += 1;
        clean("HTTP/1.1");
        // Another key, so that the request arrives.
        let request = request.header("x-more", "1");
        let mut client = Http2::open(gateway.addr, &authority);
        let status = client.send(&request).status;
        assert_eq!(status, 200);
        if backend.calls() > calls {
            calls = backend.calls();
            clean("HTTP/2");
        }
    }
    for asked in auth.seen() {
        assert_eq!(asked.header("x-tenant"), None);
    }
}

#[test]
fn names_in_trailers_go_nowhere() {
    let (backend, auth) = (Backend::start(), Backend::start());
    auth.always(Act::whole(200, &[("x-tenant", "shop-1")], b""));
    let rest = "name = \"uploads\"\nmethods = [\"POST\"]\npath = \"/uploads\"\nmode = \"off\"";
    let gateway = Setup::before(&backend)
        .tenant("authorize = { upstream = \"auth\", path = \"/\", tenant_header = \"x-tenant\" }")
        .authorization_service(&auth, "60s")
        .route(rest)
        .start();
    for path in ["/v1/vouchers/redeem", "/uploads"] {
        let mut conn = Conn::open(gateway.addr);
        conn.write(format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nidempotency-key: t\r\ntransfer-encoding: chunked\r\n\
             trailer: x-tenant, authorization\r\n\r\n2\r\n{{}}\r\n0\r\nx-tenant: shop-2\r\n\
             authorization: Bearer b\r\n\r\n"
        ));
        assert_eq!(conn.read().status, 200);
        let seen = backend.last();
        let head = format!("{seen:?}");
        assert!(!head.contains("shop-2") && !head.contains("Bearer b"), "{head}");
    }
    assert_eq!(auth.last().header("authorization"), None);
}

/// Permissions are remembered for their question alone.
#[test]
fn a_permission_is_remembered_for_its_method_target_and_headers() {
    let (backend, auth) = (Backend::start(), Backend::start());
    let authority = Authority::new("servers");
    auth.always(Act::whole(200, &[("x-tenant", "shop-1")], b""));
    let gateway = asking(&backend, &auth, "\"authorization\", \"x-shop\"", &authority);
    let base = |method: &str, path: &str| Request::new(method, path).key("k").json(BODY);
    let optional = || base("POST", "/optional");
    let questions = [
        optional(),
        base("PUT", "/optional"),
        base("POST", "/optional?a=1"),
        base("POST", "/optional?a=2"),
        optional().header("authorization", "a"),
        optional().header("authorization", ""),
        optional().header("authorization", "a").header("x-shop", "b"),
        optional().header("authorization", "b").header("x-shop", "a"),
        optional().header("x-shop", "a").header("x-shop", "b"),
        optional().header("x-shop", "b").header("x-shop", "a"),
        optional().header("x-shop", "a, b"),
        optional().header("x-shop", "ab"),
        optional().header("x-shop", "a").header("authorization", "b\u{e9}"),
        optional().header("x-shop", "ax-forwarded-method"),
    ];
    for (asked, question) in questions.iter().enumerate() {
        secure(&gateway, &authority, question);
        assert_eq!(auth.calls(), asked + 1, "{question:?}");
        // What is not passed is no part of the question.
        let again = question.clone().header("x-other", asked.to_string());
        secure(&gateway, &authority, &again);
        assert_eq!(auth.calls(), asked + 1, "{question:?}");
    }
    // A client cannot give the service another method or target.
    let lying = optional()
        .header("authorization", "lie")
        .header("x-forwarded-method", "GET")
        .header("x-forwarded-uri", "/public")
        .header("x-original-uri", "/public");
    secure(&gateway, &authority, &lying);
    let asked = auth.last();
    assert_eq!(asked.all("x-forwarded-method"), ["POST"]);
    assert_eq!(asked.all("x-forwarded-uri"), ["/optional"]);
    assert_eq!(asked.header("x-original-uri"), None);
}

#[test]
fn certificates_name_one_caller_also_for_the_look_up_of_keys() {
    let backend = Backend::start();
    let (setup, servers, clients) = certificates(&backend);
    let setup = setup.tenant("certificate = \"uri\"\ndirectory = \"tenants.toml\"");
    let shops = format!(
        "[one]\nuris = [\"spiffe://one\"]\ndigests = [\"{}\"]\n[two]\nuris = [\"spiffe://two\"]\n",
        digest("one")
    );
    write(&setup, "tenants.toml", &shops);
    let gateway = setup.start();
    let send = |uris: &[&str], request: &Request| {
        let identity = (!uris.is_empty()).then(|| clients.client_of(uris));
        let config = Arc::new(servers.trusting(identity.as_ref()));
        over(&mut connect(gateway.addr, &config).unwrap(), request).unwrap()
    };
    let redeem = Request::redeem("k", BODY);
    send(&["spiffe://one"], &redeem).is(200, "executed", "");
    send(&["spiffe://other", "spiffe://one"], &redeem).is(200, "replayed", "");
    for names in [["spiffe://one", "spiffe://two"], ["spiffe://two", "spiffe://one"]] {
        send(&names, &redeem).is(401, "rejected", "caller-unknown");
    }
    let answered = Request::get("/.well-known/idempotency/answer").key("k");
    assert_eq!(send(&["spiffe://one"], &answered).status, 200);
    for names in [&["spiffe://two"][..], &["spiffe://three"], &[]] {
        assert_eq!(send(names, &answered).status, 404, "{names:?}");
    }
    let with_credential = answered.header("authorization", "Bearer one");
    assert_eq!(send(&[], &with_credential).status, 200);
    assert_eq!(send(&["spiffe://two"], &with_credential).status, 401);
    assert_eq!(backend.calls(), 1);
}

#[test]
fn the_least_limits_let_one_request_through_and_the_greatest_all() {
    let backend = Backend::start();
    let least = "in_flight_per_tenant = 1\nrate_per_tenant = \"1/h\"\nburst_per_tenant = 1\n\
         stored_keys_per_tenant = 1";
    let gateway = Setup::before(&backend).limits(least).start();
    let send = |gateway: &Gateway, tenant: &str, key: &str| {
        Request::redeem(key, BODY).tenant(tenant).send(gateway.addr).summary()
    };
    let over = (429, "rejected".to_owned(), "quota-exceeded".to_owned());
    let executed = (200, "executed".to_owned(), String::new());
    for tenant in ["a", "b"] {
        assert_eq!(send(&gateway, tenant, "k"), executed);
        assert_eq!(send(&gateway, tenant, "l"), over);
    }
    drop(gateway);
    let greatest = "in_flight = 10000000\nin_flight_per_tenant = 10000000\n\
         rate_per_tenant = \"1/h\"\nburst_per_tenant = 10000000\n\
         stored_keys_per_tenant = 1000000000000";
    let gateway = Setup::before(&backend).limits(greatest).start();
    for key in ["k", "l", "m"] {
        assert_eq!(send(&gateway, "a", key), executed);
    }
    drop(gateway);
    for line in [
        "in_flight_per_tenant = 0",
        "rate_per_tenant = \"0/s\"",
        "rate_per_tenant = \"1/s\"\nburst_per_tenant = 0",
        "stored_keys_per_tenant = 0",
        "stored_keys_per_tenant = -1",
        "stored_keys_per_tenant = 1000000000001",
    ] {
        let exit = Setup::before(&backend).limits(line).try_start().unwrap_err();
        assert_eq!(exit.code, Some(2), "{line}: {exit:?}");
    }
}
