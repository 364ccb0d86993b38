//! Default values of absent keys.

use std::time::Duration;

use crate::idempotency::retention::Keep;
use crate::machine;

/// `[server] drain`
pub const DRAIN: Duration = Duration::from_secs(30);
/// `[server] workers`: half of the cores of the process. The other half is for the neighbors of a
/// gateway: the application, the server of the store, or the writer of the embedded store.
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}
/// `[server.limits] connections`
pub const CONNECTIONS: usize = 10_000;
/// `[server.limits] idle_timeout`: beyond the 60 seconds after which usual load balancers close.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// `[server.limits] header_timeout`
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// `[server.limits] body_timeout`
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// `[server.limits] max_head`
pub const MAX_HEAD: usize = 32 << 10;
/// `[server.limits] max_body`
pub const MAX_BODY: u64 = 1 << 20;
/// `[server.limits] buffered`, where memory has no limit of its own.
pub const BUFFERED: u64 = 256 << 20;
/// `[server.limits] buffered`: at most a quarter of the process's memory limit.
pub fn buffered() -> u64 {
    machine::part_of_memory(4, BUFFERED)
}
/// `[server.limits] in_flight`
pub const IN_FLIGHT: usize = 10_000;
/// `[log] level`
pub const LOG_LEVEL: &str = "info";
/// `[server.limits] streams`
pub const STREAMS: usize = 100;
/// `[[upstream]] streams`
pub const UPSTREAM_STREAMS: usize = 16;
/// `[store] retention`
pub const RETENTION: Keep = Keep::For(Duration::from_secs(7 * 86_400));
/// `[store] tombstone`
pub const TOMBSTONE: Keep = Keep::For(Duration::from_secs(30 * 86_400));
/// `[[upstream]] connect_timeout`
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// `[[upstream]] timeout`
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// `[[upstream]] keep_alive`
pub const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// `[route.duplicates] wait`
pub const WAIT: Duration = Duration::from_secs(5);
/// `[route.duplicates] max_waiters`
pub const MAX_WAITERS: usize = 1000;
/// `[route.record] max_stored_body`
pub const MAX_STORED_BODY: u64 = 1 << 20;
/// `[tenant] headers`
pub const TENANT_HEADERS: [&str; 2] = ["authorization", "x-api-key"];
/// `[store.embedded] path`
pub const STORE_PATH: &str = "/var/lib/oncegate";
/// `[store.embedded] cache`, where memory has no limit of its own.
pub const CACHE: u64 = 8 << 20;
/// `[store.embedded] cache`: at most a sixteenth of the process's memory limit.
pub fn cache() -> u64 {
    machine::part_of_memory(16, CACHE).max(64 << 10)
}
/// `[store.postgres] pool`
pub const POOL: usize = 4;
/// `[store.redis] prefix`
pub const PREFIX: &str = "oncegate";
/// `[store.postgres] connect_timeout`, `[store.redis] connect_timeout`
pub const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// `[store.postgres] timeout`, `[store.redis] timeout`
pub const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// `[store.postgres] lease`, `[store.redis] lease`
pub const LEASE: Duration = Duration::from_secs(10);
