//! Discovery of the primaries: among the URLs, through Sentinels, or for the slots of a cluster.
//!
//! A server may be silent, for example on a host that is down. Commits and leases wait for the map
//! no longer than for a connection and an answer; so while another server can answer, a silent one
//! costs only its head start.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Pipeline, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::ServerAddress;
use super::connection::{ConnectionSettings, RedisConnection};
use super::error;
use super::node::RedisNode;
use super::reply::text;
use super::requirements::{ServerRequirements, UnusableServer};
use super::slot_map::SlotMap;

/// Time for a second server to claim to be the primary.
const SECOND_PRIMARY_GRACE: Duration = Duration::from_millis(250);
/// Time before the next server is asked beside a silent server.
const HEAD_START: Duration = Duration::from_millis(100);

/// The servers named by the configuration.
pub(super) struct EntryPoints {
    pub(super) servers: Vec<(ServerAddress, ConnectionSettings)>,
    /// Name of the primary when the servers are Sentinels.
    pub(super) sentinel: Option<String>,
    pub(super) requirements: ServerRequirements,
}

/// Makes the slot map anew. Servers of the previous map keep open connections.
///
/// # Errors
/// A line of text.
pub(super) async fn discover(
    entry_points: &EntryPoints,
    previous: &Arc<SlotMap>,
) -> Result<SlotMap, String> {
    if entry_points.requirements.cluster {
        return discover_cluster(entry_points, previous).await;
    }
    let node = match &entry_points.sentinel {
        Some(name) => ask_sentinels(entry_points, name, previous).await?,
        None => find_primary(entry_points, previous).await?,
    };
    Ok(SlotMap::single(node))
}

/// Finds the single primary among the URLs. Two primaries are an error: after a failover the old
/// primary may have come back with outdated records, and a client cannot tell the right primary
/// from the outdated.
async fn find_primary(
    entry_points: &EntryPoints,
    previous: &SlotMap,
) -> Result<Arc<RedisNode>, String> {
    let mut primary: Option<Arc<RedisNode>> = None;
    let (mut replica, mut unusable) = (None, None);
    for (node, checked) in check_servers(entry_points, previous).await {
        match checked {
            Ok(()) => match &primary {
                Some(other) if other.address != node.address => {
                    return Err(format!(
                        "both {} and {} say that they are the primary; make one a replica of the \
                         other (REPLICAOF) or stop it",
                        other.address, node.address
                    ));
                }
                Some(_) | None => primary = Some(node),
            },
            Err(UnusableServer::Replica(reason)) => replica = replica.or(Some(reason)),
            Err(UnusableServer::Misconfigured(reason) | UnusableServer::Unreachable(reason)) => {
                unusable = unusable.or(Some(reason));
            }
        }
    }
    // The fault of a primary explains more than the role of its replicas.
    let reason = || unusable.or(replica).unwrap_or_else(|| "no Redis URL is set".to_owned());
    primary.ok_or_else(reason)
}

/// Checks the servers concurrently and gives the results in the order of the URLs. Once there is a
/// primary, servers without a timely answer are left out.
async fn check_servers(
    entry_points: &EntryPoints,
    previous: &SlotMap,
) -> Vec<(Arc<RedisNode>, Result<(), UnusableServer>)> {
    let mut checks = JoinSet::new();
    for (at, (address, settings)) in entry_points.servers.iter().enumerate() {
        let node = previous.node_at(address.clone(), settings, entry_points.requirements);
        checks.spawn(async move {
            // On a new connection: an open one says nothing of the role the server has now.
            let checked = node.open().await.map(drop);
            (at, node, checked)
        });
    }
    let mut results = Vec::new();
    let mut until = None;
    loop {
        let result = match until {
            None => checks.join_next().await,
            Some(until) => timeout_at(until, checks.join_next()).await.unwrap_or_default(),
        };
        let Some(result) = result else { break };
        // A task that ended early has no result.
        let Ok(result) = result else { continue };
        if result.2.is_ok() {
            until = until.or(Some(Instant::now() + SECOND_PRIMARY_GRACE));
        }
        results.push(result);
    }
    results.sort_by_key(|(at, _, _)| *at);
    results.into_iter().map(|(_, node, checked)| (node, checked)).collect()
}

async fn ask_sentinels(
    entry_points: &EntryPoints,
    name: &str,
    previous: &Arc<SlotMap>,
) -> Result<Arc<RedisNode>, String> {
    let requirements = entry_points.requirements;
    let questions = entry_points.servers.iter().map(|(address, settings)| {
        let (address, settings) = (address.clone(), settings.clone());
        let (name, previous) = (name.to_owned(), previous.clone());
        async move {
            let primary = bounded(&address, &settings, primary_of(&address, &settings, &name));
            let node = previous.node_at(primary.await?, &settings, requirements);
            // Checked here, so that another Sentinel is asked when this one names an old primary.
            node.open().await.map_err(UnusableServer::into_reason)?;
            Ok(node)
        }
    });
    first_success(questions, "no Sentinel is named in `urls`").await
}

async fn discover_cluster(
    entry_points: &EntryPoints,
    previous: &SlotMap,
) -> Result<SlotMap, String> {
    let settings = match entry_points.servers.first() {
        Some((_, settings)) if settings.database() == 0 => settings,
        Some(_) => return Err("a Redis Cluster has database 0 only; name no other".to_owned()),
        None => return Err("no Redis URL is set".to_owned()),
    };
    // Servers of the previous map come first: the URLs may be out of date.
    let mut addresses: Vec<ServerAddress> =
        previous.nodes().iter().map(|node| node.address.clone()).collect();
    for (address, _) in &entry_points.servers {
        if !addresses.contains(address) {
            addresses.push(address.clone());
        }
    }
    let questions = addresses.into_iter().map(|address| {
        let settings = settings.clone();
        async move { bounded(&address, &settings, slots_of(&address, &settings)).await }
    });
    let ranges = first_success(questions, "no Redis URL is set").await?.into_iter().map(|range| {
        let (first, last, address) = range;
        (first, last, previous.node_at(address, settings, entry_points.requirements))
    });
    Ok(SlotMap::of_ranges(ranges.collect()))
}

/// Bounds a question to a server by the time limit for a connection.
async fn bounded<T>(
    address: &ServerAddress,
    settings: &ConnectionSettings,
    question: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let limit = settings.connect_timeout();
    let no_answer = |_| Err(error::unreachable(address, &error::no_answer(limit)));
    timeout(limit, question).await.unwrap_or_else(no_answer)
}

/// The first successful answer. The questions are asked in order: the next as soon as a question
/// has failed, or beside unanswered questions after [`HEAD_START`].
///
/// # Errors
/// The first failure; `none` when there is no question.
async fn first_success<T, A>(
    mut questions: impl ExactSizeIterator<Item = A>,
    none: &str,
) -> Result<T, String>
where
    T: Send + 'static,
    A: Future<Output = Result<T, String>> + Send + 'static,
{
    let mut asked = JoinSet::new();
    let mut failure = None;
    while questions.len() > 0 || !asked.is_empty() {
        if let Some(question) = questions.next() {
            asked.spawn(question);
        }
        let limit = if questions.len() > 0 { HEAD_START } else { Duration::MAX };
        match timeout(limit, asked.join_next()).await {
            Ok(Some(Ok(Ok(found)))) => return Ok(found),
            Ok(Some(Ok(Err(reason)))) => failure = failure.or(Some(reason)),
            // A task that ended early has found nothing, and a silent server may answer yet.
            Ok(Some(Err(_)) | None) | Err(_) => {}
        }
    }
    Err(failure.unwrap_or_else(|| none.to_owned()))
}

/// Asks a Sentinel for the primary watched under `name`. Unbounded in time.
async fn primary_of(
    address: &ServerAddress,
    settings: &ConnectionSettings,
    name: &str,
) -> Result<ServerAddress, String> {
    let mut question = Pipeline::new();
    question.cmd("SENTINEL").arg("get-master-addr-by-name").arg(name);
    let mut answer = None;
    let mut refused = None;
    // The URL's password is the primary's; a Sentinel often has none and then refuses any.
    for with_password in [true, false] {
        match RedisConnection::open(address, &settings.for_sentinel(with_password)).await {
            Ok(connection) => {
                let answers = connection.send(&question).await;
                answer = answers.map_err(|e| error::unreachable(address, &e))?.pop();
                break;
            }
            Err(reason) => refused = refused.or(Some(reason)),
        }
    }
    match answer {
        None => Err(refused.unwrap_or_else(|| error::unreachable(address, "no answer"))),
        Some(Value::Array(parts)) => {
            let host = parts.first().and_then(text);
            let port = parts.get(1).and_then(text).and_then(|port| port.parse().ok());
            let primary = host.zip(port).map(|(host, port)| ServerAddress { host, port });
            primary
                .ok_or_else(|| error::unreachable(address, "it names no address for the primary"))
        }
        Some(Value::Nil) => Err(format!(
            "the Sentinel {address} watches no primary named {name:?}; see its `sentinel monitor`"
        )),
        Some(Value::ServerError(error))
            if error.details().is_some_and(|detail| detail.contains("unknown command")) =>
        {
            Err(format!(
                "{address} is no Sentinel; name the Sentinels in `urls`, or leave out `sentinel`"
            ))
        }
        Some(Value::ServerError(error)) => Err(error::server_error(address, &error)),
        Some(_) => Err(error::unreachable(address, "it is no Sentinel")),
    }
}

/// Asks a node of a cluster for the slots of the whole cluster. Unbounded in time.
async fn slots_of(
    address: &ServerAddress,
    settings: &ConnectionSettings,
) -> Result<Vec<(u16, u16, ServerAddress)>, String> {
    let connection = RedisConnection::open(address, settings).await?;
    let mut question = Pipeline::new();
    question.cmd("INFO").arg("cluster").cmd("CLUSTER").arg("SLOTS");
    let answers = connection.send(&question).await;
    let answers = answers.map_err(|error| error::unreachable(address, &error))?;
    let info = answers.first().and_then(text);
    if !info.is_some_and(|info| info.contains("cluster_enabled:1")) {
        return Err(format!(
            "the Redis server {address} belongs to no cluster; set `cluster = false`"
        ));
    }
    let ranges: Option<Vec<_>> = match answers.get(1) {
        Some(Value::ServerError(error)) => return Err(error::server_error(address, error)),
        Some(Value::Array(ranges)) => ranges.iter().map(|range| range_of(range, address)).collect(),
        Some(_) | None => None,
    };
    match ranges {
        Some(ranges) if ranges.is_empty() => Err(format!(
            "the cluster of {address} has no slots yet; create it with redis-cli --cluster create"
        )),
        Some(ranges) => Ok(ranges),
        None => Err(error::unreachable(address, "its CLUSTER SLOTS cannot be read")),
    }
}

/// Reads a range of `CLUSTER SLOTS`: first slot, last slot, primary, replicas.
fn range_of(range: &Value, asked: &ServerAddress) -> Option<(u16, u16, ServerAddress)> {
    let Value::Array(parts) = range else { return None };
    let number = |value: &Value| match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    };
    let Value::Array(primary) = parts.get(2)? else { return None };
    // A node that does not know its own address leaves it out; its address is then the one we used.
    let host = match primary.first()? {
        Value::Nil => asked.host.clone(),
        name => text(name)
            .filter(|host| !host.is_empty() && host != "?")
            .unwrap_or_else(|| asked.host.clone()),
    };
    let port = number(primary.get(1)?)?;
    Some((number(parts.first()?)?, number(parts.get(1)?)?, ServerAddress { host, port }))
}
