//! The connection to the store is cut at every step of a claim and of a completion.

use crate::servers::Direction;
use crate::support::rng::Rng;
use crate::support::{Backend, Gate, Gateway, Kind, Request, Setup, Shop, answer, eventually};

/// More messages than any exchange with a store has.
const MOST_MESSAGES: u64 = 60;
/// More bytes than any exchange with a store has.
const MOST_BYTES: u64 = 40_000;

fn redeem(key: &str) -> Request {
    Request::redeem(key, &format!(r#"{{"qr":"{key}"}}"#))
}

/// What a client may be told: the truth.
#[track_caller]
fn check(
    (key, backend): (&str, &Backend),
    reply: &crate::support::Response,
    (cut, whole): (&Gateway, &Gateway),
) {
    let ran = || backend.executions().get(&format!(r#"{{"qr":"{key}"}}"#)).copied().unwrap_or(0);
    match (reply.status, reply.disposition().as_str(), reply.error().as_str()) {
        (200, "executed" | "unrecorded", "") => assert_eq!(ran(), 1),
        (503, "rejected", "store-unavailable") => assert_eq!(ran(), 0, "{key} was sent"),
        _ => panic!("{key}: {reply:?}"),
    }
    // Nothing is stuck: the answer is recorded, or the claim is withdrawn.
    let last = eventually("the key has an answer", || {
        let again = redeem(key).send(whole.addr);
        assert_ne!(again.error(), "outcome-unknown", "{key}: {again:?}");
        (again.status == 200).then_some(again)
    });
    if reply.status == 200 {
        assert_eq!(last.kept(), reply.kept(), "{key}");
        assert_eq!(last.disposition(), "replayed", "{key}");
    }
    let again = eventually("the store is there for the one that was cut", || {
        let again = redeem(key).send(cut.addr);
        (again.status == 200).then_some(again)
    });
    assert_eq!((again.kept(), again.disposition()), (last.kept(), "replayed".to_owned()), "{key}");
    assert_eq!(ran(), 1, "{key}");
}

/// Sends a key for each cut until none comes any more; `order` orders the cut after `count`.
fn cut_everywhere(
    kind: Kind,
    completion: bool,
    most: u64,
    mut next: impl FnMut(u64) -> u64,
    order: impl Fn(&crate::servers::Chaos, Direction, u64),
) {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let backend = Backend::start();
        let shop = Shop::borrow(kind);
        let setup = Setup::before(&backend);
        let (cut, chaos) = shop.replica_behind(&setup, "");
        let whole = shop.replica(&setup, "");
        let (mut count, mut cuts) = (0, 0);
        loop {
            let key = format!("k-{count}");
            let gate = Gate::default();
            backend.always(answer(200, &format!(r#"{{"for":"{key}"}}"#)).after(&gate));
            let reply = if completion {
                let calls = backend.calls();
                let mut call = redeem(&key).begin(cut.addr);
                backend.wait_calls(calls + 1);
                order(&chaos, direction, count);
                gate.open();
                call.read()
            } else {
                gate.open();
                order(&chaos, direction, count);
                redeem(&key).send(cut.addr)
            };
            let came = !chaos.cut_is_due();
            chaos.keep();
            check((&key, &backend), &reply, (&cut, &whole));
            if !came {
                break;
            }
            cuts += 1;
            count = next(count);
            assert!(count < most, "no exchange with a store is so long: {count}");
        }
        assert!(cuts > 0, "nothing was cut");
        eventually("nothing is in flight", || (shop.in_flight() == 0).then_some(()));
    }
}

#[test]
fn a_claim_may_be_cut_after_every_message() {
    Kind::both(|kind| {
        cut_everywhere(
            kind,
            false,
            MOST_MESSAGES,
            |count| count + 1,
            |chaos, direction, count| chaos.cut_after_messages(direction, count),
        );
    });
}

#[test]
fn a_completion_may_be_cut_after_every_message() {
    Kind::both(|kind| {
        cut_everywhere(
            kind,
            true,
            MOST_MESSAGES,
            |count| count + 1,
            |chaos, direction, count| chaos.cut_after_messages(direction, count),
        );
    });
}

#[test]
fn a_claim_may_be_cut_within_a_message() {
    let mut rng = Rng::seeded("a_claim_may_be_cut_within_a_message");
    Kind::both(|kind| {
        cut_everywhere(
            kind,
            false,
            MOST_BYTES,
            |count| count + 1 + rng.below(300),
            |chaos, direction, count| chaos.cut_after_bytes(direction, count),
        );
    });
}

#[test]
fn a_completion_may_be_cut_within_a_message() {
    let mut rng = Rng::seeded("a_completion_may_be_cut_within_a_message");
    Kind::both(|kind| {
        cut_everywhere(
            kind,
            true,
            MOST_BYTES,
            |count| count + 1 + rng.below(300),
            |chaos, direction, count| chaos.cut_after_bytes(direction, count),
        );
    });
}
