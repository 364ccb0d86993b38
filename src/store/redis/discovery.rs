//! Finding the primary: alone, through Sentinels, or of each slot of a cluster.
//!
//! Whoever is asked may be silent, as a host that is gone is, and commits and leases wait for the map
//! as long as for a connection and an answer, and no longer. So while another can answer, one that is
//! silent costs only its head start.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Pipeline, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{Link, Login};
use super::error;
use super::keys::SLOTS;
use super::requirements::{Unfit, text};
use super::target::Target;
use super::topology::{Map, Node, Nodes};

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
                let silent = |_| Err(error::unreachable(&target, &error::silent(patience)));
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
                let silent = |_| Err(error::unreachable(&target, &error::silent(patience)));
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

/// Asks a Sentinel for the primary it watches under this name.
async fn primary_of(target: &Target, login: &Login, name: &str) -> Result<Target, String> {
    let mut ask = Pipeline::new();
    ask.cmd("SENTINEL").arg("get-master-addr-by-name").arg(name);
    let mut answer = None;
    let mut refused = None;
    // The URL's password is the primary's; a Sentinel often has none and then refuses any.
    for with_password in [true, false] {
        match Link::open(target, &login.at_sentinel(with_password)).await {
            Ok(link) => {
                answer = link.ask(&ask).await.map_err(|e| error::unreachable(target, &e))?.pop();
                break;
            }
            Err(reason) => refused = refused.or(Some(reason)),
        }
    }
    match answer {
        None => Err(refused.unwrap_or_else(|| error::unreachable(target, "no answer"))),
        Some(Value::Array(parts)) => {
            let host = parts.first().and_then(text);
            let port = parts.get(1).and_then(text).and_then(|port| port.parse().ok());
            let both = host.zip(port).map(|(host, port)| Target { host, port });
            both.ok_or_else(|| error::unreachable(target, "it names no address for the primary"))
        }
        Some(Value::Nil) => Err(format!(
            "the Sentinel {target} watches no primary named {name:?}; see its `sentinel monitor`"
        )),
        Some(Value::ServerError(error))
            if error.details().is_some_and(|it| it.contains("unknown command")) =>
        {
            Err(format!(
                "{target} is no Sentinel; name the Sentinels in `urls`, or leave out `sentinel`"
            ))
        }
        Some(Value::ServerError(error)) => Err(error::no(target, &error)),
        Some(_) => Err(error::unreachable(target, "it is no Sentinel")),
    }
}

/// Asks a node of a cluster who has which slots.
async fn slots_of(target: &Target, login: &Login) -> Result<Vec<(u16, u16, Target)>, String> {
    let link = Link::open(target, login).await?;
    let mut ask = Pipeline::new();
    ask.cmd("INFO").arg("cluster").cmd("CLUSTER").arg("SLOTS");
    let answers = link.ask(&ask).await.map_err(|error| error::unreachable(target, &error))?;
    let is_cluster =
        answers.first().and_then(text).is_some_and(|it| it.contains("cluster_enabled:1"));
    match answers.get(1) {
        _ if !is_cluster => {
            Err(format!("the Redis server {target} belongs to no cluster; set `cluster = false`"))
        }
        Some(Value::ServerError(error)) => Err(error::no(target, error)),
        Some(Value::Array(ranges)) => {
            let read: Option<Vec<_>> = ranges.iter().map(|range| range_of(range, target)).collect();
            match read {
                Some(read) if read.is_empty() => Err(format!(
                    "the cluster of {target} has no slots yet; create it with redis-cli --cluster create"
                )),
                Some(read) => Ok(read),
                None => Err(error::unreachable(target, "its CLUSTER SLOTS cannot be read")),
            }
        }
        Some(_) | None => Err(error::unreachable(target, "its CLUSTER SLOTS cannot be read")),
    }
}

/// A range of `CLUSTER SLOTS`: first slot, last slot, primary, replicas.
fn range_of(range: &Value, asked: &Target) -> Option<(u16, u16, Target)> {
    let Value::Array(parts) = range else { return None };
    let number = |value: &Value| match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    };
    let Value::Array(primary) = parts.get(2)? else { return None };
    // A node that does not know its own address leaves it out: it is the one we reached.
    let host = match primary.first()? {
        Value::Nil => asked.host.clone(),
        name => text(name)
            .filter(|host| !host.is_empty() && host != "?")
            .unwrap_or_else(|| asked.host.clone()),
    };
    let port = number(primary.get(1)?)?;
    Some((number(parts.first()?)?, number(parts.get(1)?)?, Target { host, port }))
}
