//! A primary dies under load and its standby takes over: no answer that was given is lost.

use std::sync::{Arc, Mutex};

use crate::servers::{PostgresPair, RedisReplicas};
use crate::support::rng::Rng;
use crate::support::tills::{Addresses, Tills, working_backend};
use crate::support::{Backend, Gateway, Request, Setup, eventually};

const SHORT: &str = "lease = \"2s\"";

fn redeem(key: &str) -> Request {
    Request::redeem(key, &format!(r#"{{"qr":"{key}"}}"#))
}

fn postgres(pair: &PostgresPair) -> String {
    let url = pair.primary().url("postgres");
    let (head, tail) = url.rsplit_once(':').expect("a port");
    let (_, path) = tail.split_once('/').expect("a database");
    let (first, second) = (pair.primary().port(), pair.standby().port());
    let url = format!("{head}:{first},127.0.0.1:{second}/{path}?target_session_attrs=read-write");
    format!("[store.postgres]\nurl = {url:?}\n{SHORT}")
}

fn redis(servers: &RedisReplicas) -> String {
    let urls: Vec<String> = servers.servers().iter().map(|server| server.url()).collect();
    format!("[store.redis]\nurls = {urls:?}\nreplicas = 1\n{SHORT}")
}

/// Tills at two replicas while `fail_over` runs; everything they were told still holds after it.
fn trial(name: &str, table: &str, fail_over: impl FnOnce()) {
    let mut rng = Rng::seeded(name);
    let backend = working_backend();
    let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "200ms""#);
    let replicas: Vec<Gateway> = (0..2).map(|_| setup.elsewhere().on(table).start()).collect();
    let addresses: Addresses =
        Arc::new(Mutex::new(replicas.iter().map(|replica| replica.addr).collect()));
    let mut tills = Tills::new(6, &mut rng);
    let further = |count: usize| backend.wait_calls(backend.calls() + count);
    tills.work(&addresses, || {
        further(50 + usize::try_from(rng.below(50)).unwrap());
        fail_over();
        further(50);
    });
    tills.verify(&addresses, &backend);
}

#[test]
fn a_failover_of_postgres_loses_no_answer_and_runs_nothing_twice() {
    let pair = PostgresPair::start(&[]);
    let table = postgres(&pair);
    trial("a_failover_of_postgres", &table, || {
        pair.fail_over();
    });
}

#[test]
fn a_failover_of_redis_loses_no_answer_that_a_replica_confirmed() {
    let servers = RedisReplicas::start(2, &[]);
    let table = redis(&servers);
    trial("a_failover_of_redis", &table, || {
        servers.fail_over();
    });
}

/// Fails closed while nobody confirms, and goes on afterwards.
fn check_unconfirmed(table: &str, (leave, back): (impl FnOnce(), impl FnOnce())) {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let replicas: Vec<Gateway> = (0..2).map(|_| setup.elsewhere().on(table).start()).collect();
    redeem("before").send(replicas[0].addr).is(200, "executed", "");
    leave();
    for replica in &replicas {
        redeem("during").send(replica.addr).is(503, "rejected", "store-unavailable");
    }
    assert_eq!(backend.calls(), 1, "sent on a claim that only one server has");
    back();
    let reply = eventually("the key runs", || {
        let reply = redeem("during").send(replicas[0].addr);
        println!("{reply:?}");
        (reply.status == 200).then_some(reply)
    });
    assert_eq!(
        redeem("during").send(replicas[1].addr).is(200, "replayed", "").kept(),
        reply.kept()
    );
    assert_eq!(backend.calls(), 2);
}

#[test]
fn a_claim_that_no_standby_confirmed_is_none() {
    let pair = PostgresPair::start(&[]);
    let leave = || pair.standby().stop();
    let back = || {
        pair.standby().restart();
        pair.until_synchronous();
    };
    check_unconfirmed(&postgres(&pair), (leave, back));
}

#[test]
fn a_claim_that_no_replica_confirmed_is_none() {
    let servers = RedisReplicas::start(1, &[]);
    let follower = &servers.servers()[1];
    let leave = || follower.stop();
    let back = || {
        follower.restart();
        servers.until_linked();
    };
    check_unconfirmed(&redis(&servers), (leave, back));
}
