//! The engine against real servers.

mod faults;
mod leases;
mod opening;
mod plans;
mod pooler;
mod races;

use std::sync::Arc;
use std::time::Duration;

use super::values::{to_bigint, to_uuid};
use super::{OpenedEngine, PostgresEngine, PostgresOptions};
use crate::idempotency::{Record, RecordId};
use crate::servers;
use crate::store::codec::Codec;
use crate::store::contract::{self, put_new, replace};
use crate::store::samples::{self, id};
use crate::store::shared::engine::{CasResult, Engine, EngineError, Group};
use crate::store::shared::{SharedStore, Timing};
use crate::store::{Change, Query, Store};

const TIMEOUT: Duration = Duration::from_secs(30);

/// PostgresOptions as a configuration has them, with long time limits.
fn options(url: String) -> PostgresOptions {
    PostgresOptions {
        url,
        connections: 4,
        connect_timeout: TIMEOUT,
        timeout: TIMEOUT,
        ca: None,
        client_cert: None,
        create: true,
        expect_id: None,
        prepared: true,
    }
}

/// A database of its own on the server that the tests share.
fn fresh() -> PostgresOptions {
    let server = servers::Postgres::shared();
    options(server.url(&server.create_database()))
}

async fn open(options: &PostgresOptions) -> Arc<PostgresEngine> {
    PostgresEngine::open(options).await.unwrap().engine
}

async fn store(options: &PostgresOptions) -> Arc<dyn Store> {
    let OpenedEngine { engine, identity, .. } = PostgresEngine::open(options).await.unwrap();
    let timing = Timing { timeout: TIMEOUT, lease: Duration::from_secs(60) };
    SharedStore::start(engine, identity, Codec::plain(), timing).await.unwrap()
}

fn group(changes: Vec<Change>) -> Group {
    Group::of(&Codec::plain(), changes)
}

/// The same, sent for the second time.
fn again(changes: Vec<Change>) -> Group {
    Group { resent: true, ..group(changes) }
}

fn bytes(n: u64, record: &Record) -> Vec<u8> {
    Codec::plain().encode(&id(n), record)
}

fn lost(index: usize, winner: Option<Vec<u8>>) -> CasResult {
    CasResult::Lost { index, winner }
}

async fn read(engine: &PostgresEngine, n: u64) -> Option<Vec<u8>> {
    engine.read(&[id(n)]).await.unwrap().remove(0)
}

/// The ids of a page, the oldest first; samples of one time are in the order of their ids.
async fn listed(engine: &PostgresEngine, query: Query) -> Vec<RecordId> {
    let page = engine.list(&query).await.unwrap();
    let mut ids: Vec<RecordId> = page.into_iter().map(|(at, _)| at.id).collect();
    if query.expired_at.is_none() {
        ids.reverse();
    }
    ids
}

#[tokio::test]
async fn it_keeps_the_contract_of_the_port() {
    contract::every_clause(|| async { Box::new(store(&fresh()).await) }).await;
}

#[tokio::test]
async fn it_keeps_the_contract_where_nothing_can_be_prepared() {
    let unprepared = || async { store(&PostgresOptions { prepared: false, ..fresh() }).await };
    contract::every_clause(|| async { Box::new(unprepared().await) }).await;
}

#[tokio::test]
async fn the_groups_of_a_batch_end_each_for_itself() {
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
    let expected = [lost(1, Some(bytes(2, &two))), CasResult::Done, CasResult::Done];
    assert_eq!(engine.commit(3, &second).await.unwrap(), expected);
    let all = listed(&engine, Query { limit: 100, ..Query::default() }).await;
    assert_eq!(all, [2, 3, 5, 6].map(id));
    assert_eq!(read(&engine, 6).await, Some(bytes(6, &samples::kept(6, 100_000))));
    let ids = [id(7), id(2), id(7), id(2)];
    let two = Some(bytes(2, &two));
    assert_eq!(engine.read(&ids).await.unwrap(), [None, two.clone(), None, two]);
}

#[tokio::test]
async fn what_is_in_the_way_of_claims_and_completions_is_told_of_each_group() {
    let engine = open(&fresh()).await;
    let claims: Vec<Group> =
        (1..=4).map(|n| group(vec![put_new(id(n), samples::claim(n))])).collect();
    assert_eq!(engine.commit(0, &claims).await.unwrap(), [(); 4].map(|()| CasResult::Done));
    let kept = |n| Some(samples::kept(n, 10));
    let met = |n| Some(bytes(n, &samples::claim(n)));
    // Single rows: a claim of what is there, a completion of what is not, or is another's.
    let single = [
        group(vec![put_new(id(1), samples::claim(9))]),
        group(vec![replace(id(2), 1, kept(2))]),
        group(vec![replace(id(3), 9, kept(3))]),
        group(vec![replace(id(7), 1, kept(7))]),
        group(vec![put_new(id(8), samples::claim(8))]),
    ];
    let expected =
        [lost(0, met(1)), CasResult::Done, lost(0, met(3)), lost(0, None), CasResult::Done];
    assert_eq!(engine.commit(1, &single).await.unwrap(), expected);
    // Groups of several rows: each is whole or not at all, and the others are not in their way.
    let several = [
        group(vec![put_new(id(10), samples::claim(10)), put_new(id(1), samples::claim(9))]),
        group(vec![replace(id(4), 1, kept(4)), put_new(id(11), samples::claim(11))]),
        group(vec![put_new(id(12), samples::claim(12)), replace(id(3), 9, kept(3))]),
        group(vec![put_new(id(13), samples::claim(13))]),
    ];
    let expected = [lost(1, met(1)), CasResult::Done, lost(1, met(3)), CasResult::Done];
    assert_eq!(engine.commit(2, &several).await.unwrap(), expected);
    let all = listed(&engine, Query { limit: 100, ..Query::default() }).await;
    assert_eq!(all, [1, 2, 3, 4, 8, 11, 13].map(id));
    assert_eq!(read(&engine, 2).await, Some(bytes(2, &samples::kept(2, 10))));
    assert_eq!(read(&engine, 4).await, Some(bytes(4, &samples::kept(4, 10))));
}

#[tokio::test]
async fn each_of_many_completions_puts_its_own_record() {
    const RECORDS: u64 = 257;
    let engine = open(&fresh()).await;
    let done = [const { CasResult::Done }; RECORDS as usize];
    let claims: Vec<Group> =
        (0..RECORDS).map(|n| group(vec![put_new(id(n), samples::claim(n))])).collect();
    assert_eq!(engine.commit(0, &claims).await.unwrap(), done);
    // Some stay claims, with an owner and without an expiry, and every fifth was another's.
    let kept = |n: u64| match n % 3 {
        0 => Record { version: 2, ..samples::claim(n + 1000) },
        _ => samples::kept(n, n as usize),
    };
    let mixed: Vec<u64> = (0..RECORDS).map(|n| n * 100 % RECORDS).collect();
    let expect = |n: u64| if n.is_multiple_of(5) { 9 } else { 1 };
    let completions: Vec<Group> =
        mixed.iter().map(|&n| group(vec![replace(id(n), expect(n), Some(kept(n)))])).collect();
    let met = |n: u64| match expect(n) {
        1 => CasResult::Done,
        _ => lost(0, Some(bytes(n, &samples::claim(n)))),
    };
    let expected: Vec<CasResult> = mixed.iter().map(|&n| met(n)).collect();
    assert_eq!(engine.commit(0, &completions).await.unwrap(), expected);
    for n in 0..RECORDS {
        let is = if expect(n) == 1 { kept(n) } else { samples::claim(n) };
        assert_eq!(read(&engine, n).await, Some(bytes(n, &is)), "{n}");
    }
    // What stands beside the record for the indexes is of the same record.
    let open = listed(&engine, Query { open: true, limit: 500, ..Query::default() }).await;
    let still: Vec<_> =
        (0..RECORDS).filter(|n| n.is_multiple_of(3) || n.is_multiple_of(5)).map(id).collect();
    assert_eq!(open, still);
}

#[tokio::test]
async fn what_was_made_already_fits_when_it_is_sent_again() {
    let engine = open(&fresh()).await;
    let claim = samples::claim(1);
    let put = || vec![put_new(id(1), claim.clone())];
    assert_eq!(engine.commit(0, &[group(put())]).await.unwrap(), [CasResult::Done]);
    let own = lost(0, Some(bytes(1, &claim)));
    assert_eq!(engine.commit(0, &[group(put())]).await.unwrap(), [own]);
    let before = xmin(&engine, 1).await;
    assert_eq!(engine.commit(0, &[again(put())]).await.unwrap(), [CasResult::Done]);
    // It was written again, so that this commit waited for all that the first should have.
    assert_ne!(xmin(&engine, 1).await, before);

    let other = Record { attempt: [9; 16], ..claim.clone() };
    let result = engine.commit(0, &[again(vec![put_new(id(1), other)])]).await.unwrap();
    assert_eq!(result, [lost(0, Some(bytes(1, &claim)))]);

    let remove = || vec![replace(id(1), 1, None)];
    assert_eq!(engine.commit(0, &[group(remove())]).await.unwrap(), [CasResult::Done]);
    assert_eq!(engine.commit(0, &[group(remove())]).await.unwrap(), [lost(0, None)]);
    assert_eq!(engine.commit(0, &[again(remove())]).await.unwrap(), [CasResult::Done]);
}

/// The transaction that wrote the record.
async fn xmin(engine: &PostgresEngine, n: u64) -> String {
    let connection = engine.pool.connection(&engine.pool.writers[0]).await.unwrap();
    let text = format!(
        "SELECT xmin::text FROM oncegate.record WHERE id = '{}'",
        to_uuid(id(n).as_bytes())
    );
    let end = tokio::time::Instant::now() + TIMEOUT;
    connection.query_unprepared(&text, &[], end).await.unwrap()[0].get(0)
}

#[tokio::test]
async fn a_large_group_is_made_whole() {
    const ROWS: u64 = 10_000;
    let engine = open(&fresh()).await;
    let put = || (0..ROWS).rev().map(|n| put_new(id(n), samples::claim(n))).collect();
    assert_eq!(engine.commit(0, &[group(put())]).await.unwrap(), [CasResult::Done]);
    let result = engine.commit(1, &[again(put())]).await.unwrap();
    assert_eq!(result, [CasResult::Done]);
    let first = lost(0, Some(bytes(ROWS - 1, &samples::claim(ROWS - 1))));
    assert_eq!(engine.commit(2, &[group(put())]).await.unwrap(), [first]);
    let remove = (0..ROWS).map(|n| replace(id(n), 1, None)).collect();
    assert_eq!(engine.commit(3, &[group(remove)]).await.unwrap(), [CasResult::Done]);
    assert_eq!(listed(&engine, Query { limit: 1, ..Query::default() }).await, []);
}

#[tokio::test]
async fn versions_and_times_of_every_size_are_kept_and_compared() {
    let engine = open(&fresh()).await;
    for version in [0, 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
        let record = Record { version, ..samples::claim(1) };
        let put = [group(vec![put_new(id(1), record.clone())])];
        assert_eq!(engine.commit(0, &put).await.unwrap(), [CasResult::Done]);
        let wrong = [group(vec![replace(id(1), version ^ (1 << 63), None)])];
        let winner = Some(bytes(1, &record));
        assert_eq!(engine.commit(0, &wrong).await.unwrap(), [lost(0, winner)]);
        let right = [group(vec![replace(id(1), version, None)])];
        assert_eq!(engine.commit(0, &right).await.unwrap(), [CasResult::Done]);
    }
}
