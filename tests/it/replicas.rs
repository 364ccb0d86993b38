//! Several replicas on one real store: what is promised of one gateway is promised of all together.

use std::time::Duration;

use crate::servers::Direction;
use crate::support::{Act, Backend, Gate, Kind, Request, Setup, Shop, answer, at_once, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// A backend whose first answer waits for the gate.
fn held(gate: &Gate) -> Backend {
    let backend = Backend::start();
    let gate = gate.clone();
    backend.script(move |seen| {
        answer(200, &format!(r#"{{"execution":{}}}"#, seen.number)).after(&gate)
    });
    backend
}

#[test]
fn a_hundred_duplicates_over_all_replicas_make_one_call_and_get_one_answer() {
    Kind::all(|kind| {
        for count in [2, 3] {
            let gate = Gate::default();
            let backend = held(&gate);
            let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#);
            let replicas = Shop::borrow(kind).replicas(&setup, count);
            let mut conns = at_once(100, |index| {
                Request::redeem("k", BODY).begin(replicas[index % count].addr)
            });
            backend.wait_calls(1);
            gate.open();
            let answers: Vec<_> = conns.iter_mut().map(|conn| conn.read()).collect();
            let reply = |wanted: &str| {
                answers.iter().filter(|answer| answer.disposition() == wanted).count()
            };
            assert_eq!((reply("executed"), reply("replayed")), (1, 99));
            let kept = answers[0].kept();
            assert!(answers.iter().all(|answer| answer.kept() == kept));
            for replica in &replicas {
                let again = Request::redeem("k", BODY).send(replica.addr);
                again.is(200, "replayed", "");
                assert_eq!(again.kept(), kept);
            }
            assert_eq!(backend.calls(), 1);
        }
    });
}

#[test]
fn replicas_that_race_for_keys_make_one_call_for_each() {
    Kind::all(|kind| {
        let backend = Backend::start();
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#);
        let replicas = Shop::borrow(kind).replicas(&setup, 3);
        for round in 0..10 {
            let key = format!("k-{round}");
            let body = format!(r#"{{"qr":"{round}"}}"#);
            let answers =
                at_once(12, |index| Request::redeem(&key, &body).send(replicas[index % 3].addr));
            assert!(answers.iter().all(|reply| reply.status == 200), "{answers:?}");
            assert!(answers.iter().all(|reply| reply.kept() == answers[0].kept()), "{answers:?}");
        }
        assert_eq!(backend.calls(), 10);
        assert!(backend.executions().values().all(|count| *count == 1));
    });
}

#[test]
fn another_request_under_the_key_is_refused_by_every_replica_also_while_the_first_is_in_flight() {
    Kind::all(|kind| {
        let gate = Gate::default();
        let backend = held(&gate);
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#);
        let replicas = Shop::borrow(kind).replicas(&setup, 2);
        let mut first = Request::redeem("k", r#"{"qr":"hidden-1","n":1}"#).begin(replicas[0].addr);
        backend.wait_calls(1);
        let other = Request::redeem("k", r#"{"qr":"hidden-2","n":1}"#);
        let check = || {
            for replica in &replicas {
                let reply = other.send(replica.addr);
                reply.is(422, "rejected", "key-reused");
                assert!(reply.text().contains(r#""qr""#) && !reply.text().contains("hidden"));
            }
        };
        // The first call cannot end before: it was not waited for.
        check();
        gate.open();
        first.read().is(200, "executed", "");
        check();
        assert_eq!(backend.calls(), 1);
    });
}

#[test]
fn tenants_do_not_meet_under_one_key_on_different_replicas() {
    Kind::all(|kind| {
        let gate = Gate::default();
        let backend = Backend::start();
        let waits = gate.clone();
        backend.script(move |seen| {
            let tenant = seen.header("x-api-key").unwrap_or_default();
            let act = answer(200, &format!(r#"{{"for":"{tenant}"}}"#));
            if tenant == "a" { act.after(&waits) } else { act }
        });
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "0s""#);
        let replicas = Shop::borrow(kind).replicas(&setup, 2);
        let of = |tenant: &str| Request::redeem("k", BODY).tenant(tenant);
        let mut first = of("a").begin(replicas[0].addr);
        backend.wait_calls(1);
        of("b").send(replicas[1].addr).is(200, "executed", "");
        gate.open();
        first.read().is(200, "executed", "");
        for (replica, tenant) in [(0, "b"), (1, "a")] {
            let reply = of(tenant).send(replicas[replica].addr);
            reply.is(200, "replayed", "");
            assert_eq!(reply.text(), format!(r#"{{"for":"{tenant}"}}"#));
        }
        assert_eq!(backend.calls(), 2);
    });
}

#[test]
fn a_duplicate_on_another_replica_waits_no_longer_than_its_time() {
    Kind::all(|kind| {
        for wait in ["0s", "300ms"] {
            let gate = Gate::default();
            let backend = held(&gate);
            let setup = Setup::before(&backend).redeem(&format!("duplicates.wait = \"{wait}\""));
            let replicas = Shop::borrow(kind).replicas(&setup, 2);
            let mut first = Request::redeem("k", BODY).begin(replicas[0].addr);
            backend.wait_calls(1);
            let reply = Request::redeem("k", BODY).send(replicas[1].addr);
            reply.is(409, "in-progress", "request-in-progress");
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
            gate.open();
            first.read().is(200, "executed", "");
            Request::redeem("k", BODY).send(replicas[1].addr).is(200, "replayed", "");
            assert_eq!(backend.calls(), 1);
        }
    });
}

#[test]
fn only_so_many_duplicates_wait_for_another_replica() {
    Kind::both(|kind| {
        let gate = Gate::default();
        let backend = held(&gate);
        let setup =
            Setup::before(&backend).redeem("duplicates.wait = \"30s\"\nduplicates.max_waiters = 2");
        let replicas = Shop::borrow(kind).replicas(&setup, 2);
        let mut firsts: Vec<_> = (0..6)
            .map(|key| Request::redeem(&format!("k-{key}"), BODY).begin(replicas[0].addr))
            .collect();
        backend.wait_calls(6);
        let mut others: Vec<_> = (0..6)
            .map(|key| Request::redeem(&format!("k-{key}"), BODY).begin(replicas[1].addr))
            .collect();
        let mut refused = Vec::new();
        eventually("four of six are refused", || {
            let reply =
                others.iter_mut().position(|conn| conn.readable_within(Duration::from_millis(10)));
            if let Some(index) = reply {
                refused.push(others.remove(index).read());
            }
            (refused.len() == 4).then_some(())
        });
        for reply in &refused {
            reply.is(409, "in-progress", "request-in-progress");
        }
        gate.open();
        firsts.iter_mut().for_each(|first| assert_eq!(first.read().disposition(), "executed"));
        others.iter_mut().for_each(|other| assert_eq!(other.read().disposition(), "replayed"));
        assert_eq!(backend.calls(), 6);
    });
}

#[test]
fn what_one_replica_does_not_know_no_replica_tries_again() {
    Kind::all(|kind| {
        let gate = Gate::default();
        let backend = Backend::start();
        backend.always(Act::close().after(&gate));
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#);
        let replicas = Shop::borrow(kind).replicas(&setup, 2);
        let mut first = Request::redeem("k", BODY).begin(replicas[0].addr);
        backend.wait_calls(1);
        let mut waits = Request::redeem("k", BODY).begin(replicas[1].addr);
        gate.open();
        first.read().is(502, "unknown", "outcome-unknown");
        let reply = waits.read();
        assert_eq!(
            (reply.disposition(), reply.error()),
            ("unknown".into(), "outcome-unknown".into())
        );
        for replica in &replicas {
            Request::redeem("k", BODY).send(replica.addr).is(409, "unknown", "outcome-unknown");
        }
        assert_eq!(backend.calls(), 1);
    });
}

#[test]
fn what_one_replica_could_not_send_another_may() {
    Kind::all(|kind| {
        let backend = Backend::refusing();
        let replicas = Shop::borrow(kind).replicas(&Setup::before(&backend), 2);
        let refused = Request::redeem("k", BODY).send(replicas[0].addr);
        refused.is(502, "not-executed", "upstream-unreachable");
        backend.listen();
        Request::redeem("k", BODY).send(replicas[1].addr).is(200, "executed", "");
        Request::redeem("k", BODY).send(replicas[0].addr).is(200, "replayed", "");
        assert_eq!(backend.calls(), 1);
    });
}

#[test]
fn a_duplicate_that_waited_for_a_released_call_makes_its_own() {
    Kind::all(|kind| {
        let gate = Gate::default();
        let backend = Backend::start();
        let waits = gate.clone();
        backend.script(move |seen| match seen.number {
            0 => answer(429, r#"{"slow":"down"}"#).after(&waits),
            _ => answer(200, "{}"),
        });
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#);
        let replicas = Shop::borrow(kind).replicas(&setup, 2);
        let mut first = Request::redeem("k", BODY).begin(replicas[0].addr);
        backend.wait_calls(1);
        let mut second = Request::redeem("k", BODY).begin(replicas[1].addr);
        gate.open();
        assert_eq!(first.read().summary(), (429, "not-executed".into(), String::new()));
        second.read().is(200, "executed", "");
        assert_eq!(backend.calls(), 2);
    });
}

#[test]
fn one_place_to_wait_is_enough_for_one_of_several_duplicates_elsewhere() {
    Kind::both(|kind| {
        let gate = Gate::default();
        let backend = Backend::start();
        backend.always(answer(200, "{}").after(&gate));
        let lines = "duplicates = { wait = \"30s\", max_waiters = 1 }";
        let (shop, setup) = (Shop::borrow(kind), Setup::before(&backend).redeem(lines));
        let first = shop.replica(&setup, "");
        let (second, chaos) = shop.replica_behind(&setup, "");
        let mut call = Request::redeem("k", BODY).begin(first.addr);
        backend.wait_calls(1);
        let asked = chaos.messages(Direction::ToServer);
        let mut waits = at_once(3, |_| Request::redeem("k", BODY).begin(second.addr));
        eventually("somebody looks again and again", || {
            (chaos.messages(Direction::ToServer) - asked >= 8).then_some(())
        });
        gate.open();
        call.read().is(200, "executed", "");
        let received: Vec<String> =
            waits.iter_mut().map(|wait| wait.read().disposition()).collect();
        assert!(received.iter().any(|received| received == "replayed"), "{received:?}");
        assert!(
            received.iter().all(|received| received == "replayed" || received == "in-progress"),
            "{received:?}"
        );
        assert_eq!(backend.calls(), 1);
    });
}

#[test]
fn a_duplicate_waits_though_another_request_under_its_key_came_before_it() {
    const KEYS: usize = 12;
    Kind::both(|kind| {
        let gate = Gate::default();
        let backend = Backend::start();
        backend.always(answer(200, "{}").after(&gate));
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#);
        let shop = Shop::borrow(kind);
        let first = shop.replica(&setup, "");
        let (second, chaos) = shop.replica_behind(&setup, "");
        let send =
            |key: usize, body: &str, to| Request::redeem(&format!("k-{key}"), body).begin(to);
        let mut calls: Vec<_> = (0..KEYS).map(|key| send(key, BODY, first.addr)).collect();
        backend.wait_calls(KEYS);
        let asked = chaos.messages(Direction::ToServer);
        let to = second.addr;
        let pair = |key| (send(key, r#"{"qr":"other"}"#, to), send(key, BODY, to));
        let mut pairs: Vec<_> = (0..KEYS).map(pair).collect();
        eventually("they wait and look again", || {
            (chaos.messages(Direction::ToServer) - asked >= 3 * KEYS as u64).then_some(())
        });
        gate.open();
        calls.iter_mut().for_each(|call| _ = call.read().is(200, "executed", ""));
        for (other, same) in &mut pairs {
            other.read().is(422, "rejected", "key-reused");
            same.read().is(200, "replayed", "");
        }
        assert_eq!(backend.calls(), KEYS);
    });
}

#[test]
fn the_status_of_a_key_is_the_same_on_every_replica() {
    Kind::all(|kind| {
        let gate = Gate::default();
        let backend = held(&gate);
        let replicas = Shop::borrow(kind).replicas(&Setup::before(&backend), 2);
        let state = |replica: usize| {
            let asked = Request::get("/.well-known/idempotency/status").key("k");
            asked.send(replicas[replica].addr).json()["state"].clone()
        };
        let mut first = Request::redeem("k", BODY).begin(replicas[0].addr);
        backend.wait_calls(1);
        assert_eq!((state(0), state(1)), ("in_flight".into(), "in_flight".into()));
        gate.open();
        first.read().is(200, "executed", "");
        assert_eq!((state(0), state(1)), ("final".into(), "final".into()));
    });
}

/// Waiters look for themselves at intervals that have grown to about a second; who is woken does
/// not wait for that. That all of many waiters were looking by chance just when their calls ended
/// is as good as impossible; that a busy machine is slow in every round is, too.
#[test]
fn a_waiting_duplicate_is_woken_and_need_not_look_for_itself() {
    const KEYS: usize = 16;
    const ROUNDS: usize = 20;
    const SOON: Duration = Duration::from_millis(250);
    Kind::both(|kind| {
        let backend = Backend::start();
        let shop = Shop::borrow(kind);
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#);
        let first = shop.replica(&setup, "");
        let (second, chaos) = shop.replica_behind(&setup, "");
        let mut slowest = Vec::new();
        for round in 0..ROUNDS {
            let gate = Gate::default();
            backend.always(answer(200, "{}").after(&gate));
            let send = |key: usize, to| {
                let key = format!("k-{round}-{key}");
                Request::redeem(&key, &format!(r#"{{"qr":"{key}"}}"#)).begin(to)
            };
            let mut calls: Vec<_> = (0..KEYS).map(|key| send(key, first.addr)).collect();
            backend.wait_calls((round + 1) * KEYS);
            let asked = chaos.messages(Direction::ToServer);
            let mut waits: Vec<_> = (0..KEYS).map(|key| send(key, second.addr)).collect();
            // Each has looked several times: the next look is far away.
            eventually("all wait", || {
                let since = chaos.messages(Direction::ToServer) - asked;
                (since >= 5 * KEYS as u64).then_some(())
            });
            gate.open();
            calls.iter_mut().for_each(|call| assert_eq!(call.read().disposition(), "executed"));
            let ended = std::time::Instant::now();
            waits.iter_mut().for_each(|wait| assert_eq!(wait.read().disposition(), "replayed"));
            if ended.elapsed() < SOON {
                return;
            }
            slowest.push(ended.elapsed());
        }
        panic!("nobody was woken in {ROUNDS} rounds: {slowest:?}");
    });
}
