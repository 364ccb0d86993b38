//! Stores on servers: opening, creating and verifying them.

use std::sync::Arc;
use std::time::Duration;

use super::codec::Codec;
use super::port::{Identity, ListPosition, Query, Store};
use super::shared::SharedStore;
use super::shared::engine::{self, Engine};
use super::{postgres, redis, sealed_names};
use crate::idempotency::RecordId;

pub use super::shared::Timing;

/// Records of one listing while verifying.
const PAGE: usize = 256;

/// A server with the options to reach it.
#[derive(Debug, Clone)]
pub enum Server {
    /// PostgreSQL or a server that speaks its protocol.
    Postgres(postgres::PostgresOptions),
    /// Redis or Valkey.
    Redis(redis::RedisOptions),
}

/// An open store on a server.
#[derive(Debug)]
pub struct Opened {
    /// The store behind its port.
    pub store: Arc<dyn Store>,
    /// Set if opening created the store.
    pub created: bool,
}

/// Result of verifying every record.
#[derive(Debug, Default)]
pub struct Verified {
    /// Number of valid records.
    pub sound: u64,
    /// Corrupt records with the reason; the first [`Verified::NAMED`].
    pub problems: Vec<(RecordId, String)>,
    /// Number of all corrupt records.
    pub problem_count: u64,
}

impl Verified {
    /// Limit on the corrupt records that are listed.
    pub const NAMED: usize = 100;
}

/// Reason why a store does not open, as a line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenFailure {
    /// The configured keys are missing or wrong.
    Key(String),
    /// Any other obstacle.
    Obstacle(String),
}

impl From<String> for OpenFailure {
    fn from(obstacle: String) -> Self {
        Self::Obstacle(obstacle)
    }
}

impl std::fmt::Display for OpenFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(text) | Self::Obstacle(text) => f.write_str(text),
        }
    }
}

impl Server {
    /// Opens the store for a gateway and starts the lease of this process.
    ///
    /// # Errors
    /// One line that names the obstacle.
    pub async fn open(&self, codec: Codec, timing: Timing) -> Result<Opened, OpenFailure> {
        match self {
            Self::Postgres(options) => {
                share(postgres::PostgresEngine::open(options).await?, codec, timing).await
            }
            Self::Redis(options) => share(redis::Redis::open(options).await?, codec, timing).await,
        }
    }

    /// Finds the store, or creates it on an empty server; returns true if it was created.
    ///
    /// # Errors
    /// When the server cannot be used, or creating the store fails.
    pub async fn init(&self) -> Result<(Identity, bool), String> {
        match self {
            Self::Postgres(options) => {
                let opened = postgres::PostgresEngine::open(options).await?;
                Ok((opened.identity, opened.created))
            }
            Self::Redis(options) => {
                let opened = redis::Redis::open(options).await?;
                Ok((opened.identity, opened.created))
            }
        }
    }

    /// Decodes every record. `progress` receives the number of records so far.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn verify(
        &self,
        codec: &Codec,
        progress: impl FnMut(u64) + Send,
    ) -> Result<(Identity, Verified), OpenFailure> {
        match self {
            Self::Postgres(options) => {
                let opened = postgres::PostgresEngine::open(options).await?;
                bind(&*opened.engine, codec, opened.identity.store_id, false).await?;
                Ok((opened.identity, read_all(&*opened.engine, codec, progress).await?))
            }
            Self::Redis(options) => {
                let opened = redis::Redis::open(options).await?;
                bind(&*opened.engine, codec, opened.identity.store_id, false).await?;
                Ok((opened.identity, read_all(&*opened.engine, codec, progress).await?))
            }
        }
    }
}

/// The port on top of an open engine.
async fn share<E: Engine>(
    opened: engine::OpenedEngine<E>,
    codec: Codec,
    timing: Timing,
) -> Result<Opened, OpenFailure> {
    bind(&*opened.engine, &codec, opened.identity.store_id, true).await?;
    let store = SharedStore::start(opened.engine, opened.identity, codec, timing).await?;
    Ok(Opened { store, created: opened.created })
}

/// Checks the keys of `codec` against the secret of an open store, and prepares the codec. With
/// `may_write`, a store without a secret gets one.
pub(super) async fn bind<E: Engine>(
    engine: &E,
    codec: &Codec,
    store_id: uuid::Uuid,
    may_write: bool,
) -> Result<(), OpenFailure> {
    loop {
        let stored = engine.names().await.map_err(|error| error.reason().to_owned())?;
        let opened = sealed_names::open(codec, store_id, stored.as_ref());
        let opened = opened.map_err(|problem| OpenFailure::Key(problem.0))?;
        if let Some(bytes) = opened.write.filter(|_| may_write) {
            let expect = stored.map(|stored| stored.version);
            let written = engine.swap_names(expect, &bytes).await;
            if !written.map_err(|error| error.reason().to_owned())? {
                // Another process was faster: its secret counts.
                continue;
            }
        }
        codec.bind(store_id, opened.ids);
        return Ok(());
    }
}

async fn read_all<E: Engine>(
    engine: &E,
    codec: &Codec,
    mut progress: impl FnMut(u64) + Send,
) -> Result<Verified, String> {
    let mut verified = Verified::default();
    let mut after = None;
    loop {
        let query = Query { after, limit: PAGE, ..Query::default() };
        let page = engine.list(&query).await.map_err(|trouble| trouble.reason().to_owned())?;
        for (ListPosition { id, .. }, bytes) in &page {
            match codec.decode(id, bytes) {
                Ok(_) => verified.sound += 1,
                Err(error) => {
                    verified.problem_count += 1;
                    if verified.problems.len() < Verified::NAMED {
                        verified.problems.push((*id, error.to_string()));
                    }
                }
            }
        }
        progress(verified.sound + verified.problem_count);
        after = page.last().map(|(at, _)| *at);
        if page.len() < PAGE {
            return Ok(verified);
        }
    }
}

/// The time a server has to answer a single question, so that one that hangs is asked again within
/// the time limit of the caller.
pub fn statement_timeout(limit: Duration) -> Duration {
    limit / 2
}
