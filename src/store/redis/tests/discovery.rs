//! Discovery of the primaries when servers change roles or are silent.

use super::super::node::CONTROL_CONNECTION;
use super::*;

/// Waits for a condition, for a bounded time.
async fn until(done: &dyn Fn() -> bool) {
    let end = tokio::time::Instant::now() + LONG_LIMIT;
    while !done() {
        assert!(tokio::time::Instant::now() < end, "it does not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_new_primary_is_found_after_a_failover() {
    let servers = servers::RedisReplicas::start(2, &[]);
    let urls = servers.servers().iter().map(servers::Redis::url).collect();
    let options = RedisOptions { urls, replicas: 1, ..options(String::new()) };
    let engine = open(&options).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    servers.fail_over();
    until_done(&engine, || put(2)).await;
    assert_eq!(read(&engine, id(1)).await, Some(bytes(&id(1), &samples::claim(1))));
    // A primary that was deposed while connected reports that, and the gateway leaves it.
    let next = servers.primary();
    let other = servers.servers()[1..].iter().find(|it| it.port() != next.port()).unwrap();
    other.cli(&["REPLICAOF", "NO", "ONE"]);
    next.cli(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    until_done(&engine, || put(3)).await;
    assert!(other.cli(&["EXISTS", &format!("oncegate:{{00}}:r:{}", id(3))]) == "1");
}

#[tokio::test]
async fn slots_that_move_are_followed() {
    let cluster = servers::RedisCluster::start(&[]);
    let engine = open(&clustered(&cluster, "oncegate")).await;
    let groups: Vec<Group> =
        (0..=255).map(|shard| group(vec![put_new(at(shard, 1), samples::claim(1))])).collect();
    let done = engine.commit(0, &groups).await.unwrap();
    assert!(done.iter().all(|end| *end == CasResult::Done));

    let from = cluster.owner("oncegate:{00}:store");
    let to = cluster.nodes().iter().find(|node| !std::ptr::eq(*node, from)).unwrap();
    let slot = from.cli(&["CLUSTER", "KEYSLOT", "oncegate:{00}:store"]);
    let (from_id, to_id) = (from.cli(&["CLUSTER", "MYID"]), to.cli(&["CLUSTER", "MYID"]));
    to.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    let keys = from.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
    let port = to.port().to_string();
    for key in keys.lines() {
        from.cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "10000"]);
    }
    let next = |version, n| {
        let record = Record { version: n, ..samples::claim(1) };
        vec![replace(at(0, 1), version, Some(record))]
    };
    // While a slot moves, neither server executes a command with several keys of which some are
    // missing there. A command whose keys are all on one server is redirected to that server.
    rejected(engine.commit(1, &[group(next(1, 2))]).await, "being rebuilt");
    let claim = bytes(&at(0, 1), &samples::claim(1));
    assert_eq!(read(&engine, at(0, 1)).await, Some(claim));
    for node in cluster.nodes() {
        node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    assert_eq!(engine.commit(2, &[group(next(1, 3))]).await.unwrap(), [CasResult::Done]);
    let all = engine.list(&Query { limit: 1000, ..Query::default() }).await.unwrap();
    assert_eq!(all.len(), 256);
    // A dead node: commits in its slots fail, all others go on.
    to.kill();
    let live_shard = (1..=255)
        .find(|shard| !std::ptr::eq(cluster.owner(&format!("oncegate:{{{shard:02x}}}:store")), to));
    let removed = || vec![replace(at(live_shard.unwrap(), 1), 1, None)];
    assert_eq!(engine.commit(0, &[group(removed())]).await.unwrap(), [CasResult::Done]);
    assert!(engine.commit(0, &[group(next(3, 4))]).await.is_err());
    to.restart();
    cluster.until_ready();
    until_done(&engine, || next(3, 4)).await;
}

#[tokio::test]
async fn sentinels_name_the_primary() {
    let servers = servers::RedisReplicas::start(1, &[]);
    let watched = format!("monitor watched 127.0.0.1 {} 1", servers.primary().port());
    let sentinel = servers::Redis::start(&[("sentinel", &watched)]);
    let gone = servers::Redis::start(&[]);
    gone.stop();
    let options = RedisOptions {
        urls: vec![gone.url(), sentinel.url()],
        sentinel: Some("watched".to_owned()),
        // Without acknowledgement of a replica the failover could lose the commit.
        replicas: 1,
        ..options(String::new())
    };
    let unknown = RedisOptions { sentinel: Some("another".to_owned()), ..options.clone() };
    let error =
        Redis::open(&RedisOptions { urls: vec![sentinel.url()], ..unknown }).await.unwrap_err();
    assert!(error.contains("watches no primary named \"another\""), "{error}");
    let plain = RedisOptions { urls: vec![sentinel.url()], sentinel: None, ..options.clone() };
    let error = Redis::open(&plain).await.unwrap_err();
    assert!(error.contains("is a Sentinel; set `sentinel`"), "{error}");

    let engine = open(&options).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    let begun = || sentinel.try_cli(&["SENTINEL", "FAILOVER", "watched"]).is_ok();
    until(&begun).await;
    let next = servers.servers()[1].port().to_string();
    let ended = || {
        sentinel.cli(&["SENTINEL", "get-master-addr-by-name", "watched"]).contains(&next)
            && servers.servers()[0].try_cli(&["ROLE"]).is_ok_and(|role| role.starts_with("slave"))
    };
    until(&ended).await;
    until_done(&engine, || put(2)).await;
    assert_eq!(read(&engine, id(1)).await, Some(bytes(&id(1), &samples::claim(1))));
    assert!(servers.servers()[1].cli(&["EXISTS", &format!("oncegate:{{00}}:r:{}", id(2))]) == "1");
}

/// Time limit for a connection, and for an answer. Two silent servers in a row use up both limits,
/// which together are the limit for discovery; the tests rely on the limits being equal.
const SHORT_LIMIT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn silent_sentinels_do_not_delay_discovery_while_one_answers() {
    let servers = servers::RedisReplicas::start(1, &[]);
    let watched = format!("monitor watched 127.0.0.1 {} 1", servers.primary().port());
    let sentinel = servers::Redis::start(&[("sentinel", &watched)]);
    let silent = [servers::Redis::start(&[]), servers::Redis::start(&[])];
    silent.iter().for_each(servers::Redis::pause);
    let options = RedisOptions {
        urls: silent.iter().chain([&sentinel]).map(servers::Redis::url).collect(),
        sentinel: Some("watched".to_owned()),
        connect_timeout: SHORT_LIMIT,
        timeout: SHORT_LIMIT,
        ..options(String::new())
    };
    let engine = open(&options).await;
    engine.topology.mark_stale();
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    engine.check_servers(LONG_LIMIT).await.unwrap();
    engine.heartbeat([1; 16], LONG_LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_silent_cluster_node_does_not_stop_commits_on_other_nodes() {
    let cluster = servers::RedisCluster::start(&[("cluster-require-full-coverage", "no")]);
    let options = clustered(&cluster, "oncegate");
    let engine =
        open(&RedisOptions { connect_timeout: SHORT_LIMIT, timeout: SHORT_LIMIT, ..options }).await;
    engine.check_servers(LONG_LIMIT).await.unwrap();
    // The node that is asked first, unless it holds the leases.
    let leases = cluster.owner("oncegate:{meta}:store");
    let silent = cluster.nodes().iter().find(|node| !std::ptr::eq(*node, leases)).unwrap();
    let live_shard = (0..=255).find(|shard| {
        !std::ptr::eq(cluster.owner(&format!("oncegate:{{{shard:02x}}}:store")), silent)
    });
    let live_shard = live_shard.unwrap();
    silent.pause();
    // First over open connections, then over new ones.
    for n in 1..=2 {
        engine.check_servers(LONG_LIMIT).await.unwrap();
        engine.heartbeat([1; 16], LONG_LIMIT).await.unwrap();
        engine.topology.mark_stale();
        let put = vec![put_new(at(live_shard, n), samples::claim(n))];
        assert_eq!(engine.commit(0, &[group(put)]).await.unwrap(), [CasResult::Done]);
    }
    silent.resume();
    cluster.until_ready();
}

#[tokio::test]
async fn a_primary_that_became_a_replica_of_an_unreachable_server_is_left() {
    let servers = servers::RedisReplicas::start(2, &[("replica-serve-stale-data", "no")]);
    let urls = servers.servers().iter().map(servers::Redis::url).collect();
    let engine = open(&RedisOptions { urls, ..options(String::new()) }).await;
    assert_eq!(engine.commit(0, &[group(put(1))]).await.unwrap(), [CasResult::Done]);
    let (old, next) = (&servers.servers()[0], &servers.servers()[1]);
    let has = |n| next.cli(&["EXISTS", &format!("oncegate:{{00}}:r:{}", id(n))]) == "1";
    until(&|| has(1)).await;
    next.cli(&["REPLICAOF", "NO", "ONE"]);
    old.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(engine.commit(0, &[group(put(2))]).await.unwrap(), [CasResult::Done]);
    assert!(has(2));
}

#[tokio::test]
async fn an_evicting_node_is_reported_on_a_new_connection_too() {
    let cluster = servers::RedisCluster::start(&[]);
    let engine = open(&clustered(&cluster, "oncegate")).await;
    engine.check_servers(LONG_LIMIT).await.unwrap();
    let map = engine.topology.map().await.unwrap();
    for node in map.nodes() {
        let connection = node.connection(CONTROL_CONNECTION).await.unwrap();
        node.abandon(CONTROL_CONNECTION, &connection).await;
    }
    cluster.nodes()[1].cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    rejected(engine.check_servers(LONG_LIMIT).await, "may evict");
}

/// Silent servers do not delay the heartbeat, even with time limits longer than the lease.
#[tokio::test]
async fn the_check_of_servers_leaves_time_for_the_heartbeat() {
    let cluster = servers::RedisCluster::start(&[("cluster-require-full-coverage", "no")]);
    let engine = open(&clustered(&cluster, "oncegate")).await;
    let lease = Duration::from_secs(12);
    engine.check_servers(lease).await.unwrap();
    let leases = cluster.owner("oncegate:{meta}:store");
    let silent = cluster.nodes().iter().find(|node| !std::ptr::eq(*node, leases)).unwrap();
    silent.pause();
    // The time limits for a connection and an answer are a minute here.
    tokio::time::timeout(lease, engine.check_servers(lease)).await.expect("in time").unwrap();
    silent.resume();
    cluster.until_ready();
}
