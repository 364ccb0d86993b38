//! Opening a store: whether it is there, whole, and the right one; and making one.
//!
//! The store's own record comes first, as `making`; then each shard gets its marker; then the store
//! is `ready`, and never gets a marker again. Several may make it at once, and one that ended in
//! between is followed by the next: each step is done once, whoever does it.

use std::sync::{Arc, Mutex};

use ::redis::{Cmd, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::dispatch::{Ask, Outcome, send};
use super::keys::{Keys, meta_slot, slot_of};
use super::requirements::text;
use super::topology::{Nodes, SIGNALS};
use super::{OpenedEngine, Options, Redis, Script, Scripts, error};
use crate::clock::Timestamp;
use crate::store::Identity;
use crate::store::codec::SCHEMA;

/// Waits for a server that is still loading, and for one that makes the store with us.
const TRIES: usize = 3;

/// What the store says of itself.
struct Meta {
    store_id: Uuid,
    schema: u32,
    created: Timestamp,
    ready: bool,
}

pub(super) async fn open(options: &Options) -> Result<OpenedEngine<Redis>, String> {
    let keys = Keys::new(&options.prefix)?;
    let nodes = Nodes::new(super::places(options)?);
    // Before anything is written: all servers are fit.
    for node in nodes.map().await?.nodes() {
        node.link(SIGNALS).await.map_err(super::requirements::Unfit::into_reason)?;
    }
    let mut redis = Redis {
        nodes,
        keys,
        scripts: Scripts {
            swap: Script { text: include_str!("scripts/commit.lua"), sha: String::new() },
            read: Script { text: include_str!("scripts/read.lua"), sha: String::new() },
            beat: Script { text: include_str!("scripts/heartbeat.lua"), sha: String::new() },
            alive: Script { text: include_str!("scripts/live_owners.lua"), sha: String::new() },
        },
        store_id: String::new(),
        replicas: options.replicas,
        timeout: options.timeout,
        connect_timeout: options.connect_timeout,
        looked: Mutex::new(Instant::now()),
    };
    let (meta, created) = redis.found(options).await?;
    redis.store_id = meta.store_id.to_string();
    redis.load_scripts().await?;
    redis.try_rights().await?;
    let identity = Identity { store_id: meta.store_id, schema: meta.schema, created: meta.created };
    Ok(OpenedEngine { engine: Arc::new(redis), identity, created })
}

impl Redis {
    /// The store's record, of a store that is whole and the right one.
    async fn found(&self, options: &Options) -> Result<(Meta, bool), String> {
        let mut created = false;
        for _ in 0..TRIES {
            let Some(meta) = self.meta().await? else {
                self.refuse_remains().await?;
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
                self.begin().await?;
                created = true;
                continue;
            };
            right_one(&meta, options)?;
            if meta.ready {
                self.check_markers(&meta).await?;
                return Ok((meta, created));
            }
            if !options.create {
                return Err(format!(
                    "making the store {} on Redis was begun and not finished; start once with \
                     `create = true`",
                    meta.store_id
                ));
            }
            self.finish(&meta).await?;
        }
        Err("the store on Redis vanishes while it is opened; somebody removes its data".to_owned())
    }

    async fn meta(&self) -> Result<Option<Meta>, String> {
        let mut command = Cmd::new();
        command.arg("HMGET").arg(self.keys.meta());
        command.arg("store_id").arg("schema").arg("created").arg("state");
        let answers = self.say_once(vec![Ask { slot: meta_slot(), command, script: None }]).await?;
        let Some(Value::Array(fields)) = answers.first() else {
            return Err("the store's record on Redis cannot be read".to_owned());
        };
        if fields.iter().all(|field| *field == Value::Nil) {
            return Ok(None);
        }
        let fields: Vec<String> = fields.iter().filter_map(text).collect();
        let meta = match fields.as_slice() {
            [id, schema, created, state] if state == "ready" || state == "making" => {
                let ready = state == "ready";
                let created = created.parse().ok().map(Timestamp::from_millis);
                let parts = Uuid::parse_str(id).ok().zip(schema.parse().ok()).zip(created);
                parts.map(|((store_id, schema), created)| Meta { store_id, schema, created, ready })
            }
            _ => None,
        };
        let broken = || {
            format!(
                "{} on Redis is not a store's record; choose another prefix, or restore the store \
                 from a backup",
                self.keys.meta()
            )
        };
        meta.map(Some).ok_or_else(broken)
    }

    /// The markers of all shards.
    async fn markers(&self) -> Result<Vec<Value>, String> {
        let asks = (0..=u8::MAX).map(|shard| {
            let mut command = Cmd::new();
            command.arg("GET").arg(self.keys.of_shard(shard, "store"));
            Ask { slot: slot_of(shard), command, script: None }
        });
        self.say_once(asks.collect()).await
    }

    /// A store whose record is gone while its shards are there was emptied in part.
    async fn refuse_remains(&self) -> Result<(), String> {
        let remains = self.markers().await?.into_iter().filter(|marker| *marker != Value::Nil);
        let remains: Vec<Value> = remains.collect();
        let Some(first) = remains.first() else { return Ok(()) };
        // Somebody may have begun it since.
        if self.meta().await?.is_some() {
            return Ok(());
        }
        Err(format!(
            "the store's record on Redis is gone, but {} of 256 shards still hold the store {}: \
             its data were removed in part; restore them from a backup",
            remains.len(),
            text(first).unwrap_or_default()
        ))
    }

    async fn check_markers(&self, meta: &Meta) -> Result<(), String> {
        let id = meta.store_id.to_string();
        let mut wrong = 0;
        let mut other = None;
        for marker in self.markers().await? {
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

    async fn begin(&self) -> Result<(), String> {
        let id = Uuid::new_v4().to_string();
        let ask = eval(
            include_str!("scripts/create_store.lua"),
            meta_slot(),
            &[self.keys.meta()],
            &[&id, &SCHEMA.to_string()],
        );
        self.write(vec![ask]).await.map(drop)
    }

    async fn finish(&self, meta: &Meta) -> Result<(), String> {
        let id = meta.store_id.to_string();
        let asks = (0..=u8::MAX).map(|shard| {
            let keys = ["store", "ids"].map(|name| self.keys.of_shard(shard, name));
            eval(include_str!("scripts/create_marker.lua"), slot_of(shard), &keys, &[&id])
        });
        for (shard, marker) in self.write(asks.collect()).await?.iter().enumerate() {
            if text(marker).as_deref() != Some(&*id) {
                return Err(format!(
                    "the store {id} cannot be made on Redis: shard {shard:02x} belongs to the \
                     store {}; choose another prefix",
                    text(marker).unwrap_or_default()
                ));
            }
        }
        let ask = eval(
            include_str!("scripts/complete_store.lua"),
            meta_slot(),
            &[self.keys.meta()],
            &[&id],
        );
        self.write(vec![ask]).await.map(drop)
    }

    /// Learns the names of the scripts, and leaves them on every server.
    async fn load_scripts(&mut self) -> Result<(), String> {
        let Scripts { swap, read, beat, alive } = &mut self.scripts;
        let mut scripts = [swap, read, beat, alive];
        let mut names = Vec::new();
        for node in self.nodes.map().await?.nodes() {
            let link = node.link(SIGNALS).await.map_err(super::requirements::Unfit::into_reason)?;
            let mut load = ::redis::Pipeline::new();
            for script in &scripts {
                load.cmd("SCRIPT").arg("LOAD").arg(script.text);
            }
            let answers = tokio::time::timeout(self.timeout, link.ask(&load)).await;
            let answers = answers.unwrap_or_else(|_| Err(error::silent(self.timeout)));
            let answers = answers.map_err(|error| error::unreachable(&node.target, &error))?;
            if let Some(Value::ServerError(error)) = answers.first() {
                return Err(error::no(&node.target, error));
            }
            names = answers.iter().filter_map(text).collect();
        }
        if names.len() != scripts.len() {
            return Err("the Redis server does not name the scripts it was given".to_owned());
        }
        for (script, name) in scripts.iter_mut().zip(names) {
            script.sha = name;
        }
        Ok(())
    }

    /// A right that is missing stops the start, and not a script half-way.
    async fn try_rights(&self) -> Result<(), String> {
        let keys = [self.keys.of_shard(0, "rights"), self.keys.of_shard(0, "rights:set")];
        let ask = eval(include_str!("scripts/check_rights.lua"), slot_of(0), &keys, &[]);
        let terms = self.terms(SIGNALS, 0, true);
        for outcome in send(&self.nodes, &[ask], terms).await {
            match outcome {
                Outcome::Said(Value::ServerError(error), target)
                    if !error::proves_untouched(&error) =>
                {
                    return Err(error::no(&target, &error));
                }
                // Without `replicas`, replays are possible while nothing can be written; with them, it
                // may be over by the first request.
                Outcome::Said(..) => {}
                Outcome::NotSent(reason) | Outcome::Unsure(reason) => return Err(reason),
            }
        }
        Ok(())
    }

    async fn say_once(&self, asks: Vec<Ask>) -> Result<Vec<Value>, String> {
        let answers = self.ask(SIGNALS, 0, &asks).await;
        answers.map_err(|trouble| trouble.reason().to_owned())
    }

    async fn write(&self, asks: Vec<Ask>) -> Result<Vec<Value>, String> {
        let answers = self.ask(SIGNALS, self.replicas, &asks).await;
        answers.map_err(|trouble| trouble.reason().to_owned())
    }
}

fn right_one(meta: &Meta, options: &Options) -> Result<(), String> {
    if meta.schema > SCHEMA {
        return Err(format!(
            "the store on Redis has schema {}, this oncegate knows {SCHEMA}: upgrade oncegate",
            meta.schema
        ));
    }
    if meta.schema < SCHEMA {
        return Err(format!(
            "the store on Redis has schema {}, written before the first release, and this oncegate \
             knows {SCHEMA} only; settle every key in it with the version that wrote it, then start \
             with another prefix",
            meta.schema
        ));
    }
    match options.expect_id {
        Some(expected) if expected != meta.store_id => Err(format!(
            "the store on Redis is {}, but `expect_id` is {expected}; check the URL and the \
             prefix, or change `expect_id` if the store was replaced on purpose",
            meta.store_id
        )),
        Some(_) | None => Ok(()),
    }
}

fn eval(text: &str, slot: u16, keys: &[String], args: &[&str]) -> Ask {
    let mut command = Cmd::new();
    command.arg("EVAL").arg(text).arg(keys.len()).arg(keys).arg(args);
    Ask { slot, command, script: None }
}
