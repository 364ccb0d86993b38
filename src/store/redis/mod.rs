//! Records on a Redis or Valkey server, alone, behind Sentinels, or on a cluster.
//!
//! Every transition is a script (`scripts/commit.lua`): compare versions, write records and
//! indexes. The script first checks the shard's marker, a key with the store's id, because an
//! emptied or exchanged server must reject a change instead of taking every key for new. Records
//! have no time to live; the gateway decides about expiry.
//!
//! From the bottom up: `keys` names keys and channels. `connection` is a connection, and
//! `requirements` are the conditions for trusting a server. `node` keeps the connections to a
//! server, `slot_map` maps slots to nodes, `discovery` makes the map and `topology` keeps the map
//! current. `dispatch` sends commands by slot. `engine` is the state of the store; `commit`,
//! `read`, `list`, `leases`, `messages` and `open` are the operations.

mod address;
mod command;
mod commit;
mod connection;
mod discovery;
mod dispatch;
mod engine;
mod error;
mod index;
mod keys;
mod leases;
mod list;
mod messages;
mod names;
mod node;
mod open;
mod options;
mod read;
mod reply;
mod requirements;
mod script;
mod shared_failure;
mod slot_map;
#[cfg(test)]
mod tests;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::idempotency::record::Nonce;
use crate::shutdown::Shutdown;
use crate::store::shared::engine::{CasResult, Engine, EngineError, Group, ListedRecord};
use crate::store::shared::message::Message;
use crate::store::{NamesDocument, Query};

pub(crate) use engine::Redis;
pub use options::RedisOptions;

impl Engine for Redis {
    fn connections(&self) -> usize {
        node::COMMIT_CONNECTIONS
    }

    async fn commit(
        &self,
        connection: usize,
        groups: &[Group],
    ) -> Result<Vec<CasResult>, EngineError> {
        self.commit_groups(connection, groups).await
    }

    async fn read(&self, ids: &[RecordId]) -> Result<Vec<Option<Vec<u8>>>, EngineError> {
        self.read_records(ids).await
    }

    async fn check_read(&self) -> Result<(), EngineError> {
        self.read_names().await.map(drop)
    }

    async fn list(&self, query: &Query) -> Result<Vec<ListedRecord>, EngineError> {
        self.list_records(query).await
    }

    async fn heartbeat(&self, owner: Nonce, lease: Duration) -> Result<Timestamp, EngineError> {
        self.renew_lease(&owner, lease).await
    }

    async fn leave(&self, owner: Nonce) -> Result<(), EngineError> {
        self.end_lease(&owner).await
    }

    async fn live_owners(&self, owners: &[Nonce]) -> Result<Vec<Nonce>, EngineError> {
        Ok(self.alive(owners).await?.into_iter().collect())
    }

    async fn names(&self) -> Result<Option<NamesDocument>, EngineError> {
        self.read_names().await
    }

    async fn swap_names(&self, expect: Option<u64>, bytes: &[u8]) -> Result<bool, EngineError> {
        self.replace_names(expect, bytes).await
    }

    async fn publish(&self, messages: Vec<(Nonce, Message)>) -> Result<(), EngineError> {
        self.publish_messages(messages).await
    }

    async fn listen(self: Arc<Self>, owner: Nonce, heard: mpsc::Sender<Message>, end: Shutdown) {
        self.receive_messages(owner, heard, end).await;
    }
}
