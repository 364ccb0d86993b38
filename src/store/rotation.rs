//! Rewriting the records of a store on a server under a new master key, while gateways use it.
//!
//! A record is replaced by itself, under its own version: for whoever compares versions nothing has
//! changed. A gateway that changes the record meanwhile wins, and seals it under its own present
//! key.

use std::collections::BTreeMap;

use super::codec::Codec;
use super::port::{Change, ListPosition, Query, Store as _};
use super::seal::KeyId;
use super::sealed_names;
use super::server::{OpenFailure, Server, Timing, bind};
use super::shared::SharedStore;
use super::shared::engine::{Engine, OpenedEngine};
use super::{postgres, redis};

/// Records of a listing.
const PAGE: usize = 256;

/// Passes over the store, at most: records that change during a pass are looked at again.
const MOST_PASSES: usize = 4;

/// The records of a store by the master key that they are sealed under; `None`: in plain.
pub type RecordsByKey = BTreeMap<Option<KeyId>, u64>;

impl Server {
    /// Seals all records under the present key of `codec`, and counts them by their keys.
    /// `progress` receives the number of records so far in a pass.
    ///
    /// # Errors
    /// When the keys do not fit, the server does not answer, or a record is corrupt.
    pub async fn rotate(
        &self,
        codec: Codec,
        timing: Timing,
        progress: impl FnMut(u64) + Send,
    ) -> Result<RecordsByKey, OpenFailure> {
        match self {
            Self::Postgres(options) => {
                let opened = postgres::PostgresEngine::open(options).await?;
                rotate(opened, codec, timing, progress).await
            }
            Self::Redis(options) => {
                rotate(redis::Redis::open(options).await?, codec, timing, progress).await
            }
        }
    }
}

async fn rotate<E: Engine>(
    opened: OpenedEngine<E>,
    codec: Codec,
    timing: Timing,
    mut progress: impl FnMut(u64) + Send,
) -> Result<RecordsByKey, OpenFailure> {
    let OpenedEngine { engine, identity, .. } = opened;
    bind(&*engine, &codec, identity.store_id, true).await?;
    reseal(&*engine, &codec, identity.store_id).await?;
    let store = SharedStore::start(engine.clone(), identity, codec.clone(), timing).await?;
    let mut counts = RecordsByKey::new();
    for _ in 0..MOST_PASSES {
        let (found, rewritten) = pass(&*engine, &store, &codec, &mut progress).await?;
        counts = found;
        if rewritten == 0 {
            break;
        }
    }
    // Best effort: the other processes never waited for this one.
    let _ = store.leave().await;
    Ok(counts)
}

/// Rewrites what is under another key; returns the counts from before, and the number of rewritten
/// records.
async fn pass<E: Engine>(
    engine: &E,
    store: &SharedStore<E>,
    codec: &Codec,
    progress: &mut (impl FnMut(u64) + Send),
) -> Result<(RecordsByKey, u64), OpenFailure> {
    let current = codec.keyring().map(super::seal::Keyring::current);
    let (mut counts, mut rewritten, mut done) = (RecordsByKey::new(), 0, 0);
    let mut after = None;
    loop {
        let query = Query { after, limit: PAGE, ..Query::default() };
        let page = engine.list(&query).await.map_err(|error| error.reason().to_owned())?;
        for (ListPosition { id, .. }, bytes) in &page {
            let corrupt = |error| format!("record {id} is corrupt: {error}");
            let key = Codec::key_of(id, bytes).map_err(corrupt)?;
            *counts.entry(key).or_default() += 1;
            if key == current {
                continue;
            }
            let record = codec.decode(id, bytes).map_err(corrupt)?;
            let expect = Some(record.version);
            let change = Change { id: *id, expect, put: Some(record.into()) };
            store.swap(vec![change]).await.map_err(|error| error.to_string())?;
            rewritten += 1;
        }
        done += page.len() as u64;
        progress(done);
        after = page.last().map(|(at, _)| *at);
        if page.len() < PAGE {
            return Ok((counts, rewritten));
        }
    }
}

/// Seals the store's secret under the present key.
async fn reseal<E: Engine>(
    engine: &E,
    codec: &Codec,
    store_id: uuid::Uuid,
) -> Result<(), OpenFailure> {
    let Some(keyring) = codec.keyring() else { return Ok(()) };
    loop {
        let reason = |error: super::shared::engine::EngineError| error.reason().to_owned();
        let Some(stored) = engine.names().await.map_err(reason)? else { return Ok(()) };
        let resealed = sealed_names::resealed(keyring, store_id, &stored.bytes);
        let resealed = resealed.map_err(|problem| OpenFailure::Key(problem.0))?;
        let Some(bytes) = resealed else { return Ok(()) };
        // Another process was faster: its document is looked at.
        if engine.swap_names(Some(stored.version), &bytes).await.map_err(reason)? {
            return Ok(());
        }
    }
}
