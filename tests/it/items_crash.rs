//! kill -9 of the real binary, again and again, while batches run under limits that come and go:
//! points never exceed what was requested, nothing issued is forgotten, and what is not unknown is
//! complete in the end.
//!
//! The rounds are drawn from a seed that is printed. `ONCEGATE_TEST_SEED` takes one,
//! `ONCEGATE_TEST_ROUNDS` says how many rounds.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;

use crate::support::rewards::{batch, issue};
use crate::support::rng::Rng;
use crate::support::{Response, Rewards, rounds};

const CLIENTS: usize = 6;
const POINTS: [&str; 5] =
    ["before-claim", "after-claim", "after-dispatch", "after-answer", "after-completion"];
const MOST_IN_A_ROUND: usize = 2000;

type Item = (String, String, u64);

/// A client that sends each batch until it is settled, across every crash.
struct Customer {
    name: usize,
    rng: Rng,
    batches: usize,
    open: Option<Vec<Item>>,
    all: Vec<Vec<Item>>,
}

impl Customer {
    fn draw(&mut self) -> Vec<Item> {
        self.batches += 1;
        let count = 1 + self.rng.below(4);
        (0..count)
            .map(|item| {
                let id = format!("{}-{}-{item}", self.name, self.batches);
                (id, format!("R{}", 1 + item), 1 + self.rng.below(4))
            })
            .collect()
    }

    fn request(&self, items: &[Item]) -> crate::support::Request {
        let items: Vec<(&str, &str, u64)> = items
            .iter()
            .map(|(id, reward, units)| (id.as_str(), reward.as_str(), *units))
            .collect();
        issue(&batch(&format!("+{}", self.name), &items))
    }

    fn work(&mut self, addr: SocketAddr) {
        for _ in 0..MOST_IN_A_ROUND {
            let items = match self.open.take() {
                Some(items) => items,
                None => {
                    let items = self.draw();
                    self.all.push(items.clone());
                    items
                }
            };
            let Ok(reply) = self.request(&items).try_send(addr) else {
                self.open = Some(items);
                return;
            };
            if !settled(&reply) {
                self.open = Some(items);
            }
        }
        panic!("the gateway did not die");
    }
}

/// Whether there is no point in sending the batch again.
fn settled(reply: &Response) -> bool {
    match (reply.status, reply.disposition().as_str()) {
        (200, "executed" | "replayed") | (409 | 502 | 504, "unknown") => true,
        (400, "executed" | "replayed") | (409, "in-progress") => false,
        _ => panic!("{reply:?}"),
    }
}

#[test]
fn killed_while_batches_run_points_never_exceed_what_was_requested() {
    let mut rng = Rng::seeded("killed_while_batches_run");
    let rewards = Rewards::start();
    let setup = rewards.setup("");
    let mut customers: Vec<Customer> = (0..CLIENTS)
        .map(|name| Customer { name, rng: rng.fork(), batches: 0, open: None, all: Vec::new() })
        .collect();
    for round in 0..rounds(25) {
        // A limit that grows: most batches need several tries.
        let limit = 3 * (round as u64 + 1);
        (1..=4).for_each(|reward| rewards.limit(&format!("R{reward}"), limit + rng.below(4)));
        let order = format!("{}:{}", POINTS[round % POINTS.len()], 1 + rng.below(30));
        let mut gateway = setup.clone().env("ONCEGATE_CRASH_AT", order).start();
        let addr = gateway.addr;
        std::thread::scope(|scope| {
            for customer in &mut customers {
                scope.spawn(move || customer.work(addr));
            }
        });
        assert_eq!(gateway.wait().signal(), Some(9), "{}", gateway.stderr());
    }
    rewards.unlimited();
    let gateway = setup.start();
    let (mut complete, mut unknown) = (0, 0);
    for customer in &customers {
        for items in &customer.all {
            let reply = customer.request(items).send(gateway.addr);
            let body = reply.json();
            for ((id, _, wanted), row) in items.iter().zip(body["rewards"].as_array().unwrap()) {
                let issued = rewards.issued(id);
                let shown = row["quantity"].as_u64().unwrap();
                assert!(issued <= *wanted, "{id}: {issued} of {wanted}");
                if row["status"]["code"] == 1010 {
                    unknown += 1;
                    assert!(shown <= issued, "{id}: shown {shown}, issued {issued}");
                } else {
                    complete += 1;
                    assert_eq!((shown, issued), (*wanted, *wanted), "{id}: {row}");
                    assert_eq!(row["intouch"].as_array().map(Vec::len), Some(shown as usize));
                }
            }
        }
    }
    println!("{complete} items complete, {unknown} unknown");
    assert!(complete > 0 && unknown > 0, "the trial saw nothing");
}
