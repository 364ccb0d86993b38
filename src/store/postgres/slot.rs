//! Slot for a connection that is replaced after a loss.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connect::Connector;
use super::connection::PostgresConnection;
use super::error::StatementError;
use super::session::ServerSession;
use super::statement::SqlStatement;
use crate::store::shared::engine::EngineError;

/// At most one connection, shared by every user of the slot.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    /// Statements to prepare on a new connection, so that the first user need not wait.
    statements: &'static [&'static SqlStatement],
    state: Mutex<SlotState>,
}

#[derive(Debug, Default)]
struct SlotState {
    connection: Option<Arc<PostgresConnection>>,
    /// Session of a lost connection, to be terminated before a replacement is used.
    lost: Option<ServerSession>,
    /// Time and cause of the last failure to connect.
    failure: Option<(Instant, EngineError)>,
}

impl ConnectionSlot {
    /// An empty slot.
    pub(super) fn new(statements: &'static [&'static SqlStatement]) -> Self {
        Self { statements, state: Mutex::default() }
    }

    /// A slot that holds `connection`.
    pub(super) fn with(connection: PostgresConnection) -> Self {
        let connection = Some(Arc::new(connection));
        let state = SlotState { connection, ..SlotState::default() };
        Self { statements: &[], state: Mutex::new(state) }
    }

    /// Returns the connection, replacing a missing or closed connection.
    ///
    /// Takes at most the connector's time limit, and `timeout` for each of two further steps:
    /// terminating the predecessor's session and preparing statements.
    pub(super) async fn connection(
        &self,
        connector: &Connector,
        timeout: Duration,
    ) -> Result<Arc<PostgresConnection>, EngineError> {
        let requested = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection
            && connection.is_open()
        {
            return Ok(connection.clone());
        }
        if let Some(lost) = state.connection.take() {
            lost.close();
            state.lost = lost.session().cloned();
        }
        // Callers queued behind a failed attempt share its error rather than retrying in turn.
        if let Some((at, error)) = &state.failure
            && *at >= requested
        {
            return Err(error.clone());
        }
        match self.connect(connector, state.lost.as_ref(), timeout).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                let current = Some(connection.clone());
                *state = SlotState { connection: current, ..SlotState::default() };
                Ok(connection)
            }
            Err(reason) => {
                let error = EngineError::Rejected(reason);
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn connect(
        &self,
        connector: &Connector,
        lost: Option<&ServerSession>,
        timeout: Duration,
    ) -> Result<PostgresConnection, String> {
        let connection = connector.connect(None).await?;
        if let Some(lost) = lost {
            let ended = connection.end_session(lost, Instant::now() + timeout).await;
            ended.map_err(StatementError::reason)?;
        }
        let prepared = connection.prepare(self.statements, Instant::now() + timeout).await;
        prepared.map_err(StatementError::reason)?;
        Ok(connection)
    }
}
