//! Random faults, again and again, while tills retry every key over random replicas: no key runs
//! twice, every 2xx that was seen is replayed alike by every replica, nothing stays in flight.
//!
//! The rounds are drawn from a seed that is printed. `ONCEGATE_TEST_SEED` takes one,
//! `ONCEGATE_TEST_ROUNDS` says how many rounds.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::servers::{Chaos, Direction};
use crate::support::rng::Rng;
use crate::support::tills::{Addresses, Tills, none_twice, working_backend};
use crate::support::{Backend, Gateway, Kind, Request, Setup, Shop, eventually};

const TILLS: usize = 8;
const REPLICAS: usize = 3;
/// Calls between two faults, at most.
const CALLS: u64 = 25;

fn rounds(default: usize) -> usize {
    let given = std::env::var("ONCEGATE_TEST_ROUNDS").ok();
    given.map_or(default, |text| text.parse().expect("a number of rounds"))
}

struct Trial {
    backend: Backend,
    shop: Shop,
    setup: Setup,
    replicas: Vec<(Gateway, Chaos)>,
    addresses: Addresses,
    rng: Rng,
}

impl Trial {
    fn new(kind: Kind, mut rng: Rng) -> (Self, Tills) {
        let backend = working_backend();
        let shop = Shop::own(kind);
        let setup = Setup::before(&backend)
            .redeem("duplicates.wait = \"300ms\"")
            .upstream("timeout = \"5s\"");
        let start = |_| shop.replica_behind(&setup, "lease = \"2s\"");
        let replicas: Vec<_> = (0..REPLICAS).map(start).collect();
        let addresses = replicas.iter().map(|(gateway, _)| gateway.addr).collect();
        let addresses = Arc::new(Mutex::new(addresses));
        let tills = Tills::new(TILLS, &mut rng);
        (Self { backend, shop, setup, replicas, addresses, rng }, tills)
    }

    fn draw(&mut self, end: usize) -> usize {
        usize::try_from(self.rng.below(end as u64)).unwrap()
    }

    /// How long a fault lasts: mostly an instant, at times longer than a lease and a timeout.
    fn last(&mut self) {
        let longest = if self.rng.below(8) == 0 { 3500 } else { 150 };
        // Not to wait for anything: how long the fault lasts is what is drawn here.
        std::thread::sleep(Duration::from_millis(self.rng.below(longest)));
    }

    fn round(&mut self) {
        let calls = self.backend.calls() + 1 + self.draw(CALLS as usize);
        self.backend.wait_calls(calls);
        let at = self.draw(REPLICAS);
        match self.rng.below(9) {
            0 | 1 => self.kill(at),
            2 => {
                self.replicas[at].0.pause();
                self.last();
                self.replicas[at].0.resume();
            }
            3 => self.replicas[at].1.cut_all(),
            4 | 5 => {
                let way =
                    if self.rng.below(2) == 0 { Direction::ToServer } else { Direction::ToClient };
                let count = self.rng.below(30);
                match self.rng.below(2) {
                    0 => self.replicas[at].1.cut_after_messages(way, count),
                    _ => self.replicas[at].1.cut_after_bytes(way, count * 40),
                }
                self.last();
                self.replicas[at].1.keep();
            }
            6 => {
                self.replicas[at].1.freeze(true);
                self.last();
                self.replicas[at].1.keep();
            }
            7 => {
                self.replicas[at].1.refuse(true);
                self.replicas[at].1.cut_all();
                self.last();
                self.replicas[at].1.keep();
            }
            _ => {
                self.shop.kill();
                self.last();
                self.shop.restart();
            }
        }
    }

    fn kill(&mut self, at: usize) {
        let (gateway, chaos) = &mut self.replicas[at];
        gateway.kill9();
        let table = self.shop.table_at(chaos.addr(), "lease = \"2s\"");
        *gateway = self.setup.elsewhere().on(table).start();
        self.addresses.lock().unwrap()[at] = gateway.addr;
    }

    fn run(mut self, mut tills: Tills, rounds: usize) {
        let addresses = self.addresses.clone();
        tills.work(&addresses, || {
            for round in 0..rounds {
                self.round();
                if round % 20 == 19 {
                    none_twice(&self.backend);
                }
            }
        });
        for (gateway, chaos) in &self.replicas {
            chaos.keep();
            eventually("every replica is ready again", || {
                let told = Request::get("/readyz").send(gateway.admin);
                (told.status == 200).then_some(())
            });
        }
        eventually("nothing is in flight any more", || (self.shop.in_flight() == 0).then_some(()));
        tills.verify(&addresses, &self.backend);
    }
}

#[test]
fn whatever_fails_no_key_runs_twice_on_postgres() {
    let rng = Rng::seeded("whatever_fails_no_key_runs_twice_on_postgres");
    let (trial, tills) = Trial::new(Kind::Postgres, rng);
    trial.run(tills, rounds(40));
}

#[test]
fn whatever_fails_no_key_runs_twice_on_redis() {
    let rng = Rng::seeded("whatever_fails_no_key_runs_twice_on_redis");
    let (trial, tills) = Trial::new(Kind::Redis, rng);
    trial.run(tills, rounds(40));
}
