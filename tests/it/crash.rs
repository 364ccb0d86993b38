//! kill -9 of the real binary, again and again, while clients retry every key: never two
//! executions, every 2xx that was seen is replayed alike, and unknown stays unknown.
//!
//! The rounds are drawn from a seed that is printed. `ONCEGATE_TEST_SEED` takes one,
//! `ONCEGATE_TEST_ROUNDS` says how many rounds.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use crate::support::rng::Rng;
use crate::support::{Backend, Conn, Gateway, Request, Response, Setup, answer, rounds};

const CLIENTS: usize = 20;
/// Points in the store, once there is enough in its log, each with the first passage at which a round
/// may end: a start passes some of them too.
const LOG_POINTS: [(&str, u64); 5] = [
    ("after-rotation", 2),
    ("before-checkpoint", 2),
    ("during-checkpoint", 600),
    ("after-checkpoint", 2),
    ("after-compaction", 2),
];
const POINTS: [&str; 5] =
    ["before-claim", "after-claim", "after-dispatch", "after-answer", "after-completion"];
/// More requests than a client can need before the process has died.
const MOST_IN_A_ROUND: usize = 2000;

/// How a key ended for its client.
enum Fate {
    /// A 2xx was seen.
    Succeeded(Box<Response>),
    /// The client was told that nobody knows.
    Unknown,
}

/// A till: it retries each key until its fate is known, across every crash.
struct Till {
    name: usize,
    rng: Rng,
    keys: usize,
    open: Option<String>,
    settled: Vec<(String, Fate)>,
}

impl Till {
    fn request(key: &str) -> Request {
        Request::redeem(key, &format!(r#"{{"qr":"{key}"}}"#))
    }

    /// Goes on until the gateway is gone.
    fn work(&mut self, addr: SocketAddr) {
        for _ in 0..MOST_IN_A_ROUND {
            let key = self.open.take().unwrap_or_else(|| {
                self.keys += 1;
                format!("till-{}-{}", self.name, self.keys)
            });
            let reply = Self::request(&key).try_send(addr);
            let Ok(reply) = reply else {
                self.open = Some(key);
                return;
            };
            match fate(&reply) {
                Some(fate) => self.settled.push((key, fate)),
                None => self.open = Some(key),
            }
            if !self.settled.is_empty() && self.rng.below(4) == 0 {
                let at = self.rng.below(self.settled.len() as u64);
                let (key, fate) = &self.settled[usize::try_from(at).unwrap()];
                let Ok(reply) = Self::request(key).try_send(addr) else { return };
                check(key, fate, &reply);
            }
        }
        panic!("the gateway did not die");
    }

    /// Asks for every key once more.
    fn verify(&mut self, addr: SocketAddr) {
        let mut conn = Conn::open(addr);
        for (key, fate) in &self.settled {
            conn.write(Self::request(key).bytes());
            check(key, fate, &conn.read());
        }
        if let Some(key) = self.open.take() {
            let reply = Self::request(&key).send(addr);
            let fate = fate(&reply).expect("nothing else is in flight");
            self.settled.push((key, fate));
        }
    }
}

/// What an answer says about the key; `None`: try again.
fn fate(reply: &Response) -> Option<Fate> {
    match (reply.status, reply.disposition().as_str()) {
        (200, "executed" | "replayed") => Some(Fate::Succeeded(Box::new(reply.kept()))),
        (409 | 502 | 504, "unknown") => Some(Fate::Unknown),
        (409, "in-progress") => None,
        _ => panic!("{reply:?}"),
    }
}

#[track_caller]
fn check(key: &str, fate: &Fate, reply: &Response) {
    match fate {
        Fate::Succeeded(first) => assert_eq!(&reply.kept(), &**first, "{key} has another answer"),
        Fate::Unknown => assert_eq!(reply.error(), "outcome-unknown", "{key}: {reply:?}"),
    }
}

struct Trial {
    backend: Backend,
    setup: Setup,
    tills: Vec<Till>,
}

impl Trial {
    fn new(rng: &mut Rng) -> Self {
        let backend =
            Backend::scripted(|seen| answer(200, &format!(r#"{{"transaction":{}}}"#, seen.number)));
        let setup = Setup::before(&backend);
        let tills = (0..CLIENTS)
            .map(|name| Till { name, rng: rng.fork(), keys: 0, open: None, settled: Vec::new() })
            .collect();
        Self { backend, setup, tills }
    }

    /// One life of the gateway: everybody works until it is gone.
    fn live(&mut self, setup: &Setup, end: impl FnOnce(&Backend, &mut Gateway)) {
        let mut gateway = setup.start();
        let addr = gateway.addr;
        std::thread::scope(|scope| {
            for till in &mut self.tills {
                scope.spawn(move || till.work(addr));
            }
            end(&self.backend, &mut gateway);
        });
        assert_eq!(gateway.wait().signal(), Some(9), "{}", gateway.stderr());
    }

    fn check_executions(&self) -> usize {
        let executions = self.backend.executions();
        let twice: Vec<_> = executions.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "executed more than once: {twice:?}");
        executions.len()
    }

    /// The last life: every key is asked for once more.
    fn finish(mut self) {
        let gateway = self.setup.start();
        let addr = gateway.addr;
        std::thread::scope(|scope| {
            for till in &mut self.tills {
                scope.spawn(move || till.verify(addr));
            }
        });
        let executed = self.check_executions();
        let seen = self.backend.executions();
        let (mut succeeded, mut unknown) = (0, 0);
        for (key, fate) in self.tills.iter().flat_map(|till| &till.settled) {
            match fate {
                Fate::Succeeded(_) => {
                    succeeded += 1;
                    assert!(seen.contains_key(&format!(r#"{{"qr":"{key}"}}"#)), "{key} never ran");
                }
                Fate::Unknown => unknown += 1,
            }
        }
        println!("{succeeded} succeeded, {unknown} unknown, {executed} executions");
        assert!(succeeded > 0 && unknown > 0, "the trial saw nothing");
    }
}

#[test]
fn killed_at_every_step_no_key_runs_twice() {
    let mut rng = Rng::seeded("killed_at_every_step_no_key_runs_twice");
    let mut trial = Trial::new(&mut rng);
    for round in 0..rounds(300) {
        let point = POINTS[round % POINTS.len()];
        let passage = 1 + rng.below(40);
        let order = format!("{point}:{passage}");
        let setup = trial.setup.clone().env("ONCEGATE_CRASH_AT", order);
        trial.live(&setup, |_, _| ());
        if round % 50 == 49 {
            trial.check_executions();
        }
    }
    trial.finish();
}

#[test]
fn killed_while_the_log_is_checkpointed_no_key_runs_twice() {
    let mut rng = Rng::seeded("killed_while_the_log_is_checkpointed_no_key_runs_twice");
    let mut trial = Trial::new(&mut rng);
    for round in 0..rounds(300).div_ceil(5) {
        let (point, first) = LOG_POINTS[round % LOG_POINTS.len()];
        let order = format!("{point}:{}", first + rng.below(2 * first));
        let setup = trial.setup.clone().env("ONCEGATE_LOG_SEGMENT", (96 << 10).to_string());
        let setup = setup.env("ONCEGATE_CRASH_AT", order);
        trial.live(&setup, |_, _| ());
    }
    trial.finish();
}

#[test]
fn killed_at_any_time_no_key_runs_twice() {
    let mut rng = Rng::seeded("killed_at_any_time_no_key_runs_twice");
    let mut trial = Trial::new(&mut rng);
    for _ in 0..rounds(300).div_ceil(5) {
        let setup = trial.setup.clone();
        let calls = trial.backend.calls() + 1 + usize::try_from(rng.below(100)).unwrap();
        let further = Duration::from_micros(rng.below(3000));
        trial.live(&setup, |backend, gateway| {
            backend.wait_calls(calls);
            // Not to wait for anything: the moment of the kill is what is drawn here.
            std::thread::sleep(further);
            gateway.kill9();
        });
    }
    trial.finish();
}
