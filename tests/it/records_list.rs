//! Finding records, and everything that is refused.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::admin::Place;
use crate::support::{Act, AdminClient, Backend, Request, Setup, TOKEN};

fn setup(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend)).redeem("record.subject = \"/qr\"")
}

/// Keys `k-0` to `k-23`: every third is lost, the even ones are tenant `a`'s, the others `b`'s.
fn fill(backend: &Backend, to: std::net::SocketAddr) {
    for n in 0..24 {
        backend.always(if n % 3 == 0 { Act::reset() } else { Act::whole(200, &[], b"done") });
        let tenant = if n % 2 == 0 { "a" } else { "b" };
        let body = format!(r#"{{"qr":"+{}"}}"#, n % 4);
        Request::redeem(&format!("k-{n}"), &body).tenant(tenant).send(to);
    }
}

/// All records of a query, page by page.
#[track_caller]
fn all(admin: AdminClient, query: &str) -> Vec<Value> {
    let mut records = Vec::new();
    let mut cursor = String::new();
    for _ in 0..100 {
        let (page, next) = admin.list(&format!("{query}&cursor={cursor}"));
        records.extend(page);
        match next {
            Some(next) => cursor = next,
            None => return records,
        }
    }
    panic!("no end after {} records", records.len());
}

fn keys(records: &[Value]) -> BTreeSet<u64> {
    let number = |record: &Value| record["key"].as_str()?.strip_prefix("k-")?.parse().ok();
    let keys: BTreeSet<u64> = records.iter().filter_map(number).collect();
    assert_eq!(keys.len(), records.len(), "a record came twice");
    keys
}

fn numbers(fits: impl Fn(u64) -> bool) -> BTreeSet<u64> {
    (0..24).filter(|n| fits(*n)).collect()
}

#[test]
fn pages_bring_every_record_that_fits_once() {
    Place::each(|place| {
        let backend = Backend::start();
        let gateways = place.start(&setup(&backend));
        fill(&backend, gateways[0].addr);
        let admin = AdminClient::of(&gateways[gateways.len() - 1]);
        let tenant = |of: &str| {
            let n = if of == "a" { 0 } else { 1 };
            admin.show(&format!("k-{n}"))["tenant"].as_str().unwrap().to_owned()
        };
        let (a, b) = (tenant("a"), tenant("b"));
        assert_ne!(a, b);
        for limit in [1, 7, 24, 1000] {
            let query = |filters: &str| keys(&all(admin, &format!("limit={limit}&{filters}")));
            assert_eq!(query(""), numbers(|_| true));
            assert_eq!(query("state=unknown"), numbers(|n| n % 3 == 0));
            assert_eq!(query("state=final"), numbers(|n| n % 3 != 0));
            assert_eq!(query("state=in_flight"), numbers(|_| false));
            assert_eq!(query(&format!("tenant={a}")), numbers(|n| n % 2 == 0));
            let both = format!("tenant={b}&state=unknown&route=redeem");
            assert_eq!(query(&both), numbers(|n| n % 2 == 1 && n % 3 == 0));
            assert_eq!(query("route=optional"), numbers(|_| false));
            assert_eq!(query("key=k-5"), numbers(|n| n == 5));
            assert_eq!(query(&format!("key=k-5&tenant={b}")), numbers(|n| n == 5));
            assert_eq!(query(&format!("key=k-5&tenant={a}")), numbers(|_| false));
            // A plus stands for itself.
            assert_eq!(query(&format!("tenant={a}&subject=+2")), numbers(|n| n % 4 == 2));
            assert_eq!(query(&format!("tenant={b}&subject=%2B2")), numbers(|_| false));
        }
        let (page, next) = admin.list("limit=23");
        assert_eq!(page.len(), 23);
        let (rest, end) = admin.list(&format!("limit=23&cursor={}", next.unwrap()));
        assert_eq!((rest.len(), end), (1, None));
        let (page, next) = admin.list("limit=24");
        assert_eq!((page.len(), next), (24, None));
    });
}

#[test]
fn a_record_is_shown_with_what_an_operator_needs() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    backend.always(Act::whole(200, &[("set-cookie", "s=1"), ("x-a", "1")], b"\xff\x00"));
    let request = Request::redeem("k-1", "{}").header("authorization", "Bearer the-credential");
    request.send(gateway.addr).is(200, "executed", "");
    let admin = AdminClient::of(&gateway);
    let listed = admin.list("").0.remove(0);
    for (name, value) in [
        ("route", json!("redeem")),
        ("key", json!("k-1")),
        ("state", json!("final")),
        ("status", json!(200)),
        ("attempts", json!(1)),
    ] {
        assert_eq!(listed[name], value, "{name}");
    }
    for name in ["id", "tenant", "first_seen", "updated", "expires"] {
        assert!(listed[name].is_string(), "{name}: {listed}");
    }
    let reply = admin.get(&format!("/api/records/{}", listed["id"].as_str().unwrap()));
    assert_eq!(reply.header("cache-control").as_deref(), Some("no-store"));
    let shown = reply.json();
    assert_eq!(shown["response"]["body_base64"], "/wA=");
    assert!(shown["response"]["headers"].as_array().unwrap().contains(&json!(["x-a", "1"])));
    let text = reply.text();
    assert!(!text.contains("s=1") && !text.contains("the-credential"), "{text}");
    backend.always(Act::reset());
    Request::redeem("k-2", "{}").send(gateway.addr);
    let shown = admin.show("k-2");
    assert!(shown["reason"].as_str().unwrap().contains("connection"), "{shown}");
    assert!(shown["unknown_since"].is_string());
}

#[test]
fn the_api_is_closed_without_the_token() {
    let backend = Backend::start();
    let open = Setup::before(&backend).start();
    for request in [Request::get("/api/records"), AdminClient::request("GET", "/api/records")] {
        let reply = request.send(open.admin);
        assert_eq!((reply.status, &reply.json()["code"]), (403, &json!("no-token-configured")));
        assert!(reply.json()["detail"].as_str().unwrap().contains("set `token_file`"));
    }
    let mut gateway = setup(&backend).start();
    let id = "0".repeat(32);
    let targets = ["/api/records".to_owned(), format!("/api/records/{id}"), "/api/else".to_owned()];
    for target in &targets {
        let with = |line: &str| Request::get(target).header("authorization", line);
        let doubled = with(&format!("Bearer {TOKEN}")).header("authorization", "Bearer x");
        for request in [
            Request::get(target),
            with("Bearer"),
            with("Bearer "),
            with("Bearer wrong"),
            with(&format!("Bearer {TOKEN}x")),
            with(&format!("Bearer {}", &TOKEN[1..])),
            with(&format!("Basic {TOKEN}")),
            with(TOKEN),
            doubled,
        ] {
            let reply = request.send(gateway.admin);
            assert_eq!(reply.status, 401, "{reply:?}");
            assert_eq!(reply.header("www-authenticate").as_deref(), Some("Bearer"));
            assert_eq!(reply.header("content-type").as_deref(), Some("application/problem+json"));
        }
        assert_ne!(with(&format!("bearer {TOKEN}")).send(gateway.admin).status, 401);
    }
    assert_eq!(Request::get("/healthz").send(gateway.admin).status, 200);
    assert_eq!(Request::get("/readyz").send(gateway.admin).status, 200);
    gateway.stop();
    let log = gateway.stderr();
    assert!(!log.contains("refused"), "whoever has no token fills the log: {log}");
}

#[test]
fn addresses_and_methods_that_are_not_there_are_named() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    let id = "0".repeat(32);
    let ask = |method: &str, target: &str| AdminClient::request(method, target).send(gateway.admin);
    for (method, target, allow) in [
        ("POST", "/api/records".to_owned(), "GET, HEAD"),
        ("DELETE", "/api/records".to_owned(), "GET, HEAD"),
        ("PUT", format!("/api/records/{id}"), "GET, HEAD, DELETE"),
        ("GET", format!("/api/records/{id}/resolve"), "POST"),
        ("DELETE", format!("/api/records/{id}/resolve"), "POST"),
    ] {
        let reply = ask(method, &target);
        assert_eq!(
            (reply.status, reply.header("allow").as_deref()),
            (405, Some(allow)),
            "{target}"
        );
    }
    for target in ["/api//api/records", "/api//records", "/api/api/records"] {
        let reply = ask("GET", target);
        assert_eq!((reply.status, &reply.json()["code"]), (404, &json!("no-such-address")));
    }
    for target in ["/api/", "/api/statistics", "/api/records/a/b/c", "/api/records/"] {
        let reply = ask("GET", target);
        assert!(matches!(reply.status, 404 | 400), "{target}: {reply:?}");
    }
    for target in ["/api/records/x", "/api/records/0", &format!("/api/records/{}", "G".repeat(32))]
    {
        let reply = ask("GET", target);
        assert_eq!((reply.status, &reply.json()["code"]), (400, &json!("id-invalid")), "{target}");
    }
    for query in ["colour=red", "limit=0", "state=lost", "cursor=x", "key=a&key=b", "since=x"] {
        let reply = ask("GET", &format!("/api/records?{query}"));
        assert_eq!(
            (reply.status, &reply.json()["code"]),
            (400, &json!("query-invalid")),
            "{query}"
        );
    }
    assert_eq!(ask("GET", &format!("/api/records/{id}?x=1")).status, 400);
    assert_eq!(ask("GET", &format!("/api/records/{id}")).status, 404);
    assert_eq!(ask("DELETE", &format!("/api/records/{id}?why=1")).status, 400);
    assert_eq!(ask("DELETE", &format!("/api/records/{id}?reason=a%0ab")).status, 400);
}

#[test]
fn a_resolve_that_is_not_one_changes_nothing() {
    let backend = Backend::start();
    let gateway = setup(&backend).redeem("record.max_stored_body = \"1KiB\"").start();
    backend.always(Act::reset());
    Request::redeem("k", "{}").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let admin = AdminClient::of(&gateway);
    let id = admin.id("k");
    let target = format!("/api/records/{id}/resolve");
    let post = || AdminClient::request("POST", &target);
    let plain = post().header("content-type", "text/plain").body(b"{}").send(gateway.admin);
    assert_eq!(plain.status, 415);
    assert_eq!(post().body(b"{}").send(gateway.admin).status, 415);
    for (body, code) in [
        ("", "body-invalid"),
        ("{", "body-invalid"),
        ("[]", "body-invalid"),
        (r#"["not-executed","because",null,null,null,null]"#, "body-invalid"),
        (r#"{"as":"executed","reason":"r","response":[200,{},"b",null]}"#, "body-invalid"),
        (r#"{"as":"executed"}"#, "body-invalid"),
        (r#"{"as":"maybe","reason":"r"}"#, "body-invalid"),
        (r#"{"as":"executed","reason":"r","as":"executed"}"#, "body-invalid"),
        (r#"{"as":"executed","reason":"r","why":"x"}"#, "body-invalid"),
        (r#"{"as":"executed","reason":" "}"#, "reason-missing"),
        (r#"{"as":"executed","reason":"a\nb"}"#, "note-invalid"),
        (r#"{"as":"executed","reason":"r","by":""}"#, "note-invalid"),
        (r#"{"as":"not-executed","reason":"r","response":{"status":200}}"#, "wrong-kind"),
        (r#"{"as":"executed","reason":"r","units":1}"#, "wrong-kind"),
    ] {
        let reply = post().json(body).send(gateway.admin);
        assert_eq!((reply.status, &reply.json()["code"]), (400, &json!(code)), "{body}: {reply:?}");
    }
    let long = json!({ "as": "executed", "reason": "r".repeat(1001) });
    assert_eq!(admin.resolve(&id, &long).status, 400);
    for response in [
        json!({ "status": 100 }),
        json!({ "status": 600 }),
        json!({ "status": 204, "body": "x" }),
        json!({ "status": 304, "body": "x" }),
        json!({ "status": 200, "body": "x".repeat(1025) }),
        json!({ "status": 200, "body": "x", "body_base64": "eA==" }),
        json!({ "status": 200, "body_base64": "eA" }),
        json!({ "status": 200, "headers": { "bad name": "x" } }),
        json!({ "status": 200, "headers": { "x": "a\r\nb: c" } }),
        json!({ "status": 200, "headers": { "x": 1 } }),
        json!({ "status": 200, "headers": { "Content-Length": "1" } }),
        json!({ "status": 200, "headers": { "Transfer-Encoding": "chunked" } }),
        json!({ "status": 200, "headers": { "Set-Cookie": "s=1" } }),
        json!({ "status": 200, "headers": { "Connection": "close" } }),
        json!({ "status": 200, "headers": { "Content-Encoding": "gzip" } }),
        json!({ "status": 200, "headers": { "Content-Type": ["a/b", "c/d"] } }),
        json!({ "status": 200, "headers": { "Date": "nonsense" } }),
        json!({ "status": 200, "headers": { "Date": ["Fri, 27 Nov 2026 13:45:58 GMT", "Fri, 27 Nov 2026 13:45:58 GMT"] } }),
        json!({ "status": 200, "headers": { "Idempotency-Status": "executed" } }),
        json!({ "status": 200, "headers": { "Idempotency-Replayed": "true" } }),
    ] {
        let body = json!({ "as": "executed", "reason": "r", "response": response });
        let reply = admin.resolve(&id, &body);
        let code = &reply.json()["code"];
        assert_eq!(
            (reply.status, code),
            (400, &json!("response-invalid")),
            "{response}: {reply:?}"
        );
    }
    let huge =
        post().header("content-type", "application/json").header("content-length", "3000000");
    assert_eq!(huge.send(gateway.admin).status, 413);
    let shown = admin.show("k");
    assert_eq!((&shown["state"], &shown["history"]), (&json!("unknown"), &json!([])));
    // What is right goes through, bytes and all.
    let date = "Fri, 27 Nov 2026 13:45:58 GMT";
    let headers = json!({ "Date": date });
    let bytes = json!({ "status": 200, "headers": headers, "body_base64": "/wA=" });
    let body = json!({ "as": "executed", "reason": "r", "response": bytes });
    assert_eq!(admin.resolve(&id, &body).status, 200);
    let reply = Request::redeem("k", "{}").send(gateway.addr);
    assert_eq!(
        (reply.body.as_slice(), reply.header("date").as_deref()),
        (&b"\xff\x00"[..], Some(date))
    );
}
