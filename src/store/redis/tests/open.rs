//! Opening: stores and servers that are accepted, and one-line errors for the rest.

use tokio::task::JoinSet;
use uuid::Uuid;

use super::*;

async fn check_refused(options: &RedisOptions, expected: &[&str]) {
    let error = Redis::open(options).await.unwrap_err();
    for part in expected {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert!(!error.contains('\n') && !error.contains("s3cret"), "{error}");
}

fn with_short_limits(url: String) -> RedisOptions {
    let second = Duration::from_secs(1);
    RedisOptions { connect_timeout: second, timeout: second, ..options(url) }
}

#[tokio::test]
async fn an_invalid_url_is_reported_without_its_password() {
    for bad in [
        "http://u:s3cret@host/0",
        "redis://",
        "redis://u:s3cret@host:99999999/0",
        "redis://u:s3cret@host/zero",
        "redis://u:s3cret@host/0#insecure",
        "redis://u:s3cret@host/0?protocol=resp3",
    ] {
        check_refused(&options(bad.to_owned()), &["URL", "redis://user:password@host"]).await;
    }
    check_refused(&RedisOptions { urls: Vec::new(), ..fresh() }, &["no Redis URL"]).await;
    check_refused(&RedisOptions { prefix: "{a}".to_owned(), ..fresh() }, &["prefix"]).await;
    let both = RedisOptions { cluster: true, sentinel: Some("x".to_owned()), ..fresh() };
    check_refused(&both, &["exclude each other"]).await;
}

#[tokio::test]
async fn an_absent_or_silent_server_is_reported() {
    let gone = servers::Redis::start(&[]);
    gone.stop();
    check_refused(&options(gone.url()), &["cannot be reached", "refused"]).await;
    let server = servers::Redis::start(&[]);
    server.pause();
    check_refused(&with_short_limits(server.url()), &["cannot be reached", "no answer within 1s"])
        .await;
    server.resume();
}

#[tokio::test]
async fn a_wrong_password_or_a_missing_right_is_reported() {
    let server = servers::Redis::start(&[("requirepass", "s3cret")]);
    let at = |login: &str| options(format!("redis://{login}{}/0", server.addr()));
    check_refused(&at(""), &["password"]).await;
    check_refused(&at(":s3cret2@"), &["user and password"]).await;
    check_refused(&at("nobody:s3cret@"), &["user and password"]).await;
    open(&options(server.url())).await;

    let rights = "on >s3cret ~* &* +@all";
    for (missing, expected) in [
        ("-info", "+info"),
        ("-role", "+role"),
        ("-config", "appendfsync"),
        ("-evalsha -eval", "EVAL".to_lowercase().as_str()),
        ("-zadd", "docs/stores.md"),
        ("-script", "docs/stores.md"),
    ] {
        let rights: Vec<&str> = rights.split(' ').chain(missing.split(' ')).collect();
        server.cli(&[&["ACL", "SETUSER", "gate", "reset"], rights.as_slice()].concat());
        check_refused(&at("gate:s3cret@"), &[expected]).await;
    }
    // The rights that docs/stores.md lists suffice.
    let documented = include_str!("../../../../docs/stores.md");
    let granted = documented.lines().find_map(|line| line.strip_prefix("ACL SETUSER oncegate "));
    let granted = granted.expect("a list of rights").replace("PASSWORD", "s3cret");
    let granted: Vec<&str> = granted.split_whitespace().collect();
    server.cli(&[&["ACL", "SETUSER", "gate", "reset"], granted.as_slice()].concat());
    let engine = open(&at("gate:s3cret@")).await;
    engine.heartbeat([1; 16], LONG_LIMIT).await.unwrap();
    let put = [group(vec![put_new(id(1), samples::claim(1))])];
    assert_eq!(engine.commit(0, &put).await.unwrap(), [CasResult::Done]);
    assert_eq!(
        listed(&engine, Query { abandoned: true, limit: 9, ..Query::default() }).await,
        [id(1)]
    );
}

#[tokio::test]
async fn a_server_that_may_lose_records_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl", "allkeys-random"] {
        let server = servers::Redis::start(&[("maxmemory-policy", policy)]);
        check_refused(&options(server.url()), &["may evict", policy, "noeviction"]).await;
    }
    let server = servers::Redis::start(&[]);
    let relaxed = RedisOptions { strict: false, ..options(server.url()) };
    server.cli(&["CONFIG", "SET", "appendfsync", "everysec"]);
    check_refused(&options(server.url()), &["appendfsync is everysec", "always"]).await;
    server.cli(&["CONFIG", "SET", "appendonly", "no"]);
    check_refused(&options(server.url()), &["appendonly is no"]).await;
    open(&relaxed).await;
}

#[tokio::test]
async fn a_server_of_another_kind_than_configured_is_refused() {
    let cluster = servers::RedisCluster::start(&[]);
    let single = RedisOptions { cluster: false, ..clustered(&cluster, "oncegate") };
    check_refused(&single, &["belongs to a cluster", "cluster = true"]).await;
    let database = RedisOptions {
        urls: vec![cluster.urls()[0].replace("/0", "/3")],
        ..clustered(&cluster, "x")
    };
    check_refused(&database, &["database 0 only"]).await;
    check_refused(
        &RedisOptions { cluster: true, urls: vec![servers::Redis::shared().url()], ..fresh() },
        &["belongs to no cluster", "cluster = false"],
    )
    .await;
    let sentinel = RedisOptions { sentinel: Some("primary".to_owned()), ..fresh() };
    check_refused(&sentinel, &["is no Sentinel"]).await;
    let group = servers::RedisReplicas::start(1, &[]);
    let replica = group.servers()[1].url();
    check_refused(&options(replica.clone()), &["is a replica"]).await;
    let urls = vec![replica, group.primary().url()];
    let engine = open(&RedisOptions { urls, ..options(String::new()) }).await;
    engine.heartbeat([1; 16], LONG_LIMIT).await.unwrap();
    // Two primaries are refused.
    group.servers()[1].cli(&["REPLICAOF", "NO", "ONE"]);
    let urls = group.servers().iter().map(servers::Redis::url).collect();
    check_refused(&RedisOptions { urls, ..options(String::new()) }, &["both", "the primary"]).await;
}

#[tokio::test]
async fn tls_trusts_the_configured_authority() {
    let server = servers::Redis::start_tls(&[]);
    let trusting = RedisOptions { ca: server.ca().map(Into::into), ..options(server.url()) };
    let engine = open(&trusting).await;
    engine.heartbeat([1; 16], LONG_LIMIT).await.unwrap();
    check_refused(&with_short_limits(server.url()), &["TLS handshake failed"]).await;
    let plain = server.url().replace("rediss://", "redis://");
    check_refused(&with_short_limits(plain), &["cannot be reached"]).await;
}

#[tokio::test]
async fn a_store_is_created_once_and_found_later() {
    let options = fresh();
    check_refused(
        &RedisOptions { create: false, ..options.clone() },
        &["no store", "create = false"],
    )
    .await;
    let unknown = Uuid::new_v4();
    let pinned = RedisOptions { expect_id: Some(unknown), ..options.clone() };
    check_refused(&pinned, &["no store", &unknown.to_string()]).await;

    let mut opening = JoinSet::new();
    for _ in 0..8 {
        let options = options.clone();
        opening.spawn(async move { Redis::open(&options).await.unwrap().identity });
    }
    let made = opening.join_all().await;
    assert!(made.iter().all(|identity| *identity == made[0]), "{made:?}");
    let found = Redis::open(&RedisOptions { create: false, ..options.clone() }).await.unwrap();
    assert_eq!((found.identity, found.created), (made[0].clone(), false));
    let store_id = made[0].store_id;
    let right = RedisOptions { expect_id: Some(store_id), ..options.clone() };
    assert_eq!(Redis::open(&right).await.unwrap().identity.store_id, store_id);
    check_refused(&pinned, &[&store_id.to_string(), &unknown.to_string(), "expect_id"]).await;
}

#[tokio::test]
async fn an_incomplete_store_is_refused_or_completed() {
    let options = fresh();
    let database = options.urls[0].rsplit('/').next().unwrap().to_owned();
    let cli = |args: &[&str]| servers::Redis::shared().cli(&[&["-n", &database], args].concat());
    let first = Redis::open(&options).await.unwrap();
    let put = [group(vec![put_new(at(5, 1), samples::claim(1))])];
    assert_eq!(first.engine.commit(0, &put).await.unwrap(), [CasResult::Done]);
    let meta = "oncegate:{meta}:store";

    let newer = (crate::store::codec::SCHEMA + 1).to_string();
    let refused = [(newer.as_str(), "upgrade oncegate"), ("2", "before the first release")];
    for (schema, expected) in refused {
        cli(&["HSET", meta, "schema", schema]);
        check_refused(&options, &[expected]).await;
    }
    cli(&["HSET", meta, "schema", &crate::store::codec::SCHEMA.to_string()]);

    let marker = cli(&["GET", "oncegate:{07}:store"]);
    cli(&["DEL", "oncegate:{07}:store"]);
    check_refused(&options, &["1 of 256 shards", "gone"]).await;
    cli(&["SET", "oncegate:{07}:store", "another"]);
    check_refused(&options, &["1 of 256 shards", "another"]).await;
    cli(&["SET", "oncegate:{07}:store", &marker]);
    open(&options).await;

    cli(&["RENAME", meta, "away"]);
    check_refused(&options, &["256 of 256 shards still hold", &marker]).await;
    cli(&["SET", meta, "something"]);
    assert!(Redis::open(&options).await.is_err());
    cli(&["DEL", meta]);
    cli(&["RENAME", "away", meta]);

    // The state after a crash during creation, except that one shard has records.
    cli(&["HSET", meta, "state", "making"]);
    check_refused(&RedisOptions { create: false, ..options.clone() }, &["not finished"]).await;
    cli(&["DEL", "oncegate:{05}:store"]);
    assert!(Redis::open(&options).await.is_err());
    cli(&["SET", "oncegate:{05}:store", &marker]);
    cli(&["DEL", "oncegate:{09}:store"]);
    let finished = Redis::open(&options).await.unwrap();
    assert_eq!(finished.identity, first.identity);
    assert_eq!(read(&finished.engine, at(5, 1)).await, Some(bytes(&at(5, 1), &samples::claim(1))));
}
