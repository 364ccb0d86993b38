//! PostgreSQL, and what speaks its protocol, as an engine that several gateways share.
//!
//! All changes that come together are one statement (`fast_path.sql`, and `commit.sql` for what is not
//! as usual), so that a round trip and a commit serve many. Nothing of the rules is here: rows are compared by version and kept.
//! `open` finds or makes the tables, `connect` reaches the primary, `connection` is one connection,
//! `slot` makes it again when it is lost, after `session` has ended what the server still does for
//! it, and `listen` hears what other gateways say.

mod commit;
mod connect;
mod connection;
mod error;
mod fast_path;
mod list;
mod listen;
mod open;
mod session;
mod slot;
#[cfg(test)]
mod tests;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::clock::{Timestamp, millis};
use crate::idempotency::RecordId;
use crate::idempotency::record::Nonce;
use crate::shutdown::Shutdown;
use crate::store::Query;
use crate::store::shared::engine::{
    CasResult, Engine, EngineError, Group, ListedRecord, OpenedEngine,
};
use crate::store::shared::message::Message;
use connect::Connector;
use connection::{Failed, Link, Parameters, Sql};
use slot::Slot;

/// Connections that read: pipelined, so that few serve many.
const READERS: usize = 2;

/// The last line, without an id, says that it is this store: what another one has not, or has, says
/// nothing of this one.
const READ: Sql = Sql {
    text: "SELECT r.id, r.data FROM oncegate.record AS r WHERE r.id = ANY ($1::uuid[]) \
           UNION ALL SELECT NULL, NULL FROM oncegate.store AS s WHERE s.store_id = $2::uuid",
    types: &[Type::UUID_ARRAY, Type::UUID],
};

const IS_STORE: Sql = Sql {
    text: "SELECT FROM oncegate.store AS s WHERE s.store_id = $1::uuid",
    types: &[Type::UUID],
};

/// Renews a lease, and removes some that ended more than an hour ago. It is as durable as a claim:
/// a lease that a crash of the server shortened would let others take a living gateway for dead.
const BEAT: Sql = Sql {
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

const LEAVE: Sql = Sql { text: "DELETE FROM oncegate.replica WHERE id = $1", types: &[Type::UUID] };

/// Not durable: a message is a hint, and all commits with messages wait for each other.
const PUBLISH: Sql = Sql {
    text: "SELECT set_config('synchronous_commit', 'off', true) FROM (
               SELECT pg_notify(channel, payload)
               FROM unnest($1::text[], $2::text[]) AS t(channel, payload)
           ) AS sent",
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY],
};

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// `postgresql://user:password@host:port/database?…`, or libpq's `key=value` form. Several hosts
    /// are tried in their order.
    pub url: String,
    /// Connections that change records, each one statement at a time.
    pub connections: usize,
    /// The longest time to make a connection.
    pub connect_timeout: Duration,
    /// The longest time to wait for the answer to a statement.
    pub timeout: Duration,
    /// A PEM file of the authorities to trust instead of the system's. Makes TLS a must.
    pub ca: Option<PathBuf>,
    /// PEM files of a certificate chain and its key, to present to the server.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Whether a database without a store may get one.
    pub create: bool,
    /// The only identity to accept.
    pub expect_id: Option<Uuid>,
    /// Whether the server keeps prepared statements for a connection: not behind a transaction
    /// pooler that does not know them.
    pub prepared: bool,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the URL, which has a password in it.
        f.debug_struct("Options").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Postgres {
    connector: Connector,
    store_id: Uuid,
    timeout: Duration,
    /// Each is used by one commit at a time.
    lanes: Vec<Slot>,
    readers: Vec<Slot>,
    /// Heartbeats and messages.
    control: Slot,
}

impl Postgres {
    /// Connects and finds the store, or makes it where that is allowed.
    ///
    /// # Errors
    /// One line: what is wrong and what to do. Never the password.
    pub(crate) async fn open(options: &Options) -> Result<OpenedEngine<Self>, String> {
        let connector = Connector::new(options)?;
        let link = connector.link(None).await?;
        let (identity, created) = open::find_or_create(&link, options).await?;
        connector.pin(identity.store_id);
        let slots = |count: usize, statements: &'static [&'static Sql]| {
            (0..count).map(|_| Slot::new(statements)).collect()
        };
        let engine = Arc::new(Self {
            connector,
            store_id: identity.store_id,
            timeout: options.timeout,
            lanes: slots(options.connections.max(1), &[&fast_path::QUICK]),
            readers: slots(READERS, &[&READ]),
            control: Slot::with(link),
        });
        Ok(OpenedEngine { engine, identity, created })
    }

    /// Asks something that may be asked twice; so it is asked again, once, when the connection turns
    /// out to be lost.
    async fn ask(
        &self,
        slot: &Slot,
        sql: &Sql,
        parameters: Parameters<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, Failed> {
        let end = Instant::now() + self.timeout;
        let link = self.linked(slot).await?;
        match link.ask(sql, parameters, end).await {
            Err(Failed::Silent(_) | Failed::Unsent(_)) if Instant::now() < end => {
                let link = self.linked(slot).await?;
                link.ask(sql, parameters, Instant::now() + self.timeout).await
            }
            result => result,
        }
    }

    async fn linked(&self, slot: &Slot) -> Result<Arc<Link>, Failed> {
        let linked = slot.link(&self.connector, self.timeout).await;
        linked.map_err(|trouble| Failed::Unsent(trouble.reason().to_owned()))
    }

    fn reader(&self, any: u8) -> &Slot {
        &self.readers[usize::from(any) % self.readers.len()]
    }
}

impl Engine for Postgres {
    fn connections(&self) -> usize {
        self.lanes.len()
    }

    async fn commit<'a>(
        &'a self,
        lane: usize,
        groups: &'a [Group],
    ) -> Result<Vec<CasResult>, EngineError> {
        let slot = &self.lanes[lane % self.lanes.len()];
        let link = slot.link(&self.connector, self.timeout).await?;
        commit::commit(&link, &self.store_id, groups, Instant::now() + self.timeout).await
    }

    async fn read<'a>(&'a self, ids: &'a [RecordId]) -> Result<Vec<Option<Vec<u8>>>, EngineError> {
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let asked: Vec<Uuid> = ids.iter().map(|id| uuid_of(id.as_bytes())).collect();
        let slot = self.reader(first.as_bytes()[15]);
        let parameters: Parameters<'_> = &[&asked, &self.store_id];
        let rows = self.ask(slot, &READ, parameters).await.map_err(Failed::of_question)?;
        let (mut found, is_store) = list::found(&rows)?;
        if !is_store {
            return Err(EngineError::Rejected(commit::OTHER_STORE.to_owned()));
        }
        found.sort_unstable_by_key(|(id, _)| *id);
        let bytes_of = |id: &RecordId| {
            let at = found.binary_search_by_key(id, |(id, _)| *id).ok()?;
            Some(found[at].1.clone())
        };
        Ok(ids.iter().map(bytes_of).collect())
    }

    async fn list<'a>(&'a self, query: &'a Query) -> Result<Vec<ListedRecord>, EngineError> {
        list::list(self, query).await
    }

    async fn heartbeat(&self, owner: Nonce, lease: Duration) -> Result<Timestamp, EngineError> {
        let lease = i64::try_from(millis(lease)).unwrap_or(i64::MAX);
        let owner = uuid_of(&owner);
        let rows = self.ask(&self.control, &BEAT, &[&owner, &lease, &self.store_id]).await?;
        if rows.is_empty() {
            return Err(EngineError::Rejected(commit::OTHER_STORE.to_owned()));
        }
        let now: Option<i64> = rows.first().and_then(|row| row.try_get(0).ok());
        let now = now.and_then(|now| u64::try_from(now).ok());
        let odd = || EngineError::Indeterminate("the server does not tell its time".to_owned());
        now.map(Timestamp::from_millis).ok_or_else(odd)
    }

    async fn leave(&self, owner: Nonce) -> Result<(), EngineError> {
        self.ask(&self.control, &LEAVE, &[&uuid_of(&owner)]).await?;
        Ok(())
    }

    async fn publish(&self, messages: Vec<(Nonce, Message)>) -> Result<(), EngineError> {
        let channels: Vec<String> = messages.iter().map(|(to, _)| listen::channel(to)).collect();
        let payloads: Vec<String> = messages.iter().map(|(_, said)| said.to_text()).collect();
        self.ask(&self.control, &PUBLISH, &[&channels, &payloads]).await?;
        Ok(())
    }

    async fn listen(self: Arc<Self>, owner: Nonce, heard: mpsc::Sender<Message>, end: Shutdown) {
        listen::listen(&self, owner, &heard, end).await;
    }
}

/// Sixteen bytes as the server's type for them, which it compares byte by byte.
fn uuid_of(bytes: &[u8; 16]) -> Uuid {
    Uuid::from_bytes(*bytes)
}

/// A time as the server's type; times at the end of time are all the same.
fn bigint(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}
