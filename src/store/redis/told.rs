//! What Sentinels and the nodes of a cluster say of the others. Unbounded in time.

use ::redis::{Pipeline, Value};

use super::checks::text;
use super::link::{Link, Login, Target};
use super::said;

/// Asks a Sentinel for the primary it watches under this name.
pub(super) async fn primary_of(
    target: &Target,
    login: &Login,
    name: &str,
) -> Result<Target, String> {
    let mut ask = Pipeline::new();
    ask.cmd("SENTINEL").arg("get-master-addr-by-name").arg(name);
    let mut answer = None;
    let mut refused = None;
    // The URL's password is the primary's; a Sentinel often has none and then refuses any.
    for with_password in [true, false] {
        match Link::open(target, &login.at_sentinel(with_password)).await {
            Ok(link) => {
                answer = link.ask(&ask).await.map_err(|e| said::unreachable(target, &e))?.pop();
                break;
            }
            Err(reason) => refused = refused.or(Some(reason)),
        }
    }
    match answer {
        None => Err(refused.unwrap_or_else(|| said::unreachable(target, "no answer"))),
        Some(Value::Array(parts)) => {
            let host = parts.first().and_then(text);
            let port = parts.get(1).and_then(text).and_then(|port| port.parse().ok());
            let both = host.zip(port).map(|(host, port)| Target { host, port });
            both.ok_or_else(|| said::unreachable(target, "it names no address for the primary"))
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
        Some(Value::ServerError(error)) => Err(said::no(target, &error)),
        Some(_) => Err(said::unreachable(target, "it is no Sentinel")),
    }
}

/// Asks a node of a cluster who has which slots.
pub(super) async fn slots_of(
    target: &Target,
    login: &Login,
) -> Result<Vec<(u16, u16, Target)>, String> {
    let link = Link::open(target, login).await?;
    let mut ask = Pipeline::new();
    ask.cmd("INFO").arg("cluster").cmd("CLUSTER").arg("SLOTS");
    let answers = link.ask(&ask).await.map_err(|error| said::unreachable(target, &error))?;
    let is_cluster =
        answers.first().and_then(text).is_some_and(|it| it.contains("cluster_enabled:1"));
    match answers.get(1) {
        _ if !is_cluster => {
            Err(format!("the Redis server {target} belongs to no cluster; set `cluster = false`"))
        }
        Some(Value::ServerError(error)) => Err(said::no(target, error)),
        Some(Value::Array(ranges)) => {
            let read: Option<Vec<_>> = ranges.iter().map(|range| range_of(range, target)).collect();
            match read {
                Some(read) if read.is_empty() => Err(format!(
                    "the cluster of {target} has no slots yet; create it with redis-cli --cluster create"
                )),
                Some(read) => Ok(read),
                None => Err(said::unreachable(target, "its CLUSTER SLOTS cannot be read")),
            }
        }
        Some(_) | None => Err(said::unreachable(target, "its CLUSTER SLOTS cannot be read")),
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
