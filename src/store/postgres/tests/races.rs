//! What others do between the moment a statement begins and the moment it meets their rows.

use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use super::*;
use crate::store::shared::engine::EngineError;

/// A session beside the engine's.
struct Other {
    client: Client,
    _driver: tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Other {
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    async fn connect(options: &PostgresOptions) -> Self {
        let (client, connection) = tokio_postgres::connect(&options.url, NoTls).await.unwrap();
        Self { client, _driver: tokio::spawn(connection) }
    }

    async fn run(&self, text: &str) {
        self.client.batch_execute(text).await.unwrap();
    }

    /// Puts a record as the engine does, outside it.
    async fn put(&self, n: u64, record: &Record) {
        self.client
            .execute(
                "INSERT INTO oncegate.record (id, version, data, open, first_seen) \
                 VALUES ($1, $2, $3, true, $4)",
                &[
                    &to_uuid(id(n).as_bytes()),
                    &record.version.cast_signed(),
                    &bytes(n, record),
                    &to_bigint(record.first_seen),
                ],
            )
            .await
            .unwrap();
    }

    /// Waits until a session of this database waits for another.
    async fn until_somebody_waits(&self) {
        let waits = "SELECT 1 FROM pg_stat_activity \
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let asked = async {
            while self.client.query(waits, &[]).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, asked).await.expect("nobody waits for a lock");
    }
}

/// Lets `engine` commit a group while `other` has an uncommitted row in its way, then ends that
/// transaction.
async fn meets(
    engine: &PostgresEngine,
    watcher: &Other,
    other: &Other,
    group: Group,
    end: &str,
) -> Result<Vec<CasResult>, EngineError> {
    let groups = [group];
    let commit = engine.commit(0, &groups);
    let story = async {
        watcher.until_somebody_waits().await;
        other.run(end).await;
    };
    tokio::join!(commit, story).0
}

#[tokio::test]
async fn a_row_that_appears_meanwhile_wins() {
    let options = fresh();
    let engine = open(&options).await;
    let (watcher, other) = (Other::connect(&options).await, Other::connect(&options).await);
    let theirs = Record { attempt: [9; 16], ..samples::claim(1) };
    other.run("BEGIN").await;
    other.put(1, &theirs).await;
    let ours = group(vec![put_new(id(1), samples::claim(1))]);
    let result = meets(&engine, &watcher, &other, ours, "COMMIT").await;
    assert_eq!(result.unwrap(), [lost(0, Some(bytes(1, &theirs)))]);
}

#[tokio::test]
async fn a_row_that_appeared_and_was_undone_is_in_nobodys_way() {
    let options = fresh();
    let engine = open(&options).await;
    let (watcher, other) = (Other::connect(&options).await, Other::connect(&options).await);
    other.run("BEGIN").await;
    other.put(2, &samples::claim(9)).await;
    let ours = || vec![put_new(id(1), samples::claim(1)), put_new(id(2), samples::claim(2))];
    let result = meets(&engine, &watcher, &other, group(ours()), "ROLLBACK").await;
    assert_eq!(result.unwrap(), [CasResult::Done]);
    assert_eq!(read(&engine, 2).await, Some(bytes(2, &samples::claim(2))));
}

#[tokio::test]
async fn a_group_of_which_one_row_appears_meanwhile_is_left_whole() {
    let options = fresh();
    let engine = open(&options).await;
    let (watcher, other) = (Other::connect(&options).await, Other::connect(&options).await);
    done(&engine, vec![put_new(id(5), samples::claim(5)), put_new(id(6), samples::claim(6))]).await;
    other.run("BEGIN").await;
    let theirs = samples::claim(9);
    other.put(2, &theirs).await;
    let ours = group(vec![
        replace(id(6), 1, None),
        replace(id(5), 1, Some(samples::kept(5, 10))),
        put_new(id(1), samples::claim(1)),
        put_new(id(2), samples::claim(2)),
        put_new(id(3), samples::claim(3)),
    ]);
    let result = meets(&engine, &watcher, &other, ours, "COMMIT").await;
    assert_eq!(result.unwrap(), [lost(3, Some(bytes(2, &theirs)))]);
    let all = listed(&engine, Query { limit: 10, ..Query::default() }).await;
    assert_eq!(all, [2, 5, 6].map(id));
    assert_eq!(read(&engine, 5).await, Some(bytes(5, &samples::claim(5))));
}

#[tokio::test]
async fn a_race_of_one_group_does_not_undo_the_others() {
    let options = fresh();
    let engine = open(&options).await;
    let (watcher, other) = (Other::connect(&options).await, Other::connect(&options).await);
    other.run("BEGIN").await;
    let theirs = samples::claim(9);
    other.put(2, &theirs).await;
    let groups = [
        group(vec![put_new(id(1), samples::claim(1))]),
        group(vec![put_new(id(2), samples::claim(2)), put_new(id(3), samples::claim(3))]),
        group(vec![put_new(id(4), samples::claim(4))]),
    ];
    let commit = engine.commit(0, &groups);
    let story = async {
        watcher.until_somebody_waits().await;
        other.run("COMMIT").await;
    };
    let (result, ()) = tokio::join!(commit, story);
    let expected = [CasResult::Done, lost(0, Some(bytes(2, &theirs))), CasResult::Done];
    assert_eq!(result.unwrap(), expected);
    let all = listed(&engine, Query { limit: 10, ..Query::default() }).await;
    assert_eq!(all, [1, 2, 4].map(id));
}

#[tokio::test]
async fn a_row_that_changes_meanwhile_is_compared_as_it_is_then() {
    let options = fresh();
    let engine = open(&options).await;
    let (watcher, other) = (Other::connect(&options).await, Other::connect(&options).await);
    let changed = Record { version: 7, ..samples::claim(1) };
    let uuid = to_uuid(id(1).as_bytes());
    for (expect, result) in [(1, lost(0, Some(bytes(1, &changed)))), (7, CasResult::Done)] {
        done(&engine, vec![put_new(id(1), samples::claim(1))]).await;
        other.run("BEGIN").await;
        let update = "UPDATE oncegate.record SET version = 7, data = $2 WHERE id = $1";
        other.client.execute(update, &[&uuid, &bytes(1, &changed)]).await.unwrap();
        let ours = group(vec![replace(id(1), expect, Some(samples::kept(1, 10)))]);
        let met = meets(&engine, &watcher, &other, ours, "COMMIT").await.unwrap();
        assert_eq!(met, [result]);
        other.run("DELETE FROM oncegate.record").await;
    }
    // One that goes meanwhile is absent then.
    done(&engine, vec![put_new(id(1), samples::claim(1))]).await;
    other.run("BEGIN; DELETE FROM oncegate.record").await;
    let ours = group(vec![replace(id(1), 1, Some(samples::claim(1)))]);
    let met = meets(&engine, &watcher, &other, ours, "COMMIT").await.unwrap();
    assert_eq!(met, [lost(0, None)]);
    // A claim does not wait for it: it lost to what is there until the removal is committed.
    let claim = || [group(vec![put_new(id(1), samples::claim(1))])];
    assert_eq!(engine.commit(0, &claim()).await.unwrap(), [CasResult::Done]);
    other.run("BEGIN; DELETE FROM oncegate.record").await;
    let winner = Some(bytes(1, &samples::claim(1)));
    assert_eq!(engine.commit(0, &claim()).await.unwrap(), [lost(0, winner)]);
    other.run("COMMIT").await;
    assert_eq!(engine.commit(0, &claim()).await.unwrap(), [CasResult::Done]);
}

/// The SQL that locks a record.
fn lock(n: u64) -> String {
    let uuid = to_uuid(id(n).as_bytes());
    format!("SELECT FROM oncegate.record WHERE id = '{uuid}' FOR UPDATE")
}

#[tokio::test]
async fn a_claim_neither_locks_nor_waits_for_a_record_of_others() {
    let options = fresh();
    let engine = open(&options).await;
    let other = Other::connect(&options).await;
    done(&engine, vec![put_new(id(1), samples::claim(1)), put_new(id(2), samples::claim(2))]).await;
    // Beside claims and completions, and beside a removal, which takes the other statement.
    for put in [Some(Record { version: 2, ..samples::claim(2) }), None] {
        other.run(&format!("BEGIN; {}", lock(1))).await;
        let groups = [
            group(vec![put_new(id(1), samples::claim(9))]),
            group(vec![replace(id(2), if put.is_some() { 1 } else { 2 }, put)]),
        ];
        let expected = [lost(0, Some(bytes(1, &samples::claim(1)))), CasResult::Done];
        assert_eq!(engine.commit(0, &groups).await.unwrap(), expected);
        other.run("COMMIT").await;
    }
}

#[tokio::test]
async fn new_records_are_put_before_others_are_waited_for() {
    let options = fresh();
    let engine = open(&options).await;
    let (watcher, other) = (Other::connect(&options).await, Other::connect(&options).await);
    done(&engine, vec![put_new(id(1), samples::claim(1))]).await;
    other.run(&format!("BEGIN; {}", lock(1))).await;
    let groups = [
        group(vec![replace(id(1), 1, Some(samples::kept(1, 10)))]),
        group(vec![put_new(id(2), samples::claim(2))]),
    ];
    let commit = engine.commit(0, &groups);
    let story = async {
        watcher.until_somebody_waits().await;
        // Whoever waits for a record to replace has all that others could wait for in turn.
        watcher.run("SET lock_timeout = '100ms'").await;
        let uuid = to_uuid(id(2).as_bytes());
        let text = "INSERT INTO oncegate.record (id, version, data, open, first_seen) \
                    VALUES ($1, 1, '', true, 0) ON CONFLICT (id) DO NOTHING";
        let error = watcher.client.execute(text, &[&uuid]).await.expect_err("it was not there");
        assert_eq!(error.code(), Some(&SqlState::LOCK_NOT_AVAILABLE), "{error}");
        other.run("COMMIT").await;
    };
    let (result, ()) = tokio::join!(commit, story);
    assert_eq!(result.unwrap(), [CasResult::Done, CasResult::Done]);
}

#[tokio::test]
async fn a_deadlock_is_tried_again() {
    let options = fresh();
    let engine = open(&options).await;
    let (watcher, other) = (Other::connect(&options).await, Other::connect(&options).await);
    done(&engine, vec![put_new(id(1), samples::claim(1)), put_new(id(2), samples::claim(2))]).await;
    // The other never looks for deadlocks, so that it is the engine who is told of it.
    other.run("SET deadlock_timeout = '1h'; BEGIN").await;
    other.run(&lock(2)).await;
    let ours = [group(vec![replace(id(1), 1, None), replace(id(2), 1, None)])];
    let commit = engine.commit(0, &ours);
    let story = async {
        watcher.until_somebody_waits().await;
        other.run(&lock(1)).await;
        other.run("COMMIT").await;
    };
    let (result, ()) = tokio::join!(commit, story);
    assert_eq!(result.unwrap(), [CasResult::Done]);
    let deadlocks = async {
        loop {
            let text = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
            let counted: i64 = watcher.client.query_one(text, &[]).await.unwrap().get(0);
            if counted > 0 {
                return;
            }
        }
    };
    tokio::time::timeout(TIMEOUT, deadlocks).await.expect("there was no deadlock");
}

async fn done(engine: &PostgresEngine, changes: Vec<Change>) {
    assert_eq!(engine.commit(0, &[group(changes)]).await.unwrap(), [CasResult::Done]);
}

/// Claims overlapping pairs of few records from several engines at once; each record has one owner
/// in the end, and each group is there whole or not at all.
async fn everybody_claims(options: &PostgresOptions) {
    const RECORDS: u64 = 8;
    const ROUNDS: u64 = 25;
    let mut engines = Vec::new();
    for _ in 0..3 {
        engines.push(open(options).await);
    }
    for round in 0..ROUNDS {
        let mut tasks = JoinSet::new();
        for (at, engine) in engines.iter().enumerate() {
            for lane in 0..engine.connections() {
                let engine = engine.clone();
                let who = (at * 4 + lane) as u8 + 1;
                tasks.spawn(async move {
                    let mut random = samples::Random::seeded(round << 8 | u64::from(who));
                    let first = random.below(RECORDS as usize) as u64;
                    let second = (first + 1 + random.below(RECORDS as usize - 1) as u64) % RECORDS;
                    let ids = [first, second].map(|n| round * RECORDS + n);
                    let mine = |n| Record { attempt: [who; 16], ..samples::claim(n) };
                    let put = ids.map(|n| put_new(id(n), mine(n))).to_vec();
                    let result = engine.commit(lane, &[group(put)]).await.unwrap().remove(0);
                    (ids, ids.map(|n| bytes(n, &mine(n))), result)
                });
            }
        }
        let mut won = 0;
        for (ids, mine, result) in tasks.join_all().await {
            let there = [read(&engines[0], ids[0]).await, read(&engines[0], ids[1]).await];
            let own = there.clone().map(Option::unwrap_or_default) == mine;
            match result {
                CasResult::Done => {
                    won += 1;
                    assert!(own, "a claim that was made is not there");
                }
                CasResult::Lost { index, winner } => {
                    assert!(winner.is_some() && winner == there[index], "round {round}");
                    assert!(there.iter().flatten().all(|bytes| !mine.contains(bytes)));
                }
            }
        }
        assert!(won > 0, "round {round}: nobody won");
    }
}

#[tokio::test]
async fn of_overlapping_groups_of_several_engines_each_is_whole_or_absent() {
    everybody_claims(&fresh()).await;
}

#[tokio::test]
async fn so_it_is_where_rows_are_serializable() {
    let server = servers::Postgres::shared();
    let database = server.create_database();
    server.run_sql(&format!(
        "ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'"
    ));
    // Without preparing it leaves the session's settings alone.
    everybody_claims(&PostgresOptions { prepared: false, ..options(server.url(&database)) }).await;
}
