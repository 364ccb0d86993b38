//! Finding the primary: alone, through Sentinels, or of each slot of a cluster.
//!
//! Whoever is asked may be silent, as a host that is gone is, and commits and leases wait for the map
//! as long as for a connection and an answer, and no longer. So while another can answer, one that is
//! silent costs only its head start.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::checks::Unfit;
use super::keys::SLOTS;
use super::link::Target;
use super::nodes::{Map, Node, Nodes};
use super::said;
use super::told::{primary_of, slots_of};

/// How long the other servers have to say that they are the primary too.
const GRACE: Duration = Duration::from_millis(250);
/// The longest that one is waited for before the next is asked as well.
const HEAD_START: Duration = Duration::from_millis(100);

impl Nodes {
    pub(super) async fn find(&self) -> Result<Map, String> {
        if self.places.rules.cluster {
            return self.find_cluster().await;
        }
        let node = match &self.places.sentinel {
            Some(name) => self.ask_sentinels(name).await?,
            None => self.find_primary().await?,
        };
        Ok(Map { ranges: vec![(0, SLOTS - 1, node)] })
    }

    /// The one primary among the URLs. Two are one too many: after a failover the old primary may
    /// have come back with what it knew, and nobody here can say which of them is right.
    async fn find_primary(&self) -> Result<Arc<Node>, String> {
        let known = self.known();
        let mut asked = JoinSet::new();
        for (at, (target, login)) in self.places.entries.iter().enumerate() {
            let node = known.node_of(target.clone(), login, self.places.rules);
            asked.spawn(async move {
                // Asked anew: an old connection says nothing of the role the server has now.
                let fit = node.open().await.map(drop);
                (at, node, fit)
            });
        }
        let mut answers = Vec::new();
        let mut until = None;
        loop {
            let answer = match until {
                None => asked.join_next().await,
                // Those that do not answer hold up nobody once there is a primary.
                Some(until) => timeout_at(until, asked.join_next()).await.unwrap_or_default(),
            };
            let Some(answer) = answer else { break };
            // A task that ended early has found nothing.
            let Ok(answer) = answer else { continue };
            if answer.2.is_ok() {
                until = until.or(Some(Instant::now() + GRACE));
            }
            answers.push(answer);
        }
        answers.sort_by_key(|(at, _, _)| *at);
        let mut primary: Option<Arc<Node>> = None;
        let (mut replica, mut wrong) = (None, None);
        for (_, node, fit) in answers {
            match fit {
                Ok(()) => match &primary {
                    Some(other) if other.target != node.target => {
                        return Err(format!(
                            "both {} and {} say that they are the primary; make one a replica of \
                             the other (REPLICAOF) or stop it",
                            other.target, node.target
                        ));
                    }
                    Some(_) | None => primary = Some(node),
                },
                Err(Unfit::Replica(reason)) => replica = replica.or(Some(reason)),
                Err(Unfit::Wrong(reason) | Unfit::Away(reason)) => wrong = wrong.or(Some(reason)),
            }
        }
        // A wrong primary says more than its replicas.
        primary.ok_or_else(|| wrong.or(replica).unwrap_or_else(|| "no Redis URL is set".to_owned()))
    }

    async fn ask_sentinels(&self, name: &str) -> Result<Arc<Node>, String> {
        let (known, rules) = (self.known(), self.places.rules);
        let asks = self.places.entries.iter().map(|(target, login)| {
            let (target, login) = (target.clone(), login.clone());
            let (name, known) = (name.to_owned(), known.clone());
            async move {
                let patience = login.patience();
                let primary = timeout(patience, primary_of(&target, &login, &name)).await;
                let silent = |_| Err(said::unreachable(&target, &said::silent(patience)));
                let node = known.node_of(primary.unwrap_or_else(silent)?, &login, rules);
                // Another Sentinel may know better.
                node.open().await.map_err(Unfit::into_reason)?;
                Ok(node)
            }
        });
        first(asks, "no Sentinel is named in `urls`").await
    }

    async fn find_cluster(&self) -> Result<Map, String> {
        let login = match self.places.entries.first() {
            Some((_, login)) if login.database() == 0 => login,
            Some(_) => return Err("a Redis Cluster has database 0 only; name no other".to_owned()),
            None => return Err("no Redis URL is set".to_owned()),
        };
        let known = self.known();
        // Those known last come first: the URLs may be old.
        let mut targets: Vec<Target> =
            known.nodes().iter().map(|node| node.target.clone()).collect();
        for (target, _) in &self.places.entries {
            if !targets.contains(target) {
                targets.push(target.clone());
            }
        }
        let asks = targets.into_iter().map(|target| {
            let login = login.clone();
            async move {
                let patience = login.patience();
                let slots = timeout(patience, slots_of(&target, &login)).await;
                let silent = |_| Err(said::unreachable(&target, &said::silent(patience)));
                slots.unwrap_or_else(silent)
            }
        });
        let ranges = first(asks, "no Redis URL is set").await?.into_iter().map(|range| {
            let (first, last, target) = range;
            (first, last, known.node_of(target, login, self.places.rules))
        });
        let mut ranges: Vec<_> = ranges.collect();
        ranges.sort_by_key(|(first, _, _)| *first);
        Ok(same_nodes(ranges))
    }
}

/// The first good answer. They are asked in their order; the next one when one has failed, or beside
/// those that are silent.
///
/// # Errors
/// Why the first one that failed did; `none` when nobody is there to be asked.
async fn first<T, A>(mut asks: impl ExactSizeIterator<Item = A>, none: &str) -> Result<T, String>
where
    T: Send + 'static,
    A: Future<Output = Result<T, String>> + Send + 'static,
{
    let mut asked = JoinSet::new();
    let mut wrong = None;
    while asks.len() > 0 || !asked.is_empty() {
        if let Some(ask) = asks.next() {
            asked.spawn(ask);
        }
        let patience = if asks.len() > 0 { HEAD_START } else { Duration::MAX };
        match timeout(patience, asked.join_next()).await {
            Ok(Some(Ok(Ok(found)))) => return Ok(found),
            Ok(Some(Ok(Err(reason)))) => wrong = wrong.or(Some(reason)),
            // One that ended early has found nothing, and who is silent may answer yet.
            Ok(Some(Err(_)) | None) | Err(_) => {}
        }
    }
    Err(wrong.unwrap_or_else(|| none.to_owned()))
}

/// A server that was not known yet gets one node for all its ranges.
fn same_nodes(mut ranges: Vec<(u16, u16, Arc<Node>)>) -> Map {
    let nodes = Map { ranges: ranges.clone() }.nodes();
    for (_, _, node) in &mut ranges {
        if let Some(first) = nodes.iter().find(|first| first.target == node.target) {
            *node = first.clone();
        }
    }
    Map { ranges }
}
