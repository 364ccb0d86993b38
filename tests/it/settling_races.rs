//! An operator against the policy, at the same moment: one of them decides, the other is refused or
//! kept, and only a disagreement is alarmed.
//!
//! `ONCEGATE_TEST_SEED` takes the seed that a run printed, `ONCEGATE_TEST_ROUNDS` says how many
//! records are raced for on each store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::admin::{Place, steps};
use crate::support::rng::Rng;
use crate::support::{
    Act, AdminClient, Backend, Gate, Gateway, Request, Setup, answer, eventually, rounds,
};

/// Records at once.
const BATCH: usize = 12;

fn setup(backend: &Backend) -> Setup {
    let route = |name: &str, lines: &str| {
        format!(
            "name = \"{name}\"\nmethods = [\"POST\"]\npath = \"/sell/{name}\"\n\
             outcome.on_unknown = \"{name}\"\n{lines}"
        )
    };
    AdminClient::guard(Setup::before(backend)).upstream(r#"timeout = "20s""#).route(&route(
        "probe",
        "probe = { path = \"/step/{key}\", min_age = \"0s\", concurrency = 32, \
             executed = { pointer = \"/status\", equals = \"paid\" } }",
    ))
}

/// Loses every call, and holds each step until its gate opens.
fn start_backend() -> (Backend, Arc<Mutex<HashMap<String, Gate>>>) {
    let (backend, gates) = (Backend::start(), Arc::<Mutex<HashMap<String, Gate>>>::default());
    let held = gates.clone();
    backend.script(move |seen| match seen.target().strip_prefix("/step/") {
        None => Act::reset(),
        Some(key) => {
            let gate = held.lock().unwrap().entry(key.to_owned()).or_default().clone();
            answer(200, r#"{"status":"paid"}"#).after(&gate)
        }
    });
    (backend, gates)
}

fn decisions(shown: &Value) -> Vec<String> {
    let made = shown["history"].as_array().expect("a history").iter();
    let made = made.filter(|entry| entry["what"] == "executed" || entry["what"] == "not-executed");
    made.map(|entry| entry["by"].as_str().unwrap().to_owned()).collect()
}

fn alarms(gateways: &[Gateway]) -> u64 {
    let series = "oncegate_alarms_total{route=\"probe\",reason=\"contradiction\"}";
    gateways.iter().filter_map(|gateway| gateway.metric(series)).sum()
}

/// Opens the step's gate and lets the operator decide at nearly the same moment. Returns true when
/// the operator won.
fn race(admin: AdminClient, key: &str, gate: &Gate, (how, lead): (&str, i64)) -> bool {
    let id = admin.id(key);
    let pause = Duration::from_micros(lead.unsigned_abs());
    let reply = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(if lead < 0 { pause } else { Duration::ZERO });
            gate.open();
        });
        std::thread::sleep(if lead < 0 { Duration::ZERO } else { pause });
        admin.resolve(&id, &json!({ "as": how, "reason": "looked", "by": "op" }))
    });
    match reply.status {
        200 => true,
        409 => {
            assert!(["not-unknown", "changed"].contains(&reply.json()["code"].as_str().unwrap()));
            false
        }
        _ => panic!("{reply:?}"),
    }
}

#[test]
fn of_an_operator_and_a_probe_one_decides_and_only_a_disagreement_is_alarmed() {
    let mut rng = Rng::seeded("settling_races");
    Place::each(|place| {
        let (backend, gates) = start_backend();
        let gateways = place.start(&setup(&backend));
        let (first, other) = (&gateways[0], AdminClient::of(&gateways[gateways.len() - 1]));
        let (mut won, mut disagreed) = (0, 0);
        let rounds = rounds(24);
        for round in (0..rounds).step_by(BATCH) {
            let keys: Vec<String> =
                (round..(round + BATCH).min(rounds)).map(|at| format!("k-{at}")).collect();
            for key in &keys {
                let body = format!("{{\"qr\":\"{key}\"}}");
                let sale = Request::new("POST", "/sell/probe").key(key).json(&body);
                sale.send(first.addr).is(502, "unknown", "outcome-unknown");
            }
            for key in &keys {
                let gate = eventually("the probe is at the backend", || {
                    gates.lock().unwrap().get(key).cloned()
                });
                let how = ["executed", "not-executed"][rng.below(2) as usize];
                let lead = i64::try_from(rng.below(6000)).unwrap() - 2000;
                let operator_won = race(other, key, &gate, (how, lead));
                let shown = eventually("both have ended", || {
                    let shown = other.show(key);
                    let ended = match operator_won {
                        true => steps(&shown).contains(&"contradiction".to_owned()),
                        false => shown["state"] == "final",
                    };
                    ended.then_some(shown)
                });
                let by = if operator_won { "op" } else { "probe" };
                assert_eq!(decisions(&shown), [by], "{shown}");
                let state = match (operator_won, how) {
                    (true, "not-executed") => "released",
                    _ => "final",
                };
                assert_eq!(shown["state"], state, "{shown}");
                won += u64::from(operator_won);
                disagreed += u64::from(operator_won && how == "not-executed");
            }
        }
        println!("of {rounds} races operators won {won}, {disagreed} against the backend");
        eventually("alarms are counted", || (alarms(&gateways) >= disagreed).then_some(()));
        assert_eq!(alarms(&gateways), disagreed);
        assert_eq!(backend.calls_to("/sell/probe"), rounds);
    });
}
