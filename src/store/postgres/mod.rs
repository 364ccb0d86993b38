//! PostgreSQL, or a server that speaks its protocol, as an engine that several gateways share.
//!
//! A statement carries every change of a batch, so a round trip and a commit serve many callers:
//! `fast_path.sql` claims and replaces, `commit.sql` does the rest. The rules of idempotency are
//! not here: the engine compares versions and keeps rows.
//!
//! `open` finds or creates the tables, `connect` reaches the primary, `connection` runs statements,
//! and `pool` holds connections in `slot`s, which replace a lost connection after ending the
//! server's `session`. `listen` receives the messages of other gateways.

mod commit;
mod connect;
mod connection;
mod error;
mod fast_path;
mod list;
mod listen;
mod names;
mod open;
mod options;
mod pool;
mod session;
mod slot;
mod statement;
#[cfg(test)]
mod tests;
mod tls;
mod values;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_postgres::types::Type;
use uuid::Uuid;

use self::connect::Connector;
use self::error::{StatementError, other_store};
pub use self::options::PostgresOptions;
use self::pool::ConnectionPool;
use self::statement::{Parameters, SqlStatement};
use self::values::to_uuid;
use crate::clock::{Timestamp, millis};
use crate::idempotency::RecordId;
use crate::idempotency::record::Nonce;
use crate::shutdown::Shutdown;
use crate::store::shared::engine::{
    CasResult, Engine, EngineError, Group, ListedRecord, OpenedEngine,
};
use crate::store::shared::message::Message;
use crate::store::{NamesDocument, Query};

/// Reads records. A final row without an id identifies the store: the records of a different store,
/// present or absent, would prove the wrong thing.
const READ: SqlStatement = SqlStatement {
    text: "SELECT r.id, r.data FROM oncegate.record AS r WHERE r.id = ANY ($1::uuid[]) \
           UNION ALL SELECT NULL, NULL FROM oncegate.store AS s WHERE s.store_id = $2::uuid",
    types: &[Type::UUID_ARRAY, Type::UUID],
};

/// Renews a lease, and removes some leases that ended over an hour ago. Renewals are as durable as
/// claims: with a lease shortened by a crash of the server, other gateways would take a living
/// gateway for dead.
const HEARTBEAT: SqlStatement = SqlStatement {
    text: "WITH ended AS (
               DELETE FROM oncegate.replica WHERE id IN (
                   SELECT id FROM oncegate.replica
                   WHERE lease_until < clock_timestamp() - interval '1 hour' AND id <> $1
                   ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED))
           INSERT INTO oncegate.replica AS r (id, lease_until)
           SELECT $1, clock_timestamp() + $2 * interval '1 millisecond'
           WHERE (SELECT s.store_id FROM oncegate.store AS s) = $3
           ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
           RETURNING (extract(epoch FROM clock_timestamp()) * 1000)::int8",
    types: &[Type::UUID, Type::INT8, Type::UUID],
};

const LEAVE: SqlStatement =
    SqlStatement { text: "DELETE FROM oncegate.replica WHERE id = $1", types: &[Type::UUID] };

/// Sends notifications without durability: a message is a hint, and PostgreSQL serializes commits
/// with notifications.
const PUBLISH: SqlStatement = SqlStatement {
    text: "SELECT set_config('synchronous_commit', 'off', true) FROM (
               SELECT pg_notify(channel, payload)
               FROM unnest($1::text[], $2::text[]) AS t(channel, payload)
           ) AS sent",
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY],
};

/// Engine on a PostgreSQL server.
#[derive(Debug)]
pub(crate) struct PostgresEngine {
    store_id: Uuid,
    pool: ConnectionPool,
}

impl PostgresEngine {
    /// Connects and finds the store, or creates the store if the options allow.
    ///
    /// # Errors
    /// Single-line description of the defect and the remedy, without the password.
    pub(crate) async fn open(options: &PostgresOptions) -> Result<OpenedEngine<Self>, String> {
        let connector = Connector::new(options)?;
        let control = connector.connect(None).await?;
        let (identity, created) = open::find_or_create(&control, options).await?;
        let store_id = identity.store_id;
        connector.pin(store_id);
        let statements: (&[_], &[_]) = (&[&fast_path::FAST_PATH], &[&READ]);
        let (timeout, writers) = (options.timeout, options.connections);
        let pool = ConnectionPool::new(connector, timeout, writers, statements, control);
        Ok(OpenedEngine { engine: Arc::new(Self { store_id, pool }), identity, created })
    }
}

impl Engine for PostgresEngine {
    fn connections(&self) -> usize {
        self.pool.writers.len()
    }

    async fn commit<'a>(
        &'a self,
        connection: usize,
        groups: &'a [Group],
    ) -> Result<Vec<CasResult>, EngineError> {
        let connection = self.pool.connection(self.pool.writer(connection)).await?;
        let deadline = Instant::now() + self.pool.timeout;
        commit::commit(&connection, &self.store_id, groups, deadline).await
    }

    async fn read<'a>(&'a self, ids: &'a [RecordId]) -> Result<Vec<Option<Vec<u8>>>, EngineError> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let uuids: Vec<Uuid> = ids.iter().map(|id| to_uuid(id.as_bytes())).collect();
        let slot = self.pool.reader(first.as_bytes()[15]);
        let parameters: Parameters<'_> = &[&uuids, &self.store_id];
        let rows = self.pool.query(slot, &READ, parameters).await;
        let (mut records, is_store) = list::records_of(&rows.map_err(StatementError::of_read)?)?;
        if !is_store {
            return Err(other_store());
        }
        records.sort_unstable_by_key(|(id, _)| *id);
        let bytes_of = |id: &RecordId| {
            let at = records.binary_search_by_key(id, |(id, _)| *id).ok()?;
            // Copied, not moved: the same id may be requested twice.
            Some(records[at].1.clone())
        };
        Ok(ids.iter().map(bytes_of).collect())
    }

    async fn list<'a>(&'a self, query: &'a Query) -> Result<Vec<ListedRecord>, EngineError> {
        list::list(&self.pool, &self.store_id, query).await
    }

    async fn heartbeat(&self, owner: Nonce, lease: Duration) -> Result<Timestamp, EngineError> {
        let lease = i64::try_from(millis(lease)).unwrap_or(i64::MAX);
        let owner = to_uuid(&owner);
        let parameters: Parameters<'_> = &[&owner, &lease, &self.store_id];
        let rows = self.pool.query(&self.pool.control, &HEARTBEAT, parameters).await?;
        // The statement inserts nothing in a different store.
        let row = rows.first().ok_or_else(other_store)?;
        let now = row.try_get(0).ok().and_then(|now: i64| u64::try_from(now).ok());
        let unreadable = || EngineError::Indeterminate("PostgreSQL returned no time".to_owned());
        now.map(Timestamp::from_millis).ok_or_else(unreadable)
    }

    async fn leave(&self, owner: Nonce) -> Result<(), EngineError> {
        self.pool.query(&self.pool.control, &LEAVE, &[&to_uuid(&owner)]).await?;
        Ok(())
    }

    async fn live_owners(&self, owners: &[Nonce]) -> Result<Vec<Nonce>, EngineError> {
        names::live_owners(&self.pool, owners).await
    }

    async fn names(&self) -> Result<Option<NamesDocument>, EngineError> {
        names::read(&self.pool, &self.store_id).await
    }

    async fn swap_names(&self, expect: Option<u64>, bytes: &[u8]) -> Result<bool, EngineError> {
        names::replace(&self.pool, &self.store_id, expect, bytes).await
    }

    async fn publish(&self, messages: Vec<(Nonce, Message)>) -> Result<(), EngineError> {
        let channels: Vec<String> = messages.iter().map(|(to, _)| listen::channel(to)).collect();
        let payloads: Vec<String> = messages.iter().map(|(_, message)| message.to_text()).collect();
        self.pool.query(&self.pool.control, &PUBLISH, &[&channels, &payloads]).await?;
        Ok(())
    }

    async fn listen(
        self: Arc<Self>,
        owner: Nonce,
        inbox: mpsc::Sender<Message>,
        shutdown: Shutdown,
    ) {
        listen::listen(&self.pool, owner, &inbox, shutdown).await;
    }
}
