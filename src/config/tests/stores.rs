//! `[store.postgres]` and `[store.redis]`: what is taken, what is refused, what is printed.

use super::mistakes::check;
use super::route_with as parsed;
use crate::config::{EngineConfig, defaults};

#[test]
fn a_postgres_store_needs_only_its_url() {
    let config =
        parsed("[store.postgres]\nurl = \"postgres://a:s3cret@db:5433/x?sslmode=require\"");
    let EngineConfig::Postgres(store) = &config.store.engine else { panic!("{:?}", config.store) };
    assert_eq!(store.url.expose(), "postgres://a:s3cret@db:5433/x?sslmode=require");
    assert_eq!((store.pool, store.prepared), (defaults::POOL, true));
    assert_eq!(store.server.lease, defaults::LEASE);
    let message = format!("{}{}{config:?}", config.describe(), config.describe_json());
    assert!(config.describe().contains("store     postgres, db:5433/x\n"), "{message}");
    assert!(!message.contains("s3cret"), "{message}");
}

#[test]
fn a_redis_store_has_one_url_or_several() {
    let config = parsed("[store.redis]\nurl = \"redis://:s3cret@cache/0\"");
    let EngineConfig::Redis(store) = &config.store.engine else { panic!("{:?}", config.store) };
    assert_eq!((store.urls.len(), store.cluster, store.strict), (1, false, true));
    assert!(config.describe().contains("store     redis, cache/0, strict\n"));
    let config = parsed(
        "[store.redis]\nurls = [\"rediss://a\", \"rediss://b\"]\ncluster = true\ndurability = \"relaxed\"\nreplicas = 1\nprefix = \"once:gate\"",
    );
    let EngineConfig::Redis(store) = &config.store.engine else { panic!("{:?}", config.store) };
    assert_eq!((store.urls.len(), store.cluster, store.strict), (2, true, false));
    assert_eq!((store.replicas, store.prefix.as_str()), (1, "once:gate"));
    assert!(!format!("{}{config:?}", config.describe_json()).contains("s3cret"));
}

#[test]
fn mistakes_in_stores_on_servers_are_told_and_no_password_is() {
    check(
        "[store.postgres]\n[store.redis]\nurl = \"http://:s3cret@x\"\n",
        &[
            "9:1: [store.postgres] has no `url`; write url = \"postgres://user:password@host/database\", or name a `url_file`",
            "10:1: records are kept in one place: keep one of [store.embedded], [store.postgres] and [store.redis]",
            "11:7: `url` must start with redis:// or rediss://",
        ],
    );
    check(
        "[store.postgres]\nurl = \"mysql://root:s3cret@db\"\npool = 0\nlease = \"10ms\"\ntimeout = \"1s\"\nconnect_timeout = \"2s\"\n",
        &[
            "10:7: `url` must start with postgres:// or postgresql://",
            "11:8: `pool` is 0, but must be 1 to 64",
            "12:9: `lease` is 10ms, but must be 1s to 1h",
            "14:19: `connect_timeout` is longer than `timeout`, so that a change could never wait for a connection",
        ],
    );
    check(
        "[store.redis]\nurl = \"redis://a\"\nurls = [\"b\"]\nsentinel = \"m\"\ncluster = true\ndurability = \"some\"\nprefix = \"{x}\"\nreplicas = 1000\n",
        &[
            "10:7: `url`, `urls` and `url_file` exclude each other; keep one of them",
            "11:9: `urls` must start with redis:// or rediss://",
            "12:12: `sentinel` and `cluster = true` do not go together; keep one of them",
            "14:14: `durability` is \"strict\" or \"relaxed\", not \"some\"",
            "15:10: `prefix` must be 1 to 64 of the characters a-z, A-Z, 0-9, \"-\", \"_\", \".\" and \":\"",
            "16:12: `replicas` is 1000, but must be 0 to 100",
        ],
    );
}

#[test]
fn a_url_that_cannot_be_read_is_told_with_its_line_and_without_its_password() {
    let postgres = "the URL of PostgreSQL cannot be read: expected postgresql://user:password@host:port/database?sslmode=require, with the password percent-encoded";
    for url in ["postgres://a:s3cret@db:port/x", "postgres://a:s3cret@db/x?sslmode=s3cret"] {
        let text = format!("[store.postgres]\nurl = \"{url}\"\n");
        check(&text, &[&format!("10:7: `url`: {postgres}")]);
    }
    check(
        "[store.postgres]\nurl = \"postgres://a:s3cret@db/x?sslrootcert=ca.pem\"\n",
        &["10:7: `url`: `sslrootcert` in the URL of PostgreSQL: use the key `ca`"],
    );
    let redis = "a Redis URL is redis://user:password@host:port/database, rediss:// for TLS; percent-encode special characters of the password";
    check(
        "[store.redis]\nurls = [\"redis://a\", \"redis://:s3cret@b:port\", \"rediss://c/0?s3cret\"]\n",
        &[
            &format!("10:22: `urls`: the URL of the Redis server cannot be read: {redis}"),
            &format!(
                "10:48: `urls`: the URL of the Redis server has parts that mean nothing here: {redis}"
            ),
        ],
    );
}

#[test]
fn answers_that_no_server_takes_in_time_are_refused_before_they_come() {
    check(
        "[route.record]\nmax_stored_body = \"17MiB\"\n[store.redis]\nurl = \"redis://a\"\n[server.limits]\nbuffered = \"1GiB\"\n",
        &[
            " route `create` has `max_stored_body` = 17MiB; on a store that several replicas share it is at most 16MiB",
        ],
    );
    parsed("[route.record]\nmax_stored_body = \"17MiB\"\n");
}
