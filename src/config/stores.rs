//! `[store]`: where records are kept, made sure of.
//!
//! Only what can be known without asking a server is checked here; the rest is said at the start.

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::file::{self, List, Table, Written};
use super::units::{Count, Secret, Size, Time};
use super::values::{Reader, SHORTEST, elements};
use super::{EngineConfig, PostgresConfig, RedisConfig, StoreConfig, StoreServerConfig, defaults};
use crate::idempotency::retention::Retention;
use crate::store::urls;

/// Connections of one replica, at most.
const LARGEST_POOL: u64 = 64;
/// Replicas that may be asked to confirm, at most.
const MOST_REPLICAS: u64 = 100;
/// The shortest lease: below it a pause of the processor looks like a death.
const SHORTEST_LEASE: Time = Time(Duration::from_secs(1));
const LONGEST_LEASE: Time = Time(Duration::from_secs(3600));
/// The longest time a change may take; clients wait as long for a 503.
const SLOWEST: Time = Time(Duration::from_secs(60));

/// The keys that every store on a server has.
struct ServerKeys<'a> {
    connect_timeout: &'a Written<Time>,
    timeout: &'a Written<Time>,
    lease: &'a Written<Time>,
    ca: &'a Written<String>,
    client_cert: &'a Written<Table<file::ClientCert>>,
}

impl StoreConfig {
    /// A store in this directory, with every default.
    pub fn in_directory(path: PathBuf) -> Self {
        Self {
            retention: Retention { answer: defaults::RETENTION, tombstone: defaults::TOMBSTONE },
            create: true,
            expect_id: None,
            engine: EngineConfig::Embedded { path, cache: defaults::CACHE },
        }
    }
}

impl Reader {
    pub(super) fn store(&mut self, store: &file::Store) -> StoreConfig {
        self.unsupported("store.encryption", &store.encryption);
        let expect_id = store.expect_id.as_ref().and_then(|written| {
            let id = uuid::Uuid::parse_str(written.get_ref()).ok();
            if id.is_none() {
                let what = "`expect_id` is not a UUID; `oncegate store info` prints the store's";
                self.say(written, what);
            }
            id
        });
        let engine = self.engine(store);
        StoreConfig {
            retention: self.retention(
                &store.retention,
                &store.tombstone,
                Retention { answer: defaults::RETENTION, tombstone: defaults::TOMBSTONE },
            ),
            create: store.create.as_ref().is_none_or(|create| create.get_ref().0),
            expect_id,
            engine,
        }
    }

    fn engine(&mut self, store: &file::Store) -> EngineConfig {
        let tables = [
            store.embedded.as_ref().map(Spanned::span),
            store.postgres.as_ref().map(Spanned::span),
            store.redis.as_ref().map(Spanned::span),
        ];
        if let Some(second) = tables.into_iter().flatten().nth(1) {
            let what = "records are kept in one place: keep one of [store.embedded], \
                        [store.postgres] and [store.redis]";
            self.say_at(Some(second), what);
        }
        match (&store.postgres, &store.redis) {
            (Some(postgres), _) => EngineConfig::Postgres(Box::new(self.postgres(postgres))),
            (None, Some(redis)) => EngineConfig::Redis(Box::new(self.redis(redis))),
            (None, None) => self.embedded(&store.embedded),
        }
    }

    fn embedded(&mut self, written: &Written<Table<file::Embedded>>) -> EngineConfig {
        let empty = Table::default();
        let embedded = written.as_ref().map_or(&empty, Spanned::get_ref);
        let path = match &embedded.path {
            Some(path) if path.get_ref().is_empty() => {
                self.say(path, "`path` is empty; name a directory");
                PathBuf::new()
            }
            Some(path) => self.path(path),
            None => PathBuf::from(defaults::STORE_PATH),
        };
        let cache = self.bounded(
            "cache",
            &embedded.cache,
            Size(defaults::CACHE),
            Size(64 << 10)..=Size(1 << 40),
        );
        EngineConfig::Embedded { path, cache: cache.0 }
    }

    fn postgres(&mut self, table: &Spanned<Table<file::Postgres>>) -> PostgresConfig {
        let written = table.get_ref();
        let urls = self.store_urls(
            (&written.url, &written.url_file, &None),
            &["postgres://", "postgresql://"],
            |url| urls::postgres(url).map(drop),
        );
        let absent = written.url.is_none() && written.url_file.is_none();
        if absent && !self.was_removed("url") && !self.was_removed("url_file") {
            let what = "[store.postgres] has no `url`; write \
                        url = \"postgres://user:password@host/database\", or name a `url_file`";
            self.missing(table, "url", what);
        }
        PostgresConfig {
            url: urls.into_iter().next().unwrap_or_else(|| Secret::new(String::new())),
            pool: self.count("pool", &written.pool, defaults::POOL, 1..=LARGEST_POOL),
            prepared: written.prepared.as_ref().is_none_or(|flag| flag.get_ref().0),
            server: self.store_server(&ServerKeys {
                connect_timeout: &written.connect_timeout,
                timeout: &written.timeout,
                lease: &written.lease,
                ca: &written.ca,
                client_cert: &written.client_cert,
            }),
        }
    }

    fn redis(&mut self, table: &Spanned<Table<file::Redis>>) -> RedisConfig {
        let written = table.get_ref();
        let urls = self.store_urls(
            (&written.url, &written.url_file, &written.urls),
            &["redis://", "rediss://"],
            |url| urls::redis(url).map(drop),
        );
        let removed = ["url", "urls", "url_file"].iter().any(|key| self.was_removed(key));
        let given = written.url.is_some() || written.urls.is_some() || written.url_file.is_some();
        if !given && !removed {
            let what = "[store.redis] has no `url`; write url = \"redis://host:6379\", or name \
                        several `urls`, or a `url_file`";
            self.missing(table, "url", what);
        }
        let cluster = written.cluster.as_ref().is_some_and(|flag| flag.get_ref().0);
        let sentinel = written.sentinel.as_ref().map(|name| name.get_ref().clone());
        if let Some(name) = written.sentinel.as_ref().filter(|_| cluster) {
            self.say(name, "`sentinel` and `cluster = true` do not go together; keep one of them");
        }
        RedisConfig {
            urls,
            cluster,
            sentinel,
            strict: self.strict(&written.durability),
            replicas: self.replicas(&written.replicas),
            prefix: self.prefix(&written.prefix),
            server: self.store_server(&ServerKeys {
                connect_timeout: &written.connect_timeout,
                timeout: &written.timeout,
                lease: &written.lease,
                ca: &written.ca,
                client_cert: &written.client_cert,
            }),
        }
    }

    fn strict(&mut self, durability: &Written<String>) -> bool {
        match durability.as_ref().map(|written| (written, written.get_ref().as_str())) {
            None | Some((_, "strict")) => true,
            Some((_, "relaxed")) => false,
            Some((written, other)) => {
                let what = format!("`durability` is \"strict\" or \"relaxed\", not \"{other}\"");
                self.say(written, what);
                true
            }
        }
    }

    fn prefix(&mut self, written: &Written<String>) -> String {
        let Some(written) = written else { return defaults::PREFIX.to_owned() };
        // Braces would change which slot of a cluster a key is in.
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        let prefix = written.get_ref();
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(fit) {
            let what = "`prefix` must be 1 to 64 of the characters a-z, A-Z, 0-9, \"-\", \"_\", \
                        \".\" and \":\"";
            self.say(written, what);
        }
        prefix.clone()
    }

    fn replicas(&mut self, written: &Written<Count>) -> u32 {
        let count = self.count("replicas", written, 0, 0..=MOST_REPLICAS);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The URLs, wherever they stand. What is said of one never repeats it: there may be a password
    /// in it.
    fn store_urls(
        &mut self,
        (url, file, urls): (&Written<Secret>, &Written<String>, &List<Secret>),
        schemes: &[&str],
        read: fn(&str) -> Result<(), String>,
    ) -> Vec<Secret> {
        let given = [url.is_some(), file.is_some(), urls.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            let span = file.as_ref().map(Spanned::span).or(url.as_ref().map(Spanned::span));
            self.say_at(span, "`url`, `urls` and `url_file` exclude each other; keep one of them");
        }
        if let Some(list) = urls.as_ref().filter(|list| list.get_ref().is_empty())
            && !self.was_removed("urls")
        {
            self.say(list, "`urls` is empty; name at least one server");
        }
        let mut found = Vec::new();
        let mut check = |reader: &mut Self, text: &str, span, key: &str| {
            if !schemes.iter().any(|scheme| text.starts_with(scheme)) {
                let what = format!("`{key}` must start with {}", schemes.join(" or "));
                return reader.say_at(Some(span), what);
            }
            match read(text) {
                Ok(()) => found.push(Secret::new(text.to_owned())),
                Err(wrong) => reader.say_at(Some(span), format!("`{key}`: {wrong}")),
            }
        };
        if let Some(url) = url {
            check(self, url.get_ref().expose(), url.span(), "url");
        }
        for url in elements(urls) {
            check(self, url.get_ref().expose(), url.span(), "urls");
        }
        if let Some(name) = file {
            let path = self.path(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                    let mut none = true;
                    for line in lines {
                        none = false;
                        check(self, line, name.span(), "url_file");
                    }
                    if none {
                        self.say(name, format!("`url_file`: {} is empty", path.display()));
                    }
                }
                Err(error) => {
                    let what = format!("`url_file`: cannot read {}: {error}", path.display());
                    self.say(name, what);
                }
            }
        }
        found
    }

    fn store_server(&mut self, keys: &ServerKeys<'_>) -> StoreServerConfig {
        let client_cert = keys.client_cert.as_ref().and_then(|pair| self.client_cert(pair));
        let server = StoreServerConfig {
            connect_timeout: self.time(
                "connect_timeout",
                keys.connect_timeout,
                defaults::STORE_CONNECT_TIMEOUT,
                SHORTEST..=SLOWEST,
            ),
            timeout: self.time(
                "timeout",
                keys.timeout,
                defaults::STORE_TIMEOUT,
                SHORTEST..=SLOWEST,
            ),
            lease: self.time("lease", keys.lease, defaults::LEASE, SHORTEST_LEASE..=LONGEST_LEASE),
            ca: keys.ca.as_ref().map(|ca| self.path(ca)),
            client_cert,
        };
        if server.connect_timeout > server.timeout {
            let what = "`connect_timeout` is longer than `timeout`, so that a change could never \
                        wait for a connection";
            let span = keys.connect_timeout.as_ref().or(keys.timeout.as_ref());
            self.say_at(span.map(Spanned::span), what);
        }
        server
    }
}
