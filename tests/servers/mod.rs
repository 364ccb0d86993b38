//! Real servers for tests: PostgreSQL, PgBouncer and Redis, nginx and HAProxy from Debian's packages,
//! and a proxy that cuts.
//!
//! Every server has a directory of its own, a free port, and ends with the test process, however
//! that process ends. What is missing or does not start fails the test with one clear message.
//! Used by the integration tests and by unit tests, so nothing here names the crate. The calls
//! block; each is bounded by [`WAIT_LIMIT`].

#![allow(dead_code, unused_imports, reason = "each of the two test binaries uses a part of it")]

mod certificates;
mod chaos;
mod cluster;
mod hops;
mod pair;
mod pgbouncer;
mod place;
mod postgres;
mod process;
mod redis;
mod replicas;

use std::time::{Duration, Instant};

pub(crate) use chaos::{Chaos, Direction};
pub(crate) use cluster::RedisCluster;
pub(crate) use hops::{Hop, HopKind};
pub(crate) use pair::PostgresPair;
pub(crate) use pgbouncer::PgBouncer;
pub(crate) use place::free_port;
pub(crate) use postgres::Postgres;
pub(crate) use redis::Redis;
pub(crate) use replicas::RedisReplicas;

/// The longest any call waits for a server.
const WAIT_LIMIT: Duration = Duration::from_secs(30);

/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

/// Polls until `condition` gives something; the panic holds what was missing last.
///
/// # Panics
/// The condition gave nothing within [`WAIT_LIMIT`].
#[track_caller]
fn until<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + WAIT_LIMIT;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(missing) => {
                assert!(Instant::now() < end, "{what}: gave up after {WAIT_LIMIT:?}: {missing}");
            }
        }
        std::thread::sleep(POLL);
    }
}
