//! Ways around a key by the path: other dialects of patterns, other methods, siblings, and routes
//! without keys.

use crate::support::gateway::run;
use crate::support::{Backend, Request, Setup, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// A route without keys for every method, beside the keyed route.
const EVERYTHING: &str = "name = \"everything\"\nmethods = [\"POST\", \"PUT\", \"DELETE\", \"QUERY\"]\n\
                          path = \"/{*rest}\"\nmode = \"off\"";

#[test]
fn patterns_of_other_routers_are_refused_with_what_to_write() {
    let backend = Backend::start();
    for (path, write) in [
        ("/v1/*", "/v1/{*rest}"),
        ("/v1/:id", "/v1/{id}"),
        ("/v1/<id>", "/v1/{id}"),
        ("/v1/{id:[0-9]+}", "/v1/{id}"),
        ("/v1/[id]/x", "/v1/{id}/x"),
    ] {
        let route = format!("name = \"r\"\nmethods = [\"POST\"]\npath = \"{path}\"");
        let setup = Setup::before(&backend).route(&route);
        let config = setup.write_config();
        for command in ["check", "run"] {
            let exit = run(&[command, "--config", &config]);
            assert_eq!(exit.code, Some(2), "{path}: {exit:?}");
            assert!(exit.stderr.contains(&format!("write \"{write}\"")), "{}", exit.stderr);
        }
    }
}

#[test]
fn unsafe_methods_never_fall_through_from_a_keyed_path() {
    let backend = Backend::start();
    let item = "name = \"item\"\nmethods = [\"POST\"]\npath = \"/v1/orders/{id}\"";
    let fixed =
        "name = \"fixed\"\nmethods = [\"PUT\"]\npath = \"/v1/orders/latest\"\nmode = \"off\"";
    let latest =
        "name = \"latest\"\nmethods = [\"GET\"]\npath = \"/v1/orders/first\"\nmode = \"off\"";
    let gateway =
        Setup::before(&backend).route(EVERYTHING).route(item).route(fixed).route(latest).start();
    let send = |method: &str, path: &str| Request::new(method, path).body(b"x").send(gateway.addr);
    for (method, path, allow) in [
        ("PUT", "/v1/vouchers/redeem", "GET, HEAD, OPTIONS, POST, QUERY"),
        ("DELETE", "/v1/vouchers/redeem", "GET, HEAD, OPTIONS, POST, QUERY"),
        ("PATCH", "/v1/vouchers/redeem", "GET, HEAD, OPTIONS, POST, QUERY"),
        ("PUT", "/v1/orders/7", "GET, HEAD, OPTIONS, POST, QUERY"),
        ("PUT", "/v1/%6frders/7", "GET, HEAD, OPTIONS, POST, QUERY"),
        // A path of its own, whose unsafe methods would fall past the keyed pattern.
        ("PUT", "/v1/orders/first", "GET, HEAD, OPTIONS, POST, QUERY"),
        ("DELETE", "/v1/orders/latest", "GET, HEAD, OPTIONS, POST, PUT, QUERY"),
    ] {
        let refused = send(method, path);
        assert_eq!((refused.status, refused.error()), (405, "method-not-allowed".to_owned()));
        assert_eq!(refused.header("allow").as_deref(), Some(allow), "{method} {path}");
    }
    assert_eq!(backend.calls(), 0);
    for (calls, (method, path)) in [
        ("PUT", "/v1/orders/latest"),
        ("POST", "/v1/other"),
        ("DELETE", "/v1/orders/7/lines"),
        ("QUERY", "/v1/vouchers/redeem"),
        ("GET", "/v1/vouchers/redeem"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(send(method, path).status, 200, "{method} {path}");
        assert_eq!(backend.calls(), calls + 1, "{method} {path}");
    }
}

#[test]
fn check_warns_of_routes_without_keys_that_catch_siblings() {
    let backend = Backend::start();
    let quiet = Setup::before(&backend).tenant("headers = [\"x-api-key\"]");
    let exit = run(&["check", "--config", &quiet.write_config()]);
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""));
    let setup = quiet.route(EVERYTHING);
    let config = setup.write_config();
    let exit = run(&["check", "--config", &config]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let toml = setup.toml();
    let paths = toml.lines().enumerate().filter(|(_, line)| *line == r#"path = "/{*rest}""#);
    let line = paths.map(|(at, _)| at + 1).last().unwrap();
    let start = format!("warning: {config}:{line}: route \"everything\" passes");
    assert!(exit.stderr.starts_with(&start), "{start}: {}", exit.stderr);
    for sibling in ["POST /v1/vouchers/redeem/", "POST /V1/VOUCHERS/REDEEM", "more"] {
        assert!(exit.stderr.contains(sibling), "{sibling}: {}", exit.stderr);
    }
    assert!(exit.stdout.contains("everything"), "{}", exit.stdout);
    let gateway = setup.start();
    eventually("the start warns too", || {
        gateway.stderr().contains("POST /v1/vouchers/redeem/").then_some(())
    });
}

#[test]
fn a_key_on_a_route_without_keys_goes_upstream_and_is_told() {
    let backend = Backend::start();
    let route = "name = \"paypal\"\nmethods = [\"POST\"]\npath = \"/pay\"\nkey.header = \"PayPal-Request-Id\"";
    let gateway = Setup::before(&backend).route(route).route(EVERYTHING).start();
    let send = |name: &str| {
        let request = Request::new("POST", "/free").header(name, "k-1").json(BODY);
        request.send(gateway.addr)
    };
    for name in ["idempotency-key", "paypal-request-id"] {
        send(name).is(200, "bypassed", "");
        assert_eq!(backend.last().all(name), ["k-1"]);
    }
    send("x-idempotency-key").is(200, "", "");
    Request::get("/free").key("k-1").send(gateway.addr).is(200, "bypassed", "");
    assert_eq!(backend.calls(), 4);
}
