//! Browsers (`[server.cors]`): preflights, and answers that scripts may read.

use crate::support::gateway::run;
use crate::support::{Act, Backend, Gateway, Request, Response, Setup};

const BODY: &str = r#"{"qr":"rsg:1"}"#;
const TILL: &str = "https://till.example";

fn gateway(backend: &Backend) -> Gateway {
    Setup::before(backend)
        .server("cors = { origins = [\"https://till.example\", \"http://localhost:3000\"] }")
        .start()
}

fn preflight(path: &str, method: &str) -> Request {
    Request::new("OPTIONS", path)
        .header("origin", TILL)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "content-type,idempotency-key,x-till")
}

fn list(response: &Response, name: &str) -> Vec<String> {
    let lines = response.all(name);
    let members = lines.iter().flat_map(|line| line.split(','));
    members.map(|member| member.trim().to_ascii_lowercase()).collect()
}

#[track_caller]
fn check_readable(response: &Response, origin: &str) {
    assert_eq!(response.all("access-control-allow-origin"), [origin], "{response:?}");
    assert!(list(response, "vary").contains(&"origin".to_owned()), "{response:?}");
    let exposed = list(response, "access-control-expose-headers");
    for name in [
        "idempotency-status",
        "idempotency-replayed",
        "idempotency-error",
        "idempotency-expires",
        "idempotency-earlier",
        "retry-after",
        "x-request-id",
    ] {
        assert!(exposed.contains(&name.to_owned()), "{name}: {exposed:?}");
    }
}

#[test]
fn a_preflight_for_a_keyed_route_is_answered_without_the_backend() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for path in ["/v1/vouchers/redeem", "/optional"] {
        let answer = preflight(path, "POST").send(gateway.addr);
        assert_eq!(answer.status, 204, "{answer:?}");
        check_readable(&answer, TILL);
        let headers = list(&answer, "access-control-allow-headers");
        for name in ["content-type", "idempotency-key", "x-till"] {
            assert!(headers.contains(&name.to_owned()), "{name}: {headers:?}");
        }
        assert!(list(&answer, "access-control-allow-methods").contains(&"post".to_owned()));
        assert!(answer.header("access-control-max-age").is_some());
    }
    assert_eq!(backend.calls(), 0);
    // The pages of the gateway are asked with the key header too.
    let answer = preflight("/.well-known/idempotency/status", "GET").send(gateway.addr);
    assert_eq!(answer.status, 204);
    check_readable(&answer, TILL);
}

#[test]
fn other_preflights_are_the_backends() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    assert_eq!(preflight("/balance", "GET").send(gateway.addr).status, 200);
    let foreign = Request::new("OPTIONS", "/v1/vouchers/redeem")
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST");
    let answer = foreign.send(gateway.addr);
    assert_eq!(answer.header("access-control-allow-origin"), None, "{answer:?}");
    let plain = Request::new("OPTIONS", "/v1/vouchers/redeem").header("origin", TILL);
    assert_eq!(plain.send(gateway.addr).status, 200);
    assert_eq!(backend.calls(), 3);
}

#[test]
fn scripts_may_read_every_kind_of_answer() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let redeem = |key: &str, body: &str| Request::redeem(key, body).header("origin", TILL);
    for (request, status) in [
        (redeem("k", BODY), 200),
        (redeem("k", BODY), 200),
        (redeem("k", "{}"), 422),
        (redeem("a b", "{}"), 400),
        (Request::new("DELETE", "/x").header("origin", TILL), 405),
        (Request::get("/balance").header("origin", TILL), 200),
        (Request::get("/.well-known/idempotency").header("origin", TILL), 200),
        (Request::exactly("GET / HTTP/1.1").header("origin", TILL), 400),
    ] {
        let answer = request.send(gateway.addr);
        assert_eq!(answer.status, status, "{answer:?}");
        check_readable(&answer, TILL);
    }
    // Another page gets the stored answer under its own name.
    let other = Request::redeem("k", BODY).header("origin", "http://localhost:3000");
    check_readable(&other.send(gateway.addr), "http://localhost:3000");
    for origin in ["https://till.example.evil", "http://till.example", "null"] {
        let answer = Request::redeem("k", BODY).header("origin", origin).send(gateway.addr);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
    }
}

#[test]
fn the_backends_own_permission_stays() {
    let backend = Backend::start();
    let own =
        [("access-control-allow-origin", "*"), ("access-control-expose-headers", "x-balance")];
    backend.always(Act::whole(200, &own, b"{}"));
    let gateway = gateway(&backend);
    for _ in 0..2 {
        let answer = Request::redeem("k", BODY).header("origin", TILL).send(gateway.addr);
        assert_eq!(answer.all("access-control-allow-origin"), ["*"]);
        let exposed = list(&answer, "access-control-expose-headers");
        assert!(exposed.contains(&"x-balance".to_owned()), "{exposed:?}");
        assert!(exposed.contains(&"idempotency-status".to_owned()), "{exposed:?}");
    }
}

#[test]
fn without_the_table_nothing_is_added() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let answer = Request::redeem("k", BODY).header("origin", TILL).send(gateway.addr);
    for name in ["access-control-allow-origin", "access-control-expose-headers", "vary"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    let backend = Backend::start();
    for (origins, words) in [
        (r#"["*"]"#, "one by one"),
        (r#"["till.example"]"#, "https://till.example"),
        (r#"["https://till.example/"]"#, "write \"https://till.example\""),
        (r#"["https://Till.example"]"#, "write \"https://till.example\""),
        (r#"["https://till.example:443"]"#, "write \"https://till.example\""),
        (r#"["https://a", "https://a"]"#, "twice"),
        ("[]", "at least one"),
    ] {
        let setup = Setup::before(&backend).server(&format!("cors = {{ origins = {origins} }}"));
        let exit = run(&["check", "--config", &setup.write_config()]);
        assert_eq!(exit.code, Some(2), "{origins}: {exit:?}");
        assert!(exit.stderr.contains(words), "{origins}: {}", exit.stderr);
    }
}
