//! Opening a store: what is found, what is made, and what is refused with which line.

use uuid::Uuid;

use super::super::open::{RIGHTS, TABLES};
use super::*;

/// Opens, and expects one line with all of these words in it and no password.
async fn refused(options: &PostgresOptions, words: &[&str]) {
    let line = PostgresEngine::open(options).await.expect_err("it was opened");
    for word in words {
        assert!(line.contains(word), "{word:?} is missing: {line}");
    }
    assert!(!line.contains("secret") && !line.contains('\n'), "{line}");
}

fn database_of(options: &PostgresOptions) -> &str {
    options.url.rsplit('/').next().unwrap()
}

fn sql(options: &PostgresOptions, text: &str) -> String {
    servers::Postgres::shared().run_sql_in(database_of(options), text)
}

#[tokio::test]
async fn a_store_is_made_once_and_found_from_then_on() {
    let options = fresh();
    let first = PostgresEngine::open(&options).await.unwrap();
    assert!(first.created && !first.identity.store_id.is_nil());
    let second = PostgresEngine::open(&options).await.unwrap();
    assert!(!second.created);
    assert_eq!(second.identity, first.identity);
    let store_id = Some(first.identity.store_id);
    let pinned = PostgresOptions { expect_id: store_id, create: false, ..options.clone() };
    assert_eq!(PostgresEngine::open(&pinned).await.unwrap().identity, first.identity);
    let other = Uuid::from_u128(7);
    let wrong = PostgresOptions { expect_id: Some(other), ..options };
    refused(&wrong, &["expect_id", &other.to_string()]).await;
}

#[tokio::test]
async fn of_many_that_start_at_once_one_makes_the_store() {
    for _ in 0..5 {
        let options = fresh();
        let opened = (0..8).map(|_| {
            let options = options.clone();
            async move { PostgresEngine::open(&options).await.unwrap() }
        });
        let opened: Vec<OpenedEngine<PostgresEngine>> =
            opened.collect::<tokio::task::JoinSet<_>>().join_all().await;
        assert_eq!(opened.iter().filter(|opened| opened.created).count(), 1);
        assert!(opened.iter().all(|other| other.identity == opened[0].identity));
    }
}

#[tokio::test]
async fn an_emptied_database_is_no_new_store() {
    let options = fresh();
    refused(&PostgresOptions { create: false, ..options.clone() }, &["no store", "create"]).await;
    let pinned = PostgresOptions { expect_id: Some(Uuid::from_u128(7)), ..options.clone() };
    refused(&pinned, &["no store", "expect_id"]).await;
    assert_eq!(sql(&options, "SELECT to_regnamespace('oncegate') IS NULL"), "t");
}

#[tokio::test]
async fn half_a_store_is_refused() {
    let options = fresh();
    sql(&options, "CREATE SCHEMA oncegate");
    refused(&options, &["some of a store's tables"]).await;
    sql(&options, "DROP SCHEMA oncegate");
    open(&options).await;
    sql(&options, "DROP TABLE oncegate.replica");
    refused(&options, &["some of a store's tables"]).await;

    let options = fresh();
    open(&options).await;
    sql(&options, "DELETE FROM oncegate.store");
    refused(&options, &["no row"]).await;
}

#[tokio::test]
async fn a_store_of_another_version_is_refused() {
    let options = fresh();
    open(&options).await;
    for (change, word) in [
        ("schema = schema + 1", "newer"),
        ("schema = schema - 2", "older"),
        ("schema = schema + 1, tables = tables + 1", "newer"),
    ] {
        sql(&options, &format!("UPDATE oncegate.store SET {change}"));
        refused(&options, &[word, "schema"]).await;
    }
}

#[tokio::test]
async fn a_url_that_leads_nowhere_is_told_without_its_password() {
    let server = servers::Postgres::shared();
    let brief = PostgresOptions { connect_timeout: Duration::from_secs(5), ..fresh() };
    let check = async |url: &str, words: &[&str]| {
        refused(&PostgresOptions { url: url.to_owned(), ..brief.clone() }, words).await;
    };
    check("postgresql://user:very-secret@", &["names no host"]).await;
    check("very secret", &["cannot be read"]).await;
    check("postgresql://user:secret@127.0.0.1:port/x", &["cannot be read", "percent"]).await;
    check("postgresql://u:secret@a,b/x?port=1,2,3", &["ports"]).await;
    check("postgresql://u:secret@127.0.0.1/x?sslrootcert=a", &["sslrootcert", "`ca`"]).await;
    check("postgresql://u:secret@127.0.0.1:1/x", &["127.0.0.1:1", "refused"]).await;
    check("postgresql://u:secret@no-such-host.invalid/x", &["no-such-host.invalid:5432"]).await;
    let url =
        |user: &str, database: &str| format!("postgresql://{user}@{}/{database}", server.addr());
    let wrong = url("postgres:very-secret", "postgres");
    check(&wrong, &["password authentication failed", "28P01", "`url`"]).await;
    let right = server.url("no_such_database");
    let line = PostgresEngine::open(&options(right)).await.expect_err("it was opened");
    assert!(line.contains("3D000") && line.contains("create the database"), "{line}");
}

#[tokio::test]
async fn the_rights_a_gateway_needs_are_those_in_the_file() {
    let server = servers::Postgres::shared();
    let owner = fresh();
    let database = database_of(&owner);
    // Roles are the whole server's, and the file names this one.
    server.run_sql("CREATE ROLE oncegate LOGIN PASSWORD 'very-secret'");
    let url = format!("postgresql://oncegate:very-secret@{}/{database}", server.addr());
    let gateway = options(url);
    refused(&gateway, &["may not create", "config/postgres.sql"]).await;

    let (_, rights) = TABLES.split_once(RIGHTS).unwrap();
    sql(&owner, TABLES.split(RIGHTS).next().unwrap());
    refused(&gateway, &["permission denied for schema", "config/postgres.sql"]).await;
    sql(
        &owner,
        "GRANT USAGE ON SCHEMA oncegate TO oncegate; \
                 GRANT SELECT ON oncegate.store TO oncegate; \
                 GRANT SELECT, INSERT, UPDATE ON oncegate.record TO oncegate",
    );
    refused(&gateway, &["record DELETE, replica DELETE", "config/postgres.sql"]).await;

    let rights: String = rights.lines().skip(1).collect();
    sql(&owner, &rights);
    let gateway = open(&gateway).await;
    let put = [group(vec![put_new(id(1), samples::claim(1))])];
    assert_eq!(gateway.commit(0, &put).await.unwrap(), [CasResult::Done]);
    let remove = [group(vec![replace(id(1), 1, None)])];
    assert_eq!(gateway.commit(0, &remove).await.unwrap(), [CasResult::Done]);
    gateway.heartbeat([1; 16], TIMEOUT).await.unwrap();
    assert_eq!(listed(&gateway, Query { abandoned: true, limit: 1, ..Query::default() }).await, []);
    gateway.leave([1; 16]).await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_keep_a_promise_is_refused() {
    let options = fresh();
    let set = |text: &str| format!("ALTER DATABASE {} SET {text}", database_of(&options));
    sql(&options, &set("default_transaction_read_only = on"));
    refused(&options, &["read-only"]).await;

    for name in ["fsync", "full_page_writes"] {
        let server = servers::Postgres::start(&[(name, "off")]);
        refused(&super::options(server.url("postgres")), &[name, "off"]).await;
    }
}

#[tokio::test]
async fn a_url_may_set_what_the_session_needs() {
    let PostgresOptions { url, .. } = fresh();
    let with = |setting: &str| options(format!("{url}?options=-c%20{setting}%3Don"));
    refused(&with("no_such_setting"), &["no_such_setting"]).await;
    PostgresEngine::open(&with("check_function_bodies")).await.unwrap();
}

#[tokio::test]
async fn commits_are_durable_whatever_the_database_says() {
    for (prepared, set, kept) in [
        (true, "off", "on"),
        (false, "off", "on"),
        (true, "local", "on"),
        (true, "remote_apply", "remote_apply"),
        (false, "remote_write", "remote_write"),
    ] {
        let options = PostgresOptions { prepared, ..fresh() };
        let text =
            format!("ALTER DATABASE {} SET synchronous_commit = {set}", database_of(&options));
        sql(&options, &text);
        let engine = open(&options).await;
        // A trigger that runs with the statement sees what the commit will be like.
        sql(
            &options,
            "CREATE TABLE seen (as_if text);
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER seen AFTER INSERT ON oncegate.record
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION see()",
        );
        let put = [group(vec![put_new(id(1), samples::claim(1))])];
        assert_eq!(engine.commit(0, &put).await.unwrap(), [CasResult::Done]);
        assert_eq!(sql(&options, "SELECT as_if FROM seen"), kept, "{set}");
    }
}

#[tokio::test]
async fn encryption_is_verified_in_full() {
    let server = servers::Postgres::start_tls(&[]);
    let ca = server.ca().map(ToOwned::to_owned);
    let url = server.url("postgres");
    let with = |ca: &Option<std::path::PathBuf>, url: String| PostgresOptions {
        ca: ca.clone(),
        ..options(url)
    };
    let engine = open(&with(&ca, format!("{url}?channel_binding=require"))).await;
    let put = [group(vec![put_new(id(1), samples::claim(1))])];
    assert_eq!(engine.commit(0, &put).await.unwrap(), [CasResult::Done]);
    open(&with(&ca, format!("{url}?sslmode=verify-full"))).await;

    // Signed by nobody this process trusts; and by the right one, for another name.
    refused(&with(&None, url.clone()), &["certificate", "`ca`"]).await;
    let elsewhere = url.replace("127.0.0.1", "other.invalid");
    let elsewhere = format!("{elsewhere}?hostaddr=127.0.0.1");
    refused(&with(&ca, elsewhere), &["certificate", "other.invalid"]).await;
    refused(&with(&None, format!("{url}?sslmode=disable")), &["no pg_hba.conf entry"]).await;

    let plain = fresh();
    let demanded = PostgresOptions { ca, ..plain };
    refused(&demanded, &["does not support TLS"]).await;
    let missing = PostgresOptions { ca: Some("/nowhere/ca.pem".into()), ..fresh() };
    refused(&missing, &["/nowhere/ca.pem"]).await;
}
