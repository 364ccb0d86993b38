//! The engine's state, and the queries common to its operations.

use std::sync::Mutex;
use std::time::Duration;

use ::redis::Value;
use tokio::time::Instant;

use super::command::SlotCommand;
use super::dispatch::{self, CommandOutcome, DispatchPolicy};
use super::error;
use super::keys::Keys;
use super::script::Scripts;
use super::topology::Topology;
use crate::store::shared::engine::EngineError;

/// A store on Redis.
pub(crate) struct Redis {
    pub(super) topology: Topology,
    pub(super) keys: Keys,
    pub(super) scripts: Scripts,
    /// The store's id in the form of the markers.
    pub(super) store_id: String,
    pub(super) replicas: u32,
    pub(super) timeout: Duration,
    pub(super) connect_timeout: Duration,
    /// Time of the last check of the servers.
    pub(super) servers_checked: Mutex<Instant>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("servers", &self.topology)
            .field("prefix", &self.keys)
            .field("store_id", &self.store_id)
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Sends commands without lasting effect, or harmless when executed twice.
    pub(super) async fn query(
        &self,
        connection: usize,
        replicas: u32,
        commands: &[SlotCommand],
    ) -> Result<Vec<Value>, EngineError> {
        let policy = self.dispatch_policy(connection, replicas, true);
        let mut answers = Vec::with_capacity(commands.len());
        for outcome in dispatch::send(&self.topology, commands, policy).await {
            match outcome {
                CommandOutcome::Answered(Value::ServerError(error), address) => {
                    return Err(EngineError::Rejected(error::server_error(&address, &error)));
                }
                CommandOutcome::Answered(answer, _) => answers.push(answer),
                CommandOutcome::NotSent(reason) | CommandOutcome::Indeterminate(reason) => {
                    return Err(EngineError::Rejected(reason));
                }
            }
        }
        Ok(answers)
    }

    pub(super) fn dispatch_policy(
        &self,
        connection: usize,
        replicas: u32,
        idempotent: bool,
    ) -> DispatchPolicy {
        let deadline = Instant::now() + self.connect_timeout + self.timeout;
        DispatchPolicy { connection, replicas, idempotent, timeout: self.timeout, deadline }
    }

    /// Rejects the records of a shard with a foreign or missing marker.
    pub(super) fn check_marker(&self, marker: &Value, shard: u8) -> Result<(), EngineError> {
        match marker {
            Value::BulkString(id) if id == self.store_id.as_bytes() => Ok(()),
            Value::Nil => Err(EngineError::Rejected(format!(
                "shard {shard:02x} of the store {} is gone from Redis: its data were removed; \
                 nothing is claimed until they are restored",
                self.store_id
            ))),
            _ => Err(EngineError::Rejected(format!(
                "shard {shard:02x} on Redis does not belong to the store {}: its data were \
                 exchanged; nothing is claimed until they are restored",
                self.store_id
            ))),
        }
    }
}
