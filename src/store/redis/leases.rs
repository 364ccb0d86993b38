//! Leases of the processes, by the server's clock.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Pipeline, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::command::SlotCommand;
use super::engine::Redis;
use super::error;
use super::keys::meta_slot;
use super::node::{CONTROL_CONNECTION, READ_CONNECTION, RedisNode};
use super::reply::unreadable;
use super::requirements::{self, UnusableServer};
use super::slot_map::SlotMap;
use crate::clock::{Timestamp, millis};
use crate::hex;
use crate::idempotency::record::Nonce;
use crate::store::shared::engine::EngineError;

/// Time from the end of a lease to the removal of the lease.
const ENDED_LEASES_KEPT: Duration = Duration::from_secs(3600);
/// Time between two checks of the servers.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Time limit for abandoning a silent connection.
const ABANDON_TIMEOUT: Duration = Duration::from_millis(50);

impl Redis {
    pub(super) async fn renew_lease(
        &self,
        owner: &Nonce,
        lease: Duration,
    ) -> Result<Timestamp, EngineError> {
        if self.is_check_due() {
            self.check_servers(lease).await?;
        }
        let keys = [self.keys.meta(), self.keys.replicas()];
        let mut call = self.scripts.heartbeat.call(meta_slot(), &keys);
        call.arg(&self.store_id)
            .arg(hex::encode(owner))
            .arg(millis(lease))
            .arg(millis(ENDED_LEASES_KEPT));
        // As durable as a claim: after a failover that shortened the lease, other processes would
        // take this one for dead.
        match self.query(CONTROL_CONNECTION, self.replicas, &[call.into_command()]).await?.pop() {
            Some(Value::Int(now)) => {
                let now = u64::try_from(now).map_err(|_| unreadable("TIME"))?;
                Ok(Timestamp::from_millis(now))
            }
            _ => Err(unreadable("a script")),
        }
    }

    /// The owners whose lease has not ended.
    pub(super) async fn alive(&self, owners: &[Nonce]) -> Result<HashSet<Nonce>, EngineError> {
        let keys = [self.keys.meta(), self.keys.replicas()];
        let mut call = self.scripts.live_owners.call(meta_slot(), &keys);
        call.arg(&self.store_id);
        for owner in owners {
            call.arg(hex::encode(owner));
        }
        let answer = self.query(READ_CONNECTION, 0, &[call.into_command()]).await?.pop();
        let Some(Value::Array(alive)) = answer else { return Err(unreadable("a script")) };
        if alive.len() != owners.len() {
            return Err(unreadable("a script"));
        }
        let alive = owners.iter().zip(alive).filter(|(_, alive)| *alive != Value::Int(0));
        Ok(alive.map(|(owner, _)| *owner).collect())
    }

    pub(super) async fn end_lease(&self, owner: &Nonce) -> Result<(), EngineError> {
        let mut command = Cmd::new();
        command.arg("ZREM").arg(self.keys.replicas()).arg(hex::encode(owner));
        let command = SlotCommand::new(meta_slot(), command);
        self.query(CONTROL_CONNECTION, 0, &[command]).await.map(drop)
    }

    fn is_check_due(&self) -> bool {
        let mut checked = self.servers_checked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = checked.elapsed() >= CHECK_INTERVAL;
        if due {
            *checked = Instant::now();
        }
        due
    }

    /// Makes the slot map anew, in order to leave a deposed primary, and checks the eviction
    /// policies, because `CONFIG SET` can change a policy at run time. A failure is a missed
    /// heartbeat, and enough missed heartbeats stop this process from sending. The check takes a
    /// quarter of a lease at most, to keep silent servers from delaying the heartbeat beyond the
    /// lease.
    pub(super) async fn check_servers(&self, lease: Duration) -> Result<(), EngineError> {
        self.topology.mark_stale();
        let until = Instant::now() + (self.connect_timeout + self.timeout).min(lease / 4);
        let checked = match timeout_at(until, self.topology.map()).await {
            Ok(Ok(map)) => check_eviction_policies(&map, until).await,
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err("the Redis servers do not answer".to_owned()),
        };
        checked.map_err(|reason| {
            self.topology.mark_stale();
            // The next heartbeat repeats the check.
            *self.servers_checked.lock().unwrap_or_else(PoisonError::into_inner) =
                Instant::now() - CHECK_INTERVAL;
            EngineError::Rejected(reason)
        })
    }
}

/// Checks the servers' eviction policies. An unreachable, silent or busy server passes: no record
/// is written there, and calls for the remaining servers go on.
async fn check_eviction_policies(map: &SlotMap, until: Instant) -> Result<(), String> {
    let mut checks = JoinSet::new();
    for node in map.nodes() {
        checks.spawn(check_eviction_policy(node, until));
    }
    while let Some(check) = checks.join_next().await {
        // A task that ended early found nothing wrong.
        check.unwrap_or(Ok(()))?;
    }
    Ok(())
}

async fn check_eviction_policy(node: Arc<RedisNode>, until: Instant) -> Result<(), String> {
    let connection = match timeout_at(until, node.connection(CONTROL_CONNECTION)).await {
        Ok(Ok(connection)) => connection,
        // An error although this connection is not open: the server's other connections may be in
        // use.
        Ok(Err(UnusableServer::Misconfigured(reason))) => return Err(reason),
        Ok(Err(UnusableServer::Unreachable(_) | UnusableServer::Replica(_))) | Err(_) => {
            return Ok(());
        }
    };
    let mut command = Pipeline::new();
    command.cmd("INFO").arg("memory");
    let replies = timeout_at(until, connection.send(&command)).await;
    match replies.map(|replies| replies.map(|mut replies| replies.pop())) {
        Ok(Ok(Some(Value::ServerError(error)))) if error::code(&error) == "BUSY" => Ok(()),
        Ok(Ok(memory)) => {
            requirements::check_memory_info(&node.address, &memory.unwrap_or(Value::Nil))
        }
        Ok(Err(_)) | Err(_) => {
            // A caller that holds the connection's lock for longer is opening the successor
            // already.
            _ = timeout(ABANDON_TIMEOUT, node.abandon(CONTROL_CONNECTION, &connection)).await;
            Ok(())
        }
    }
}
