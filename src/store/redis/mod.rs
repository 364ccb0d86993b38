//! Records on a Redis or Valkey server, alone, behind Sentinels, or on a cluster.
//!
//! Every transition is one script (`scripts/commit.lua`) that compares, writes the records and their indexes,
//! and checks first that the data are still this store's: each shard carries a marker with the
//! store's id, so that an emptied or exchanged server refuses instead of knowing nothing. Records
//! have no time to live; what expires is decided elsewhere.
//!
//! `keys` names keys and channels, `connection` is one connection, `requirements` decides whether a
//! server can be trusted, `topology` maps slots to servers, `discovery` makes that map, `dispatch`
//! sends commands by it; `commit`, `list`, `leases`, `messages` and `open` implement the engine.

mod commit;
mod connection;
mod discovery;
mod dispatch;
mod error;
mod keys;
mod leases;
mod list;
mod messages;
mod open;
mod requirements;
mod target;
#[cfg(test)]
mod tests;
mod topology;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::redis::{Cmd, Value};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::idempotency::record::Nonce;
use crate::net::tls;
use crate::shutdown::Shutdown;
use crate::store::Query;
use crate::store::shared::engine::{
    CasResult, Engine, EngineError, Group, ListedRecord, OpenedEngine,
};
use crate::store::shared::message::Message;
use dispatch::{Ask, Outcome, Terms};
use keys::Keys;
use requirements::Rules;
use topology::{Nodes, Places};

/// How to open a store on Redis.
#[derive(Clone)]
pub struct Options {
    /// `redis://user:password@host:port/database`, `rediss://` for TLS: the server, or the primary
    /// and its replicas, or nodes of the cluster, or the Sentinels.
    pub urls: Vec<String>,
    /// Whether the servers are a Redis Cluster.
    pub cluster: bool,
    /// The name under which Sentinels watch the primary; `urls` then name the Sentinels, with the
    /// user, password and database of the primary.
    pub sentinel: Option<String>,
    /// Whether to refuse a server that may lose what it acknowledged when it crashes.
    pub strict: bool,
    /// How many replicas have to acknowledge each commit (`WAIT`); 0: none.
    pub replicas: u32,
    /// What all keys begin with.
    pub prefix: String,
    /// For opening a connection: TCP, TLS, login and checks together.
    pub connect_timeout: Duration,
    /// For an answer.
    pub timeout: Duration,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the certificate chain and the private key to present.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Whether an empty server may become a store.
    pub create: bool,
    /// The only identity to accept.
    pub expect_id: Option<Uuid>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the URLs, which have passwords in them.
        f.debug_struct("Options").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// A store on Redis.
pub(crate) struct Redis {
    nodes: Nodes,
    keys: Keys,
    scripts: Scripts,
    /// The store's id as the markers have it.
    store_id: String,
    replicas: u32,
    timeout: Duration,
    connect_timeout: Duration,
    /// When the servers were last looked at as a whole.
    looked: Mutex<Instant>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("servers", &self.nodes)
            .field("prefix", &self.keys)
            .field("store_id", &self.store_id)
            .finish_non_exhaustive()
    }
}

/// A script, by the name the server gave it.
struct Script {
    text: &'static str,
    sha: String,
}

struct Scripts {
    swap: Script,
    read: Script,
    beat: Script,
    alive: Script,
}

impl Script {
    /// Runs it on these keys.
    fn on(&self, slot: u16, keys: &[String]) -> Run {
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(&self.sha).arg(keys.len()).arg(keys);
        Run(Ask { slot, command, script: Some(self.text) })
    }
}

/// A call of a script, to which arguments are added.
struct Run(Ask);

impl Run {
    fn arg(&mut self, arg: impl ::redis::ToRedisArgs) -> &mut Self {
        self.0.command.arg(arg);
        self
    }
}

impl Redis {
    /// Opens the store, creating it when that is allowed.
    ///
    /// # Errors
    /// One line: what happened, why, and what to do. It never shows a password.
    pub(crate) async fn open(options: &Options) -> Result<OpenedEngine<Self>, String> {
        open::open(options).await
    }

    /// Asks for something that changes nothing, or that may be done twice.
    async fn ask(
        &self,
        lane: usize,
        replicas: u32,
        asks: &[Ask],
    ) -> Result<Vec<Value>, EngineError> {
        let terms = self.terms(lane, replicas, true);
        let mut answers = Vec::with_capacity(asks.len());
        for outcome in dispatch::send(&self.nodes, asks, terms).await {
            match outcome {
                Outcome::Said(Value::ServerError(error), target) => {
                    return Err(EngineError::Rejected(error::no(&target, &error)));
                }
                Outcome::Said(answer, _) => answers.push(answer),
                Outcome::NotSent(reason) | Outcome::Unsure(reason) => {
                    return Err(EngineError::Rejected(reason));
                }
            }
        }
        Ok(answers)
    }

    fn terms(&self, lane: usize, replicas: u32, harmless: bool) -> Terms {
        let deadline = Instant::now() + self.connect_timeout + self.timeout;
        Terms { lane, replicas, harmless, timeout: self.timeout, deadline }
    }

    /// What is said of a shard whose marker is not this store's.
    fn check_marker(&self, marker: &Value, shard: u8) -> Result<(), EngineError> {
        match marker {
            Value::BulkString(id) if id == self.store_id.as_bytes() => Ok(()),
            Value::Nil => Err(EngineError::Rejected(format!(
                "shard {shard:02x} of the store {} is gone from Redis: its data were removed; \
                 nothing is claimed until they are restored",
                self.store_id
            ))),
            _ => Err(EngineError::Rejected(format!(
                "shard {shard:02x} on Redis does not belong to the store {}: its data were \
                 exchanged; nothing is claimed until they are restored",
                self.store_id
            ))),
        }
    }
}

/// Where to look for the servers.
fn places(options: &Options) -> Result<Places, String> {
    if options.cluster && options.sentinel.is_some() {
        return Err("`cluster` and `sentinel` exclude each other; a cluster fails over by itself"
            .to_owned());
    }
    let certificate = options.client_cert.as_ref();
    let certificate = certificate.map(|(chain, key)| (chain.as_path(), key.as_path()));
    let secure = options.urls.iter().any(|url| url.starts_with("rediss://"));
    let tls = if secure {
        let mut config = ClientConfig::clone(&*tls::client(options.ca.as_deref(), certificate)?);
        // Redis speaks no protocol that has a name.
        config.alpn_protocols.clear();
        Some(Arc::new(config))
    } else {
        None
    };
    let mut entries = Vec::new();
    for url in &options.urls {
        entries.push(connection::parse(url, tls.as_ref(), options.connect_timeout)?);
    }
    if entries.is_empty() {
        return Err("no Redis URL is set; name at least one in `urls`".to_owned());
    }
    let rules = Rules { cluster: options.cluster, strict: options.strict };
    Ok(Places { entries, sentinel: options.sentinel.clone(), rules })
}

impl Engine for Redis {
    fn connections(&self) -> usize {
        topology::LANES
    }

    async fn commit(&self, lane: usize, groups: &[Group]) -> Result<Vec<CasResult>, EngineError> {
        self.swap(lane, groups).await
    }

    async fn read(&self, ids: &[RecordId]) -> Result<Vec<Option<Vec<u8>>>, EngineError> {
        self.fetch(ids, self.replicas).await
    }

    async fn list(&self, query: &Query) -> Result<Vec<ListedRecord>, EngineError> {
        self.page(query).await
    }

    async fn heartbeat(&self, owner: Nonce, lease: Duration) -> Result<Timestamp, EngineError> {
        self.renew(&owner, lease).await
    }

    async fn leave(&self, owner: Nonce) -> Result<(), EngineError> {
        self.end_lease(&owner).await
    }

    async fn publish(&self, messages: Vec<(Nonce, Message)>) -> Result<(), EngineError> {
        self.say(messages).await
    }

    async fn listen(self: Arc<Self>, owner: Nonce, heard: mpsc::Sender<Message>, end: Shutdown) {
        self.hear(owner, heard, end).await;
    }
}
