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
use crate::support::{Backend, Gateway, Kind, Request, Setup, Shop, eventually, rounds};

const TILLS: usize = 8;
const REPLICAS: usize = 3;
const LEASE: &str = "lease = \"2s\"";
/// Calls between two faults, at most.
const CALLS: u64 = 25;

struct Trial {
    backend: Backend,
    shop: Shop,
    setup: Setup,
    replicas: Vec<Gateway>,
    /// The ways of the replicas to the store, one for each; before a cluster, one to each node.
    own_ways: Vec<Chaos>,
    addresses: Addresses,
    rng: Rng,
}

impl Trial {
    fn new(shop: Shop, mut rng: Rng) -> (Self, Tills) {
        let backend = working_backend();
        let setup = Setup::before(&backend)
            .redeem("duplicates.wait = \"300ms\"")
            .upstream("timeout = \"5s\"");
        let start = |_| match shop.proxies() {
            [] => {
                let (gateway, way) = shop.replica_behind(&setup, LEASE);
                (gateway, Some(way))
            }
            _ => (shop.replica(&setup, LEASE), None),
        };
        let (replicas, own_ways): (Vec<_>, Vec<_>) = (0..REPLICAS).map(start).unzip();
        let own_ways = own_ways.into_iter().flatten().collect();
        let addresses = replicas.iter().map(|gateway| gateway.addr).collect();
        let addresses = Arc::new(Mutex::new(addresses));
        let tills = Tills::new(TILLS, &mut rng);
        (Self { backend, shop, setup, replicas, own_ways, addresses, rng }, tills)
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
                self.replicas[at].pause();
                self.last();
                self.replicas[at].resume();
            }
            3 => self.ways()[at].cut_all(),
            4 | 5 => {
                let way =
                    if self.rng.below(2) == 0 { Direction::ToServer } else { Direction::ToClient };
                let count = self.rng.below(30);
                match self.rng.below(2) {
                    0 => self.ways()[at].cut_after_messages(way, count),
                    _ => self.ways()[at].cut_after_bytes(way, count * 40),
                }
                self.last();
                self.ways()[at].keep();
            }
            6 => {
                self.ways()[at].freeze(true);
                self.last();
                self.ways()[at].keep();
            }
            7 => {
                self.ways()[at].refuse(true);
                self.ways()[at].cut_all();
                self.last();
                self.ways()[at].keep();
            }
            _ => self.lose_server(at),
        }
    }

    fn ways(&self) -> &[Chaos] {
        if self.own_ways.is_empty() { self.shop.proxies() } else { &self.own_ways }
    }

    /// The server dies and comes back; of a cluster, one node.
    fn lose_server(&mut self, at: usize) {
        if self.shop.nodes().is_empty() {
            self.shop.kill();
            self.last();
            self.shop.restart();
        } else {
            self.shop.nodes()[at].kill();
            self.last();
            self.shop.nodes()[at].restart();
        }
    }

    fn kill(&mut self, at: usize) {
        self.replicas[at].kill9();
        let table = match self.own_ways.get(at) {
            Some(way) => self.shop.table_at(way.addr(), LEASE),
            None => {
                // Nothing starts on a cluster that is not whole.
                self.shop.until_whole();
                self.shop.table(LEASE)
            }
        };
        self.replicas[at] = self.setup.elsewhere().on(table).start();
        self.addresses.lock().unwrap()[at] = self.replicas[at].addr;
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
        self.ways().iter().for_each(Chaos::keep);
        for gateway in &self.replicas {
            eventually("every replica is ready again", || {
                let reply = Request::get("/readyz").send(gateway.admin);
                (reply.status == 200).then_some(())
            });
        }
        eventually("nothing is in flight any more", || (self.shop.in_flight() == 0).then_some(()));
        tills.verify(&addresses, &self.backend);
    }
}

#[test]
fn whatever_fails_no_key_runs_twice_on_postgres() {
    let rng = Rng::seeded("whatever_fails_no_key_runs_twice_on_postgres");
    let (trial, tills) = Trial::new(Shop::own(Kind::Postgres), rng);
    trial.run(tills, rounds(40));
}

#[test]
fn whatever_fails_no_key_runs_twice_on_redis() {
    let rng = Rng::seeded("whatever_fails_no_key_runs_twice_on_redis");
    let (trial, tills) = Trial::new(Shop::own(Kind::Redis), rng);
    trial.run(tills, rounds(40));
}

#[test]
fn whatever_fails_no_key_runs_twice_on_a_redis_cluster() {
    let rng = Rng::seeded("whatever_fails_no_key_runs_twice_on_a_redis_cluster");
    let (trial, tills) = Trial::new(Shop::own(Kind::Cluster), rng);
    trial.run(tills, rounds(25));
}

#[test]
fn whatever_fails_no_key_runs_twice_behind_a_transaction_pooler() {
    let rng = Rng::seeded("whatever_fails_no_key_runs_twice_behind_a_transaction_pooler");
    let (trial, tills) = Trial::new(Shop::pooled(), rng);
    trial.run(tills, rounds(25));
}
