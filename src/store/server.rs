//! Stores on servers: opening one as a store that several processes share, and looking through one.

use std::sync::Arc;
use std::time::Duration;

use super::codec::Codec;
use super::shared::SharedStore;
use super::shared::engine::{self, Engine};
use super::{Identity, Query, Store, postgres, redis};
use crate::idempotency::RecordId;

pub use super::shared::Timing;

/// Records read at once when all are read.
const PAGE: usize = 256;

/// Which server, and how to reach it.
#[derive(Debug, Clone)]
pub enum Server {
    /// PostgreSQL, or what speaks its protocol.
    Postgres(postgres::PostgresOptions),
    /// Redis or Valkey.
    Redis(redis::RedisOptions),
}

/// A store that was found on its server, or made there.
#[derive(Debug)]
pub struct Opened {
    /// The port.
    pub store: Arc<dyn Store>,
    /// Whether it is new.
    pub created: bool,
}

/// What reading every record brought to light.
#[derive(Debug, Default)]
pub struct Verified {
    /// Records that are sound.
    pub sound: u64,
    /// Records that are not, and what is wrong; the first [`Verified::NAMED`] of them.
    pub problems: Vec<(RecordId, String)>,
    /// How many are not sound.
    pub problem_count: u64,
}

impl Verified {
    /// Problems that are named.
    pub const NAMED: usize = 100;
}

impl Server {
    /// Opens the store for a gateway: from now on this process is alive in it.
    ///
    /// # Errors
    /// One line that says what is in the way.
    pub async fn open(&self, codec: Codec, timing: Timing) -> Result<Opened, String> {
        match self {
            Self::Postgres(options) => {
                share(postgres::PostgresEngine::open(options).await?, codec, timing).await
            }
            Self::Redis(options) => share(redis::Redis::open(options).await?, codec, timing).await,
        }
    }

    /// Makes the store on an empty server.
    ///
    /// # Errors
    /// When there is one already, or it cannot be made.
    pub async fn init(&self) -> Result<Identity, String> {
        let (identity, created) = match self {
            Self::Postgres(options) => {
                let opened = postgres::PostgresEngine::open(options).await?;
                (opened.identity, opened.created)
            }
            Self::Redis(options) => {
                let opened = redis::Redis::open(options).await?;
                (opened.identity, opened.created)
            }
        };
        if !created {
            let id = identity.store_id;
            return Err(format!("there is a store already, id {id}; it was left as it was"));
        }
        Ok(identity)
    }

    /// Reads every record and checks it. `progress` is told how many were read so far.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn verify(
        &self,
        codec: &Codec,
        progress: impl FnMut(u64) + Send,
    ) -> Result<(Identity, Verified), String> {
        match self {
            Self::Postgres(options) => {
                let opened = postgres::PostgresEngine::open(options).await?;
                Ok((opened.identity, read_all(&*opened.engine, codec, progress).await?))
            }
            Self::Redis(options) => {
                let opened = redis::Redis::open(options).await?;
                Ok((opened.identity, read_all(&*opened.engine, codec, progress).await?))
            }
        }
    }
}

/// The port on top of what was opened.
async fn share<E: Engine>(
    opened: engine::OpenedEngine<E>,
    codec: Codec,
    timing: Timing,
) -> Result<Opened, String> {
    let store = SharedStore::start(opened.engine, opened.identity, codec, timing).await?;
    Ok(Opened { store, created: opened.created })
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
        for (id, bytes) in &page {
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
        after = page.last().map(|(id, _)| *id);
        if page.len() < PAGE {
            return Ok(verified);
        }
    }
}

/// The time a server has to answer a single question, so that one that hangs is asked again within
/// the patience of whoever waits.
pub fn statement_timeout(patience: Duration) -> Duration {
    patience / 2
}
