//! Replicas on a PostgreSQL behind PgBouncer in transaction mode: what is promised holds, and waiters
//! look for themselves, since a pooler swallows messages.

use std::time::Duration;

use crate::servers::Direction;
use crate::support::{Backend, Gate, Request, Setup, Shop, answer, at_once, eventually};

fn redeem(key: &str) -> Request {
    Request::redeem(key, &format!(r#"{{"qr":"{key}"}}"#))
}

#[test]
fn a_herd_over_all_replicas_makes_one_call_and_gets_one_answer() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, r#"{"n":1}"#).after(&gate));
    let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#);
    let shop = Shop::pooled();
    let replicas = shop.replicas(&setup, 3);
    let mut conns = at_once(60, |index| redeem("k").begin(replicas[index % 3].addr));
    backend.wait_calls(1);
    gate.open();
    let answers: Vec<_> = conns.iter_mut().map(|conn| conn.read()).collect();
    let executed = answers.iter().filter(|reply| reply.disposition() == "executed").count();
    assert_eq!((executed, backend.calls()), (1, 1));
    assert!(answers.iter().all(|reply| reply.kept() == answers[0].kept()));
    assert_eq!(shop.in_flight(), 0);
}

#[test]
fn many_keys_over_all_replicas_run_once_each() {
    let backend = Backend::start();
    let shop = Shop::pooled();
    let replicas = shop.replicas(&Setup::before(&backend), 3);
    let reply = at_once(24, |index| {
        (0..10)
            .map(|n| redeem(&format!("k-{}-{n}", index / 2)).send(replicas[index % 3].addr))
            .filter(|reply| reply.status == 200)
            .count()
    });
    assert_eq!(reply.iter().sum::<usize>(), 24 * 10);
    assert_eq!(backend.executions().len(), 12 * 10);
    assert!(backend.executions().values().all(|count| *count == 1));
    assert_eq!(shop.in_flight(), 0);
}

#[test]
fn a_waiter_that_nobody_wakes_looks_for_itself_and_not_too_often() {
    /// Long enough for several looks.
    const HELD: Duration = Duration::from_secs(3);
    /// A look is one message, and so is a renewal of the lease (2 a second here); a new connection
    /// has six.
    const MOST: u64 = 60;
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, r#"{"n":1}"#).after(&gate));
    let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#);
    let shop = Shop::pooled();
    let owner = shop.replica(&setup, "");
    let (other, chaos) = shop.replica_behind(&setup, "");
    let mut first = redeem("k").begin(owner.addr);
    backend.wait_calls(1);
    let before = chaos.messages(Direction::ToServer);
    let mut waits: Vec<_> = (0..20).map(|_| redeem("k").begin(other.addr)).collect();
    // Not to wait for anything: what is asked within this time is counted.
    std::thread::sleep(HELD);
    let asked = chaos.messages(Direction::ToServer) - before;
    assert!((3..=MOST).contains(&asked), "{asked} messages in {HELD:?}");
    gate.open();
    first.read().is(200, "executed", "");
    waits.iter_mut().for_each(|wait| _ = wait.read().is(200, "replayed", ""));
    assert_eq!(backend.calls(), 1);
}

#[test]
fn the_way_to_the_pooler_may_be_cut_at_every_message() {
    let backend = Backend::start();
    let shop = Shop::pooled();
    let setup = Setup::before(&backend);
    let (cut, chaos) = shop.replica_behind(&setup, "");
    let whole = shop.replica(&setup, "");
    for direction in [Direction::ToServer, Direction::ToClient] {
        for count in 0..8 {
            let key = format!("k-{direction:?}-{count}");
            chaos.cut_after_messages(direction, count);
            let reply = redeem(&key).send(cut.addr);
            chaos.keep();
            match (reply.status, reply.disposition().as_str()) {
                (200, "executed" | "unrecorded") | (503, "rejected") => {}
                _ => panic!("{key}: {reply:?}"),
            }
            let last = eventually("the key has an answer", || {
                let again = redeem(&key).send(whole.addr);
                (again.status == 200).then_some(again)
            });
            if reply.status == 200 {
                assert_eq!(last.kept(), reply.kept(), "{key}");
            }
        }
    }
    assert!(backend.executions().values().all(|count| *count == 1));
    eventually("nothing is in flight", || (shop.in_flight() == 0).then_some(()));
}
