//! The configuration as operators see it: nothing of what may be a secret.

use super::support::gateway::run;
use super::support::{AdminClient, Backend, Setup};

#[test]
fn queries_headers_and_bodies_of_own_requests_are_masked() {
    let backend = Backend::start();
    let probe = "path = \"/v1/sales/{key}?apikey=hidden-1&ref={/qr}&hidden-2\", \
                 headers = { x-api-key = \"hidden-3\" }, executed = { status = 200 }, \
                 absent = { control = \"/v1/health?apikey=hidden-4\" }";
    let reverse = "path = \"/void?apikey=hidden-5\", done = { status = 200 }, \
                   body = '{\"pass\":\"hidden-6\",\"key\":\"{key}\"}'";
    let setup = AdminClient::guard(Setup::before(&backend))
        .tenant("authorize = { upstream = \"backend\", path = \"/check?token=hidden-7&x=\" }")
        .redeem(&format!("outcome.on_unknown = \"probe\"\nprobe = {{ {probe} }}"))
        .route(&format!(
            "name = \"sell\"\nmethods = [\"POST\"]\npath = \"/v1/sell\"\n\
             outcome.on_unknown = \"reverse\"\nreverse = {{ {reverse} }}"
        ));
    let gateway = setup.start();
    let config = setup.config_path();
    let check = run(&["check", "--json", "--config", config.to_str().unwrap()]);
    assert_eq!(check.code, Some(0), "{check:?}");
    let text = run(&["check", "--config", config.to_str().unwrap()]);
    let shown = AdminClient::of(&gateway).get("/api/config").text().to_owned();
    for text in [&check.stdout, &text.stdout, &text.stderr, &shown] {
        assert!(!text.contains("hidden"), "{text}");
    }
    for text in [&check.stdout, &shown] {
        for part in [
            "/v1/sales/{key}?apikey=…&ref={/qr}&…",
            "/v1/health?apikey=…",
            "/void?apikey=…",
            "/check?token=…&x=",
            "…{key}…",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
}
