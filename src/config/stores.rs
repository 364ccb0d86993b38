//! `[store]` and the engines, as far as possible without asking a server.

use std::path::PathBuf;
use std::time::Duration;

use super::model::{EngineConfig, PostgresConfig, RedisConfig, StoreConfig, StoreServerConfig};
use super::table::{Located, TableReader};
use super::units::Secret;
use super::values::SHORTEST;
use super::{defaults, encryption};
use crate::idempotency::retention::Retention;
use crate::store::urls;

/// Connections of one replica, at most.
const LARGEST_POOL: u64 = 64;
/// Replicas that may be asked to confirm, at most.
const MOST_REPLICAS: u64 = 100;
/// The shortest lease: below it a pause of the processor looks like a death.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);
/// The longest time a change may take; clients wait as long for a 503.
const SLOWEST: Duration = Duration::from_secs(60);
/// Characters of the longest prefix.
const LONGEST_PREFIX: usize = 64;

/// The longest wait for another process: a drain takes less.
const LONGEST_LOCK_WAIT: Duration = Duration::from_secs(3600);
/// Characters of the shortest `accept_names`.
const SHORTEST_ACCEPTANCE: usize = 16;

const RETENTION: Retention =
    Retention { answer: defaults::RETENTION, tombstone: defaults::TOMBSTONE };

impl StoreConfig {
    /// A store in this directory, with every default.
    pub fn in_directory(path: PathBuf) -> Self {
        Self {
            retention: RETENTION,
            create: true,
            expect_id: None,
            accept_names: None,
            encryption: None,
            engine: EngineConfig::Embedded {
                path,
                cache: defaults::cache(),
                lock_wait: Duration::ZERO,
            },
        }
    }
}

pub(super) fn store(table: &TableReader<'_>) -> StoreConfig {
    let retention = table.retention(RETENTION);
    let create = table.flag("create", true);
    let expect_id = table.optional::<String>("expect_id").and_then(|written| {
        let id = uuid::Uuid::parse_str(&written.value).ok();
        if id.is_none() {
            let what = "`expect_id` is not a UUID; `oncegate store info` prints the store's";
            table.wrong(&written, what);
        }
        id
    });
    let accept_names = table.optional::<String>("accept_names").map(|written| {
        if written.value.len() < SHORTEST_ACCEPTANCE {
            let what = "`accept_names` is too short; write the whole value that a refused start \
                        printed";
            table.wrong(&written, what);
        }
        written.value
    });
    let encryption = encryption::encryption(table);
    let engine = engine(table);
    StoreConfig { retention, create, expect_id, accept_names, encryption, engine }
}

fn engine(table: &TableReader<'_>) -> EngineConfig {
    let places = ["embedded", "postgres", "redis"].map(|key| table.place(key));
    if let Some(second) = places.into_iter().flatten().nth(1) {
        let what = "records are kept in one place: keep one of [store.embedded], \
                    [store.postgres] and [store.redis]";
        table.wrong_elsewhere(Some(second), what);
    }
    let embedded = table.table("embedded", embedded);
    let postgres = table.optional_table("postgres", postgres);
    let redis = table.optional_table("redis", redis);
    match (postgres, redis) {
        (Some(postgres), _) => EngineConfig::Postgres(Box::new(postgres)),
        (None, Some(redis)) => EngineConfig::Redis(Box::new(redis)),
        (None, None) => embedded,
    }
}

fn embedded(table: &TableReader<'_>) -> EngineConfig {
    if let Some(path) = table.optional::<String>("path").filter(|path| path.value.is_empty()) {
        table.wrong(&path, "`path` is empty; name a directory");
    }
    EngineConfig::Embedded {
        path: table.path("path").unwrap_or_else(|| PathBuf::from(defaults::STORE_PATH)),
        cache: table.size("cache", defaults::cache(), 64 << 10..=1 << 40),
        lock_wait: table.time("lock_wait", Duration::ZERO, Duration::ZERO..=LONGEST_LOCK_WAIT),
    }
}

fn postgres(table: &TableReader<'_>) -> PostgresConfig {
    let urls = Urls {
        keys: &["url", "url_file"],
        schemes: &["postgres://", "postgresql://"],
        check: |url| urls::postgres(url).map(drop),
    };
    let missing = "[store.postgres] has no `url`; write \
                   url = \"postgres://user:password@host/database\", or name a `url_file`";
    let url = urls.read(table, missing).into_iter().next();
    PostgresConfig {
        url: url.unwrap_or_else(|| Secret::new(String::new())),
        pool: table.count("pool", defaults::POOL, 1..=LARGEST_POOL),
        prepared: table.flag("prepared", true),
        server: store_server(table),
    }
}

fn redis(table: &TableReader<'_>) -> RedisConfig {
    let urls = Urls {
        keys: &["url", "url_file", "urls"],
        schemes: &["redis://", "rediss://"],
        check: |url| urls::redis(url).map(drop),
    };
    let missing = "[store.redis] has no `url`; write url = \"redis://host:6379\", or name \
                   several `urls`, or a `url_file`";
    let urls = urls.read(table, missing);
    let cluster = table.flag("cluster", false);
    let sentinel = table.optional::<String>("sentinel");
    if let Some(name) = sentinel.as_ref().filter(|_| cluster) {
        table.wrong(name, "`sentinel` and `cluster = true` do not go together; keep one of them");
    }
    let replicas = table.number("replicas", 0, 0..=MOST_REPLICAS);
    RedisConfig {
        urls,
        cluster,
        sentinel: sentinel.map(|name| name.value),
        strict: strict(table),
        replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
        prefix: prefix(table),
        server: store_server(table),
    }
}

fn strict(table: &TableReader<'_>) -> bool {
    let Some(written) = table.optional::<String>("durability") else { return true };
    match written.value.as_str() {
        "strict" => true,
        "relaxed" => false,
        other => {
            let what = format!("`durability` is \"strict\" or \"relaxed\", not \"{other}\"");
            table.wrong(&written, what);
            true
        }
    }
}

fn prefix(table: &TableReader<'_>) -> String {
    let Some(written) = table.optional::<String>("prefix") else {
        return defaults::PREFIX.to_owned();
    };
    // Braces would change which slot of a cluster a key is in.
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let prefix = &written.value;
    if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(fit) {
        let what = "`prefix` must be 1 to 64 of the characters a-z, A-Z, 0-9, \"-\", \"_\", \".\" \
                    and \":\"";
        table.wrong(&written, what);
    }
    written.value
}

/// The keys that name a store's servers. No message repeats a URL, because of passwords.
struct Urls {
    keys: &'static [&'static str],
    schemes: &'static [&'static str],
    check: fn(&str) -> Result<(), String>,
}

impl Urls {
    fn read(&self, table: &TableReader<'_>, missing: &str) -> Vec<Secret> {
        let given = self.keys.iter().filter(|key| table.has(key)).count();
        if given == 0 {
            table.missing(self.keys, missing);
        } else if given > 1 {
            let what = "`url`, `urls` and `url_file` exclude each other; keep one of them";
            table.wrong_at(&["url_file", "url"], what);
        }
        let mut urls = Vec::new();
        if let Some(url) = table.optional::<Secret>("url") {
            urls.extend(self.checked(table, url));
        }
        if let Some(file) = table.file_text("url_file") {
            let lines = file.value.lines().map(str::trim).filter(|line| !line.is_empty());
            let mut lines: Vec<Secret> = lines.map(|line| Secret::new(line.to_owned())).collect();
            if !table.reads_files() {
                lines = vec![Secret::new(format!("{}unread", self.schemes[0]))];
            }
            if lines.is_empty() {
                table.wrong(&file, "`url_file`: the file is empty");
            }
            let (key, at) = (file.key, file.at);
            let each = lines.into_iter().map(|value| Located { key, at, value });
            urls.extend(each.filter_map(|url| self.checked(table, url)));
        }
        if self.keys.contains(&"urls") {
            let list = table.filled_list::<Secret>("urls", "name at least one server");
            urls.extend(list.into_iter().flatten().filter_map(|url| self.checked(table, url)));
        }
        urls
    }

    fn checked(&self, table: &TableReader<'_>, url: Located<Secret>) -> Option<Secret> {
        let (key, text) = (url.key, url.value.expose());
        if !self.schemes.iter().any(|scheme| text.starts_with(scheme)) {
            table.wrong(&url, format!("`{key}` must start with {}", self.schemes.join(" or ")));
            return None;
        }
        if let Err(what) = (self.check)(text) {
            table.wrong(&url, format!("`{key}`: {what}"));
            return None;
        }
        Some(url.value)
    }
}

/// The keys of every store on a server.
fn store_server(table: &TableReader<'_>) -> StoreServerConfig {
    let time = |key, default| table.time(key, default, SHORTEST..=SLOWEST);
    let server = StoreServerConfig {
        connect_timeout: time("connect_timeout", defaults::STORE_CONNECT_TIMEOUT),
        timeout: time("timeout", defaults::STORE_TIMEOUT),
        lease: table.time("lease", defaults::LEASE, SHORTEST_LEASE..=LONGEST_LEASE),
        ca: table.path("ca"),
        client_cert: table.client_cert(),
    };
    if server.connect_timeout > server.timeout {
        let what = "`connect_timeout` is longer than `timeout`, so that a change could never \
                    wait for a connection";
        table.wrong_at(&["connect_timeout", "timeout"], what);
    }
    server
}
