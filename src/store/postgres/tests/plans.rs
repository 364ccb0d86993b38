//! How the server finds rows: by an index, whatever the size of the table and whatever the planner
//! knew of it.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

use super::super::commit::COMMIT;
use super::super::connect::session_settings;
use super::super::fast_path::FAST_PATH;
use super::super::list::ListStatement;
use super::super::{READ, SqlStatement};
use super::*;
use crate::store::ListPosition;

const ROWS: u64 = 50_000;

/// Records of every kind: one in a hundred open, half of these in flight, a third with a subject.
fn fill() -> String {
    format!(
        "INSERT INTO oncegate.record \
         SELECT md5(n::text)::uuid, 1, decode(repeat(md5(n::text), 20), 'hex'), n % 100 = 0, \
                CASE WHEN n % 200 = 0 THEN md5('owner')::uuid END, n / 3, \
                CASE WHEN n % 100 <> 0 THEN n END, \
                CASE WHEN n % 3 = 0 THEN md5((n % 500)::text)::uuid END \
         FROM generate_series(1, {ROWS}) AS n"
    )
}

/// The plan of a statement for any parameters.
async fn plan(client: &Client, text: &str, types: &str, parameters: usize) -> String {
    let nothing = vec!["NULL"; parameters].join(", ");
    let (types, nothing) = match parameters {
        0 => (String::new(), String::new()),
        _ => (format!("({types})"), format!("({nothing})")),
    };
    let prepared = format!("DEALLOCATE ALL; PREPARE asked {types} AS {text}");
    client.batch_execute(&prepared).await.unwrap();
    let rows = client.query(&format!("EXPLAIN EXECUTE asked {nothing}"), &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
}

fn types_of(sql: &SqlStatement) -> String {
    sql.types.iter().map(type_name).collect::<Vec<_>>().join(", ")
}

fn type_name(kind: &Type) -> String {
    match kind.name().strip_prefix('_') {
        Some(element) => format!("{element}[]"),
        None => kind.name().to_owned(),
    }
}

/// Expects the index to be used, and the table never to be read from end to end.
fn check(plan: &str, index: &str) {
    assert!(plan.contains(index), "{index} is not used:\n{plan}");
    assert!(!plan.contains("Seq Scan on record"), "{plan}");
}

async fn check_all(client: &Client) {
    for sql in [&COMMIT, &FAST_PATH, &READ] {
        let plan = plan(client, sql.text, &types_of(sql), sql.types.len()).await;
        check(&plan, "record_pkey");
        assert!(!plan.contains("Nested Loop"), "{plan}");
        // What is searched in is searched once, not again for each row.
        assert!(!plan.contains("NOT (SubPlan"), "{plan}");
    }
    let all = Query { limit: 100, ..Query::default() };
    let (after, at) =
        (Some(ListPosition { first_seen: samples::T0, id: id(1) }), Some(samples::T0));
    let keys = vec![[1; 5], [2; 5]];
    let shard = Some(7);
    for (query, index) in [
        (all.clone(), "record_time"),
        (Query { after, ..all.clone() }, "record_time"),
        (Query { since: at, after, ..all.clone() }, "record_time"),
        (Query { keys: keys.clone(), ..all.clone() }, "record_pkey"),
        (Query { keys, shard, after, since: at, ..all.clone() }, "record_pkey"),
        (Query { open: true, ..all.clone() }, "record_open"),
        (Query { open: true, after, since: at, ..all.clone() }, "record_open"),
        (Query { abandoned: true, ..all.clone() }, "record_open"),
        (Query { abandoned: true, after, ..all.clone() }, "record_open"),
        (Query { expired_at: at, ..all.clone() }, "record_expires"),
        (Query { subject: Some([1; 16]), ..all.clone() }, "record_subject"),
        (Query { subject: Some([1; 16]), after, ..all.clone() }, "record_subject"),
        // One of two indexes, as it suits the numbers.
        (Query { shard, after, ..all }, "Index Scan"),
    ] {
        let ListStatement { text, parameters } = ListStatement::of(&query);
        let types: Vec<_> =
            parameters.iter().map(|parameter| type_name(&parameter.typed().1)).collect();
        let plan = plan(client, &text, &types.join(", "), types.len()).await;
        check(&plan, index);
    }
}

#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index() {
    let options = fresh();
    open(&options).await;
    let (client, driver) = tokio_postgres::connect(&options.url, NoTls).await.unwrap();
    let tasks = tokio_util::task::TaskTracker::default();
    tasks.spawn(async { _ = driver.await });
    client.batch_execute(&session_settings(TIMEOUT)).await.unwrap();
    // The planner knows nothing yet, then of a full table without its numbers, then all.
    check_all(&client).await;
    client.batch_execute(&fill()).await.unwrap();
    check_all(&client).await;
    client.batch_execute("ANALYZE oncegate.record").await.unwrap();
    check_all(&client).await;
}
