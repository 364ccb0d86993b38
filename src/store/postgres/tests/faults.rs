//! Connections that break, servers that stop, and commits that are not confirmed.

use super::*;
use crate::servers::{Chaos, Direction, PostgresPair};

/// How often a change may be sent until it is made.
const SENT: usize = 10;

fn put(n: u64) -> Vec<Change> {
    vec![put_new(id(n), samples::claim(n))]
}

fn claimed(n: u64) -> Option<Vec<u8>> {
    Some(bytes(n, &samples::claim(n)))
}

/// Sends a change as the shared layer does: again after a doubt, until there is a result.
async fn insist(engine: &PostgresEngine, changes: Vec<Change>) -> CasResult {
    insist_on(engine, group(changes)).await
}

async fn insist_on(engine: &PostgresEngine, group: Group) -> CasResult {
    let mut groups = [group];
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

async fn indeterminate(engine: &PostgresEngine, group: Group) -> String {
    match engine.commit(0, &[group]).await {
        Err(EngineError::Indeterminate(reason)) => reason,
        other => panic!("expected doubt, got {other:?}"),
    }
}

async fn rejected(engine: &PostgresEngine, group: Group) -> String {
    match engine.commit(0, &[group]).await {
        Err(EngineError::Rejected(reason)) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// A database of its own behind a proxy.
fn behind_proxy() -> (Chaos, PostgresOptions, String) {
    let server = servers::Postgres::shared();
    let database = server.create_database();
    let chaos = Chaos::start(server.addr());
    let options = options(server.url_at(chaos.addr(), &database));
    (chaos, options, database)
}

fn sql(database: &str, text: &str) -> String {
    servers::Postgres::shared().run_sql_in(database, text)
}

/// Waits for the server to be in a state.
async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let looked = async {
        while !is() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, looked).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_lost_question_and_a_lost_answer_leave_doubt_that_asking_again_ends() {
    let (chaos, options, _) = behind_proxy();
    let engine = open(&options).await;
    for (n, arrives) in [(1, 0), (2, 1)] {
        assert_eq!(insist(&engine, put(n + 10)).await, CasResult::Done);
        chaos.cut_after_messages(Direction::ToServer, arrives);
        indeterminate(&engine, group(put(n))).await;
        chaos.keep();
        assert_eq!(engine.commit(0, &[again(put(n))]).await.unwrap(), [CasResult::Done]);
        assert_eq!(read(&engine, n).await, claimed(n));
    }
}

#[tokio::test]
async fn a_connection_cut_at_any_step_costs_no_change() {
    let (chaos, options, _) = behind_proxy();
    let engine = open(&options).await;
    let mut n = 0;
    for direction in [Direction::ToServer, Direction::ToClient] {
        for messages in 0..12 {
            // A new connection, which breaks at some step of its making or of the statement.
            chaos.cut_all();
            chaos.cut_after_messages(direction, messages);
            n += 1;
            assert_eq!(insist(&engine, put(n)).await, CasResult::Done);
            assert_eq!(insist(&engine, vec![replace(id(n), 1, None)]).await, CasResult::Done);
            chaos.keep();
            assert_eq!(read(&engine, n).await, None);
        }
    }
}

#[tokio::test]
async fn a_server_out_of_reach_refuses_until_it_is_back() {
    let (chaos, options, _) = behind_proxy();
    let engine = open(&PostgresOptions { timeout: Duration::from_secs(2), ..options }).await;
    chaos.refuse(true);
    let reason = rejected(&engine, group(put(1))).await;
    assert!(reason.contains(&chaos.addr().to_string()), "{reason}");
    chaos.refuse(false);
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
}

#[tokio::test]
async fn a_silent_server_is_waited_for_no_longer_than_said() {
    let (chaos, options, _) = behind_proxy();
    let limit = Duration::from_millis(300);
    let engine = open(&PostgresOptions { timeout: limit, connect_timeout: limit, ..options }).await;
    assert_eq!(insist(&engine, put(1)).await, CasResult::Done);
    chaos.freeze(true);
    let reason = indeterminate(&engine, group(put(2))).await;
    assert!(reason.contains("in time"), "{reason}");
    let reason = rejected(&engine, again(put(2))).await;
    assert!(reason.contains("no answer within"), "{reason}");
    assert!(engine.read(&[id(1)]).await.is_err());
    chaos.freeze(false);
    assert_eq!(insist_on(&engine, again(put(2))).await, CasResult::Done);
    assert_eq!(read(&engine, 2).await, claimed(2));
}

#[tokio::test]
async fn what_a_lost_connection_left_behind_is_ended_before_anything_is_sent_again() {
    let (chaos, options, database) = behind_proxy();
    let engine = open(&options).await;
    assert_eq!(insist(&engine, put(9)).await, CasResult::Done);
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE datname = '{database}' AND wait_event_type = 'Lock'"
    );
    let waiting = || sql("postgres", &waiting);
    let direct = servers::Postgres::shared().url(&database);
    let (mut other, driver) =
        tokio_postgres::connect(&direct, tokio_postgres::NoTls).await.unwrap();
    let tasks = tokio_util::task::TaskTracker::default();
    tasks.spawn(async { _ = driver.await });
    let others = other.transaction().await.unwrap();
    let uuid = to_uuid(id(1).as_bytes());
    let theirs = "INSERT INTO oncegate.record VALUES ($1, 1, '', false, NULL, 0)";
    others.execute(theirs, &[&uuid]).await.unwrap();

    let first = [group(put(1))];
    let story = async {
        until("it waits", || waiting() == "1").await;
        chaos.cut_all();
    };
    let (result, ()) = tokio::join!(engine.commit(0, &first), story);
    assert!(matches!(result, Err(EngineError::Indeterminate(_))), "{result:?}");
    // The server has not noticed.
    assert_eq!(waiting(), "1");
    let pid = format!(
        "SELECT pid FROM pg_stat_activity \
         WHERE datname = '{database}' AND wait_event_type = 'Lock'"
    );
    let before = sql("postgres", &pid);
    let second = [again(put(1))];
    let story = async {
        until("another waits", || {
            let now = sql("postgres", &pid);
            !now.is_empty() && now != before
        })
        .await;
        assert_eq!(waiting(), "1");
        others.rollback().await.unwrap();
    };
    let (result, ()) = tokio::join!(engine.commit(0, &second), story);
    assert_eq!(result.unwrap(), [CasResult::Done]);
}

#[tokio::test]
async fn late_bytes_of_a_connection_that_was_given_up_make_no_released_claim_again() {
    let (chaos, options, database) = behind_proxy();
    let limit = Duration::from_secs(1);
    let engine = open(&PostgresOptions { timeout: limit, connect_timeout: limit, ..options }).await;
    assert_eq!(insist(&engine, put(9)).await, CasResult::Done);
    let open_before = chaos.open();
    // The claim is on its way when its connection is given up.
    chaos.hold(true);
    indeterminate(&engine, group(put(1))).await;
    assert_eq!(insist_on(&engine, again(put(1))).await, CasResult::Done);
    assert_eq!(insist(&engine, vec![replace(id(1), 1, None)]).await, CasResult::Done);
    assert!(chaos.open() > open_before, "the first connection still has its bytes");
    chaos.hold(false);
    until("the held connection ends", || chaos.open() <= open_before).await;
    let sessions = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND state = 'active'"
    );
    until("nothing runs any more", || sql("postgres", &sessions) == "0").await;
    assert_eq!(sql(&database, "SELECT count(*) FROM oncegate.record"), "1");
}

#[tokio::test]
async fn what_the_server_says_no_to_is_undone() {
    let options = fresh();
    let database = options.url.rsplit('/').next().unwrap().to_owned();
    let engine = open(&options).await;
    sql(&database, "ALTER TABLE oncegate.record ADD CHECK (version <> 666)");
    let bad = put_new(id(2), Record { version: 666, ..samples::claim(2) });
    let reason = rejected(&engine, group(vec![put_new(id(1), samples::claim(1)), bad])).await;
    assert!(reason.contains("23514"), "{reason}");
    assert_eq!(read(&engine, 1).await, None);
    assert_eq!(insist(&engine, put(1)).await, CasResult::Done);

    // A session that is ended says so, and has perhaps committed before.
    sql(&database, "BEGIN; CREATE TABLE waits (); COMMIT");
    let end = "CREATE FUNCTION ends() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL; \
               END $$; CREATE TRIGGER ends AFTER INSERT ON oncegate.record \
               FOR EACH ROW WHEN (NEW.version = 667) EXECUTE FUNCTION ends()";
    sql(&database, end);
    let bad = put_new(id(2), Record { version: 667, ..samples::claim(2) });
    let reason = indeterminate(&engine, group(vec![bad])).await;
    assert!(reason.contains("57P01"), "{reason}");
    assert_eq!(insist(&engine, put(3)).await, CasResult::Done);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_undone_by_the_server() {
    let options = fresh();
    let database = options.url.rsplit('/').next().unwrap().to_owned();
    open(&options).await;
    sql(
        &database,
        "CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                    PERFORM pg_sleep(60); RETURN NULL; END $$; \
                    CREATE TRIGGER waits AFTER INSERT ON oncegate.record \
                    FOR EACH ROW WHEN (NEW.version = 666) EXECUTE FUNCTION waits()",
    );
    // Most of it is the server's: it says no well before nobody listens any more.
    let engine = open(&PostgresOptions { timeout: Duration::from_secs(5), ..options }).await;
    let slow = put_new(id(1), Record { version: 666, ..samples::claim(1) });
    let reason = rejected(&engine, group(vec![slow])).await;
    assert!(reason.contains("57014") && reason.contains("`timeout`"), "{reason}");
    assert_eq!(read(&engine, 1).await, None);
}

/// The sessions that wait for the synchronous standby.
const WAITS_FOR_STANDBY: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

const CANCEL_WAITING: &str =
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

#[tokio::test]
async fn a_commit_that_did_not_wait_for_its_standby_is_in_doubt() {
    let server = servers::Postgres::start(&[]);
    let engine = open(&options(server.url("postgres"))).await;
    assert_eq!(insist(&engine, put(1)).await, CasResult::Done);
    let require = |name: &str| {
        server.run_sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'"));
        server.run_sql("SELECT pg_reload_conf()");
    };
    require("nobody");
    let short = Duration::from_millis(500);
    let probe = PostgresOptions { timeout: short, ..options(server.url("postgres")) };
    first_to_wait(&*open(&probe).await).await;
    server.run_sql(CANCEL_WAITING);
    until("nobody waits", || server.run_sql(WAITS_FOR_STANDBY) == "0").await;
    let first = [group(put(1_000_000))];
    let story = async {
        until("it waits", || server.run_sql(WAITS_FOR_STANDBY) == "1").await;
        // It is on its way, and not to be seen.
        assert_eq!(read(&engine, 1_000_000).await, None);
        server.run_sql(CANCEL_WAITING);
    };
    let (result, ()) = tokio::join!(engine.commit(0, &first), story);
    match result {
        Err(EngineError::Indeterminate(reason)) => assert!(reason.contains("standby"), "{reason}"),
        other => panic!("expected doubt, got {other:?}"),
    }
    // Asked again it waits again, though the record is there.
    let second = [again(put(1_000_000))];
    let story = async {
        until("it waits again", || server.run_sql(WAITS_FOR_STANDBY) == "1").await;
        require("");
    };
    let (result, ()) = tokio::join!(engine.commit(0, &second), story);
    assert_eq!(result.unwrap(), [CasResult::Done]);
    assert_eq!(read(&engine, 1_000_000).await, claimed(1_000_000));
}

#[tokio::test]
async fn a_commit_that_waits_for_its_standby_stays_hidden_when_nobody_waits_for_it() {
    let server = servers::Postgres::start(&[]);
    let patient = open(&options(server.url("postgres"))).await;
    let limit = Duration::from_secs(1);
    let engine = open(&PostgresOptions { timeout: limit, ..options(server.url("postgres")) }).await;
    assert_eq!(insist(&engine, put(1)).await, CasResult::Done);
    server.run_sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    server.run_sql("SELECT pg_reload_conf()");
    let n = first_to_wait(&engine).await;
    // The next connection leaves it alone, and waits for its lock.
    let reason = rejected(&engine, again(put(n))).await;
    assert!(reason.contains("57014"), "{reason}");
    assert_eq!(server.run_sql(WAITS_FOR_STANDBY), "1");
    assert_eq!(read(&patient, n).await, None);
    server.run_sql("ALTER SYSTEM SET synchronous_standby_names = ''");
    server.run_sql("SELECT pg_reload_conf()");
    let result = patient.commit(0, &[again(put(n))]).await.unwrap();
    assert_eq!(result, [CasResult::Done]);
}

/// Puts records until one waits for a standby: a server takes up its settings when it comes to it.
async fn first_to_wait(engine: &PostgresEngine) -> u64 {
    for n in 2..10_000 {
        match engine.commit(0, &[group(put(n))]).await {
            Ok(_) => {}
            Err(EngineError::Indeterminate(_)) => return n,
            Err(other) => panic!("expected doubt, got {other:?}"),
        }
    }
    panic!("no commit waited for a standby");
}

#[tokio::test]
async fn a_store_that_is_exchanged_under_open_connections_is_rejected() {
    let options = fresh();
    let database = options.url.rsplit('/').next().unwrap().to_owned();
    let engine = open(&options).await;
    assert_eq!(insist(&engine, put(1)).await, CasResult::Done);
    engine.heartbeat([1; 16], TIMEOUT).await.unwrap();
    assert_eq!(read(&engine, 1).await, claimed(1));
    sql(&database, "UPDATE oncegate.store SET store_id = md5('other')::uuid");
    let of_both = [put(1), put(2)].into_iter().flatten().collect();
    let completed = vec![replace(id(1), 1, Some(samples::kept(1, 10)))];
    for changes in [put(2), put(1), of_both, completed] {
        let reason = rejected(&engine, group(changes)).await;
        assert!(reason.contains("another store"), "{reason}");
    }
    let trouble = engine.heartbeat([1; 16], TIMEOUT).await.unwrap_err();
    assert!(trouble.reason().contains("another store"), "{trouble:?}");
    // What it holds says nothing of this store.
    for trouble in [
        engine.read(&[id(1)]).await.unwrap_err(),
        engine.list(&Query { limit: 9, ..Query::default() }).await.unwrap_err(),
    ] {
        assert!(trouble.reason().contains("another store"), "{trouble:?}");
    }
    assert_eq!(sql(&database, "SELECT count(*) FROM oncegate.record"), "1");
}

#[tokio::test]
async fn another_store_behind_the_same_address_is_rejected() {
    let options = fresh();
    let database = options.url.rsplit('/').next().unwrap().to_owned();
    let engine = open(&options).await;
    assert_eq!(insist(&engine, put(1)).await, CasResult::Done);
    let end = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    );
    for (change, words) in [
        ("UPDATE oncegate.store SET store_id = md5('other')::uuid", "restart to open"),
        ("DROP SCHEMA oncegate CASCADE", "42P01"),
    ] {
        sql(&database, change);
        sql("postgres", &end);
        let mut reasons = Vec::new();
        for _ in 0..3 {
            let trouble = engine.commit(0, &[group(put(2))]).await.expect_err("a commit");
            reasons.push(trouble.reason().to_owned());
        }
        assert!(reasons.last().is_some_and(|last| last.contains(words)), "{reasons:?}");
        assert!(engine.read(&[id(1)]).await.is_err());
    }
}

#[tokio::test]
async fn a_server_that_was_killed_is_found_again_with_all_it_confirmed() {
    let server = servers::Postgres::start(&[]);
    let engine = open(&options(server.url("postgres"))).await;
    for n in 0..3 {
        assert_eq!(insist(&engine, put(n)).await, CasResult::Done);
        server.kill();
        server.restart();
        assert_eq!(read(&engine, n).await, claimed(n));
        assert_eq!(insist(&engine, put(n + 10)).await, CasResult::Done);
        engine.heartbeat([1; 16], TIMEOUT).await.unwrap();
    }
}

#[tokio::test]
async fn a_standby_is_refused_and_found_once_it_is_the_primary() {
    let pair = PostgresPair::start(&[]);
    let (primary, standby) = (pair.primary(), pair.standby());
    let reason = PostgresEngine::open(&options(standby.url("postgres"))).await.expect_err("opened");
    assert!(reason.contains("standby"), "{reason}");
    // The standby first, so that the order is not what helps.
    let (one, other) = (standby.addr().to_string(), primary.addr());
    let both = standby.url("postgres").replace(&one, &format!("{one},{other}"));
    let both = format!("{both}?target_session_attrs=read-write");
    let engine = open(&options(both)).await;
    for n in 0..5 {
        assert_eq!(insist(&engine, put(n)).await, CasResult::Done);
    }
    pair.fail_over();
    assert_eq!(insist(&engine, put(5)).await, CasResult::Done);
    for n in 0..6 {
        assert_eq!(read(&engine, n).await, claimed(n), "{n}");
    }
}

#[tokio::test]
async fn a_host_that_is_silent_does_not_hide_the_next() {
    let server = servers::Postgres::shared();
    let database = server.create_database();
    let silent = Chaos::start(server.addr());
    silent.freeze(true);
    let hosts = format!("{},{}", silent.addr(), server.addr());
    let url = server.url(&database).replace(&server.addr().to_string(), &hosts);
    let limit = Duration::from_secs(4);
    let engine = open(&PostgresOptions { connect_timeout: limit, ..options(url) }).await;
    assert_eq!(insist(&engine, put(1)).await, CasResult::Done);
    assert_eq!(silent.connections(), 1, "the host that answered is asked first from then on");
}
