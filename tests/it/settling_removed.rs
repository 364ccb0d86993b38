//! Routes that a new configuration does not have, or whose policy it changes, while outcomes are
//! unknown: a removed route settles them as before until a restart, the present policy decides, what
//! nobody settles any more is logged, and an operator settles it.

use serde_json::json;

use crate::support::admin::Place;
use crate::support::{
    Act, AdminClient, Backend, Gate, Gateway, Request, Setup, answer, eventually,
};

const POLICIES: [&str; 3] = ["probe", "resend", "reverse"];

fn base(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend)).upstream(r#"timeout = "300ms""#)
}

fn route(setup: Setup, name: &str, policy: &str) -> Setup {
    let lines = match policy {
        "probe" => {
            "outcome.on_unknown = \"probe\"\nprobe = { path = \"/probe/{key}\", min_age = \"0s\", \
             every = \"20ms\", executed = { pointer = \"/status\", equals = \"paid\" } }"
        }
        "resend" => "outcome.on_unknown = \"resend\"\nresend = { within = \"1h\" }",
        "reverse" => {
            "outcome.on_unknown = \"reverse\"\nreverse = { path = \"/reverse/{key}\", \
             every = \"20ms\", done = { status = \"2xx\" }, nothing = { status = 404 } }"
        }
        _ => "",
    };
    setup.route(&format!(
        "name = \"{name}\"\nmethods = [\"POST\"]\npath = \"/sell/{name}\"\nkey.forward = true\n{lines}"
    ))
}

fn whole(backend: &Backend) -> Setup {
    POLICIES.iter().fold(base(backend), |setup, policy| route(setup, policy, policy))
}

fn sell(name: &str, key: &str) -> Request {
    let body = format!("{{\"qr\":\"{key}\"}}");
    Request::new("POST", &format!("/sell/{name}")).key(key).json(&body)
}

/// Loses the calls; probes and reversals decide nothing.
fn undecided(backend: &Backend) {
    backend.script(|seen| match seen.target() {
        target if target.starts_with("/sell/") => Act::reset(),
        target if target.starts_with("/probe/") => answer(200, r#"{"status":"new"}"#),
        _ => answer(500, "{}"),
    });
}

fn lose(gateway: &Gateway, policies: &[&str]) {
    for policy in policies {
        let reply = sell(policy, policy).send(gateway.addr);
        assert_eq!(reply.disposition(), "unknown", "{reply:?}");
    }
}

/// Writes the gateway's configuration with the routes of another; gives its path.
fn write_routes(gateway: &Gateway, routes: &Setup) -> String {
    let (own, other) = (gateway.setup().toml(), routes.toml());
    let at = |text: &str| text.find("[[route]]").expect("a route");
    let text = format!("{}{}", &own[..at(&own)], &other[at(&other)..]);
    let path = gateway.setup().config_path();
    std::fs::write(&path, text).unwrap();
    path.to_str().expect("a UTF-8 path").to_owned()
}

#[track_caller]
fn reload(gateway: &Gateway, routes: &Setup) {
    let count = || gateway.stderr().matches("the configuration was reloaded").count();
    let before = count();
    write_routes(gateway, routes);
    gateway.hang_up();
    eventually("the reload is logged", || (count() > before).then_some(()));
}

/// Steps about the record with this key that reached the backend.
fn steps_of(backend: &Backend, key: &str) -> usize {
    backend.calls_to(&format!("/probe/{key}")) + backend.calls_to(&format!("/reverse/{key}"))
}

/// Waits until a record that was lost now has been asked about several times, so that older
/// records would have been as well.
fn let_time_pass(gateway: &Gateway, backend: &Backend, key: &str) {
    assert_eq!(sell("clock", key).send(gateway.addr).disposition(), "unknown");
    eventually("some steps are taken", || (steps_of(backend, key) >= 6).then_some(()));
}

#[test]
fn records_of_a_removed_route_are_settled_as_before() {
    let backend = Backend::start();
    undecided(&backend);
    let gateway = route(whole(&backend), "clock", "probe").start();
    lose(&gateway, &POLICIES);
    reload(&gateway, &route(base(&backend), "clock", "probe"));
    let counts = ["probe", "reverse"].map(|policy| steps_of(&backend, policy));
    for (policy, before) in ["probe", "reverse"].into_iter().zip(counts) {
        eventually("steps go on", || (steps_of(&backend, policy) >= before + 2).then_some(()));
    }
    backend.script(|seen| match seen.target() {
        target if target.starts_with("/probe/") => answer(200, r#"{"status":"paid"}"#),
        _ => answer(200, "{}"),
    });
    let admin = AdminClient::of(&gateway);
    admin.show_in("probe", "final");
    admin.show_in("reverse", "released");
    // A repetition needs the client's retry, which has no route.
    assert_eq!(admin.show("resend")["state"], json!("unknown"));
    assert_eq!(sell("resend", "resend").send(gateway.addr).status, 405);
    assert!(!gateway.stderr().contains("not configured"), "{}", gateway.stderr());
    let sold = |policy: &str| backend.calls_to(&format!("/sell/{policy}"));
    assert_eq!(POLICIES.map(sold), [1, 1, 1]);
}

#[test]
fn records_of_a_route_that_is_gone_at_a_start_wait_for_an_operator_and_that_is_logged() {
    let backend = Backend::start();
    undecided(&backend);
    let setup = route(whole(&backend), "clock", "probe");
    let mut gateway = setup.start();
    lose(&gateway, &POLICIES);
    gateway.stop();
    let counts = POLICIES.map(|policy| steps_of(&backend, policy));
    let path = write_routes(&gateway, &route(base(&backend), "clock", "probe"));
    let gateway = gateway.setup().launch(&["run", "--config", &path]).expect("a start");
    for policy in POLICIES {
        let line = gateway.logs(&["WARN", "not configured", &format!("route={policy}")]);
        assert!(line.contains("records=1"), "{line}");
    }
    let_time_pass(&gateway, &backend, "t-1");
    assert_eq!(POLICIES.map(|policy| steps_of(&backend, policy)), counts, "nothing is sent");

    // An operator settles them, and the answer is there when the route is back.
    let admin = AdminClient::of(&gateway);
    admin.settle("probe", "executed");
    admin.settle("resend", "not-executed");
    backend.script(|seen| match seen.target() {
        target if target.starts_with("/reverse/") => answer(200, "{}"),
        _ => answer(200, r#"{"new":true}"#),
    });
    reload(&gateway, &setup);
    sell("probe", "probe").send(gateway.addr).is(200, "recovered", "");
    sell("resend", "resend").send(gateway.addr).is(200, "executed", "");
    // The policy that is back goes on.
    admin.show_in("reverse", "released");
    let sold = |policy: &str| backend.calls_to(&format!("/sell/{policy}"));
    assert_eq!(POLICIES.map(sold), [1, 2, 1]);
}

#[test]
fn a_policy_that_a_reload_ends_sends_nothing_more() {
    Place::each(|place| {
        let backend = Backend::start();
        undecided(&backend);
        let setup = route(route(base(&backend), "undo", "reverse"), "clock", "probe");
        let gateways = place.start(&setup);
        let reply = sell("undo", "undo").send(gateways[0].addr);
        assert_eq!(reply.disposition(), "unknown", "{reply:?}");
        eventually("a reversal is sent", || (steps_of(&backend, "undo") > 0).then_some(()));
        let held = route(route(base(&backend), "undo", "hold"), "clock", "probe");
        gateways.iter().for_each(|gateway| reload(gateway, &held));
        let_time_pass(&gateways[0], &backend, "t-1");
        let sent = steps_of(&backend, "undo");
        let_time_pass(&gateways[0], &backend, "t-2");
        assert_eq!(steps_of(&backend, "undo"), sent, "the reversal is not repeated");
        // The reversal may have arrived: only an operator says what became of the call.
        sell("undo", "undo").send(gateways[0].addr).is(409, "unknown", "outcome-unknown");
        let admin = AdminClient::of(&gateways[gateways.len() - 1]);
        let decided = admin.settle("undo", "not-executed");
        assert_eq!(decided["state"], json!("released"));
        assert!(!gateways[0].stderr().contains("not configured"), "the route is still there");
        assert_eq!(backend.calls_to("/sell/undo"), 1);
    });
}

#[test]
fn the_steps_before_and_after_a_reload_together_are_as_many_as_configured() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let held = gate.clone();
    backend.script(move |seen| match seen.target() {
        target if target.starts_with("/sell/") => Act::reset(),
        "/probe/one" | "/probe/two" => answer(200, r#"{"status":"paid"}"#).after(&held),
        _ => answer(200, r#"{"status":"new"}"#),
    });
    let single = |every: &str| {
        let base = base(&backend).replacing("timeout = \"300ms\"", "timeout = \"60s\"");
        let lines = format!(
            "outcome.on_unknown = \"probe\"\nprobe = {{ path = \"/probe/{{key}}\", \
             min_age = \"0s\", every = \"{every}\", concurrency = 1, \
             executed = {{ pointer = \"/status\", equals = \"paid\" }} }}"
        );
        let single = base.route(&format!(
            "name = \"single\"\nmethods = [\"POST\"]\npath = \"/sell/single\"\n{lines}"
        ));
        route(single, "clock", "probe")
    };
    let gateway = single("1s").start();
    for key in ["one", "two"] {
        assert_eq!(sell("single", key).send(gateway.addr).disposition(), "unknown");
    }
    let asked = || backend.calls_to("/probe/one") + backend.calls_to("/probe/two");
    eventually("one of them is asked about", || (asked() > 0).then_some(()));
    for every in ["2s", "3s"] {
        reload(&gateway, &single(every));
        let_time_pass(&gateway, &backend, every);
        assert_eq!(asked(), 1, "after a reload");
    }
    gate.open();
    for key in ["one", "two"] {
        AdminClient::of(&gateway).show_in(key, "final");
    }
}
