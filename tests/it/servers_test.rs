//! The servers that other chapters rest on: they start, keep their data, and fail as they are told.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::servers::{
    Chaos, Direction, Postgres, PostgresPair, Redis, RedisCluster, RedisReplicas,
};
use crate::support::{at_once, eventually};

#[test]
fn postgres_keeps_its_rows_over_kill_and_restart() {
    let server = Postgres::start(&[("work_mem", "5MB")]);
    assert_eq!(server.run_sql("SHOW work_mem"), "5MB");
    assert_eq!(server.run_sql("SHOW fsync"), "on");
    let database = server.create_database();
    assert_ne!(server.create_database(), database);
    server.run_sql_in(&database, "CREATE TABLE kept AS SELECT 7 AS number");
    let port = server.port();
    server.kill();
    assert!(server.try_sql_in(&database, "SELECT 1").is_err(), "a killed server answers");
    assert!(TcpStream::connect(server.addr()).is_err(), "a killed server listens");
    server.restart();
    assert_eq!(server.port(), port);
    assert_eq!(server.run_sql_in(&database, "SELECT number FROM kept"), "7");
    server.restart();
    assert_eq!(server.run_sql_in(&database, "SELECT number FROM kept"), "7");
}

#[test]
fn postgres_asks_for_the_password_of_its_url() {
    let server = Postgres::shared();
    let database = server.create_database();
    let url = server.url(&database);
    assert_eq!(Postgres::try_sql_at(&url, "SELECT current_database()"), Ok(database.clone()));
    let wrong = url.replace("not-a-secret", "wrong");
    let refused = Postgres::try_sql_at(&wrong, "SELECT 1").expect_err("a wrong password");
    assert!(refused.contains("password authentication failed"), "{refused}");
}

#[test]
fn tests_share_one_postgres_and_get_databases_of_their_own() {
    let mut names =
        at_once(4, |_| (Postgres::shared().port(), Postgres::shared().create_database()));
    names.sort();
    names.dedup_by_key(|(_, name)| name.clone());
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names.iter().all(|(port, _)| *port == names[0].0), "{names:?}");
}

#[test]
fn a_paused_postgres_answers_only_when_it_goes_on() {
    let server = Postgres::start(&[]);
    server.pause();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| server.run_sql("SELECT 1"));
        // The kernel has the connection; nobody takes it.
        let connected = eventually("a connection", || TcpStream::connect(server.addr()).ok());
        assert!(!asked.is_finished(), "a paused server answers");
        server.resume();
        assert_eq!(asked.join().unwrap(), "1");
        drop(connected);
    });
}

#[test]
fn a_failover_to_the_synchronous_standby_loses_no_row() {
    let pair = PostgresPair::start(&[]);
    pair.primary().run_sql("CREATE TABLE kept (number int)");
    for number in 1..=5 {
        pair.primary().run_sql(&format!("INSERT INTO kept VALUES ({number})"));
    }
    assert_eq!(pair.standby().run_sql("SELECT pg_is_in_recovery()"), "t");
    pair.fail_over();
    assert!(pair.primary().try_sql_in("postgres", "SELECT 1").is_err(), "the old primary answers");
    assert_eq!(pair.standby().run_sql("SELECT count(*) FROM kept"), "5");
    pair.standby().run_sql("INSERT INTO kept VALUES (6)");
    assert_eq!(pair.standby().run_sql("SELECT pg_is_in_recovery()"), "f");
}

#[test]
fn a_commit_waits_for_the_standby_and_says_so_when_told_not_to() {
    let pair = PostgresPair::start(&[]);
    pair.primary().run_sql("CREATE TABLE kept (number int)");
    pair.standby().stop();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pair.primary().run_sql("INSERT INTO kept VALUES (1)"));
        eventually("the commit waits for the standby", || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            (pair.primary().run_sql(waits) == "1").then_some(())
        });
        assert!(!waiting.is_finished(), "committed without the standby");
        pair.standby().restart();
        waiting.join().unwrap();
    });
    pair.until_synchronous();
    assert_eq!(pair.standby().run_sql("SELECT count(*) FROM kept"), "1");
}

#[test]
fn redis_keeps_its_values_over_kill_and_restart() {
    let server = Redis::start(&[("requirepass", "geheim"), ("maxmemory-policy", "allkeys-lru")]);
    assert_eq!(server.cli(&["CONFIG", "GET", "appendfsync"]), "appendfsync\nalways");
    assert_eq!(server.cli(&["CONFIG", "GET", "maxmemory-policy"]), "maxmemory-policy\nallkeys-lru");
    assert_eq!(server.try_cli_at(&server.url(), &["SET", "kept", "7"]), Ok("OK".to_owned()));
    let open = server.url().replace("default:geheim@", "");
    let refused = server.try_cli_at(&open, &["GET", "kept"]).expect_err("no password");
    assert!(refused.contains("NOAUTH"), "{refused}");
    server.kill();
    assert!(TcpStream::connect(server.addr()).is_err(), "a killed server listens");
    server.restart();
    assert_eq!(server.cli(&["GET", "kept"]), "7");
    server.restart();
    assert_eq!(server.cli(&["GET", "kept"]), "7");
}

#[test]
fn tests_share_one_redis_and_get_databases_of_their_own() {
    let server = Redis::shared();
    let (one, other) = (server.fresh_url(), server.fresh_url());
    assert_ne!(one, other);
    assert_eq!(server.try_cli_at(&one, &["SET", "name", "one"]), Ok("OK".to_owned()));
    assert_eq!(server.try_cli_at(&other, &["GET", "name"]), Ok(String::new()));
    assert_eq!(server.try_cli_at(&one, &["GET", "name"]), Ok("one".to_owned()));
}

#[test]
fn a_paused_redis_answers_only_when_it_goes_on() {
    let server = Redis::start(&[]);
    server.pause();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| server.cli(&["PING"]));
        let connected = eventually("a connection", || TcpStream::connect(server.addr()).ok());
        assert!(!asked.is_finished(), "a paused server answers");
        server.resume();
        assert_eq!(asked.join().unwrap(), "PONG");
        drop(connected);
    });
}

#[test]
fn postgres_with_tls_proves_who_it_is_and_takes_nothing_else() {
    let (server, stranger) = (Postgres::start_tls(&[]), Redis::start_tls(&[]));
    let ask = |mode: &str, ca: &Path| {
        let parameters = format!("?sslmode={mode}&sslrootcert={}", ca.display());
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        Postgres::try_sql_at(&(server.url("postgres") + &parameters), sql)
    };
    assert_eq!(ask("verify-full", server.ca().unwrap()), Ok("t".to_owned()));
    let refused = ask("verify-full", stranger.ca().unwrap()).expect_err("another authority");
    assert!(refused.contains("certificate verify failed"), "{refused}");
    let refused = ask("disable", server.ca().unwrap()).expect_err("a plain connection");
    assert!(refused.contains("no encryption"), "{refused}");
}

#[test]
fn redis_with_tls_proves_who_it_is_and_takes_nothing_else() {
    let server = Redis::start_tls(&[("requirepass", "geheim")]);
    let stranger = Redis::start_tls(&[]);
    assert_eq!(server.try_cli_at(&server.url(), &["PING"]), Ok("PONG".to_owned()));
    let refused = stranger.try_cli_at(&server.url(), &["PING"]).expect_err("another authority");
    assert!(refused.contains("certificate verify failed"), "{refused}");
    let plain = server.url().replace("rediss:", "redis:");
    let refused = Redis::start(&[]).try_cli_at(&plain, &["PING"]);
    assert!(refused.is_err(), "a plain connection: {refused:?}");
    server.restart();
    assert_eq!(server.try_cli_at(&server.url(), &["PING"]), Ok("PONG".to_owned()));
}

#[test]
fn a_redis_failover_keeps_what_the_replicas_have_confirmed() {
    let group = RedisReplicas::start(2, &[("requirepass", "geheim")]);
    let first = group.primary().port();
    group.primary().cli(&["SET", "kept", "7"]);
    assert_eq!(group.primary().cli(&["WAIT", "2", "10000"]), "2");
    let next = group.fail_over();
    assert_ne!(next.port(), first);
    assert_eq!(next.cli(&["GET", "kept"]), "7");
    next.cli(&["SET", "kept", "8"]);
    assert_eq!(next.cli(&["WAIT", "1", "10000"]), "1");
    let written = group.servers().iter().filter(|server| server.runs());
    assert!(written.map(|server| server.cli(&["GET", "kept"])).eq(["8", "8"]));
}

#[test]
fn a_cluster_keeps_keys_on_three_nodes_and_can_be_reached_through_proxies() {
    let cluster = RedisCluster::start(&[]);
    let mut owners: Vec<_> = ["a", "b", "c"].map(|key| cluster.owner(key).port()).into();
    for key in ["a", "b", "c"] {
        assert_eq!(cluster.owner(key).cli(&["SET", key, "kept"]), "OK");
    }
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners.len(), 3, "the keys of this test lie on all nodes");
    let elsewhere = cluster.nodes().iter().find(|node| node.port() != cluster.owner("a").port());
    let moved = elsewhere.unwrap().try_cli(&["GET", "a"]).expect_err("another node's key");
    assert!(moved.contains("MOVED"), "{moved}");

    let proxies: Vec<_> = cluster.nodes().iter().map(|node| Chaos::start(node.addr())).collect();
    cluster.announce(&proxies.iter().map(Chaos::port).collect::<Vec<_>>());
    let node = &cluster.nodes()[0];
    for key in ["a", "b", "c"] {
        let through = node.try_cli_at(&node.url_at(proxies[0].addr(), 0), &["-c", "GET", key]);
        assert_eq!(through, Ok("kept".to_owned()));
    }
    assert!(proxies.iter().all(|proxy| proxy.bytes(Direction::ToServer) > 0), "{proxies:?}");

    cluster.owner("a").kill();
    cluster.owner("a").restart();
    cluster.until_ready();
    assert_eq!(cluster.owner("a").cli(&["GET", "a"]), "kept");
    assert_eq!(cluster.urls().len(), 3);
}

/// In the environment of the test process that is to be killed.
const DOOMED: &str = "ONCEGATE_TEST_DOOMED";

#[test]
fn a_killed_test_process_leaves_no_server_behind() {
    const NAME: &str = "servers_test::a_killed_test_process_leaves_no_server_behind";
    if std::env::var_os(DOOMED).is_some() {
        return wait_to_be_killed();
    }
    let mut doomed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(DOOMED, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(doomed.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut reply = lines.filter_map(|line| Some(line.split_once("doomed: ")?.1.to_owned()));
    let [port, paused, dir] = [(); 3].map(|()| reply.next().expect("a line of the doomed process"));
    let reaches = |port: &String| TcpStream::connect(format!("127.0.0.1:{port}")).is_ok();
    assert!(reaches(&port) && reaches(&paused) && Path::new(&dir).is_dir());
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    eventually("the servers end with the process", || {
        (!reaches(&port) && !reaches(&paused) && !Path::new(&dir).exists()).then_some(())
    });
}

fn wait_to_be_killed() {
    let (redis, postgres) = (Redis::start(&[]), Postgres::start(&[]));
    postgres.pause();
    let dir = postgres.dir().parent().unwrap().display();
    println!("doomed: {}\ndoomed: {}\ndoomed: {dir}", redis.port(), postgres.port());
    // Ends when the parent does, should that fail first.
    _ = std::io::stdin().lines().count();
}
