//! The engine against real servers.

mod discovery;
mod faults;
mod leases;
mod open;

use std::sync::Arc;
use std::time::Duration;

use super::{Redis, RedisOptions};
use crate::idempotency::{Record, RecordId};
use crate::servers;
use crate::store::ListPosition;
use crate::store::codec::Codec;
use crate::store::contract::{self, put_new, replace};
use crate::store::samples::{self, id};
use crate::store::shared::engine::{CasResult, Engine, EngineError, Group, OpenedEngine};
use crate::store::shared::{SharedStore, Timing};
use crate::store::{Change, Query, Store};

const LONG_LIMIT: Duration = Duration::from_secs(30);

/// Options with the defaults of a configuration and long time limits.
fn options(url: String) -> RedisOptions {
    RedisOptions {
        urls: vec![url],
        cluster: false,
        sentinel: None,
        strict: true,
        replicas: 0,
        prefix: "oncegate".to_owned(),
        connect_timeout: LONG_LIMIT,
        timeout: LONG_LIMIT,
        ca: None,
        client_cert: None,
        create: true,
        expect_id: None,
    }
}

/// A database of its own on the server that the tests share.
fn fresh() -> RedisOptions {
    options(servers::Redis::shared().fresh_url())
}

/// A cluster under this prefix.
fn clustered(cluster: &servers::RedisCluster, prefix: &str) -> RedisOptions {
    let urls = cluster.urls();
    RedisOptions { urls, cluster: true, prefix: prefix.to_owned(), ..options(String::new()) }
}

async fn open(options: &RedisOptions) -> Arc<Redis> {
    Redis::open(options).await.unwrap().engine
}

async fn store(options: &RedisOptions) -> Arc<dyn Store> {
    let OpenedEngine { engine, identity, .. } = Redis::open(options).await.unwrap();
    let timing = Timing { timeout: LONG_LIMIT, lease: Duration::from_secs(60) };
    SharedStore::start(engine, identity, Codec::plain(), timing).await.unwrap()
}

fn group(changes: Vec<Change>) -> Group {
    Group::of(&Codec::plain(), changes)
}

/// The same group, sent for the second time.
fn resent(changes: Vec<Change>) -> Group {
    Group { resent: true, ..group(changes) }
}

/// An id in a shard.
fn at(shard: u8, n: u64) -> RecordId {
    let mut bytes = *id(n).as_bytes();
    bytes[0] = shard;
    RecordId::from_bytes(bytes)
}

fn bytes(id: &RecordId, record: &Record) -> Vec<u8> {
    Codec::plain().encode(id, record)
}

fn lost(index: usize, winner: Option<Vec<u8>>) -> CasResult {
    CasResult::Lost { index, winner }
}

async fn read(engine: &Redis, id: RecordId) -> Option<Vec<u8>> {
    engine.read(&[id]).await.unwrap().remove(0)
}

/// The ids of a page, the oldest first; samples of one time are in the order of their ids.
async fn listed(engine: &Redis, query: Query) -> Vec<RecordId> {
    let page = engine.list(&query).await.unwrap();
    let mut ids: Vec<RecordId> = page.into_iter().map(|(at, _)| at.id).collect();
    if query.expired_at.is_none() {
        ids.reverse();
    }
    ids
}

fn rejected<T: std::fmt::Debug>(result: Result<T, EngineError>, expected: &str) {
    match result {
        Err(EngineError::Rejected(reason)) if reason.contains(expected) => {}
        other => panic!("expected to be refused for {expected:?}, got {other:?}"),
    }
}

fn indeterminate<T: std::fmt::Debug>(result: Result<T, EngineError>) {
    assert!(matches!(result, Err(EngineError::Indeterminate(_))), "{result:?}");
}

fn put(n: u64) -> Vec<Change> {
    vec![put_new(id(n), samples::claim(n))]
}

/// Commits until the engine succeeds; meanwhile it may give errors, but never a wrong result.
async fn until_done(engine: &Redis, changes: impl Fn() -> Vec<Change>) {
    let end = tokio::time::Instant::now() + LONG_LIMIT;
    loop {
        match engine.commit(0, &[resent(changes())]).await {
            Ok(ended) => return assert_eq!(ended, [CasResult::Done]),
            Err(error) => {
                assert!(tokio::time::Instant::now() < end, "no commit succeeds: {error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[tokio::test]
async fn the_contract_of_the_port_holds() {
    contract::every_clause(|| async { Box::new(store(&fresh()).await) }).await;
}

#[tokio::test]
async fn the_contract_of_the_port_holds_on_a_cluster() {
    let cluster = servers::RedisCluster::start(&[]);
    let count = std::sync::atomic::AtomicU32::new(0);
    let next = || {
        let count = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        clustered(&cluster, &format!("clause-{count}"))
    };
    contract::every_clause(|| async { Box::new(store(&next()).await) }).await;
}

#[tokio::test]
async fn the_groups_of_a_batch_succeed_or_fail_independently() {
    let engine = open(&fresh()).await;
    let (one, two) = (samples::claim(1), samples::claim(2));
    let first = [
        group(vec![put_new(id(2), two.clone())]),
        group(vec![put_new(id(1), one.clone()), put_new(id(3), samples::claim(3))]),
        group(vec![replace(id(9), 1, None)]),
    ];
    let expected = [CasResult::Done, CasResult::Done, lost(0, None)];
    assert_eq!(engine.commit(0, &first).await.unwrap(), expected);

    let second = [
        group(vec![put_new(id(4), samples::claim(4)), put_new(id(2), samples::claim(2))]),
        group(vec![replace(id(1), 1, None), put_new(id(5), samples::claim(5))]),
        group(vec![put_new(id(6), samples::kept(6, 100_000))]),
    ];
    let expected = [lost(1, Some(bytes(&id(2), &two))), CasResult::Done, CasResult::Done];
    assert_eq!(engine.commit(3, &second).await.unwrap(), expected);
    let all = listed(&engine, Query { limit: 100, ..Query::default() }).await;
    assert_eq!(all, [2, 3, 5, 6].map(id));
    assert_eq!(read(&engine, id(6)).await, Some(bytes(&id(6), &samples::kept(6, 100_000))));
    let two = Some(bytes(&id(2), &two));
    let read = engine.read(&[id(7), id(2), id(7), id(2)]).await.unwrap();
    assert_eq!(read, [None, two.clone(), None, two]);
}

#[tokio::test]
async fn a_change_that_was_made_already_fits_when_it_is_resent() {
    let engine = open(&fresh()).await;
    let claim = samples::claim(1);
    let put = || vec![put_new(id(1), claim.clone())];
    assert_eq!(engine.commit(0, &[group(put())]).await.unwrap(), [CasResult::Done]);
    let own = || lost(0, Some(bytes(&id(1), &claim)));
    assert_eq!(engine.commit(0, &[group(put())]).await.unwrap(), [own()]);
    assert_eq!(engine.commit(0, &[resent(put())]).await.unwrap(), [CasResult::Done]);
    let other = Record { attempt: [9; 16], ..claim.clone() };
    let other = resent(vec![put_new(id(1), other)]);
    assert_eq!(engine.commit(0, &[other]).await.unwrap(), [own()]);
    let open = Query { open: true, limit: 10, ..Query::default() };
    assert_eq!(listed(&engine, open.clone()).await, [id(1)]);

    let remove = || vec![replace(id(1), 1, None)];
    assert_eq!(engine.commit(0, &[group(remove())]).await.unwrap(), [CasResult::Done]);
    assert_eq!(engine.commit(0, &[group(remove())]).await.unwrap(), [lost(0, None)]);
    assert_eq!(engine.commit(0, &[resent(remove())]).await.unwrap(), [CasResult::Done]);
    assert_eq!(listed(&engine, open).await, []);
}

#[tokio::test]
async fn a_large_group_is_atomic() {
    const ROWS: u64 = 10_000;
    let engine = open(&fresh()).await;
    let put = || (0..ROWS).rev().map(|n| put_new(id(n), samples::claim(n))).collect();
    assert_eq!(engine.commit(0, &[group(put())]).await.unwrap(), [CasResult::Done]);
    assert_eq!(engine.commit(1, &[resent(put())]).await.unwrap(), [CasResult::Done]);
    let last = id(ROWS - 1);
    let first = lost(0, Some(bytes(&last, &samples::claim(ROWS - 1))));
    assert_eq!(engine.commit(2, &[group(put())]).await.unwrap(), [first]);
    let ids: Vec<RecordId> = (0..ROWS).map(id).collect();
    assert!(engine.read(&ids).await.unwrap().iter().all(Option::is_some));
    let all = Query { limit: 20_000, ..Query::default() };
    assert_eq!(listed(&engine, all).await, ids);
    let remove = (0..ROWS).map(|n| replace(id(n), 1, None)).collect();
    assert_eq!(engine.commit(3, &[group(remove)]).await.unwrap(), [CasResult::Done]);
    assert_eq!(listed(&engine, Query { limit: 1, ..Query::default() }).await, []);
}

#[tokio::test]
async fn versions_of_every_size_are_kept_and_compared() {
    let engine = open(&fresh()).await;
    for version in [0, 1, (1 << 53) + 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        let record = Record { version, ..samples::claim(1) };
        let put = [group(vec![put_new(id(1), record.clone())])];
        assert_eq!(engine.commit(0, &put).await.unwrap(), [CasResult::Done]);
        for wrong in [version ^ (1 << 63), version ^ 1] {
            let wrong = [group(vec![replace(id(1), wrong, None)])];
            let winner = Some(bytes(&id(1), &record));
            assert_eq!(engine.commit(0, &wrong).await.unwrap(), [lost(0, winner)]);
        }
        let right = [group(vec![replace(id(1), version, None)])];
        assert_eq!(engine.commit(0, &right).await.unwrap(), [CasResult::Done]);
    }
}

#[tokio::test]
async fn listings_are_in_order_over_all_shards() {
    let cluster = servers::RedisCluster::start(&[]);
    for options in [fresh(), clustered(&cluster, "oncegate")] {
        let engine = open(&options).await;
        let mut random = samples::Random::new();
        let mut model = Vec::new();
        let mut groups = Vec::new();
        for n in 0..2000_u64 {
            // Most in few shards, so that pages end within and between them.
            let shard = [0, 0, 1, 7, 0xff, random.below(256) as u8][random.below(6)];
            let expires = match random.below(3) {
                0 => crate::clock::Timestamp::from_millis(u64::MAX - random.below(3) as u64),
                _ => crate::clock::Timestamp::from_millis(random.below(50) as u64),
            };
            let state = crate::idempotency::State::Tombstone {
                status: 200,
                completed: samples::T0,
                expires: Some(expires),
            };
            let id = at(shard, n);
            let record = Record { state, ..samples::claim(n) };
            groups.push(group(vec![put_new(id, record)]));
            model.push((expires, id));
        }
        let done = engine.commit(0, &groups).await.unwrap();
        assert!(done.iter().all(|end| *end == CasResult::Done));
        model.sort();
        let due = |limit| Query {
            expired_at: Some(crate::clock::Timestamp::from_millis(u64::MAX)),
            limit,
            ..Query::default()
        };
        for limit in [1, 33, 700, 3000] {
            let expected: Vec<_> = model.iter().take(limit).map(|(_, id)| *id).collect();
            assert_eq!(listed(&engine, due(limit)).await, expected, "{limit}");
        }
        let mut ids: Vec<RecordId> = model.iter().map(|(_, id)| *id).collect();
        ids.sort_by(|one, other| other.cmp(one));
        for limit in [7, 600, 3000] {
            let mut seen = Vec::new();
            loop {
                let after = seen.last();
                let after = after.map(|id| ListPosition { first_seen: samples::T0, id: *id });
                let page = listed(&engine, Query { after, limit, ..Query::default() }).await;
                seen.extend(page.iter().rev());
                if page.len() < limit {
                    break;
                }
            }
            assert_eq!(seen, ids, "{limit}");
        }
    }
}

#[tokio::test]
async fn groups_of_several_shards_are_rejected_whole() {
    let engine = open(&fresh()).await;
    let changes = vec![put_new(at(1, 1), samples::claim(1)), put_new(at(2, 2), samples::claim(2))];
    rejected(engine.commit(0, &[group(changes)]).await, "several shards");
    assert_eq!(engine.read(&[at(1, 1), at(2, 2)]).await.unwrap(), [None, None]);
}
