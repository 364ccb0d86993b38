//! Callers that are named by a token: whoever renews it is another caller, and the gateway says so.

use crate::support::gateway::run;
use crate::support::{Backend, Gateway, Request, Setup, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn redeem(token: &str, key: &str) -> Request {
    Request::redeem(key, BODY).header("authorization", format!("Bearer {token}"))
}

fn counted(gateway: &Gateway, route: &str) -> Option<u64> {
    gateway.metric(&format!("oncegate_other_caller_total{{route=\"{route}\"}}"))
}

#[test]
fn check_and_start_warn_of_callers_named_by_a_token() {
    let backend = Backend::start();
    for (lines, line) in [("", None), ("headers = [\"x-a\",\n \"authorization\"]", Some("headers"))]
    {
        let setup = Setup::before(&backend).tenant(lines);
        let config = setup.write_config();
        let exit = run(&["check", "--config", &config]);
        assert_eq!((exit.code, exit.stderr.lines().count()), (Some(0), 1), "{exit:?}");
        let start = line.unwrap_or("[tenant]");
        let toml = setup.toml();
        let at = 1 + toml.lines().position(|line| line.starts_with(start)).unwrap();
        let warning = format!("warning: {config}:{at}: callers are named by their `authorization`");
        assert!(exit.stderr.starts_with(&warning), "{warning}: {}", exit.stderr);
        let gateway = setup.start();
        eventually("the start warns", || {
            gateway.stderr().contains("`authorization`").then_some(())
        });
    }
    let setup = Setup::before(&backend).tenant("headers = [\"x-api-key\"]");
    let exit = run(&["check", "--config", &setup.write_config()]);
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""), "{exit:?}");
}

#[test]
fn one_request_of_two_callers_is_told_and_counted() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let send = |token: &str, key: &str| {
        redeem(token, key).send(gateway.addr).is(200, "executed", "");
    };
    send("one", "k");
    assert_eq!(counted(&gateway, "redeem").unwrap_or(0), 0);
    // The gateway cannot know that it is one till: the renewed token is another caller.
    send("two", "k");
    assert_eq!(counted(&gateway, "redeem"), Some(1));
    send("three", "k");
    redeem("two", "k").send(gateway.addr).is(200, "replayed", "");
    assert_eq!(counted(&gateway, "redeem"), Some(2));
    send("one", "another");
    Request::redeem("k", "{}").tenant("t").send(gateway.addr).is(200, "executed", "");
    Request::redeem("k", "{}").tenant("u").send(gateway.addr).is(200, "executed", "");
    assert_eq!(counted(&gateway, "redeem"), Some(2));
    let lines = || {
        let log = gateway.stderr();
        log.lines().filter(|line| line.contains("came from another caller")).count()
    };
    eventually("the log tells it", || (lines() > 0).then_some(()));
    assert_eq!(lines(), 1, "once a minute: {}", gateway.stderr());
    assert!(!gateway.stderr().contains("Bearer"), "{}", gateway.stderr());
}

#[test]
fn callers_that_no_token_names_are_not_compared() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).tenant("headers = [\"x-api-key\"]").start();
    for caller in ["a", "b"] {
        redeem("shared", "k").tenant(caller).send(gateway.addr).is(200, "executed", "");
    }
    assert_eq!(counted(&gateway, "redeem").unwrap_or(0), 0);
}
