//! kill -9 at every step of a probe, a repetition and a reversal: never two executions that were not
//! asked for, never a reversal of something else, and every outcome is settled in the end.
//!
//! A process is killed at a step that is drawn from a seed, the next one takes over what the first
//! left, and is killed in turn. On servers a second replica stays alive beside them.
//! `ONCEGATE_TEST_SEED` takes the seed that a run printed, `ONCEGATE_TEST_ROUNDS` says how many
//! processes are killed on each store; 300 are the long form.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::admin::Place;
use crate::support::rng::Rng;
use crate::support::{Act, AdminClient, Backend, Gateway, Request, Setup, answer, eventually};

const POINTS: [&str; 3] = ["settle-claimed", "settle-answered", "settle-recorded"];
const POLICIES: [&str; 3] = ["probe", "resend", "reverse"];

/// Time after which a process that has not reached its point is killed all the same.
const ROUND: Duration = Duration::from_secs(3);
/// Time for the settlement of everything that was left.
const END: Duration = Duration::from_secs(120);

fn rounds(default: usize) -> usize {
    let given = std::env::var("ONCEGATE_TEST_ROUNDS").ok();
    given.map_or(default, |text| text.parse().expect("a number of rounds"))
}

fn setup(backend: &Backend) -> Setup {
    let route = |name: &str, lines: &str| {
        format!(
            "name = \"{name}\"\nmethods = [\"POST\"]\npath = \"/sell/{name}\"\n\
             key.forward = true\noutcome.on_unknown = \"{name}\"\n{lines}"
        )
    };
    AdminClient::guard(Setup::before(backend))
        .upstream(r#"timeout = "500ms""#)
        .route(&route(
            "probe",
            "probe = { path = \"/sales/{key}\", min_age = \"0s\", every = \"20ms\", \
             executed = { pointer = \"/status\", equals = \"paid\" }, \
             not_executed = { pointer = \"/status\", equals = \"none\" } }",
        ))
        .route(&route("resend", "resend = { within = \"1h\", attempts = 1000 }"))
        .route(&route(
            "reverse",
            "reverse = { path = \"/void/{key}\", every = \"20ms\", done = { status = \"2xx\" }, \
             nothing = { status = 404 }, then = \"fail\" }",
        ))
}

fn sell(policy: &str, key: &str) -> Request {
    let body = format!("{{\"qr\":\"{key}\"}}");
    Request::new("POST", &format!("/sell/{policy}")).key(key).json(&body)
}

/// A backend that executes every call and loses the answers of first calls, deduplicates repeats,
/// and acknowledges a reversal when it is sent a second time.
fn start_backend() -> (Backend, Arc<Mutex<HashMap<String, usize>>>) {
    let backend = Backend::start();
    let calls = Arc::<Mutex<HashMap<String, usize>>>::default();
    let (counted, voids) = (calls.clone(), Mutex::new(HashMap::<String, usize>::new()));
    backend.script(move |seen| {
        let target = seen.target();
        let sold = |key: &str| counted.lock().unwrap().contains_key(key);
        if target.starts_with("/sell/") {
            let key = seen.header("idempotency-key").expect("a key");
            let mut counted = counted.lock().unwrap();
            let count = counted.entry(key.clone()).or_default();
            *count += 1;
            // Of the repetitions some are lost as well.
            let is_lost = *count == 1 || (*count == 2 && key.len() % 2 == 0);
            return if is_lost { Act::reset() } else { answer(200, "{}") };
        }
        match target.split_at(target.rfind('/').unwrap_or(0) + 1) {
            ("/sales/", key) if sold(key) => answer(200, r#"{"status":"paid"}"#),
            ("/sales/", _) => answer(200, r#"{"status":"none"}"#),
            ("/void/", key) if sold(key) => {
                let mut voids = voids.lock().unwrap();
                let count = voids.entry(key.to_owned()).or_default();
                *count += 1;
                answer(if *count == 1 { 500 } else { 200 }, "{}")
            }
            _ => answer(404, "{}"),
        }
    });
    (backend, calls)
}

/// Loses three calls at a process that dies at `point`; `sent` counts the requests of each key.
fn round(mut dying: Gateway, (point, number): (&str, usize), sent: &mut HashMap<String, usize>) {
    let mut send = |policy: &str| {
        let key = format!("{policy}-{number}");
        *sent.entry(key.clone()).or_default() += 1;
        let _ = sell(policy, &key).try_send(dying.addr);
    };
    for policy in POLICIES {
        send(policy);
    }
    let end = Instant::now() + ROUND;
    while !dying.ended() && Instant::now() < end {
        // A repetition is the client's own.
        let key = format!("resend-{number}");
        *sent.entry(key.clone()).or_default() += 1;
        let _ = sell("resend", &key).try_send(dying.addr);
        std::thread::sleep(Duration::from_millis(20));
    }
    if !dying.ended() {
        println!("round {number}: {point} was not reached often enough");
        dying.kill9();
    }
}

/// Repeats what only a client can repeat until nothing is open.
fn settle(gateway: &Gateway, sent: &mut HashMap<String, usize>) {
    let end = Instant::now() + END;
    loop {
        let (mut open, _) = AdminClient::of(gateway).list("state=unknown&limit=100");
        let (flying, _) = AdminClient::of(gateway).list("state=in_flight&limit=100");
        for record in open.iter().filter(|record| record["route"] == "resend") {
            let key = record["key"].as_str().expect("a key");
            *sent.entry(key.to_owned()).or_default() += 1;
            let _ = sell("resend", key).try_send(gateway.addr);
        }
        open.extend(flying);
        if open.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "not settled: {open:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn probes_repetitions_and_reversals_survive_a_kill_at_every_step() {
    Place::each(|place| {
        let (mut rng, begun) = (Rng::seeded("settling_crash"), Instant::now());
        let (backend, calls) = start_backend();
        let setup = setup(&backend);
        let (rounds, mut sent) = (rounds(3), HashMap::new());
        let survivor = match &place {
            Place::Directory => None,
            Place::Server(shop) => Some(shop.replica(&setup, "")),
        };
        for number in 0..rounds {
            let point = POINTS[(usize::try_from(rng.below(3)).unwrap() + number) % POINTS.len()];
            let times = 1 + rng.below(3);
            println!("round {number} dies at {point}:{times}");
            let dying = setup.clone().env("ONCEGATE_CRASH_AT", format!("{point}:{times}"));
            let dying = match &place {
                Place::Directory => dying.start(),
                // A server that is slow for a moment refuses a start.
                Place::Server(shop) => {
                    eventually("a replica starts", || shop.try_replica(&dying).ok())
                }
            };
            round(dying, (point, number), &mut sent);
        }
        let last = survivor.unwrap_or_else(|| setup.start());
        settle(&last, &mut sent);
        let calls = calls.lock().unwrap().clone();
        for (key, count) in &calls {
            let asked = sent.get(key).copied().unwrap_or_default();
            assert!(*count <= asked, "{key}: {count} calls for {asked} requests");
            assert!(*count == 1 || key.starts_with("resend-"), "{key}: {count} calls");
        }
        let all = backend.seen();
        let voids = all.iter().filter_map(|seen| seen.target().strip_prefix("/void/"));
        let mut undone = 0;
        for key in voids {
            undone += 1;
            assert!(key.starts_with("reverse-"), "a reversal of {key}");
        }
        let (executions, took) = (calls.len(), begun.elapsed().as_secs());
        println!("{rounds} rounds: {executions} executions, {undone} reversals, {took} s");
    });
}

fn redeem(key: &str) -> Request {
    Request::redeem(key, &format!(r#"{{"qr":"{key}"}}"#))
}

#[test]
fn a_repetition_that_is_killed_leaves_its_outcome_unknown() {
    let backend = Backend::start();
    backend.always(Act::reset());
    let setup = AdminClient::guard(Setup::before(&backend))
        .upstream(r#"timeout = "2s""#)
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
    let shown = AdminClient::of(&gateway).show_in("a", "unknown");
    assert_eq!(shown["attempts"], 2, "{shown}");
    redeem("a").send(gateway.addr).is(200, "recovered", "");
    assert_eq!(backend.calls(), 3);
}
