//! Servers that stop, lose data, run full or stay silent.

use super::*;

fn with_short_limits(options: RedisOptions) -> RedisOptions {
    let limit = Duration::from_millis(500);
    RedisOptions { connect_timeout: limit, timeout: limit, ..options }
}

#[tokio::test]
async fn an_emptied_server_rejects_everything() {
    let server = servers::Redis::start(&[]);
    let engine = open(&options(server.url())).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    let check = async |engine: &Redis, expected: &str| {
        rejected(engine.commit(0, &[group(put(1))]).await, expected);
        rejected(engine.commit(0, &[resent(put(1))]).await, expected);
        rejected(engine.heartbeat([1; 16], LONG_LIMIT).await, expected);
        rejected(engine.read(&[id(1)]).await, "shard 00");
        let queries = [
            Query::default(),
            Query { open: true, ..Query::default() },
            Query { abandoned: true, ..Query::default() },
            Query { expired_at: Some(samples::T0), ..Query::default() },
        ];
        for query in queries {
            rejected(engine.list(&Query { limit: 1, ..query }).await, "shard 00");
        }
    };
    server.cli(&["FLUSHALL"]);
    check(&engine, "no longer holds this store").await;
    // Another store in its place is rejected as well; the other store works.
    let other = open(&options(server.url())).await;
    check(&engine, "no longer holds this store").await;
    assert_eq!(other.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
}

#[tokio::test]
async fn a_lost_shard_rejects_commits_and_the_others_go_on() {
    let cluster = servers::RedisCluster::start(&[]);
    let engine = open(&clustered(&cluster, "oncegate")).await;
    let owner = cluster.owner("oncegate:{00}:store");
    owner.cli(&["FLUSHALL"]);
    let live_shard = (0..=255).find(|shard| {
        let key = format!("oncegate:{{{shard:02x}}}:store");
        !std::ptr::eq(cluster.owner(&key), owner)
    });
    let live_shard = live_shard.unwrap();
    let claim = |shard| vec![put_new(at(shard, 1), samples::claim(1))];
    rejected(engine.commit(0, &[group(claim(0))]).await, "no longer holds");
    assert_eq!(engine.commit(0, &[group(claim(live_shard))]).await.unwrap(), [CasResult::Done]);
    // A partly made batch must not be reported as rejected.
    let removed = group(vec![replace(at(live_shard, 1), 1, None)]);
    indeterminate(engine.commit(0, &[removed, group(claim(0))]).await);
    assert_eq!(read(&engine, at(live_shard, 1)).await, None);
}

#[tokio::test]
async fn scripts_are_loaded_again_when_the_server_lost_them() {
    let server = servers::Redis::start(&[]);
    let engine = open(&options(server.url())).await;
    let groups: Vec<Group> = (0..10).map(|n| group(put(n))).collect();
    server.cli(&["SCRIPT", "FLUSH"]);
    assert!(engine.commit(0, &groups).await.unwrap().iter().all(|end| *end == CasResult::Done));
    server.cli(&["SCRIPT", "FLUSH"]);
    engine.heartbeat([1; 16], LONG_LIMIT).await.unwrap();
    server.restart();
    until_done(&engine, || put(20)).await;
}

#[tokio::test]
async fn a_full_server_rejects_and_changes_nothing() {
    let server = servers::Redis::start(&[]);
    let engine = open(&options(server.url())).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    rejected(engine.commit(0, &[group(put(2))]).await, "maxmemory");
    let completed = vec![replace(id(1), 1, Some(samples::kept(1, 10)))];
    rejected(engine.commit(0, &[group(completed)]).await, "maxmemory");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let all = Query { open: true, limit: 10, ..Query::default() };
    assert_eq!(listed(&engine, all).await, [id(1)]);
    assert_eq!(read(&engine, id(1)).await, Some(bytes(&id(1), &samples::claim(1))));
    assert_eq!(read(&engine, id(2)).await, None);
}

#[tokio::test]
async fn a_server_that_begins_to_evict_is_noticed() {
    let server = servers::Redis::start(&[]);
    let engine = open(&options(server.url())).await;
    engine.check_servers(LONG_LIMIT).await.unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    rejected(engine.check_servers(LONG_LIMIT).await, "may evict");
    rejected(engine.heartbeat([1; 16], LONG_LIMIT).await, "may evict");
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    engine.heartbeat([1; 16], LONG_LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_silent_server_leaves_a_commit_indeterminate_and_a_dead_one_rejects_it() {
    let server = servers::Redis::start(&[]);
    let engine = open(&with_short_limits(options(server.url()))).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    server.pause();
    indeterminate(engine.commit(0, &[group(put(2))]).await);
    rejected(engine.read(&[id(1)]).await, "cannot be reached");
    server.resume();
    until_done(&engine, || put(2)).await;
    server.kill();
    // The second command at the latest finds the connection lost.
    assert!(engine.commit(0, &[group(put(3))]).await.is_err());
    rejected(engine.commit(0, &[group(put(3))]).await, "cannot be reached");
    rejected(engine.heartbeat([1; 16], LONG_LIMIT).await, "cannot be reached");
    server.restart();
    until_done(&engine, || put(3)).await;
    assert_eq!(read(&engine, id(1)).await, Some(bytes(&id(1), &samples::claim(1))));
}

#[tokio::test]
async fn a_lost_answer_is_indeterminate_and_never_a_loss_to_the_own_record() {
    let server = servers::Redis::start(&[]);
    let proxy = servers::Chaos::start(server.addr());
    let engine = open(&options(server.url_at(proxy.addr(), 0))).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    for n in 2..20 {
        // The command arrives or not; the answer never does.
        let direction =
            [servers::Direction::ToClient, servers::Direction::ToServer][n as usize % 2];
        proxy.cut_after_bytes(direction, 1);
        indeterminate(engine.commit(0, &[group(put(n))]).await);
        until_done(&engine, || put(n)).await;
        assert_eq!(read(&engine, id(n)).await, Some(bytes(&id(n), &samples::claim(n))));
    }
}

#[tokio::test]
async fn a_commit_waits_for_the_configured_number_of_replicas() {
    let servers = servers::RedisReplicas::start(1, &[]);
    let urls = servers.servers().iter().map(servers::Redis::url).collect();
    let options = RedisOptions { urls, replicas: 1, ..options(String::new()) };
    let timeout = Duration::from_secs(2);
    let options = RedisOptions { timeout, ..options };
    let engine = open(&options).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    let replica = &servers.servers()[1];
    replica.pause();
    indeterminate(engine.commit(0, &[group(put(2))]).await);
    // The record is on the primary alone: no connection may report it yet.
    assert!(engine.read(&[id(2)]).await.is_err());
    assert!(engine.list(&Query { limit: 9, ..Query::default() }).await.is_err());
    for connection in [0, 1] {
        indeterminate(engine.commit(connection, &[resent(put(2))]).await);
        indeterminate(engine.commit(connection, &[group(put(2))]).await);
    }
    replica.resume();
    until_done(&engine, || put(2)).await;
    assert_eq!(read(&engine, id(2)).await, Some(bytes(&id(2), &samples::claim(2))));
}

/// Since Redis 7.2, and in Valkey, `WAIT` counts up to the last write of its own connection. The
/// servers of the tests may be older, so the test counts the write itself.
#[tokio::test]
async fn a_read_that_waits_for_replicas_writes_first() {
    let servers = servers::RedisReplicas::start(1, &[]);
    let urls = servers.servers().iter().map(servers::Redis::url).collect();
    let options = RedisOptions { urls, ..options(String::new()) };
    for replicas in [1, 0] {
        let engine = open(&RedisOptions { replicas, ..options.clone() }).await;
        let n = u64::from(replicas) + 1;
        assert_eq!(engine.commit(0, &[group(put(n))]).await.unwrap(), [CasResult::Done]);
        let sets = || {
            let stats = servers.primary().cli(&["INFO", "commandstats"]);
            let set = stats.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls="));
            let calls = set.and_then(|line| line.split(',').next()?.parse().ok());
            calls.unwrap_or(0_u32)
        };
        let before = sets();
        assert_eq!(read(&engine, id(n)).await, Some(bytes(&id(n), &samples::claim(n))));
        assert_eq!(sets() - before, replicas);
        let met = engine.commit(0, &[group(put(n))]).await.unwrap();
        assert!(matches!(met.as_slice(), [CasResult::Lost { index: 0, winner: Some(_) }]));
        assert_eq!(sets() - before, 2 * replicas);
        assert_eq!(engine.commit(0, &[resent(put(n))]).await.unwrap(), [CasResult::Done]);
        assert_eq!(sets() - before, 3 * replicas);
    }
    // No read creates the marker of a lost store.
    let engine = open(&RedisOptions { replicas: 1, ..options }).await;
    servers.primary().cli(&["FLUSHALL"]);
    rejected(engine.read(&[id(1)]).await, "is gone from Redis");
    assert_eq!(servers.primary().cli(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn late_bytes_of_an_abandoned_connection_do_not_repeat_a_released_claim() {
    let server = servers::Redis::start(&[]);
    let proxy = servers::Chaos::start(server.addr());
    let engine = open(&with_short_limits(options(server.url_at(proxy.addr(), 0)))).await;
    assert_eq!(engine.commit(0, &[group(put(9))]).await.unwrap(), [CasResult::Done]);
    let open_before = proxy.open();
    // The claim is on its way when its connection is abandoned.
    proxy.hold(true);
    indeterminate(engine.commit(0, &[group(put(1))]).await);
    until_done(&engine, || put(1)).await;
    let release = [group(vec![replace(id(1), 1, None)])];
    assert_eq!(engine.commit(0, &release).await.unwrap(), [CasResult::Done]);
    assert_eq!(proxy.open(), open_before + 1, "the first connection still has its bytes");
    proxy.hold(false);
    let ended = async {
        while proxy.open() > open_before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG_LIMIT, ended).await.expect("the held connection ends");
    // Asked of the server itself, which has then executed everything sent before.
    assert_eq!(server.cli(&["EXISTS", &engine.keys.record(&id(1))]), "0");
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
}

/// A script ends with the first command that the server refuses, and earlier commands stay in
/// effect.
#[tokio::test]
async fn a_partly_made_change_is_completed() {
    let server = servers::Redis::start(&[]);
    let may = |rights: &[&str]| server.cli(&[&["ACL", "SETUSER", "gate"], rights].concat());
    may(&["on", ">s3cret", "~*", "&*", "+@all"]);
    let engine = open(&options(format!("redis://gate:s3cret@{}/0", server.addr()))).await;
    let claim = samples::claim(1);
    let kept = samples::kept(1, 10);
    let query = |open, expired_at| Query { open, expired_at, limit: 9, ..Query::default() };
    let later = kept.expires();
    let changes = [
        (vec![put_new(id(1), claim)], [vec![id(1)], vec![]]),
        (vec![replace(id(1), 1, Some(kept))], [vec![], vec![id(1)]]),
        (vec![replace(id(1), 2, None)], [vec![], vec![]]),
    ];
    for (change, [open, expiring]) in changes {
        for command in ["zadd", "mset", "del", "zrem"] {
            may(&[&format!("-{command}")]);
            // A change without that command succeeds.
            let first = engine.commit(0, &[group(change.clone())]).await;
            may(&[&format!("+{command}")]);
            // A reader sees a record with its index entries or no record, never a record without
            // entries.
            let there = engine.read(&[id(1)]).await.unwrap().remove(0);
            let listed_open = listed(&engine, query(true, None)).await;
            let record = there.as_ref().map(|bytes| Codec::plain().decode(&id(1), bytes).unwrap());
            let is_open = record.is_some_and(|record| record.is_in_flight());
            assert_eq!(listed_open.contains(&id(1)), is_open, "{command}: {first:?}");
        }
        assert_eq!(engine.commit(0, &[resent(change)]).await.unwrap(), [CasResult::Done]);
        assert_eq!(listed(&engine, query(true, None)).await, open);
        assert_eq!(listed(&engine, query(false, later)).await, expiring);
        let count = "local n = 0 \
                     for _, k in ipairs(redis.call('KEYS', '*:open')) do \
                     n = n + redis.call('ZCARD', k) end \
                     return n";
        let entries = server.cli(&["--raw", "EVAL", count, "0"]);
        assert_eq!(entries.trim(), open.len().to_string());
    }
}
