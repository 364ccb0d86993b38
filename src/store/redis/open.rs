//! Opening a store: finding or creating the store, and checking it for completeness and identity.
//!
//! Creation writes the store's metadata first, in state `making`; then every shard gets a marker;
//! then the state becomes `ready`, and no shard gets a marker again. Several processes may create
//! the store at once, and an unfinished creation is continued by the next process: every step takes
//! effect once, in any process.

use std::sync::{Arc, Mutex};

use ::redis::{Cmd, Pipeline, Value};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::command::SlotCommand;
use super::connection;
use super::discovery::EntryPoints;
use super::dispatch::{self, CommandOutcome};
use super::engine::Redis;
use super::error;
use super::keys::{Keys, meta_slot, slot_of};
use super::node::CONTROL_CONNECTION;
use super::options::RedisOptions;
use super::reply::text;
use super::requirements::{ServerRequirements, UnusableServer};
use super::script::{self, Scripts};
use super::topology::Topology;
use crate::clock::Timestamp;
use crate::net::tls;
use crate::store::Identity;
use crate::store::codec::SCHEMA;
use crate::store::shared::engine::OpenedEngine;

/// Attempts to find a complete store: absent, then in the making, then ready.
const ATTEMPTS: usize = 3;

/// The store's metadata.
struct StoreMetadata {
    store_id: Uuid,
    schema: u32,
    created: Timestamp,
    ready: bool,
}

/// The servers named by the options.
fn entry_points(options: &RedisOptions) -> Result<EntryPoints, String> {
    if options.cluster && options.sentinel.is_some() {
        return Err("`cluster` and `sentinel` exclude each other; a cluster fails over by itself"
            .to_owned());
    }
    let certificate = options.client_cert.as_ref();
    let certificate = certificate.map(|(chain, key)| (chain.as_path(), key.as_path()));
    let secure = options.urls.iter().any(|url| url.starts_with("rediss://"));
    let tls = if secure {
        let mut config =
            ClientConfig::clone(&*tls::client(options.ca.as_deref(), certificate, tls::HTTP1)?);
        // Redis has no registered protocol name for ALPN.
        config.alpn_protocols.clear();
        Some(Arc::new(config))
    } else {
        None
    };
    let mut servers = Vec::new();
    for url in &options.urls {
        servers.push(connection::parse_url(url, tls.as_ref(), options.connect_timeout)?);
    }
    if servers.is_empty() {
        return Err("no Redis URL is set; name at least one in `urls`".to_owned());
    }
    let requirements = ServerRequirements { cluster: options.cluster, strict: options.strict };
    Ok(EntryPoints { servers, sentinel: options.sentinel.clone(), requirements })
}

impl Redis {
    /// Opens the store, or creates a store when the options allow a creation.
    ///
    /// # Errors
    /// A line of text: event, cause and remedy, without passwords.
    pub(crate) async fn open(options: &RedisOptions) -> Result<OpenedEngine<Self>, String> {
        let keys = Keys::new(&options.prefix)?;
        let topology = Topology::new(entry_points(options)?);
        // All servers are checked before anything is written.
        for node in topology.map().await?.nodes() {
            node.connection(CONTROL_CONNECTION).await.map_err(UnusableServer::into_reason)?;
        }
        let mut redis = Self {
            topology,
            keys,
            scripts: Scripts::new(),
            store_id: String::new(),
            replicas: options.replicas,
            timeout: options.timeout,
            connect_timeout: options.connect_timeout,
            servers_checked: Mutex::new(Instant::now()),
        };
        let (metadata, created) = redis.find_or_create(options).await?;
        let StoreMetadata { store_id, schema, created: created_at, .. } = metadata;
        redis.store_id = store_id.to_string();
        redis.load_scripts().await?;
        redis.check_rights().await?;
        let identity = Identity { store_id, schema, created: created_at };
        Ok(OpenedEngine { engine: Arc::new(redis), identity, created })
    }

    /// The metadata of the complete, expected store; `true` when this call created the store.
    async fn find_or_create(
        &self,
        options: &RedisOptions,
    ) -> Result<(StoreMetadata, bool), String> {
        let mut created = false;
        for _ in 0..ATTEMPTS {
            let Some(metadata) = self.read_metadata().await? else {
                self.check_nothing_remains().await?;
                if let Some(expected) = options.expect_id {
                    return Err(format!(
                        "there is no store on Redis, but `expect_id` is {expected}: its data were \
                         removed, or the URL or the prefix is another one"
                    ));
                }
                if !options.create {
                    return Err("there is no store on Redis and `create = false` forbids making \
                                one, because an emptied store does not know which keys were used; \
                                check the URL and the prefix, or create it with `oncegate store \
                                init`"
                        .to_owned());
                }
                self.begin_creation().await?;
                created = true;
                continue;
            };
            check_identity(&metadata, options)?;
            if metadata.ready {
                self.check_markers(&metadata).await?;
                return Ok((metadata, created));
            }
            if !options.create {
                return Err(format!(
                    "making the store {} on Redis was begun and not finished; start once with \
                     `create = true`",
                    metadata.store_id
                ));
            }
            self.complete_creation(&metadata).await?;
        }
        Err("the store on Redis vanishes while it is opened; another client removes its data"
            .to_owned())
    }

    async fn read_metadata(&self) -> Result<Option<StoreMetadata>, String> {
        let mut command = Cmd::new();
        command.arg("HMGET").arg(self.keys.meta());
        command.arg("store_id").arg("schema").arg("created").arg("state");
        let answers = self.query_once(0, &[SlotCommand::new(meta_slot(), command)]).await?;
        let Some(Value::Array(fields)) = answers.first() else {
            return Err("the store's record on Redis cannot be read".to_owned());
        };
        if fields.iter().all(|field| *field == Value::Nil) {
            return Ok(None);
        }
        let fields: Vec<String> = fields.iter().filter_map(text).collect();
        let metadata = match fields.as_slice() {
            [id, schema, created, state] if state == "ready" || state == "making" => {
                let ready = state == "ready";
                let created = created.parse().ok().map(Timestamp::from_millis);
                let parts = Uuid::parse_str(id).ok().zip(schema.parse().ok()).zip(created);
                parts.map(|((store_id, schema), created)| StoreMetadata {
                    store_id,
                    schema,
                    created,
                    ready,
                })
            }
            _ => None,
        };
        let unreadable = || {
            format!(
                "{} on Redis is not a store's record; choose another prefix, or restore the store \
                 from a backup",
                self.keys.meta()
            )
        };
        metadata.map(Some).ok_or_else(unreadable)
    }

    /// The markers of the shards.
    async fn read_markers(&self) -> Result<Vec<Value>, String> {
        let commands = (0..=u8::MAX).map(|shard| {
            let mut command = Cmd::new();
            command.arg("GET").arg(self.keys.of_shard(shard, "store"));
            SlotCommand::new(slot_of(shard), command)
        });
        self.query_once(0, &commands.collect::<Vec<_>>()).await
    }

    /// Refuses to create a store where shards still have markers: such a store was emptied in part.
    async fn check_nothing_remains(&self) -> Result<(), String> {
        let markers = self.read_markers().await?;
        let remains = markers.into_iter().filter(|marker| *marker != Value::Nil);
        let remains: Vec<Value> = remains.collect();
        let Some(first) = remains.first() else { return Ok(()) };
        // Another process may have created the store between the two reads.
        if self.read_metadata().await?.is_some() {
            return Ok(());
        }
        Err(format!(
            "the store's record on Redis is gone, but {} of 256 shards still hold the store {}: \
             its data were removed in part; restore them from a backup",
            remains.len(),
            text(first).unwrap_or_default()
        ))
    }

    async fn check_markers(&self, metadata: &StoreMetadata) -> Result<(), String> {
        let id = metadata.store_id.to_string();
        let mut wrong = 0;
        let mut other = None;
        for marker in self.read_markers().await? {
            match text(&marker) {
                Some(marker) if marker == id => {}
                found => {
                    wrong += 1;
                    other = other.or(found);
                }
            }
        }
        match (wrong, other) {
            (0, _) => Ok(()),
            (wrong, Some(other)) => Err(format!(
                "{wrong} of 256 shards on Redis do not belong to the store {id} but to {other}; \
                 two stores were mixed: restore one of them from a backup"
            )),
            (wrong, None) => Err(format!(
                "{wrong} of 256 shards of the store {id} are gone from Redis: its data were \
                 removed in part; restore them from a backup, and treat keys used since then as \
                 unknown"
            )),
        }
    }

    async fn begin_creation(&self) -> Result<(), String> {
        let id = Uuid::new_v4().to_string();
        let keys = [self.keys.meta()];
        let args = [&*id, &*SCHEMA.to_string()];
        let command = SlotCommand::eval(script::CREATE_STORE, meta_slot(), &keys, &args);
        self.query_once(self.replicas, &[command]).await.map(drop)
    }

    async fn complete_creation(&self, metadata: &StoreMetadata) -> Result<(), String> {
        let id = metadata.store_id.to_string();
        let commands = (0..=u8::MAX).map(|shard| {
            let keys = ["store", "ids"].map(|name| self.keys.of_shard(shard, name));
            SlotCommand::eval(script::CREATE_MARKER, slot_of(shard), &keys, &[&id])
        });
        let markers = self.query_once(self.replicas, &commands.collect::<Vec<_>>()).await?;
        for (shard, marker) in markers.iter().enumerate() {
            if text(marker).as_deref() != Some(&*id) {
                return Err(format!(
                    "the store {id} cannot be made on Redis: shard {shard:02x} belongs to the \
                     store {}; choose another prefix",
                    text(marker).unwrap_or_default()
                ));
            }
        }
        let keys = [self.keys.meta()];
        let command = SlotCommand::eval(script::COMPLETE_STORE, meta_slot(), &keys, &[&id]);
        self.query_once(self.replicas, &[command]).await.map(drop)
    }

    /// Loads the scripts on every server and keeps the digests.
    async fn load_scripts(&mut self) -> Result<(), String> {
        let mut scripts = self.scripts.all_mut();
        let mut load = Pipeline::new();
        for script in &scripts {
            load.cmd("SCRIPT").arg("LOAD").arg(script.text);
        }
        let mut digests = Vec::new();
        for node in self.topology.map().await?.nodes() {
            let connection = node.connection(CONTROL_CONNECTION).await;
            let connection = connection.map_err(UnusableServer::into_reason)?;
            let replies = timeout(self.timeout, connection.send(&load)).await;
            let replies = replies.unwrap_or_else(|_| Err(error::no_answer(self.timeout)));
            let replies = replies.map_err(|error| error::unreachable(&node.address, &error))?;
            if let Some(Value::ServerError(error)) = replies.first() {
                return Err(error::server_error(&node.address, error));
            }
            digests = replies.iter().filter_map(text).collect();
        }
        if digests.len() != scripts.len() {
            return Err("the Redis server does not name the scripts it was given".to_owned());
        }
        for (script, digest) in scripts.iter_mut().zip(digests) {
            script.sha = digest;
        }
        Ok(())
    }

    /// Runs every command of the scripts, because a missing right has to stop the start, and not a
    /// script half-way.
    async fn check_rights(&self) -> Result<(), String> {
        let keys = [self.keys.of_shard(0, "rights"), self.keys.of_shard(0, "rights:set")];
        let command = SlotCommand::eval(script::CHECK_RIGHTS, slot_of(0), &keys, &[]);
        let policy = self.dispatch_policy(CONTROL_CONNECTION, 0, true);
        for outcome in dispatch::send(&self.topology, &[command], policy).await {
            match outcome {
                CommandOutcome::Answered(Value::ServerError(error), address)
                    if !error::proves_no_change(&error) =>
                {
                    return Err(error::server_error(&address, &error));
                }
                // A server that takes no writes now is no reason not to start: without `replicas`
                // replays are possible meanwhile; with them, writes may work by the first request.
                CommandOutcome::Answered(..) => {}
                CommandOutcome::NotSent(reason) | CommandOutcome::Indeterminate(reason) => {
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    async fn query_once(
        &self,
        replicas: u32,
        commands: &[SlotCommand],
    ) -> Result<Vec<Value>, String> {
        let answers = self.query(CONTROL_CONNECTION, replicas, commands).await;
        answers.map_err(|error| error.reason().to_owned())
    }
}

/// Refuses a store with a foreign schema, or with an id other than `expect_id`.
fn check_identity(metadata: &StoreMetadata, options: &RedisOptions) -> Result<(), String> {
    if metadata.schema > SCHEMA {
        return Err(format!(
            "the store on Redis has schema {}, this oncegate knows {SCHEMA}: upgrade oncegate",
            metadata.schema
        ));
    }
    if metadata.schema < SCHEMA {
        return Err(format!(
            "the store on Redis has schema {}, written before the first release, and this \
             oncegate knows {SCHEMA} only; settle every key in it with the version that wrote it, \
             then start with another prefix",
            metadata.schema
        ));
    }
    match options.expect_id {
        Some(expected) if expected != metadata.store_id => Err(format!(
            "the store on Redis is {}, but `expect_id` is {expected}; check the URL and the \
             prefix, or change `expect_id` if the store was replaced on purpose",
            metadata.store_id
        )),
        Some(_) | None => Ok(()),
    }
}
