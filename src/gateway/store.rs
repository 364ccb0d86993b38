//! Opening the configured store.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{self, EngineConfig, StoreServerConfig};
use crate::store::Store;
use crate::store::codec::Codec;
use crate::store::embedded::{self, Embedded, OpenError};
use crate::store::server::{OpenFailure, Server, Timing, statement_timeout};
use crate::store::{postgres, redis};

/// A store that is open for a gateway.
pub(super) struct StartedStore {
    pub(super) store: Arc<dyn Store>,
    /// Set if opening created the store.
    pub(super) created: bool,
}

/// Pause between two attempts to open a store that another process has open.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Opens the store for a gateway. `waiting` is called once if another process has the store open
/// and `lock_wait` allows to wait for it.
///
/// # Errors
/// A line with the cause.
pub(super) async fn open(
    config: &config::StoreConfig,
    waiting: &(dyn Fn() + Sync),
) -> Result<StartedStore, OpenFailure> {
    let opened = match server(config) {
        None => embedded(config, waiting).await?,
        Some((server, timing)) => {
            let opened = server.open(codec(config), timing).await?;
            StartedStore { store: opened.store, created: opened.created }
        }
    };
    if opened.created {
        tracing::warn!(
            store.id = %opened.store.identity().store_id,
            "this store is new and empty: no key used before is known here. If there was a store, \
             stop and give it back; set `create = false` and `expect_id` in [store] to refuse an \
             empty one"
        );
    }
    Ok(opened)
}

/// The codec for the records of the store.
pub(crate) fn codec(config: &config::StoreConfig) -> Codec {
    let keyring = config.encryption.as_ref().and_then(|encryption| encryption.keyring.clone());
    keyring.map_or_else(Codec::plain, Codec::sealed)
}

/// The lease of a process in a shared store; `None`: the store is not shared.
pub(super) fn lease(config: &config::StoreConfig) -> Option<std::time::Duration> {
    server(config).map(|(_, timing)| timing.lease)
}

/// The server of a shared store.
pub(crate) fn server(config: &config::StoreConfig) -> Option<(Server, Timing)> {
    let (create, expect_id) = (config.create, config.expect_id);
    let timing =
        |server: &StoreServerConfig| Timing { timeout: server.timeout, lease: server.lease };
    match &config.engine {
        EngineConfig::Embedded { .. } => None,
        EngineConfig::Postgres(store) => {
            let options = postgres::PostgresOptions {
                url: store.url.expose().to_owned(),
                connections: store.pool,
                connect_timeout: store.server.connect_timeout,
                timeout: statement_timeout(store.server.timeout),
                ca: store.server.ca.clone(),
                client_cert: store.server.client_cert.clone(),
                create,
                expect_id,
                prepared: store.prepared,
            };
            Some((Server::Postgres(options), timing(&store.server)))
        }
        EngineConfig::Redis(store) => {
            let options = redis::RedisOptions {
                urls: store.urls.iter().map(|url| url.expose().to_owned()).collect(),
                cluster: store.cluster,
                sentinel: store.sentinel.clone(),
                strict: store.strict,
                replicas: store.replicas,
                prefix: store.prefix.clone(),
                connect_timeout: store.server.connect_timeout,
                timeout: statement_timeout(store.server.timeout),
                ca: store.server.ca.clone(),
                client_cert: store.server.client_cert.clone(),
                create,
                expect_id,
            };
            Some((Server::Redis(options), timing(&store.server)))
        }
    }
}

async fn embedded(
    config: &config::StoreConfig,
    waiting: &(dyn Fn() + Sync),
) -> Result<StartedStore, OpenFailure> {
    let EngineConfig::Embedded { path, cache, lock_wait } = config.engine.clone() else {
        return Err("this store is not a directory".to_owned().into());
    };
    let options = embedded::DirectoryOptions {
        path,
        cache,
        create: config.create,
        expect_id: config.expect_id,
        codec: codec(config),
    };
    let deadline = Instant::now() + lock_wait;
    let mut waits = false;
    let (store, recovered) = loop {
        let options = options.clone();
        let opened = tokio::task::spawn_blocking(move || Embedded::open(&options)).await;
        match opened.map_err(|error| error.to_string())? {
            Err(OpenError::Locked(_)) if Instant::now() < deadline => {
                if !waits {
                    waiting();
                }
                waits = true;
                // Asked again and again: the system wakes only threads that cannot be stopped.
                tokio::time::sleep(LOCK_PAUSE.min(deadline - Instant::now())).await;
            }
            Err(error @ OpenError::Sealed { .. }) => {
                return Err(OpenFailure::Key(error.to_string()));
            }
            opened => break opened.map_err(|error| error.to_string())?,
        }
    };
    if recovered.unknown > 0 {
        tracing::warn!(
            interrupted = recovered.interrupted,
            unknown = recovered.unknown,
            "some outcomes are unknown; their keys are held until each is settled"
        );
    }
    for (id, reason) in &recovered.corrupt {
        tracing::error!(record = %id, reason, "a record is corrupt; its key is refused");
    }
    Ok(StartedStore { store, created: recovered.created })
}
