//! A server and its connections.

use std::sync::Arc;

use ::redis::PushInfo;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::address::ServerAddress;
use super::connection::{ClientIdentity, ConnectionSettings, RedisConnection};
use super::error;
use super::requirements::{self, ServerRequirements, UnusableServer};
use super::shared_failure::SharedFailure;

/// Connections per server for commits; a connection serves a single commit at a time.
pub(super) const COMMIT_CONNECTIONS: usize = 4;
/// Index of the readers' shared connection.
pub(super) const READ_CONNECTION: usize = COMMIT_CONNECTIONS;
/// Index of the connection for leases and messages, kept apart from large reads.
pub(super) const CONTROL_CONNECTION: usize = COMMIT_CONNECTIONS + 1;

/// A server and its connections.
pub(super) struct RedisNode {
    pub(super) address: ServerAddress,
    settings: ConnectionSettings,
    requirements: ServerRequirements,
    connections: [Mutex<NodeConnection>; CONTROL_CONNECTION + 1],
}

/// The state of a connection.
#[derive(Default)]
struct NodeConnection {
    current: Option<Arc<RedisConnection>>,
    /// Predecessor after a failure. The server ends the predecessor before a successor is used, to
    /// keep late bytes from being executed after the successor's commands.
    abandoned: Option<ClientIdentity>,
    failure: SharedFailure<UnusableServer>,
}

impl RedisNode {
    pub(super) fn new(
        address: ServerAddress,
        settings: ConnectionSettings,
        requirements: ServerRequirements,
    ) -> Arc<Self> {
        Arc::new(Self { address, settings, requirements, connections: Default::default() })
    }

    /// The connection with this index, opened and checked on first use.
    pub(super) async fn connection(
        &self,
        index: usize,
    ) -> Result<Arc<RedisConnection>, UnusableServer> {
        let asked = Instant::now();
        let mut slot = self.connections[index].lock().await;
        if let Some(current) = &slot.current {
            return Ok(current.clone());
        }
        slot.failure.since(asked)?;
        let opened = match self.open().await {
            Ok(connection) => self
                .kill_abandoned(slot.abandoned.as_ref(), &connection)
                .await
                .map(|()| connection)
                .map_err(UnusableServer::Unreachable),
            Err(unusable) => Err(unusable),
        };
        match opened {
            Ok(connection) => {
                let connection = Arc::new(connection);
                slot.abandoned = None;
                slot.current = Some(connection.clone());
                Ok(connection)
            }
            // Not shared: a replica answers at once, and may be the primary by the next question.
            Err(replica @ UnusableServer::Replica(_)) => Err(replica),
            Err(unusable) => {
                slot.failure.set(&unusable);
                Err(unusable)
            }
        }
    }

    async fn kill_abandoned(
        &self,
        abandoned: Option<&ClientIdentity>,
        successor: &RedisConnection,
    ) -> Result<(), String> {
        let Some(abandoned) = abandoned else { return Ok(()) };
        let limit = self.settings.connect_timeout();
        tokio::time::timeout(limit, successor.kill(abandoned))
            .await
            .unwrap_or_else(|_| Err(error::no_answer(limit)))
            .map_err(|reason| error::unreachable(&self.address, &reason))
    }

    /// Opens a connection and checks the server's requirements.
    pub(super) async fn open(&self) -> Result<RedisConnection, UnusableServer> {
        let unreachable = |reason: String| {
            UnusableServer::Unreachable(error::unreachable(&self.address, &reason))
        };
        let opening = async {
            let connection = RedisConnection::open(&self.address, &self.settings)
                .await
                .map_err(UnusableServer::Unreachable)?;
            connection.fetch_identity().await.map_err(unreachable)?;
            requirements::check(&connection, &self.address, self.requirements).await?;
            Ok(connection)
        };
        let limit = self.settings.connect_timeout();
        tokio::time::timeout(limit, opening)
            .await
            .unwrap_or_else(|_| Err(unreachable(error::no_answer(limit))))
    }

    /// Gives up a connection; the next caller opens a successor.
    pub(super) async fn abandon(&self, index: usize, connection: &Arc<RedisConnection>) {
        let mut slot = self.connections[index].lock().await;
        // Another caller may have replaced it already.
        if slot.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            slot.current = None;
            slot.abandoned = connection.identity().cloned();
        }
    }

    /// Opens a connection for subscriptions.
    pub(super) async fn open_subscriber(
        &self,
        on_push: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> Result<RedisConnection, String> {
        RedisConnection::open_subscriber(&self.address, &self.settings, on_push).await
    }
}
