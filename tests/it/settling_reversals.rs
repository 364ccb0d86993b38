//! An operator against a reversal, at the same moment: before its claim, while the backend has it,
//! and when it is acknowledged. One of them decides, the other is refused or kept, and nothing is
//! undone after somebody else has decided.
//!
//! `ONCEGATE_TEST_SEED` takes the seed that a run printed, `ONCEGATE_TEST_ROUNDS` says how many
//! records are raced for on each store; 240 are the long form.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::admin::{Place, steps};
use crate::support::rng::Rng;
use crate::support::{
    Act, AdminClient, Backend, Gate, Gateway, Request, Setup, answer, eventually, rounds,
};

/// Records at once.
const BATCH: usize = 24;
/// Time of a call: its reversal is due afterwards, and has as long.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Time after which the step of a reversal has ended, with an answer or without.
const STEP: Duration = Duration::from_secs(15);

const ROUTES: [&str; 2] = ["release", "fail"];

fn setup(backend: &Backend) -> Setup {
    let route = |then: &str| {
        format!(
            "name = \"{then}\"\nmethods = [\"POST\"]\npath = \"/sell/{then}\"\n\
             outcome.on_unknown = \"reverse\"\nreverse = {{ path = \"/void/{{key}}\", \
             every = \"1s\", done = {{ status = \"2xx\" }}, nothing = {{ status = 404 }}, \
             then = \"{then}\" }}"
        )
    };
    let setup = AdminClient::guard(Setup::before(backend)).upstream(r#"timeout = "4s""#);
    ROUTES.iter().fold(setup, |setup, then| setup.route(&route(then)))
}

/// A reversal at the backend.
#[derive(Clone, Default)]
struct Void {
    gate: Gate,
    /// Time of the first arrival.
    begun: Option<Instant>,
    /// Number of arrivals.
    count: usize,
}

type Voids = Arc<Mutex<HashMap<String, Void>>>;

/// Loses the first call of each key, and holds each reversal until its gate opens.
fn start_backend() -> (Backend, Voids) {
    let (backend, voids) = (Backend::start(), Voids::default());
    let (seen_voids, calls) = (voids.clone(), Mutex::new(HashMap::<String, usize>::new()));
    backend.script(move |seen| match seen.target().strip_prefix("/void/") {
        None => {
            let mut calls = calls.lock().unwrap();
            let count = calls.entry(seen.text()).or_default();
            *count += 1;
            // A row of the batch; of the other calls nobody reads the body.
            let rows = r#"{"list":[{"id":"item","units":1}]}"#;
            if *count == 1 { Act::reset() } else { answer(200, rows) }
        }
        Some(key) => {
            let mut voids = seen_voids.lock().unwrap();
            let void = voids.entry(key.to_owned()).or_default();
            void.count += 1;
            void.begun.get_or_insert_with(Instant::now);
            answer(200, "{}").after(&void.gate)
        }
    });
    (backend, voids)
}

fn sale(route: &str, key: &str) -> Request {
    let body = format!("{{\"qr\":\"{key}\"}}");
    Request::new("POST", &format!("/sell/{route}")).key(key).json(&body)
}

/// The time at which the operator decides.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// About when the reversal is due: so many microseconds later.
    Claim(i64),
    /// While the backend has the reversal.
    Sent,
    /// About when it is acknowledged: so many microseconds later.
    Acknowledged(i64),
}

const DECISIONS: [&[&str]; 7] = [
    &["executed"],
    &["not-executed"],
    &["executed", "reopen"],
    &["executed", "purge"],
    &["not-executed", "reopen"],
    &["purge"],
    &["reopen"],
];

/// A race of an operator against a reversal.
#[derive(Debug, Clone)]
struct Race {
    key: String,
    route: &'static str,
    /// Replica of the operator.
    replica: usize,
    moment: Moment,
    decisions: &'static [&'static str],
}

impl Race {
    fn drawn(number: usize, replicas: usize, rng: &mut Rng) -> Self {
        let below = |rng: &mut Rng, end: usize| usize::try_from(rng.below(end as u64)).unwrap();
        let around = |rng: &mut Rng| i64::try_from(rng.below(20_000)).unwrap() - 5_000;
        let moment = match rng.below(3) {
            0 => Moment::Claim(around(rng)),
            1 => Moment::Sent,
            _ => Moment::Acknowledged(around(rng) / 2),
        };
        Self {
            key: format!("k-{number}"),
            route: ROUTES[below(rng, ROUTES.len())],
            replica: below(rng, replicas),
            moment,
            decisions: DECISIONS[below(rng, DECISIONS.len())],
        }
    }

    /// Reports a race whose first decision is about an unknown outcome.
    fn settles(&self) -> bool {
        ["executed", "not-executed"].contains(&self.decisions[0])
    }

    /// Decides at the drawn moment; returns true when that settled the outcome.
    fn run(&self, admin: AdminClient, (lost, voids): (Instant, &Voids)) -> bool {
        let id = admin.id(&self.key);
        let gate = voids.lock().unwrap().entry(self.key.clone()).or_default().gate.clone();
        let arrived = || {
            eventually("the reversal is at the backend", || {
                voids.lock().unwrap().get(&self.key).filter(|void| void.count > 0).map(|_| ())
            });
        };
        let decide = || {
            let replies: Vec<bool> =
                self.decisions.iter().map(|how| is_made(admin, &id, how)).collect();
            replies[0] && self.settles()
        };
        let after = |micros: i64| Duration::from_micros(micros.unsigned_abs());
        match self.moment {
            Moment::Claim(lead) => {
                gate.open();
                let at = if lead < 0 { TIMEOUT - after(lead) } else { TIMEOUT + after(lead) };
                std::thread::sleep((lost + at).saturating_duration_since(Instant::now()));
                decide()
            }
            Moment::Sent => {
                arrived();
                let won = decide();
                gate.open();
                won
            }
            Moment::Acknowledged(lead) => {
                arrived();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        std::thread::sleep(if lead < 0 { after(lead) } else { Duration::ZERO });
                        gate.open();
                    });
                    std::thread::sleep(if lead < 0 { Duration::ZERO } else { after(lead) });
                    decide()
                })
            }
        }
    }
}

/// Asks for a decision; returns true when it was made. A refusal says why.
fn is_made(admin: AdminClient, id: &str, how: &str) -> bool {
    let (reply, refusals): (_, &[&str]) = match how {
        "purge" => (admin.purge(id), &["unknown", "no-answer", "changed"]),
        "reopen" => {
            let reason = json!({ "reason": "looked", "by": "op" });
            (admin.reopen(id, &reason), &["unknown", "not-final", "changed"])
        }
        _ => {
            let wanted = json!({ "as": how, "reason": "looked", "by": "op" });
            (admin.resolve(id, &wanted), &["not-unknown", "changed"])
        }
    };
    match reply.status {
        200 => true,
        409 => {
            let reply = reply.json();
            assert!(refusals.contains(&reply["code"].as_str().unwrap()), "{how}: {reply}");
            false
        }
        _ => panic!("{how}: {reply:?}"),
    }
}

/// The parts of a record's history.
struct Entries<'v>(&'v [Value]);

impl Entries<'_> {
    fn of(shown: &Value) -> Entries<'_> {
        Entries(shown["history"].as_array().expect("a history"))
    }

    fn positions(&self, is_meant: impl Fn(&Value) -> bool) -> Vec<usize> {
        (0..self.0.len()).filter(|at| is_meant(&self.0[*at])).collect()
    }

    fn named(&self, what: &str) -> Vec<usize> {
        self.positions(|entry| entry["what"] == what)
    }

    fn sent(&self) -> Vec<usize> {
        self.positions(|entry| entry["reason"] == "the reversal is sent")
    }

    fn decisions(&self) -> Vec<usize> {
        self.positions(|entry| entry["what"] == "executed" || entry["what"] == "not-executed")
    }
}

/// Compares a record that has ended with what was sent; returns true for a decision that the
/// backend contradicts, which is alarmed.
fn compare(race: &Race, shown: &Value, (won, void): (bool, &Void)) -> bool {
    let entries = Entries::of(shown);
    let (sent, decisions) = (entries.sent(), entries.decisions());
    let [decision] = decisions.as_slice() else { panic!("not one decision: {race:?} {shown}") };
    let made = &entries.0[*decision];
    let is_operator = made["by"] == "op";
    assert_eq!(is_operator, won, "{race:?} {shown}");
    assert!(sent.iter().all(|at| at < decision), "sent after the decision: {race:?} {shown}");
    let claims: u64 = sent.iter().map(|at| entries.0[*at]["times"].as_u64().unwrap_or(1)).sum();
    assert!(void.count as u64 <= claims, "{} reversals: {race:?} {shown}", void.count);
    let contradictions = entries.named("contradiction");
    assert!(contradictions.len() <= usize::from(is_operator), "{race:?} {shown}");
    let (reopened, purged) = (entries.named("reopened"), entries.named("purged"));
    let is_free = made["what"] == "not-executed" && (is_operator || race.route == "release");
    let state = match (reopened.is_empty() && !is_free, purged.is_empty()) {
        (false, _) => "released",
        (true, false) => "tombstone",
        (true, true) => "final",
    };
    assert_eq!(shown["state"], state, "{race:?} {shown}");
    let is_taken_back = |at: &usize| reopened.iter().any(|reopened| reopened < at);
    made["what"] == "executed" && contradictions.iter().any(|at| !is_taken_back(at))
}

/// True when nothing more comes: decided, and the reversal that is under way has ended.
fn has_ended(shown: &Value, void: &Void) -> bool {
    let entries = Entries::of(shown);
    let Some(decision) = entries.decisions().first().copied() else { return false };
    let by_operator = entries.0[decision]["by"] == "op";
    let is_kept = !entries.named("contradiction").is_empty();
    let is_lost = void.begun.is_some_and(|begun| begun.elapsed() > STEP);
    !by_operator || entries.sent().is_empty() || is_kept || is_lost
}

fn alarms(gateways: &[Gateway]) -> usize {
    let series = ROUTES
        .map(|it| format!("oncegate_alarms_total{{route=\"{it}\",reason=\"contradiction\"}}"));
    let counted = gateways.iter().flat_map(|gateway| series.iter().map(|it| gateway.metric(it)));
    usize::try_from(counted.flatten().sum::<u64>()).unwrap()
}

#[test]
fn of_an_operator_and_a_reversal_one_decides_and_nothing_is_undone_afterwards() {
    let mut rng = Rng::seeded("settling_reversals");
    Place::each(|place| {
        let (backend, voids) = start_backend();
        let gateways = place.start(&setup(&backend));
        let (mut won, mut disagreed, mut free) = (0, 0, 0);
        let rounds = rounds(24);
        for round in (0..rounds).step_by(BATCH) {
            let races: Vec<Race> = (round..(round + BATCH).min(rounds))
                .map(|number| Race::drawn(number, gateways.len(), &mut rng))
                .collect();
            let raced: Vec<bool> = std::thread::scope(|scope| {
                let racing = races.iter().map(|race| {
                    let lost = sale(race.route, &race.key).send(gateways[0].addr);
                    lost.is(502, "unknown", "outcome-unknown");
                    let (admin, lost) = (AdminClient::of(&gateways[race.replica]), Instant::now());
                    let voids = &voids;
                    scope.spawn(move || race.run(admin, (lost, voids)))
                });
                let racing: Vec<_> = racing.collect();
                racing.into_iter().map(|race| race.join().expect("a race")).collect()
            });
            for (race, is_won) in races.iter().zip(raced) {
                let admin = AdminClient::of(&gateways[race.replica]);
                let (shown, void) = eventually("both have ended", || {
                    let shown = admin.show(&race.key);
                    let void = voids.lock().unwrap()[&race.key].clone();
                    has_ended(&shown, &void).then_some((shown, void))
                });
                disagreed += usize::from(compare(race, &shown, (is_won, &void)));
                won += usize::from(is_won);
                let is_free = shown["state"] == "released";
                let reply = sale(race.route, &race.key).send(gateways[0].addr);
                let is_executed = reply.summary() == (200, "executed".to_owned(), String::new());
                assert_eq!(is_executed, is_free, "{race:?} {reply:?}");
                free += usize::from(is_free);
            }
        }
        println!("of {rounds} races operators won {won}, {disagreed} against the backend");
        eventually("alarms are counted", || (alarms(&gateways) >= disagreed).then_some(()));
        assert_eq!(alarms(&gateways), disagreed);
        let calls = ROUTES.iter().map(|it| backend.calls_to(&format!("/sell/{it}"))).sum::<usize>();
        assert_eq!(calls, rounds + free, "each freed key was executed once more");
    });
}

#[test]
fn a_reversal_that_is_acknowledged_after_the_next_attempt_is_alarmed() {
    let (backend, voids) = start_backend();
    let gateway = setup(&backend)
        .replacing("timeout = \"4s\"", "timeout = \"8s\"")
        .route(
            "name = \"batch\"\nmethods = [\"POST\"]\npath = \"/batch\"\nmode = \"items\"\n\
             outcome.on_unknown = \"reverse\"\nreverse = { path = \"/void/{key}\", \
             every = \"1s\", done = { status = \"2xx\" }, nothing = { status = 404 } }\n\
             [route.items]\nat = \"/list\"\nid = \"/id\"\nquantity = \"/units\"\n\
             [route.items.response]\nmatch = [\"id:/id\"]\nissued = { count = \"/units\" }",
        )
        .start();
    let admin = AdminClient::of(&gateway);
    let batch = Request::new("POST", "/batch").json(r#"{"list":[{"id":"item","units":1}]}"#);
    batch.send(gateway.addr).is(502, "unknown", "outcome-unknown");
    sale("release", "call").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    for key in ["item", "call"] {
        eventually("the reversal is at the backend", || {
            voids.lock().unwrap().get(key).filter(|void| void.count > 0).map(|_| ())
        });
        admin.settle(key, "not-executed");
    }
    sale("release", "call").send(gateway.addr).is(200, "executed", "");
    let reply = batch.send(gateway.addr);
    assert_eq!(reply.status, 200, "{reply:?}");
    for key in ["item", "call"] {
        voids.lock().unwrap()[key].gate.open();
        eventually("the acknowledgement is kept", || {
            let shown = admin.show(key);
            steps(&shown).contains(&"contradiction".to_owned()).then_some(())
        });
    }
    for route in ["release", "batch"] {
        let series = format!("oncegate_alarms_total{{route=\"{route}\",reason=\"contradiction\"}}");
        eventually("it is alarmed", || (gateway.metric(&series) == Some(1)).then_some(()));
    }
    gateway.logs(&["WARN", "a result contradicts an earlier decision"]);
}
