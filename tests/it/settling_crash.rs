//! kill -9 at every step of a settlement: never two executions, never a reversal of something else,
//! and every outcome is settled in the end.
//!
//! The rounds are drawn from a seed that is printed. `ONCEGATE_TEST_SEED` takes one,
//! `ONCEGATE_TEST_ROUNDS` says how many rounds; 300 are the long form.
use crate::support::desk::Place;
use crate::support::rng::Rng;
use crate::support::{Act, Backend, Desk, Gateway, Request, Setup, answer, eventually};

const POINTS: [&str; 3] = ["settle-claimed", "settle-answered", "settle-recorded"];

fn rounds(default: usize) -> usize {
    let given = std::env::var("ONCEGATE_TEST_ROUNDS").ok();
    given.map_or(default, |text| text.parse().expect("a number of rounds"))
}

fn redeem(key: &str) -> Request {
    Request::redeem(key, &format!(r#"{{"qr":"{key}"}}"#))
}

fn base(backend: &Backend) -> Setup {
    Desk::guard(Setup::before(backend)).upstream(r#"timeout = "200ms""#)
}

fn probing(backend: &Backend) -> Setup {
    base(backend)
        .redeem(r#"outcome.on_unknown = "probe""#)
        .redeem(r#"probe.path = "/sales/{key}""#)
        .redeem(r#"probe.min_age = "0s""#)
        .redeem(r#"probe.every = "20ms""#)
        .redeem(r#"probe.executed = { pointer = "/status", equals = "paid" }"#)
}

fn reversing(backend: &Backend) -> Setup {
    base(backend)
        .redeem(r#"outcome.on_unknown = "reverse""#)
        .redeem(r#"reverse.path = "/void/{key}""#)
        .redeem(r#"reverse.every = "20ms""#)
        .redeem(r#"reverse.done = { status = "2xx" }"#)
        .redeem(r#"reverse.then = "fail""#)
}

/// Loses the answer of a call, dies at `point`, and is started again until the outcome is settled.
fn round(place: &Place, setup: &Setup, point: &str, key: &str) {
    let dying = setup.clone().env("ONCEGATE_CRASH_AT", format!("{point}:1"));
    let mut gateways = place.start(&dying);
    let _ = redeem(key).try_send(gateways[0].addr);
    // Of several replicas the one that takes the step dies.
    eventually("a gateway dies", || gateways.iter_mut().any(Gateway::ended).then_some(()));
    for gateway in &mut gateways {
        if !gateway.ended() {
            gateway.kill9();
        }
    }
    drop(gateways);
    let gateways = place.start(setup);
    Desk::of(&gateways[0]).show_in(key, "final");
}

#[test]
fn probes_and_reversals_survive_a_kill_at_every_step() {
    Place::each(|place| {
        let mut rng = Rng::seeded("settling_crash");
        let backend = Backend::start();
        backend.script(|seen| match seen.target() {
            "/v1/vouchers/redeem" => Act::reset(),
            target if target.starts_with("/sales/") => answer(200, r#"{"status":"paid"}"#),
            _ => answer(200, "{}"),
        });
        let (probe, reverse) = (probing(&backend), reversing(&backend).elsewhere());
        for number in 0..rounds(3) {
            let at = usize::try_from(rng.below(POINTS.len() as u64)).unwrap();
            let point = POINTS[(at + number) % POINTS.len()];
            let key = format!("probe-{number}");
            println!("{key} dies at {point}");
            round(&place, &probe, point, &key);
            if let Place::Directory = place {
                let key = format!("reverse-{number}");
                println!("{key} dies at {point}");
                round(&place, &reverse, point, &key);
            }
        }
        let seen = backend.seen();
        for (body, count) in backend.executions() {
            if body.contains("qr") {
                assert_eq!(count, 1, "{body}");
            }
        }
        let voids = seen.iter().filter_map(|seen| seen.target().strip_prefix("/void/"));
        for key in voids {
            assert!(key.starts_with("reverse-"), "a reversal of {key}");
        }
    });
}

#[test]
fn a_repetition_that_is_killed_leaves_its_outcome_unknown() {
    let backend = Backend::start();
    backend.always(Act::reset());
    let setup = base(&backend)
        .redeem("key.forward = true")
        .redeem(r#"outcome.on_unknown = "resend""#)
        .redeem(r#"resend.within = "1h""#);
    let dying = setup.clone().env("ONCEGATE_CRASH_AT", "after-dispatch:1");
    let mut gateway = dying.start();
    redeem("a").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    backend.always(answer(200, "{}"));
    redeem("a").try_send(gateway.addr).expect_err("the gateway dies");
    gateway.wait();
    drop(gateway);
    let gateway = setup.start();
    let shown = Desk::of(&gateway).show_in("a", "unknown");
    assert_eq!(shown["attempts"], 2, "{shown}");
    redeem("a").send(gateway.addr).is(200, "recovered", "");
    assert_eq!(backend.calls(), 3);
}
