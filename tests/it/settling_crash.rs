//! kill -9 at every step of a probe, a repetition and a reversal, of requests and of batches: never
//! two executions that were not asked for, never a reversal of something else, and every outcome is
//! settled in the end.
//!
//! A process is killed at a step that is drawn from a seed, the next one takes over what the first
//! left, and is killed in turn. On servers a second replica stays alive beside them, and clients
//! repeat their requests at both at once.
//! `ONCEGATE_TEST_SEED` takes the seed that a run printed, `ONCEGATE_TEST_ROUNDS` says how many
//! processes are killed on each store; 300 are the long form.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::admin::Place;
use crate::support::gateway::Exit;
use crate::support::rng::Rng;
use crate::support::{
    Act, AdminClient, Backend, Gateway, Request, Setup, answer, at_once, eventually, rounds,
};

const POINTS: [&str; 3] = ["settle-claimed", "settle-answered", "settle-recorded"];
const POLICIES: [&str; 3] = ["probe", "resend", "reverse"];
/// The policies of batches that act on the backend; their items have these ids' first words.
const BATCHES: [&str; 2] = ["repeated", "undone"];
/// Units of an item.
const UNITS: u64 = 2;

/// Time after which a process that has not reached its point is killed all the same.
const ROUND: Duration = Duration::from_secs(3);
/// Time for the settlement of everything that was left.
const END: Duration = Duration::from_secs(120);

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
        .route(&batch_route(
            "repeated",
            "outcome.on_unknown = \"resend\"\nresend = { within = \"1h\", attempts = 1000, \
             mark = { body = { \"/again\" = true } } }",
        ))
        .route(&batch_route(
            "undone",
            "outcome.on_unknown = \"reverse\"\nreverse = { path = \"/void/{key}\", \
             every = \"20ms\", done = { status = \"2xx\" }, nothing = { status = 404 }, \
             then = \"fail\" }",
        ))
}

fn batch_route(name: &str, policy: &str) -> String {
    format!(
        "name = \"{name}\"\nmethods = [\"POST\"]\npath = \"/batch/{name}\"\nmode = \"items\"\n\
         {policy}\n[route.items]\nat = \"/list\"\nid = \"/id\"\nquantity = \"/units\"\n\
         [route.items.response]\nmatch = [\"id:/id\"]\nissued = {{ count = \"/units\" }}"
    )
}

fn sell(policy: &str, key: &str) -> Request {
    let body = format!("{{\"qr\":\"{key}\"}}");
    Request::new("POST", &format!("/sell/{policy}")).key(key).json(&body)
}

fn batch(name: &str, ids: &[String]) -> Request {
    let items: Vec<Value> = ids.iter().map(|id| json!({ "id": id, "units": UNITS })).collect();
    Request::new("POST", &format!("/batch/{name}")).json(&json!({ "list": items }).to_string())
}

/// Number of requests for, or executions of, each key or item.
#[derive(Clone, Default)]
struct Counts(HashMap<String, usize>);

impl Counts {
    fn add(&mut self, key: &str) -> usize {
        let count = self.0.entry(key.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn of(&self, key: &str) -> usize {
        self.0.get(key).copied().unwrap_or_default()
    }
}

/// The calls that reached the backend.
#[derive(Default)]
struct Executions {
    /// Calls, and items of batches.
    calls: Counts,
    /// Items without the mark of a repetition.
    unmarked: Counts,
    voids: Counts,
}

/// A backend that executes every call and loses the answers of first calls, deduplicates repeats,
/// and acknowledges a reversal when it is sent a second time.
fn start_backend() -> (Backend, Arc<Mutex<Executions>>) {
    let backend = Backend::start();
    let executions = Arc::<Mutex<Executions>>::default();
    let counted = executions.clone();
    backend.script(move |seen| {
        let mut made = counted.lock().unwrap();
        let target = seen.target();
        // Of the repetitions some are lost as well.
        let is_lost =
            |count: usize, key: &str| count == 1 || (count == 2 && key.len().is_multiple_of(2));
        if target.starts_with("/sell/") {
            let key = seen.header("idempotency-key").expect("a key");
            let count = made.calls.add(&key);
            return if is_lost(count, &key) { Act::reset() } else { answer(200, "{}") };
        }
        if target.starts_with("/batch/") {
            let body: Value = serde_json::from_slice(&seen.body).expect("a batch");
            let mut lost = false;
            for item in body["list"].as_array().expect("items") {
                let id = item["id"].as_str().expect("an id");
                assert_eq!(item["units"], UNITS, "{id}: a part was sent");
                lost |= is_lost(made.calls.add(id), id);
                if item["again"].is_null() {
                    made.unmarked.add(id);
                }
            }
            // The rows are the items themselves.
            return if lost { Act::reset() } else { answer(200, &body.to_string()) };
        }
        match target.split_at(target.rfind('/').unwrap_or(0) + 1) {
            ("/sales/", key) if made.calls.of(key) > 0 => answer(200, r#"{"status":"paid"}"#),
            ("/sales/", _) => answer(200, r#"{"status":"none"}"#),
            ("/void/", key) => {
                let count = made.voids.add(key);
                answer(
                    if made.calls.of(key) == 0 {
                        404
                    } else if count == 1 {
                        500
                    } else {
                        200
                    },
                    "{}",
                )
            }
            _ => answer(404, "{}"),
        }
    });
    (backend, executions)
}

/// Sends requests that may get no answer, and counts them.
#[derive(Default)]
struct Clients {
    sent: Counts,
}

impl Clients {
    fn sell(&mut self, gateway: &Gateway, policy: &str, key: &str) {
        self.sent.add(key);
        let _ = sell(policy, key).try_send(gateway.addr);
    }

    fn batch(&mut self, gateway: &Gateway, name: &str, ids: &[String]) {
        for id in ids {
            self.sent.add(id);
        }
        let _ = batch(name, ids).try_send(gateway.addr);
    }

    /// Repeats what only a client can repeat at all these gateways at once.
    fn repeat(&mut self, gateways: &[&Gateway], (key, ids): (&str, &[String])) {
        for id in ids.iter().map(String::as_str).chain([key]) {
            gateways.iter().for_each(|_| {
                self.sent.add(id);
            });
        }
        at_once(gateways.len(), |at| {
            let _ = sell("resend", key).try_send(gateways[at].addr);
            let _ = batch("repeated", ids).try_send(gateways[at].addr);
        });
    }

    /// Loses calls at a process that dies at `point`, beside another one.
    fn round(
        &mut self,
        mut dying: Gateway,
        beside: Option<&Gateway>,
        (point, number): (&str, usize),
    ) {
        let ids = |name: &str| ["a", "bb"].map(|item| format!("{name}-{number}-{item}"));
        for policy in POLICIES {
            self.sell(&dying, policy, &format!("{policy}-{number}"));
        }
        for name in BATCHES {
            self.batch(&dying, name, &ids(name));
        }
        let end = Instant::now() + ROUND;
        while !dying.ended() && Instant::now() < end {
            let gateways: Vec<&Gateway> = std::iter::once(&dying).chain(beside).collect();
            self.repeat(&gateways, (&format!("resend-{number}"), &ids("repeated")));
            std::thread::sleep(Duration::from_millis(20));
        }
        if !dying.ended() {
            println!("round {number}: {point} was not reached often enough");
            dying.kill9();
        }
    }

    /// Repeats what only a client can repeat until nothing is open.
    fn settle(&mut self, gateway: &Gateway) {
        let end = Instant::now() + END;
        loop {
            let (mut open, _) = AdminClient::of(gateway).list("state=unknown&limit=100");
            let (flying, _) = AdminClient::of(gateway).list("state=in_flight&limit=100");
            for record in &open {
                let key = record["key"].as_str().expect("a key");
                match record["route"].as_str() {
                    Some("resend") => self.sell(gateway, "resend", key),
                    Some("repeated") => self.batch(gateway, "repeated", &[key.to_owned()]),
                    _ => {}
                }
            }
            open.extend(flying);
            if open.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "not settled: {open:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Compares what was executed with what was asked for; returns executions by policy, and reversals.
fn compared(made: &Executions, sent: &Counts) -> (BTreeMap<String, usize>, usize) {
    let mut of_policies = BTreeMap::new();
    for (key, count) in &made.calls.0 {
        let asked = sent.of(key);
        assert!(*count <= asked, "{key}: {count} calls for {asked} requests");
        let repeats = key.starts_with("resend-") || key.starts_with("repeated-");
        assert!(*count == 1 || repeats, "{key}: {count} calls");
        let policy = key.split('-').next().unwrap_or_default();
        *of_policies.entry(policy.to_owned()).or_default() += count;
    }
    for (id, count) in &made.unmarked.0 {
        assert!(*count == 1, "{id}: {count} times without the mark of a repetition");
    }
    for key in made.voids.0.keys() {
        let is_its_policy = key.starts_with("reverse-") || key.starts_with("undone-");
        assert!(is_its_policy && sent.of(key) > 0, "a reversal of {key}");
    }
    (of_policies, made.voids.0.values().sum())
}

#[test]
fn probes_repetitions_and_reversals_survive_a_kill_at_every_step() {
    Place::each(|place| {
        let (mut rng, begun) = (Rng::seeded("settling_crash"), Instant::now());
        let (backend, executions) = start_backend();
        let setup = setup(&backend);
        let (rounds, mut clients) = (rounds(3), Clients::default());
        let survivor = match &place {
            Place::Directory => None,
            Place::Server(shop) => Some(shop.replica(&setup, "")),
        };
        for number in 0..rounds {
            let point = POINTS[(usize::try_from(rng.below(3)).unwrap() + number) % POINTS.len()];
            let times = 1 + rng.below(5);
            println!("round {number} dies at {point}:{times}");
            let dying = setup.clone().env("ONCEGATE_CRASH_AT", format!("{point}:{times}"));
            let dying = match &place {
                Place::Directory => dying.try_start(),
                // A server that is slow for a moment refuses a start.
                Place::Server(shop) => eventually("a replica starts", || {
                    let begun = shop.try_replica(&dying);
                    begun.as_ref().map_or_else(is_killed, |_| true).then_some(begun)
                }),
            };
            match dying {
                Ok(dying) => clients.round(dying, survivor.as_ref(), (point, number)),
                // What an earlier process left brought it to the point before it was ready.
                Err(exit) => assert!(is_killed(&exit), "no start: {exit:?}"),
            }
        }
        let last = survivor.unwrap_or_else(|| setup.start());
        clients.settle(&last);
        let (made, took) = (executions.lock().unwrap(), begun.elapsed().as_secs());
        let (calls, undone) = compared(&made, &clients.sent);
        println!("{rounds} rounds: executions {calls:?}, {undone} reversals, {took} s");
        drop((last, backend));
    });
}

/// The end of a process by its failpoint.
fn is_killed(exit: &Exit) -> bool {
    exit.code.is_none()
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
