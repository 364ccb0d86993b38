//! Servers that go away, forget, run full or are deposed.

use super::*;

fn impatient(options: Options) -> Options {
    let while_ = Duration::from_millis(500);
    Options { connect_timeout: while_, timeout: while_, ..options }
}

#[tokio::test]
async fn an_emptied_server_refuses_everything() {
    let server = servers::Redis::start(&[]);
    let engine = open(&options(server.url())).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    let check = async |engine: &Redis, expected: &str| {
        refused(engine.commit(0, &[group(put(1))]).await, expected);
        refused(engine.commit(0, &[again(put(1))]).await, expected);
        refused(engine.heartbeat([1; 16], PATIENCE).await, expected);
        refused(engine.read(&[id(1)]).await, "shard 00");
        let queries = [
            Query::default(),
            Query { open: true, ..Query::default() },
            Query { abandoned: true, ..Query::default() },
            Query { expired_at: Some(samples::T0), ..Query::default() },
        ];
        for query in queries {
            refused(engine.list(&Query { limit: 1, ..query }).await, "shard 00");
        }
    };
    server.cli(&["FLUSHALL"]);
    check(&engine, "no longer holds this store").await;
    // Somebody else's store is none either; the new one works.
    let other = open(&options(server.url())).await;
    check(&engine, "no longer holds this store").await;
    assert_eq!(other.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
}

#[tokio::test]
async fn a_lost_shard_refuses_and_the_others_go_on() {
    let cluster = servers::RedisCluster::start(&[]);
    let engine = open(&clustered(&cluster, "oncegate")).await;
    let owner = cluster.owner("oncegate:{00}:store");
    owner.cli(&["FLUSHALL"]);
    let lives = (0..=255).find(|shard| {
        let key = format!("oncegate:{{{shard:02x}}}:store");
        !std::ptr::eq(cluster.owner(&key), owner)
    });
    let lives = lives.unwrap();
    let claim = |shard| vec![put_new(at(shard, 1), samples::claim(1))];
    refused(engine.commit(0, &[group(claim(0))]).await, "no longer holds");
    assert_eq!(engine.commit(0, &[group(claim(lives))]).await.unwrap(), [CasResult::Done]);
    // Of a batch a part of which was made nobody says that nothing was.
    let removed = group(vec![replace(at(lives, 1), 1, None)]);
    unsure(engine.commit(0, &[removed, group(claim(0))]).await);
    assert_eq!(read(&engine, at(lives, 1)).await, None);
}

#[tokio::test]
async fn the_scripts_are_sent_again_when_the_server_lost_them() {
    let server = servers::Redis::start(&[]);
    let engine = open(&options(server.url())).await;
    let groups: Vec<Group> = (0..10).map(|n| group(put(n))).collect();
    server.cli(&["SCRIPT", "FLUSH"]);
    assert!(engine.commit(0, &groups).await.unwrap().iter().all(|end| *end == CasResult::Done));
    server.cli(&["SCRIPT", "FLUSH"]);
    engine.heartbeat([1; 16], PATIENCE).await.unwrap();
    server.restart();
    until_done(&engine, || put(20)).await;
}

#[tokio::test]
async fn a_full_server_refuses_and_changes_nothing() {
    let server = servers::Redis::start(&[]);
    let engine = open(&options(server.url())).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    refused(engine.commit(0, &[group(put(2))]).await, "maxmemory");
    let completed = vec![replace(id(1), 1, Some(samples::kept(1, 10)))];
    refused(engine.commit(0, &[group(completed)]).await, "maxmemory");
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
    engine.look(PATIENCE).await.unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    refused(engine.look(PATIENCE).await, "may evict");
    refused(engine.heartbeat([1; 16], PATIENCE).await, "may evict");
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    engine.heartbeat([1; 16], PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_silent_server_leaves_a_commit_unsure_and_a_dead_one_refuses() {
    let server = servers::Redis::start(&[]);
    let engine = open(&impatient(options(server.url()))).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    server.pause();
    unsure(engine.commit(0, &[group(put(2))]).await);
    refused(engine.read(&[id(1)]).await, "cannot be reached");
    server.resume();
    until_done(&engine, || put(2)).await;
    server.kill();
    // The connection is known to be lost at the latest by the second question.
    assert!(engine.commit(0, &[group(put(3))]).await.is_err());
    refused(engine.commit(0, &[group(put(3))]).await, "cannot be reached");
    refused(engine.heartbeat([1; 16], PATIENCE).await, "cannot be reached");
    server.restart();
    until_done(&engine, || put(3)).await;
    assert_eq!(read(&engine, id(1)).await, Some(bytes(&id(1), &samples::claim(1))));
}

#[tokio::test]
async fn a_lost_answer_is_unsure_and_never_lost_against_oneself() {
    let server = servers::Redis::start(&[]);
    let proxy = servers::Chaos::start(server.addr());
    let engine = open(&options(server.url_at(proxy.addr(), 0))).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    for n in 2..20 {
        // The question gets through or not; the answer never does.
        let direction =
            [servers::Direction::ToClient, servers::Direction::ToServer][n as usize % 2];
        proxy.cut_after_bytes(direction, 1);
        unsure(engine.commit(0, &[group(put(n))]).await);
        until_done(&engine, || put(n)).await;
        assert_eq!(read(&engine, id(n)).await, Some(bytes(&id(n), &samples::claim(n))));
    }
}

#[tokio::test]
async fn a_commit_waits_for_as_many_replicas_as_it_is_told() {
    let servers = servers::RedisReplicas::start(1, &[]);
    let urls = servers.servers().iter().map(servers::Redis::url).collect();
    let options = Options { urls, replicas: 1, ..options(String::new()) };
    let timeout = Duration::from_secs(2);
    let options = Options { timeout, ..options };
    let engine = open(&options).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    let replica = &servers.servers()[1];
    replica.pause();
    unsure(engine.commit(0, &[group(put(2))]).await);
    // It is on the primary alone: nobody is told of it yet, on whatever connection.
    assert!(engine.read(&[id(2)]).await.is_err());
    assert!(engine.list(&Query { limit: 9, ..Query::default() }).await.is_err());
    for lane in [0, 1] {
        unsure(engine.commit(lane, &[again(put(2))]).await);
        unsure(engine.commit(lane, &[group(put(2))]).await);
    }
    replica.resume();
    until_done(&engine, || put(2)).await;
    assert_eq!(read(&engine, id(2)).await, Some(bytes(&id(2), &samples::claim(2))));
}

/// Since Redis 7.2, and in Valkey, `WAIT` counts up to the last write of its own connection. The
/// servers of the tests may be older, so the write is looked for.
#[tokio::test]
async fn who_waits_for_replicas_writes_first_even_to_read() {
    let servers = servers::RedisReplicas::start(1, &[]);
    let urls = servers.servers().iter().map(servers::Redis::url).collect();
    let options = Options { urls, ..options(String::new()) };
    for replicas in [1, 0] {
        let engine = open(&Options { replicas, ..options.clone() }).await;
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
        assert_eq!(engine.commit(0, &[again(put(n))]).await.unwrap(), [CasResult::Done]);
        assert_eq!(sets() - before, 3 * replicas);
    }
    // Nobody makes the marker of a store that is gone.
    let engine = open(&Options { replicas: 1, ..options }).await;
    servers.primary().cli(&["FLUSHALL"]);
    refused(engine.read(&[id(1)]).await, "is gone from Redis");
    assert_eq!(servers.primary().cli(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn late_bytes_of_a_connection_that_was_given_up_make_no_released_claim_again() {
    let server = servers::Redis::start(&[]);
    let proxy = servers::Chaos::start(server.addr());
    let engine = open(&impatient(options(server.url_at(proxy.addr(), 0)))).await;
    assert_eq!(engine.commit(0, &[group(put(9))]).await.unwrap(), [CasResult::Done]);
    let open_before = proxy.open();
    // The claim is on its way when its connection is given up.
    proxy.hold(true);
    unsure(engine.commit(0, &[group(put(1))]).await);
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
    tokio::time::timeout(PATIENCE, ended).await.expect("the held connection ends");
    // Asked of the server itself: what it was sent before this question is done.
    assert_eq!(server.cli(&["EXISTS", &engine.keys.record(&id(1))]), "0");
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
}

/// A script ends with the first command that the server refuses, and what it did before stays.
#[tokio::test]
async fn a_change_that_was_made_by_halves_is_made_whole() {
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
            // What needs no such command is made.
            let first = engine.commit(0, &[group(change.clone())]).await;
            may(&[&format!("+{command}")]);
            // Whoever looks now sees a record with its entries, or none; never one without.
            let there = engine.read(&[id(1)]).await.unwrap().remove(0);
            let listed_open = listed(&engine, query(true, None)).await;
            let record = there.as_ref().map(|bytes| codec::decode(&id(1), bytes).unwrap());
            let is_open = record.is_some_and(|record| record.is_in_flight());
            assert_eq!(listed_open.contains(&id(1)), is_open, "{command}: {first:?}");
        }
        assert_eq!(engine.commit(0, &[again(change)]).await.unwrap(), [CasResult::Done]);
        assert_eq!(listed(&engine, query(true, None)).await, open);
        assert_eq!(listed(&engine, query(false, later)).await, expiring);
        let entries = server.cli(&["--raw", "EVAL", "local n = 0 for _, k in ipairs(redis.call('KEYS', '*:open')) do n = n + redis.call('ZCARD', k) end return n", "0"]);
        assert_eq!(entries.trim(), open.len().to_string());
    }
}
