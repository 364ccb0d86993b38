//! What may be written in a configuration file, and nothing about what it means.
//!
//! Every key is optional here, so that reading never stops at a missing one; `read` asks for those
//! that are needed. Values keep their place in the file. The comments of the fields are the
//! reference of the keys; their defaults stand in [`super::defaults`] and in [`super::profiles`].

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use toml::Spanned;

use super::units::{Count, Flag, Period, Secret, Size, Status, Time};

/// A value and its place, if it was written.
pub type Written<T> = Option<Spanned<T>>;

/// A list with the place of each element, if it was written.
pub type List<T> = Written<Vec<Spanned<T>>>;

/// A table. serde would also fill a structure from a list, by position.
#[derive(Debug, Default)]
pub struct Table<T>(T);

impl<T> Deref for Table<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct TableOnly<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for TableOnly<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }
        source.deserialize_any(TableOnly(PhantomData))
    }
}

/// A key that the contract names and this version does not support. Takes any value, so that the
/// one message about it is that it is not supported.
#[derive(Debug)]
pub struct Unsupported;

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(source).map(|_| Self)
    }
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// The public listener.
    pub server: Table<Server>,
    /// The operator's listener.
    pub admin: Table<Admin>,
    /// Where records are kept.
    pub store: Table<Store>,
    /// What tells callers apart.
    pub tenant: Table<Tenant>,
    /// The backends.
    pub upstream: Vec<Spanned<Table<Upstream>>>,
    /// What is served.
    pub route: Vec<Spanned<Table<Route>>>,
}

/// `[server]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Addresses to accept on, each an IP address and a port; port 0 takes a free one.
    pub listen: List<String>,
    /// How long SIGTERM lets calls in flight finish.
    pub drain: Written<Time>,
    /// Threads that serve requests.
    pub workers: Written<Count>,
    /// Not supported by this version.
    pub tls: Written<Unsupported>,
    /// What a client can make the gateway hold.
    pub limits: Table<Limits>,
}

/// `[server.limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Client connections at once.
    pub connections: Written<Count>,
    /// For a request head to arrive.
    pub header_timeout: Written<Time>,
    /// For a request body to arrive.
    pub body_timeout: Written<Time>,
    /// Bytes of a request head.
    pub max_head: Written<Size>,
    /// Bytes of a request body on a keyed route.
    pub max_body: Written<Size>,
    /// Bytes of all buffered bodies together.
    pub buffered: Written<Size>,
    /// Claims at once.
    pub in_flight: Written<Count>,
    /// Claims at once for each tenant.
    pub in_flight_per_tenant: Written<Count>,
}

/// `[admin]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Where health is served; port 0 takes a free one.
    pub listen: Written<String>,
    /// The operator's bearer token.
    pub token: Written<Secret>,
    /// A file with the token; white space around it does not count.
    pub token_file: Written<String>,
}

/// `[store]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// How long answers are kept.
    pub retention: Written<Period>,
    /// How long the fact that a key was used is kept after that.
    pub tombstone: Written<Period>,
    /// Whether an empty place may become a store.
    pub create: Written<Flag>,
    /// The only store identity to accept, a UUID.
    pub expect_id: Written<String>,
    /// Not supported by this version.
    pub encryption: Written<Unsupported>,
    /// A directory on this machine.
    pub embedded: Written<Table<Embedded>>,
    /// A PostgreSQL server that other replicas use as well.
    pub postgres: Written<Table<Postgres>>,
    /// A Redis or Valkey server, or a cluster of them, that other replicas use as well.
    pub redis: Written<Table<Redis>>,
}

/// `[store.embedded]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Embedded {
    /// The directory.
    pub path: Written<String>,
    /// Memory for the engine's own caches.
    pub cache: Written<Size>,
}

/// `[store.postgres]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// `postgres://user:password@host/database`
    pub url: Written<Secret>,
    /// A file with the URL.
    pub url_file: Written<String>,
    /// Connections that write.
    pub pool: Written<Count>,
    /// Whether statements are prepared once for each connection.
    pub prepared: Written<Flag>,
    /// For DNS, connect, TLS and login together.
    pub connect_timeout: Written<Time>,
    /// For a change to become durable, reconnecting included.
    pub timeout: Written<Time>,
    /// How long this replica lives on after it was last heard of.
    pub lease: Written<Time>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Written<String>,
    /// The certificate to present.
    pub client_cert: Written<Table<ClientCert>>,
}

/// `[store.redis]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://user:password@host:6379/0`, or `rediss://` with TLS
    pub url: Written<Secret>,
    /// A file with the URL, or with one URL on each line.
    pub url_file: Written<String>,
    /// Several servers: a primary and its replicas, sentinels, or some nodes of a cluster.
    pub urls: List<Secret>,
    /// Whether the servers are a cluster.
    pub cluster: Written<Flag>,
    /// The name under which sentinels know the primary; `urls` are the sentinels then.
    pub sentinel: Written<String>,
    /// `strict` or `relaxed`
    pub durability: Written<String>,
    /// Replicas that must confirm each change before it counts.
    pub replicas: Written<Count>,
    /// What the names of all keys begin with.
    pub prefix: Written<String>,
    /// For DNS, connect, TLS and login together.
    pub connect_timeout: Written<Time>,
    /// For a change to become durable, reconnecting included.
    pub timeout: Written<Time>,
    /// How long this replica lives on after it was last heard of.
    pub lease: Written<Time>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Written<String>,
    /// The certificate to present.
    pub client_cert: Written<Table<ClientCert>>,
}

/// `[tenant]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tenant {
    /// The headers whose values tell callers apart.
    pub headers: List<String>,
    /// Not supported by this version.
    pub directory: Written<Unsupported>,
    /// Not supported by this version.
    pub unknown: Written<Unsupported>,
}

/// `[[upstream]]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// What routes call it.
    pub name: Written<String>,
    /// Its address: `http` or `https`, host, and an optional port and path prefix.
    pub url: Written<String>,
    /// Several addresses instead of one.
    pub urls: List<String>,
    /// For DNS, connect and TLS together.
    pub connect_timeout: Written<Time>,
    /// For the whole answer.
    pub timeout: Written<Time>,
    /// How long an idle connection is used again.
    pub keep_alive: Written<Time>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Written<String>,
    /// The certificate to present.
    pub client_cert: Written<Table<ClientCert>>,
}

/// `client_cert = { cert = "…", key = "…" }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientCert {
    /// PEM file of the certificate chain.
    pub cert: Written<String>,
    /// PEM file of its private key.
    pub key: Written<String>,
}

/// `[[route]]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Unique.
    pub name: Written<String>,
    /// Upper-case methods.
    pub methods: List<String>,
    /// `/v1/vouchers/{id}`, `/{*rest}`
    pub path: Written<String>,
    /// The name of an upstream.
    pub upstream: Written<String>,
    /// Presets for what follows.
    pub profile: Written<String>,
    /// `request`, `items` or `off`.
    pub mode: Written<String>,
    /// Bytes of a request body.
    pub max_body: Written<Size>,
    /// Where the key stands.
    pub key: Written<Table<Key>>,
    /// What must not change between retries.
    pub fingerprint: Written<Table<Fingerprint>>,
    /// What duplicates get.
    pub duplicates: Written<Table<Duplicates>>,
    /// What the backend's statuses mean.
    pub outcome: Written<Table<Outcome>>,
    /// What is kept.
    pub record: Written<Table<Record>>,
    /// Where items, ids and rows stand.
    pub items: Written<Table<super::file_items::Items>>,
    /// Not supported by this version.
    pub probe: Written<Unsupported>,
    /// Not supported by this version.
    pub already_done: Written<Unsupported>,
}

/// `[route.key]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Key {
    /// The header with the key.
    pub header: Written<String>,
    /// Where the JSON body names the key, instead of a header.
    pub pointer: Written<String>,
    /// Whether a request without a key is refused.
    pub required: Written<Flag>,
    /// `tenant` or `route`.
    pub scope: Written<String>,
    /// `any` or `strict`.
    pub syntax: Written<String>,
    /// Characters of the shortest key.
    pub min_length: Written<Count>,
    /// Characters of the longest key.
    pub max_length: Written<Count>,
    /// `uuid`
    pub format: Written<String>,
    /// Whether the key's header goes upstream.
    pub forward: Written<Flag>,
}

/// `[route.fingerprint]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fingerprint {
    /// `json` or `raw`; left out, the media type decides.
    pub body: Written<String>,
    /// JSON pointers to the only parts that count.
    pub include: List<String>,
    /// JSON pointers to the parts that do not count.
    pub exclude: List<String>,
    /// Headers whose values count too.
    pub headers: List<String>,
}

/// `[route.duplicates]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Duplicates {
    /// How long a duplicate waits for the call in flight; `"0s"`: 409 at once.
    pub wait: Written<Time>,
    /// Duplicates that may wait at once on this route.
    pub max_waiters: Written<Count>,
    /// How long the first client waits.
    pub answer_within: Written<Time>,
    /// The header that says `true` on a replay.
    pub replayed_header: Written<String>,
}

/// `[route.outcome]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outcome {
    /// Statuses of answers to keep.
    #[serde(rename = "final")]
    pub finals: List<Status>,
    /// Statuses that assert that nothing was executed.
    pub retry: List<Status>,
    /// Statuses that do not say.
    pub unknown: List<Status>,
    /// `hold`
    pub on_unknown: Written<String>,
}

/// `[route.record]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Record {
    /// Where the JSON body names the business id.
    pub subject: Written<String>,
    /// Bytes of the largest answer body to keep.
    pub max_stored_body: Written<Size>,
    /// How long answers are kept.
    pub retention: Written<Period>,
    /// How long the fact that a key was used is kept after that.
    pub tombstone: Written<Period>,
}
