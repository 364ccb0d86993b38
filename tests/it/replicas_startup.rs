//! A store on a server that cannot be trusted or not be used: one clear line, an exit code, and no
//! password in it.

use crate::servers::{Postgres, PostgresPair, Redis, RedisReplicas};
use crate::support::gateway::{Exit, run};
use crate::support::{Backend, Kind, Request, Setup, Shop};

const OTHER_ID: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";

fn setup(backend: &Backend, table: &str) -> Setup {
    Setup::before(backend).on(table)
}

fn postgres(url: &str) -> String {
    format!("[store.postgres]\nurl = {url:?}")
}

fn redis(url: &str) -> String {
    format!("[store.redis]\nurl = {url:?}")
}

/// It did not start, and said why: in one line, with these words, without these.
#[track_caller]
fn check(exit: &Exit, words: &[&str], secrets: &[&str]) {
    println!("{}", exit.stderr.trim());
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert_eq!(exit.stderr.trim().lines().count(), 1, "not one line: {}", exit.stderr);
    for word in words {
        assert!(exit.stderr.contains(word), "{word:?} is missing: {}", exit.stderr);
    }
    for secret in secrets {
        assert!(!exit.stderr.contains(secret), "{secret:?} is shown: {}", exit.stderr);
        assert!(!exit.stdout.contains(secret), "{secret:?} is shown: {}", exit.stdout);
    }
}

#[track_caller]
fn refused(table: &str, words: &[&str], secrets: &[&str]) {
    let backend = Backend::start();
    check(&setup(&backend, table).try_start().unwrap_err(), words, secrets);
}

#[test]
fn a_url_that_cannot_be_read_is_a_mistake_of_the_configuration() {
    let backend = Backend::start();
    for table in [
        postgres("postgres://u:geheim@db:port/d"),
        postgres("postgres://u:geheim@db/d?sslcert=geheim"),
        redis("redis://u:geheim@cache:port/0"),
        redis("redis://u:geheim@cache/0?geheim"),
    ] {
        let setup = setup(&backend, &table);
        let file = setup.write_config();
        for command in ["check", "run"] {
            let reply = run(&[command, "--config", &file]);
            assert_eq!(reply.code, Some(2), "{command}: {reply:?}");
            let (at, what) = reply.stderr.trim().split_once(": `url`: ").expect("one mistake");
            let place = at.strip_prefix(&format!("{file}:")).expect("the file");
            let (line, column) = place.split_once(':').expect("line and column");
            let text = setup.toml();
            let line = text.lines().nth(line.parse::<usize>().unwrap() - 1).unwrap();
            assert!(line.starts_with("url = ") && column == "7", "{reply:?}");
            assert!(!what.contains("geheim") && !reply.stdout.contains("geheim"), "{reply:?}");
        }
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let backend = Backend::refusing();
    let nowhere = backend.addr();
    let port = nowhere.port().to_string();
    let url = format!("postgres://teller:geheim@{nowhere}/records");
    refused(&postgres(&url), &[&port], &["geheim"]);
    refused(&redis(&format!("redis://teller:geheim@{nowhere}/0")), &[&port], &["geheim"]);
}

#[test]
fn something_else_that_listens_there_is_no_store() {
    let backend = Backend::start();
    let other = backend.addr();
    let port = other.port().to_string();
    refused(&postgres(&format!("postgres://u:geheim@{other}/d")), &[&port], &["geheim"]);
    refused(&redis(&format!("redis://u:geheim@{other}/0")), &[&port], &["geheim"]);
    // Each other's.
    let (one, two) = (Postgres::shared().addr(), Redis::shared().addr());
    refused(&redis(&format!("redis://{one}/0")), &[&one.port().to_string()], &[]);
    refused(
        &postgres(&format!("postgres://u:geheim@{two}/d")),
        &[&two.port().to_string()],
        &["geheim"],
    );
}

#[test]
fn a_url_that_is_none_is_a_mistake_of_the_configuration() {
    let backend = Backend::start();
    let tables = [
        postgres("mysql://u:geheim@localhost/d"),
        redis("http://u:geheim@localhost"),
        "[store.postgres]\npool = 1".to_owned(),
        "[store.redis]\nurls = []".to_owned(),
    ];
    for table in tables {
        let exit = setup(&backend, &table).try_start().unwrap_err();
        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert!(exit.stderr.contains("oncegate.toml:"), "{exit:?}");
        assert!(!exit.stderr.contains("geheim"), "{exit:?}");
    }
}

#[test]
fn a_wrong_password_is_not_told() {
    let server = Postgres::shared();
    let url = server.url("postgres").replace("not-a-secret", "geheim-1");
    refused(&postgres(&url), &["password"], &["geheim-1"]);
    let server = Redis::start(&[("requirepass", "geheim-2")]);
    refused(&redis(&server.url().replace("geheim-2", "geheim-3")), &[], &["geheim-2", "geheim-3"]);
    refused(&redis(&format!("redis://{}/0", server.addr())), &[], &["geheim-2"]);
}

#[test]
fn no_password_is_told_by_a_gateway_that_runs() {
    Kind::both(|kind| {
        let backend = Backend::start();
        let shop = Shop::own(kind);
        let secret = match kind {
            Kind::Redis => {
                shop.redis()
                    .unwrap()
                    .cli(&["ACL", "SETUSER", "teller", "on", ">geheim", "~*", "&*", "+@all"]);
                "geheim"
            }
            _ => "not-a-secret",
        };
        let table = shop.table("lease = \"1s\"").replace("redis://", "redis://teller:geheim@");
        assert!(table.contains(secret));
        let setup = setup(&backend, &table);
        let check = run(&["check", "--config", &setup.write_config()]);
        assert_eq!(check.code, Some(0), "{check:?}");
        assert!(!(check.stdout + &check.stderr).contains(secret), "check tells it");
        let gateway = setup.start();
        Request::redeem("k", "{}").send(gateway.addr).is(200, "executed", "");
        shop.kill();
        Request::redeem("l", "{}").send(gateway.addr).is(503, "rejected", "store-unavailable");
        assert!(!gateway.stderr().is_empty(), "it says nothing at all");
        assert!(!gateway.stderr().contains(secret), "{}", gateway.stderr());
    });
}

#[test]
fn a_role_without_rights_is_refused() {
    let server = Postgres::shared();
    let database = server.create_database();
    let role = format!("poor_{database}");
    server.run_sql_in(&database, &format!("CREATE ROLE {role} LOGIN PASSWORD 'geheim'"));
    let url = server.url(&database).replace("postgres:not-a-secret", &format!("{role}:geheim"));
    // It may not make the tables.
    refused(&postgres(&url), &["postgres.sql"], &["geheim"]);
    // They are there, and it may only read them.
    let backend = Backend::start();
    drop(setup(&backend, &postgres(&server.url(&database))).start());
    let grants = format!(
        "GRANT USAGE ON SCHEMA oncegate TO {role}; \
        GRANT SELECT ON ALL TABLES IN SCHEMA oncegate TO {role}"
    );
    server.run_sql_in(&database, &grants);
    refused(&postgres(&url), &["grant"], &["geheim"]);
}

#[test]
fn a_user_without_rights_is_refused() {
    let server = Redis::start(&[]);
    server
        .cli(&["ACL", "SETUSER", "poor", "on", ">geheim", "~*", "&*", "+@read", "+info", "+role"]);
    let url = format!("redis://poor:geheim@{}/0", server.addr());
    refused(&redis(&url), &["grant"], &["geheim"]);
}

#[test]
fn a_redis_that_may_forget_is_refused() {
    let policy = "maxmemory-policy";
    let server = Redis::start(&[("maxmemory", "100mb"), (policy, "allkeys-lru")]);
    refused(&redis(&server.url()), &[policy, "noeviction"], &[]);
    let server = Redis::start(&[("appendonly", "no")]);
    refused(&redis(&server.url()), &["appendonly"], &[]);
    let server = Redis::start(&[("appendfsync", "everysec")]);
    refused(&redis(&server.url()), &["appendfsync"], &[]);
    // Whoever accepts that may use it.
    let backend = Backend::start();
    let relaxed = format!("{}\ndurability = \"relaxed\"", redis(&server.url()));
    let gateway = setup(&backend, &relaxed).start();
    Request::redeem("k", "{}").send(gateway.addr).is(200, "executed", "");
}

#[test]
fn an_empty_server_is_not_taken_for_one_where_no_key_was_ever_used() {
    Kind::all(|kind| {
        let backend = Backend::start();
        let shop = Shop::borrow(kind);
        let strict = setup(&backend, &shop.table("")).store("create = false");
        check(&strict.try_start().unwrap_err(), &["create"], &["not-a-secret"]);
        drop(setup(&backend, &shop.table("")).start());
        let gateway = strict.start();
        Request::redeem("k", "{}").send(gateway.addr).is(200, "executed", "");
        let other = setup(&backend, &shop.table("")).store(&format!("expect_id = {OTHER_ID:?}"));
        check(&other.try_start().unwrap_err(), &[OTHER_ID], &["not-a-secret"]);
    });
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_as_it_is() {
    let backend = Backend::start();
    let shop = Shop::own(Kind::Postgres);
    drop(setup(&backend, &shop.table("")).start());
    let (server, database) = shop.postgres().unwrap();
    for column in ["schema", "tables"] {
        let was = server.run_sql_in(database, &format!("SELECT {column} FROM oncegate.store"));
        server.run_sql_in(database, &format!("UPDATE oncegate.store SET {column} = 99"));
        refused(&shop.table(""), &["99", "newer version"], &["not-a-secret"]);
        let now = server.run_sql_in(database, &format!("SELECT {column} FROM oncegate.store"));
        assert_eq!(now, "99");
        server.run_sql_in(database, &format!("UPDATE oncegate.store SET {column} = {was}"));
    }
    drop(setup(&backend, &shop.table("")).start());
    let shop = Shop::own(Kind::Redis);
    drop(setup(&backend, &shop.table("")).start());
    shop.redis().unwrap().cli(&["HSET", "oncegate:{meta}:store", "schema", "99"]);
    refused(&shop.table(""), &["99", "upgrade"], &[]);
}

#[test]
fn a_server_that_only_reads_is_refused() {
    let pair = PostgresPair::start(&[]);
    refused(&postgres(&pair.standby().url("postgres")), &["standby", "primary"], &["not-a-secret"]);
    let server = Postgres::start(&[("default_transaction_read_only", "on")]);
    refused(&postgres(&server.url("postgres")), &["read-only"], &["not-a-secret"]);
    let servers = RedisReplicas::start(1, &[]);
    refused(&redis(&servers.servers()[1].url()), &["replica"], &[]);
}

#[test]
fn a_cluster_and_a_single_server_are_not_taken_for_each_other() {
    let single = Redis::shared().url();
    refused(&format!("{}\ncluster = true", redis(&single)), &["cluster"], &[]);
    let shop = Shop::borrow(Kind::Cluster);
    let node = format!("redis://{}", shop.addr());
    refused(&redis(&node), &["cluster = true"], &[]);
}
