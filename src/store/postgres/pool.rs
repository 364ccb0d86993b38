//! Connections of an engine: to commit, to read, and for heartbeats and messages.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;

use super::connect::Connector;
use super::connection::PostgresConnection;
use super::error::StatementError;
use super::slot::ConnectionSlot;
use super::statement::{Parameters, SqlStatement};
use crate::store::shared::engine::EngineError;

/// Number of reading connections. Reads are pipelined, so two connections serve many callers.
const READERS: usize = 2;

/// Connections of an engine.
#[derive(Debug)]
pub(super) struct ConnectionPool {
    pub(super) connector: Connector,
    /// Time limit of a statement.
    pub(super) timeout: Duration,
    /// Connections that commit, each used by a single commit at a time.
    pub(super) writers: Vec<ConnectionSlot>,
    readers: Vec<ConnectionSlot>,
    /// Connection for heartbeats and messages.
    pub(super) control: ConnectionSlot,
}

impl ConnectionPool {
    /// A pool with `writers` committing connections and `control`, which is connected already.
    /// Connections prepare `write` and `read` in advance.
    pub(super) fn new(
        connector: Connector,
        timeout: Duration,
        writers: usize,
        (write, read): (&'static [&'static SqlStatement], &'static [&'static SqlStatement]),
        control: PostgresConnection,
    ) -> Self {
        Self {
            connector,
            timeout,
            writers: (0..writers.max(1)).map(|_| ConnectionSlot::new(write)).collect(),
            readers: (0..READERS).map(|_| ConnectionSlot::new(read)).collect(),
            control: ConnectionSlot::with(control),
        }
    }

    /// Connection of `slot`, made anew after a loss.
    pub(super) async fn connection(
        &self,
        slot: &ConnectionSlot,
    ) -> Result<Arc<PostgresConnection>, EngineError> {
        slot.connection(&self.connector, self.timeout).await
    }

    /// Committing slot for the connection number `connection`.
    pub(super) fn writer(&self, connection: usize) -> &ConnectionSlot {
        &self.writers[connection % self.writers.len()]
    }

    /// Reading slot for `seed`, which spreads callers over the slots.
    pub(super) fn reader(&self, seed: u8) -> &ConnectionSlot {
        &self.readers[usize::from(seed) % self.readers.len()]
    }

    /// Runs a statement that may safely run twice; repeats the statement once after a lost
    /// connection.
    pub(super) async fn query(
        &self,
        slot: &ConnectionSlot,
        statement: &SqlStatement,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StatementError> {
        let deadline = Instant::now() + self.timeout;
        let connection = self.connection_to_query(slot).await?;
        match connection.query(statement, parameters, deadline).await {
            Err(StatementError::Indeterminate(_) | StatementError::Unsent(_))
                if Instant::now() < deadline =>
            {
                let connection = self.connection_to_query(slot).await?;
                connection.query(statement, parameters, Instant::now() + self.timeout).await
            }
            result => result,
        }
    }

    async fn connection_to_query(
        &self,
        slot: &ConnectionSlot,
    ) -> Result<Arc<PostgresConnection>, StatementError> {
        let connection = self.connection(slot).await;
        connection.map_err(|error| StatementError::Unsent(error.reason().to_owned()))
    }
}
