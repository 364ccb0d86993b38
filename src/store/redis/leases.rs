//! Which processes live, by the server's clock.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Pipeline, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::commit::unreadable;
use super::dispatch::Ask;
use super::keys::{self, hex};
use super::requirements::{self, Unfit};
use super::topology::{Map, Node, SIGNALS};
use super::{Redis, error};
use crate::clock::{Timestamp, millis};
use crate::idempotency::record::Nonce;
use crate::store::shared::engine::EngineError;

/// How long an ended lease is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// How often all servers are looked at: whether they still are the primaries, and set up well.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The longest wait for giving up a connection that is silent.
const GIVING_UP: Duration = Duration::from_millis(50);

impl Redis {
    pub(super) async fn renew(
        &self,
        owner: &Nonce,
        lease: Duration,
    ) -> Result<Timestamp, EngineError> {
        if self.is_time_to_look() {
            self.look(lease).await?;
        }
        let keys = [self.keys.meta(), self.keys.replicas()];
        let mut run = self.scripts.beat.on(keys::meta_slot(), &keys);
        run.arg(&self.store_id).arg(hex(owner)).arg(millis(lease)).arg(millis(REMEMBERED));
        // As durable as a claim: a lease that a failover shortened would let others take a living
        // process for dead.
        match self.ask(SIGNALS, self.replicas, &[run.0]).await?.pop() {
            Some(Value::Int(now)) => {
                let now = u64::try_from(now).map_err(|_| unreadable("TIME"))?;
                Ok(Timestamp::from_millis(now))
            }
            _ => Err(unreadable("a script")),
        }
    }

    pub(super) async fn end_lease(&self, owner: &Nonce) -> Result<(), EngineError> {
        let mut command = Cmd::new();
        command.arg("ZREM").arg(self.keys.replicas()).arg(hex(owner));
        let ask = Ask { slot: keys::meta_slot(), command, script: None };
        self.ask(SIGNALS, 0, &[ask]).await.map(drop)
    }

    fn is_time_to_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.elapsed() >= LOOK_EVERY;
        if due {
            *looked = Instant::now();
        }
        due
    }

    /// Finds the primaries anew, so that one that was deposed without noticing is left, and checks
    /// that none may evict: `CONFIG SET` can change that at any time. A failure is a missed beat,
    /// and enough of those stop this process from sending. It takes a quarter of a lease at most, so
    /// that the beat comes in time whoever is silent.
    pub(super) async fn look(&self, lease: Duration) -> Result<(), EngineError> {
        self.nodes.set_stale();
        let until = Instant::now() + (self.connect_timeout + self.timeout).min(lease / 4);
        let looked = match timeout_at(until, self.nodes.map()).await {
            Ok(Ok(map)) => all_fit(&map, until).await,
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err("the Redis servers do not answer".to_owned()),
        };
        looked.map_err(|reason| {
            self.nodes.set_stale();
            // The next beat looks again.
            *self.looked.lock().unwrap_or_else(PoisonError::into_inner) =
                Instant::now() - LOOK_EVERY;
            EngineError::Rejected(reason)
        })
    }
}

/// Whether none of the servers may evict. One that cannot be reached, is silent or busy takes no
/// records, and stops nobody who needs others.
async fn all_fit(map: &Map, until: Instant) -> Result<(), String> {
    let mut looks = JoinSet::new();
    for node in map.nodes() {
        looks.spawn(fits(node, until));
    }
    while let Some(look) = looks.join_next().await {
        // A task that ended early found nothing wrong.
        look.unwrap_or(Ok(()))?;
    }
    Ok(())
}

async fn fits(node: Arc<Node>, until: Instant) -> Result<(), String> {
    let link = match timeout_at(until, node.link(SIGNALS)).await {
        Ok(Ok(link)) => link,
        // Others of its connections may be open and in use.
        Ok(Err(Unfit::Wrong(reason))) => return Err(reason),
        Ok(Err(Unfit::Away(_) | Unfit::Replica(_))) | Err(_) => return Ok(()),
    };
    let mut ask = Pipeline::new();
    ask.cmd("INFO").arg("memory");
    match timeout_at(until, link.ask(&ask)).await.map(|answers| answers.map(|mut it| it.pop())) {
        Ok(Ok(Some(Value::ServerError(error)))) if error::code(&error) == "BUSY" => Ok(()),
        Ok(Ok(memory)) => requirements::still_fit(&node.target, &memory.unwrap_or(Value::Nil)),
        Ok(Err(_)) | Err(_) => {
            // Whoever holds it longer is opening the next one already.
            _ = timeout(GIVING_UP, node.drop_link(SIGNALS, &link)).await;
            Ok(())
        }
    }
}
