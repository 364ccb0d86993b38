//! Behind PgBouncer in transaction mode: each statement may run on another connection, nothing is
//! prepared and nothing is set.

use super::*;
use crate::servers::{Chaos, Direction, PgBouncer};

/// Connections of the pooler for each database: fewer than the engine opens to it.
const POOLED: [(&str, &str); 1] = [("default_pool_size", "2")];

/// How often a change may be sent until it is made.
const SENT: usize = 20;

fn shared() -> &'static servers::Postgres {
    servers::Postgres::shared()
}

fn unprepared(url: String) -> PostgresOptions {
    PostgresOptions { prepared: false, ..options(url) }
}

fn pooled(pooler: &PgBouncer) -> PostgresOptions {
    unprepared(shared().url_at(pooler.addr(), &shared().create_database()))
}

async fn insist(engine: &PostgresEngine, changes: Vec<Change>) -> CasResult {
    let mut groups = [group(changes)];
    let mut heard = Vec::new();
    for _ in 0..SENT {
        match engine.commit(0, &groups).await {
            Ok(mut results) => return results.remove(0),
            Err(EngineError::Indeterminate(reason)) => {
                groups[0].resent = true;
                heard.push(reason);
            }
            Err(EngineError::Rejected(reason)) => heard.push(reason),
        }
    }
    panic!("no result: {heard:?}");
}

#[tokio::test]
async fn it_keeps_the_contract_behind_a_transaction_pooler() {
    let pooler = PgBouncer::start(shared(), &POOLED);
    contract::every_clause(|| async { Box::new(store(&pooled(&pooler)).await) }).await;
}

#[tokio::test]
async fn all_that_an_engine_does_goes_through_a_transaction_pooler() {
    let pooler = PgBouncer::start(shared(), &POOLED);
    let engine = open(&pooled(&pooler)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..4 {
        let engine = engine.clone();
        tasks.spawn(async move {
            for n in (lane..40).step_by(4) {
                let put = [group(vec![put_new(id(n as u64), samples::claim(n as u64))])];
                assert_eq!(engine.commit(lane, &put).await.unwrap(), [CasResult::Done]);
            }
        });
    }
    // Questions share their connections, and each gets its own answer.
    for n in 0..40 {
        let engine = engine.clone();
        tasks.spawn(async move {
            for _ in 0..5 {
                let found = read(&engine, n).await;
                assert!(found.is_none() || found == Some(bytes(n, &samples::claim(n))));
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    engine.heartbeat([1; 16], TIMEOUT).await.unwrap();
    let all = listed(&engine, Query { limit: 100, ..Query::default() }).await;
    assert_eq!(all.len(), 40);
    let message = crate::store::shared::message::Message::Changed { id: id(1) };
    engine.publish(vec![([1; 16], message)]).await.unwrap();
    engine.leave([1; 16]).await.unwrap();
}

#[tokio::test]
async fn a_connection_to_the_pooler_or_of_the_pooler_that_is_cut_costs_no_change() {
    let server = Chaos::start(shared().addr());
    let database = shared().create_database();
    let pooler = PgBouncer::start_before(server.addr(), &POOLED);
    let client = Chaos::start(pooler.addr());
    let engine = open(&unprepared(shared().url_at(client.addr(), &database))).await;
    let mut n = 0;
    for (chaos, most) in [(&client, 12), (&server, 8)] {
        for direction in [Direction::ToServer, Direction::ToClient] {
            for messages in 0..most {
                chaos.cut_all();
                chaos.cut_after_messages(direction, messages);
                n += 1;
                assert_eq!(
                    insist(&engine, vec![put_new(id(n), samples::claim(n))]).await,
                    CasResult::Done
                );
                assert_eq!(insist(&engine, vec![replace(id(n), 1, None)]).await, CasResult::Done);
                chaos.keep();
                assert_eq!(read(&engine, n).await, None);
            }
        }
    }
}

#[tokio::test]
async fn a_pooler_that_is_killed_is_found_again() {
    let pooler = PgBouncer::start(shared(), &POOLED);
    let engine = open(&pooled(&pooler)).await;
    for n in 1..4 {
        assert_eq!(insist(&engine, vec![put_new(id(n), samples::claim(n))]).await, CasResult::Done);
        pooler.kill();
        let refused =
            engine.commit(0, &[group(vec![put_new(id(n + 10), samples::claim(n))])]).await;
        assert!(refused.is_err(), "{refused:?}");
        pooler.restart();
        assert_eq!(insist(&engine, vec![replace(id(n), 1, None)]).await, CasResult::Done);
    }
}

#[tokio::test]
async fn of_two_who_ask_over_one_connection_each_gets_its_answer() {
    let pooler = PgBouncer::start(shared(), &POOLED);
    let engine = open(&pooled(&pooler)).await;
    let connection = engine.pool.connection(&engine.pool.writers[0]).await.unwrap();
    let end = tokio::time::Instant::now() + TIMEOUT;
    // Not to wait for anything: the first takes long enough for the second to be sent meanwhile.
    let (one, two) = tokio::join!(
        connection.query_unprepared("SELECT 1, pg_sleep(0.1)", &[], end),
        connection.query_unprepared("SELECT 2, pg_sleep(0.1)", &[], end),
    );
    let [one, two] = [one, two].map(|rows| rows.unwrap()[0].get::<_, i32>(0));
    assert_eq!((one, two), (1, 2));
}
