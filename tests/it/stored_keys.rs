//! `stored_keys_per_tenant`: a caller cannot fill the store, and keeps what it has stored.

use crate::support::rewards::{batch, issue};
use crate::support::shared::{Kind, Shop};
use crate::support::{Backend, Gateway, Request, Rewards, Setup, answer, at_once, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn limited(backend: &Backend) -> Setup {
    Setup::before(backend).limits("stored_keys_per_tenant = 4")
}

fn new_key(gateway: &Gateway, caller: &str, key: &str) -> String {
    let reply = Request::redeem(key, BODY).tenant(caller).send(gateway.addr);
    if reply.error() == "quota-exceeded" {
        reply.is(429, "rejected", "quota-exceeded");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
    }
    reply.disposition().to_owned()
}

/// Sends new keys until one is refused; returns the number of those that were stored. Keys of
/// earlier processes limit a caller as soon as they were counted.
fn fill(gateway: &Gateway, caller: &str, prefix: &str) -> usize {
    let mut stored = 0;
    eventually("the caller is limited", || {
        match new_key(gateway, caller, &format!("{prefix}-{stored}")).as_str() {
            "rejected" => Some(stored),
            _ => {
                stored += 1;
                None
            }
        }
    })
}

/// The limit holds for new keys of one caller, after restarts too.
fn holds(setup: impl Fn() -> Gateway, backend: &Backend) {
    let gateway = setup();
    assert!(fill(&gateway, "a", "k") >= 4);
    let calls = backend.calls();
    assert_eq!(new_key(&gateway, "a", "more"), "rejected");
    assert_eq!(new_key(&gateway, "a", "k-0"), "replayed");
    assert_eq!(new_key(&gateway, "b", "k-0"), "executed");
    assert_eq!(backend.calls(), calls + 1);
    drop(gateway);
    let gateway = setup();
    // The first keys may pass before the count; the count has found those of before.
    fill(&gateway, "a", "later");
    assert_eq!(new_key(&gateway, "a", "k-1"), "replayed");
}

#[test]
fn a_caller_stores_so_many_keys_and_no_more_in_a_directory() {
    let backend = Backend::start();
    let setup = limited(&backend);
    holds(|| setup.start(), &backend);
}

#[test]
fn a_caller_stores_so_many_keys_and_no_more_on_servers() {
    Kind::all(|kind| {
        let backend = Backend::start();
        let (shop, setup) = (Shop::borrow(kind), limited(&backend));
        holds(|| shop.replica(&setup, ""), &backend);
    });
}

/// Each replica counts the keys of the others, and both limit the caller in the end.
#[test]
fn two_replicas_limit_a_caller_alike() {
    Kind::both(|kind| {
        let backend = Backend::start();
        let (shop, setup) = (Shop::borrow(kind), limited(&backend));
        let replicas = shop.replicas(&setup, 2);
        assert!(fill(&replicas[0], "a", "one") >= 4);
        // The second replica counts those keys when the caller first comes to it.
        fill(&replicas[1], "a", "two");
        let calls = backend.calls();
        for replica in &replicas {
            assert_eq!(new_key(replica, "a", "more"), "rejected");
            assert_eq!(new_key(replica, "a", "one-0"), "replayed");
        }
        assert_eq!(new_key(&replicas[1], "b", "one-0"), "executed");
        assert_eq!(backend.calls(), calls + 1);
    });
}

#[test]
fn keys_that_expire_make_room() {
    let backend = Backend::start();
    let setup = limited(&backend).redeem("record = { retention = \"4s\", tombstone = \"1s\" }");
    let gateway = setup.start();
    assert!(fill(&gateway, "a", "k") >= 4);
    eventually("expired keys make room", || {
        (new_key(&gateway, "a", "after") == "executed").then_some(())
    });
}

#[test]
fn keys_of_requests_that_were_not_executed_take_no_room() {
    let backend = Backend::start();
    let gateway = limited(&backend).start();
    backend.always(answer(429, "{}"));
    for number in 0..12 {
        assert_eq!(new_key(&gateway, "a", &format!("k-{number}")), "not-executed");
    }
    backend.always(answer(200, "{}"));
    for number in 0..4 {
        assert_eq!(new_key(&gateway, "a", &format!("k-{number}")), "executed");
    }
    assert_eq!(backend.calls(), 16);
}

#[test]
fn items_of_a_batch_that_was_not_sent_take_no_room() {
    let gateway = limited(&Backend::refusing())
        .route(
            "name = \"issue\"\nmethods = [\"POST\"]\npath = \"/issue\"\nmode = \"items\"\n\
             profile = \"capillary\"",
        )
        .start();
    for number in 0..6 {
        let (one, other) = (format!("r-{number}"), format!("s-{number}"));
        let reply = issue(&batch("+65", &[(&one, "R1", 1), (&other, "R1", 1)]));
        reply.send(gateway.addr).is(502, "not-executed", "upstream-unreachable");
    }
}

#[test]
fn a_purged_key_is_a_stored_key_until_its_tombstone_ends() {
    let backend = Backend::start();
    let setup = limited(&backend).admin("token = \"t\"");
    let gateway = setup.start();
    fill(&gateway, "a", "k");
    let admin = |request: Request| request.header("authorization", "Bearer t").send(gateway.admin);
    let listed = admin(Request::get("/api/records")).json();
    let id = listed["records"][0]["id"].as_str().unwrap().to_owned();
    let purged = admin(Request::new("DELETE", &format!("/api/records/{id}")));
    assert!((200..300).contains(&purged.status), "{purged:?}");
    assert_eq!(new_key(&gateway, "a", "more"), "rejected");
}

#[test]
fn once_counted_a_caller_cannot_pass_its_limit_by_sending_at_once() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).limits("stored_keys_per_tenant = 40");
    let gateway = setup.start();
    fill(&gateway, "a", "k");
    let reply = at_once(32, |index| new_key(&gateway, "a", &format!("many-{index}")));
    assert!(reply.iter().all(|reply| reply == "rejected"), "{reply:?}");
}

#[test]
fn items_of_batches_are_keys_and_a_batch_without_room_is_refused_as_a_whole() {
    let rewards = Rewards::start();
    let gateway = rewards.setup("").limits("stored_keys_per_tenant = 4").start();
    let send = |ids: [&str; 2]| {
        let items = ids.map(|id| (id, "R1", 1));
        issue(&batch("+65", &items)).send(gateway.addr)
    };
    let mut last = 0;
    let full = eventually("the caller is limited", || {
        let reply = send([&format!("r-{last}"), &format!("s-{last}")]);
        last += 1;
        (reply.error() == "quota-exceeded").then_some(reply)
    });
    full.is(429, "rejected", "quota-exceeded");
    let sent = rewards.sent().len();
    send(["r-0", "s-0"]).is(200, "replayed", "");
    send(["r-0", "new"]).is(429, "rejected", "quota-exceeded");
    assert_eq!(rewards.sent().len(), sent);
}
