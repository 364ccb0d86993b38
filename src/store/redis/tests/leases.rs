//! Leases by the server's clock, and messages.

use tokio::sync::mpsc;

use super::*;
use crate::idempotency::record::Nonce;
use crate::shutdown;
use crate::store::shared::message::{EVERYONE, Message};

const LONG: Duration = Duration::from_secs(600);

async fn claimed_by(engine: &Redis, n: RecordId, owner: Nonce) {
    let claim = Record { owner, ..samples::claim(1) };
    let claim = [group(vec![put_new(n, claim)])];
    assert_eq!(engine.commit(0, &claim).await.unwrap(), [CasResult::Done]);
}

fn abandoned() -> Query {
    Query { abandoned: true, limit: 100, ..Query::default() }
}

#[tokio::test]
async fn claims_are_abandoned_when_their_owner_has_no_lease() {
    let cluster = servers::RedisCluster::start(&[]);
    for options in [fresh(), clustered(&cluster, "oncegate")] {
        let engine = open(&options).await;
        let (one, two) = ([1; 16], [2; 16]);
        let before = crate::clock::now();
        let now = engine.heartbeat(one, LONG).await.unwrap();
        assert!(now >= before && now <= crate::clock::now(), "{now:?}");
        engine.heartbeat(two, LONG).await.unwrap();
        for (n, owner) in [(at(0, 1), one), (at(3, 2), two), (at(9, 3), one), (at(9, 4), [3; 16])] {
            claimed_by(&engine, n, owner).await;
        }
        assert_eq!(listed(&engine, abandoned()).await, [at(9, 4)]);
        engine.leave(one).await.unwrap();
        assert_eq!(listed(&engine, abandoned()).await, [at(0, 1), at(9, 3), at(9, 4)]);
        let page = Query {
            after: Some(crate::store::ListPosition { first_seen: samples::T0, id: at(9, 4) }),
            limit: 1,
            ..abandoned()
        };
        assert_eq!(listed(&engine, page).await, [at(9, 3)]);
        // An ended lease does not count.
        engine.heartbeat(two, Duration::ZERO).await.unwrap();
        let all = [at(0, 1), at(3, 2), at(9, 3), at(9, 4)];
        assert_eq!(listed(&engine, abandoned()).await, all);
        // An unknown record is not in flight.
        let reason = crate::idempotency::outcome::UnknownReason::Timeout;
        let unknown = Record { owner: two, ..samples::claim(1) }.lost(reason, samples::T0);
        let unknown = [group(vec![replace(at(3, 2), 1, Some(unknown))])];
        assert_eq!(engine.commit(0, &unknown).await.unwrap(), [CasResult::Done]);
        assert_eq!(listed(&engine, abandoned()).await, [at(0, 1), at(9, 3), at(9, 4)]);
    }
}

#[tokio::test]
async fn a_heartbeat_removes_leases_that_ended_long_ago() {
    let options = fresh();
    let engine = open(&options).await;
    let database = options.urls[0].rsplit('/').next().unwrap();
    let cli = |args: &[&str]| servers::Redis::shared().cli(&[&["-n", database], args].concat());
    let replicas = "oncegate:{meta}:replicas";
    let now = crate::clock::now().as_millis();
    for (age, name) in [(3_660_000, "old"), (3_540_000, "new")] {
        cli(&["ZADD", replicas, &(now - age).to_string(), name]);
    }
    engine.heartbeat([0xab; 16], LONG).await.unwrap();
    assert_eq!(cli(&["ZRANGE", replicas, "0", "-1"]), format!("new\n{}", "ab".repeat(16)));
}

/// Sends a message until it is received: messages before the subscription are lost.
async fn send_until_received(
    engine: &Redis,
    to: Nonce,
    message: Message,
    heard: &mut mpsc::Receiver<Message>,
) {
    let said = async {
        loop {
            // Fails while the server is away.
            let _ = engine.publish(vec![(to, message)]).await;
            let next = tokio::time::timeout(Duration::from_millis(50), heard.recv()).await;
            // Messages of earlier attempts may still arrive.
            if next == Ok(Some(message)) {
                return;
            }
        }
    };
    tokio::time::timeout(LONG_LIMIT, said).await.expect("no message was received");
}

async fn check_messages(options: RedisOptions, servers: &[&servers::Redis]) {
    let (one, two) = (open(&options).await, open(&options).await);
    let (owner, stranger) = ([0xab; 16], [0xcd; 16]);
    let (sink, mut heard) = mpsc::channel(16);
    let (trigger, end) = shutdown::channel();
    let tasks = tokio_util::task::TaskTracker::default();
    tasks.spawn(one.clone().listen(owner, sink, end));
    let first = Message::Waiting { id: id(1), from: stranger };
    send_until_received(&two, owner, first, &mut heard).await;

    // Many at once, some of them to another process.
    let changed = |n| Message::Changed { id: id(n) };
    let messages = (10..14).map(|n| ([owner, stranger][n as usize % 2], changed(n))).collect();
    two.publish(messages).await.unwrap();
    let to_all = Message::Replaced { id: id(30) };
    two.publish(vec![(EVERYONE, to_all)]).await.unwrap();
    let mut next = Vec::new();
    while next.len() < 3 {
        let message = tokio::time::timeout(LONG_LIMIT, heard.recv()).await.unwrap().unwrap();
        if message != first {
            next.push(message);
        }
    }
    assert_eq!(next, [changed(10), changed(12), to_all]);

    for server in servers {
        server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    }
    send_until_received(&two, owner, changed(20), &mut heard).await;
    trigger.fire();
    assert!(shutdown::ended(&tasks, LONG_LIMIT).await, "the subscription does not end");
}

#[tokio::test]
async fn messages_reach_their_receiver_after_a_lost_connection_too() {
    let server = servers::Redis::start(&[]);
    check_messages(options(server.url()), &[&server]).await;
}

#[tokio::test]
async fn messages_reach_their_receiver_on_a_cluster() {
    let cluster = servers::RedisCluster::start(&[]);
    let nodes: Vec<_> = cluster.nodes().iter().collect();
    check_messages(clustered(&cluster, "oncegate"), &nodes).await;
}
