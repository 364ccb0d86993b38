//! Batches over several replicas: an item is issued once, whoever sends it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::servers::Direction;
use crate::support::rewards::{batch, issue, rows};
use crate::support::rng::Rng;
use crate::support::tills::Addresses;
use crate::support::{Gate, Kind, Rewards, Shop, answer, at_once, eventually};

#[test]
fn thirty_identical_batches_over_two_replicas_issue_once() {
    Kind::all(|kind| {
        let rewards = Rewards::start();
        let setup = rewards.setup("duplicates.wait = \"30s\"");
        let replicas = Shop::borrow(kind).replicas(&setup, 2);
        let body = batch("+65", &[("a", "R1", 2), ("b", "R2", 2)]);
        let reply = at_once(30, |index| issue(&body).send(replicas[index % 2].addr));
        for reply in &reply {
            assert_eq!((reply.status, rows(reply).as_str()), (200, "a:2/2 200, b:2/2 200 = 200"));
        }
        let executed = reply.iter().filter(|reply| reply.disposition() == "executed").count();
        assert_eq!((executed, rewards.points(), rewards.sent().len()), (1, 30, 1));
    });
}

#[test]
fn ten_batches_over_three_replicas_that_share_an_item_issue_it_once_and_all_end() {
    Kind::all(|kind| {
        let rewards = Rewards::start();
        let setup = rewards.setup("duplicates.wait = \"30s\"");
        let replicas = Shop::borrow(kind).replicas(&setup, 3);
        for round in 0..3 {
            let shared = format!("shared-{round}");
            let reply = at_once(10, |index| {
                let own = format!("own-{round}-{index}");
                let next = format!("own-{round}-{}", (index + 1) % 10);
                let mut items =
                    [(own.as_str(), "R1", 1), (shared.as_str(), "R2", 1), (&next, "R1", 1)];
                items.rotate_left(index % 3);
                issue(&batch("+65", &items)).send(replicas[index % 3].addr)
            });
            for reply in &reply {
                assert_eq!(reply.status, 200, "{reply:?}");
                assert!(rows(reply).ends_with("= 200"), "{reply:?}");
            }
            assert_eq!(rewards.issued(&shared), 1);
            assert!((0..10).all(|index| rewards.issued(&format!("own-{round}-{index}")) == 1));
        }
        assert_eq!(rewards.points(), 3 * (10 + 10 * 5));
    });
}

#[test]
fn batches_of_one_customer_take_turns_over_all_replicas() {
    Kind::all(|kind| {
        let (rewards, gate) = (Rewards::start(), Gate::default());
        let setup = rewards.setup("duplicates.wait = \"0s\"");
        let replicas = Shop::borrow(kind).replicas(&setup, 2);
        let waits = gate.clone();
        rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&waits));
        let mut first = issue(&batch("+65", &[("a", "R1", 1)])).begin(replicas[0].addr);
        rewards.backend.wait_calls(1);
        for item in ["a", "b"] {
            let reply = issue(&batch("+65", &[(item, "R1", 1)])).send(replicas[1].addr);
            reply.is(409, "in-progress", "request-in-progress");
        }
        let mut other = issue(&batch("+66", &[("c", "R1", 1)])).begin(replicas[1].addr);
        rewards.backend.wait_calls(2);
        gate.open();
        first.read().is(200, "executed", "");
        other.read().is(200, "executed", "");
        issue(&batch("+65", &[("b", "R1", 1)])).send(replicas[1].addr).is(200, "executed", "");
        assert_eq!(rewards.backend.calls(), 3);
    });
}

#[test]
fn items_of_a_killed_replica_become_unknown_and_the_rest_of_a_batch_goes_on() {
    Kind::all(|kind| {
        let (rewards, gate) = (Rewards::start(), Gate::default());
        let setup = rewards.setup("duplicates.wait = \"200ms\"");
        let shop = Shop::borrow(kind);
        let short = "lease = \"2s\"";
        let (mut owner, other) = (shop.replica(&setup, short), shop.replica(&setup, short));
        let waits = gate.clone();
        rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&waits));
        let call = issue(&batch("+65", &[("a", "R1", 2)])).begin(owner.addr);
        rewards.backend.wait_calls(1);
        owner.kill9();
        drop(call);
        gate.open();
        let reply = eventually("the items of the dead are unknown", || {
            let reply = issue(&batch("+65", &[("a", "R1", 2), ("b", "R1", 1)])).send(other.addr);
            (reply.disposition() != "in-progress").then_some(reply)
        });
        assert_eq!(reply.json()["rewards"][0]["status"]["code"], 1010, "{reply:?}");
        assert_eq!(reply.json()["rewards"][1]["status"]["code"], 200, "{reply:?}");
        assert_eq!((rewards.issued("a"), rewards.issued("b"), shop.in_flight()), (2, 1, 0));
    });
}

/// A batch that waits for another replica's looks at one item, seldom, however many it has.
#[test]
fn a_large_batch_that_waits_asks_the_store_no_more_than_a_small_one() {
    /// Long enough for several looks.
    const HELD: Duration = Duration::from_secs(3);
    /// Looks of some hundred bytes. All items take five thousand to ask for, and twenty thousand to
    /// tell.
    const MOST_MESSAGES: u64 = 25;
    const MOST_ASKED: u64 = 12 * 1024;
    const MOST_TOLD: u64 = 48 * 1024;
    /// Spans to look at: the last of the claim and of what follows it may fall into the first.
    const SPANS: usize = 3;
    /// Renewals of the lease, and what goes with them, are rare enough to be out of the way.
    const LONG: &str = "lease = \"120s\"";
    Kind::both(|kind| {
        let (rewards, gate) = (Rewards::start(), Gate::default());
        let setup = rewards.setup("duplicates.wait = \"30s\"");
        let shop = Shop::borrow(kind);
        let owner = shop.replica(&setup, LONG);
        let (other, chaos) = shop.replica_behind(&setup, LONG);
        let waits = gate.clone();
        rewards.answering(move |_, status, body| answer(status, &body.to_string()).after(&waits));
        let names: Vec<String> = (0..100).map(|n| format!("item-{n}")).collect();
        let items: Vec<_> = names.iter().map(|name| (name.as_str(), "R1", 1)).collect();
        let mut first = issue(&batch("+65", &items)).begin(owner.addr);
        rewards.backend.wait_calls(1);
        let looked = || {
            let (messages, asked) =
                (chaos.messages(Direction::ToServer), chaos.bytes(Direction::ToServer));
            [messages, asked, chaos.bytes(Direction::ToClient)]
        };
        let mut second = issue(&batch("+65", &items)).begin(other.addr);
        // Not to wait for anything: what is asked within this time is counted.
        let spans: Vec<_> = (0..SPANS)
            .map(|_| {
                let before = looked();
                std::thread::sleep(HELD);
                let after = looked();
                [0, 1, 2].map(|at| after[at] - before[at])
            })
            .collect();
        let few = |[messages, asked, reply]: &[u64; 3]| {
            (1..=MOST_MESSAGES).contains(messages) && *asked <= MOST_ASKED && *reply <= MOST_TOLD
        };
        assert!(spans[1..].iter().all(few), "{spans:?} in spans of {HELD:?}");
        gate.open();
        first.read().is(200, "executed", "");
        second.read().is(200, "replayed", "");
        assert_eq!(rewards.backend.calls(), 1);
    });
}

#[test]
fn a_turn_lasts_as_long_as_a_call_that_ran_out_of_time_is_open() {
    Kind::both(|kind| {
        let (rewards, gate) = (Rewards::start(), Gate::default());
        let setup = rewards.setup("duplicates.wait = \"0s\"").upstream("timeout = \"3s\"");
        let replicas = Shop::borrow(kind).replicas(&setup, 2);
        let held = gate.clone();
        rewards.answering(move |seen, status, body| {
            let act = answer(status, &body.to_string());
            if seen.number == 0 { act.after(&held) } else { act }
        });
        let first = issue(&batch("+65", &[("a", "R1", 1)]));
        first.clone().send(replicas[0].addr).is(504, "unknown", "outcome-unknown");
        first.clone().send(replicas[1].addr).is(409, "unknown", "outcome-unknown");
        let next = issue(&batch("+65", &[("b", "R1", 1)]));
        next.clone().send(replicas[1].addr).is(409, "in-progress", "request-in-progress");
        gate.open();
        eventually("its turn comes when the late answer is there", || {
            let reply = next.clone().send(replicas[1].addr);
            (reply.disposition() == "executed").then_some(())
        });
        first.send(replicas[1].addr).is(200, "replayed", "");
        assert_eq!(rewards.sent(), ["R1x1"; 2]);
    });
}

/// A customer who sends each batch until it is settled.
struct Customer {
    name: usize,
    rng: Rng,
    all: Vec<Vec<(String, String, u64)>>,
}

impl Customer {
    fn draw(&mut self) -> Vec<(String, String, u64)> {
        let items: Vec<_> = (0..1 + self.rng.below(4))
            .map(|item| {
                let id = format!("{}-{}-{item}", self.name, self.all.len());
                (id, format!("R{}", 1 + item), 1 + self.rng.below(4))
            })
            .collect();
        self.all.push(items.clone());
        items
    }

    fn request(&self, items: &[(String, String, u64)]) -> crate::support::Request {
        let items: Vec<(&str, &str, u64)> = items
            .iter()
            .map(|(id, reward, units)| (id.as_str(), reward.as_str(), *units))
            .collect();
        issue(&batch(&format!("+{}", self.name), &items))
    }

    /// Sends so many batches, each until it is settled, over random replicas.
    fn work(&mut self, replicas: &Addresses, batches: usize) {
        for _ in 0..batches {
            let items = self.draw();
            eventually("a batch is settled", || {
                let to = {
                    let replicas = replicas.lock().unwrap();
                    let at = self.rng.below(replicas.len() as u64);
                    replicas[usize::try_from(at).unwrap()]
                };
                let reply = self.request(&items).try_send(to).ok()?;
                match (reply.status, reply.disposition().as_str()) {
                    (200, "executed" | "replayed") | (409 | 502 | 504, "unknown") => Some(()),
                    (409, "in-progress") | (503, "rejected") => None,
                    _ => panic!("{reply:?}"),
                }
            });
        }
    }
}

#[test]
fn killed_replicas_never_issue_more_than_was_requested() {
    let mut rng = Rng::seeded("killed_replicas_never_issue_more_than_was_requested");
    Kind::both(|kind| {
        let rewards = Rewards::start();
        rewards.answering(|_, status, body| {
            // The backend's own work, so that a kill meets calls in flight.
            std::thread::sleep(std::time::Duration::from_millis(2));
            answer(status, &body.to_string())
        });
        let setup = rewards.setup("duplicates.wait = \"300ms\"");
        let shop = Shop::borrow(kind);
        let short = "lease = \"2s\"";
        let mut replicas = [shop.replica(&setup, short), shop.replica(&setup, short)];
        let addresses: Addresses =
            Arc::new(Mutex::new(replicas.iter().map(|replica| replica.addr).collect()));
        let mut customers: Vec<Customer> =
            (0..6).map(|name| Customer { name, rng: rng.fork(), all: Vec::new() }).collect();
        for round in 0..8 {
            let calls = rewards.backend.calls() + 1 + usize::try_from(rng.below(20)).unwrap();
            std::thread::scope(|scope| {
                for customer in &mut customers {
                    let addresses = &addresses;
                    scope.spawn(move || customer.work(addresses, 8));
                }
                rewards.backend.wait_calls(calls);
                replicas[round % 2].kill9();
                replicas[round % 2] = shop.replica(&setup, short);
                addresses.lock().unwrap()[round % 2] = replicas[round % 2].addr;
            });
        }
        let (mut complete, mut unknown) = (0, 0);
        for (customer, items) in customers
            .iter()
            .flat_map(|customer| customer.all.iter().map(move |all| (customer, all)))
        {
            for replica in &replicas {
                let reply = eventually("nothing is in flight", || {
                    let reply = customer.request(items).send(replica.addr);
                    (reply.disposition() != "in-progress").then_some(reply)
                });
                let body = reply.json();
                let rows = body["rewards"].as_array().unwrap();
                for ((id, _, wanted), row) in items.iter().zip(rows) {
                    let (issued, shown) = (rewards.issued(id), row["quantity"].as_u64().unwrap());
                    assert!(issued <= *wanted, "{id}: {issued} of {wanted}");
                    if row["status"]["code"] == 1010 {
                        unknown += 1;
                        assert!(shown <= issued, "{id}: shown {shown}, issued {issued}");
                    } else {
                        complete += 1;
                        assert_eq!((shown, issued), (*wanted, *wanted), "{id}: {row}");
                    }
                }
            }
        }
        println!("{complete} items complete, {unknown} unknown");
        assert!(complete > 0, "the trial saw nothing");
        assert_eq!(shop.in_flight(), 0);
    });
}
