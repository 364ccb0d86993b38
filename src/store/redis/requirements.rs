//! Whether a server can be trusted with records. Asked on every new connection: after a failover
//! the next primary may be set up otherwise.

use std::collections::HashMap;

use ::redis::{Pipeline, Value};

use super::connection::Link;
use super::error;
use super::target::Target;

/// The oldest version with all the commands used here.
const OLDEST: (u32, u32) = (6, 2);

/// What a server has to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) cluster: bool,
    pub(super) strict: bool,
}

/// Why a server is not the one to use.
#[derive(Debug, Clone)]
pub(super) enum Unfit {
    /// It cannot be reached, or lets nobody in.
    Away(String),
    /// It is a replica; another one may be the primary.
    Replica(String),
    /// Anything else.
    Wrong(String),
}

impl Unfit {
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Away(reason) | Self::Replica(reason) | Self::Wrong(reason) => reason,
        }
    }
}

/// Looks at a server. Unbounded in time.
///
/// # Errors
/// What is wrong, in one line.
pub(super) async fn examine(link: &Link, target: &Target, rules: Rules) -> Result<(), Unfit> {
    let mut ask = Pipeline::new();
    ask.cmd("INFO").arg("server").cmd("INFO").arg("cluster").cmd("ROLE");
    ask.cmd("INFO").arg("memory").cmd("INFO").arg("persistence");
    ask.cmd("CONFIG").arg("GET").arg("appendfsync");
    let answers = link.ask(&ask).await;
    let answers = answers.map_err(|error| Unfit::Away(error::unreachable(target, &error)))?;
    let [server, cluster, role, memory, persistence, fsync] = answers.as_slice() else {
        return Err(Unfit::Wrong(error::unreachable(target, "answers are missing")));
    };
    right_kind(target, &info(target, "server", server)?)?;
    right_mode(target, &info(target, "cluster", cluster)?, rules)?;
    is_primary(target, role)?;
    never_evicts(target, &info(target, "memory", memory)?).map_err(Unfit::Wrong)?;
    if rules.strict {
        durable(target, &info(target, "persistence", persistence)?, fsync)?;
    }
    Ok(())
}

/// Looks at what may be changed while a server runs, `CONFIG SET maxmemory-policy` above all.
pub(super) fn still_fit(target: &Target, memory: &Value) -> Result<(), String> {
    let memory = info(target, "memory", memory).map_err(Unfit::into_reason)?;
    never_evicts(target, &memory)
}

type Info = HashMap<String, String>;

/// Reads an answer of `INFO`.
fn info(target: &Target, section: &str, answer: &Value) -> Result<Info, Unfit> {
    let text = match answer {
        Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        Value::VerbatimString { text, .. } => text.clone(),
        Value::ServerError(error) if matches!(error.code(), "NOPERM") => {
            return Err(Unfit::Wrong(format!(
                "the Redis server {target} denies the user INFO {section}; grant +info +role, \
                 without them its settings cannot be checked"
            )));
        }
        Value::ServerError(error) => return Err(Unfit::Wrong(error::no(target, error))),
        _ => return Err(strange(target, "INFO")),
    };
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    Ok(lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

fn strange(target: &Target, command: &str) -> Unfit {
    Unfit::Wrong(format!("{target} answers {command} in a way no Redis server does"))
}

fn right_kind(target: &Target, server: &Info) -> Result<(), Unfit> {
    // Valkey names it after itself, unless it is told to be like Redis.
    let mode = server.get("redis_mode").or_else(|| server.get("server_mode"));
    if mode.is_some_and(|mode| mode == "sentinel") {
        return Err(Unfit::Wrong(format!(
            "{target} is a Sentinel; set `sentinel` to the name of the primary it watches"
        )));
    }
    // Valkey says which Redis it is compatible with.
    let version = server.get("redis_version").ok_or_else(|| strange(target, "INFO server"))?;
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < OLDEST {
        let (major, minor) = OLDEST;
        return Err(Unfit::Wrong(format!(
            "the Redis server {target} has version {version}; {major}.{minor} is the oldest that \
             can be used"
        )));
    }
    Ok(())
}

fn right_mode(target: &Target, cluster: &Info, rules: Rules) -> Result<(), Unfit> {
    let is_cluster = cluster.get("cluster_enabled").is_some_and(|enabled| enabled == "1");
    match (is_cluster, rules.cluster) {
        (true, false) => Err(Unfit::Wrong(format!(
            "the Redis server {target} belongs to a cluster; set `cluster = true`"
        ))),
        (false, true) => Err(Unfit::Wrong(format!(
            "the Redis server {target} belongs to no cluster; set `cluster = false`"
        ))),
        (true, true) | (false, false) => Ok(()),
    }
}

/// Of a server that is no primary: what it says was written may be old, and it takes no writes.
fn is_primary(target: &Target, role: &Value) -> Result<(), Unfit> {
    let Value::Array(parts) = role else {
        return Err(match role {
            Value::ServerError(error) if matches!(error.code(), "NOPERM") => Unfit::Wrong(format!(
                "the Redis server {target} denies the user ROLE; grant +role +info"
            )),
            Value::ServerError(error) => Unfit::Wrong(error::no(target, error)),
            _ => strange(target, "ROLE"),
        });
    };
    match parts.first().and_then(text).as_deref() {
        Some("master") => Ok(()),
        Some("slave") => Err(Unfit::Replica(format!(
            "the Redis server {target} is a replica; name its primary, or all of them in `urls`"
        ))),
        Some(_) | None => Err(strange(target, "ROLE")),
    }
}

fn never_evicts(target: &Target, memory: &Info) -> Result<(), String> {
    match memory.get("maxmemory_policy").map(String::as_str) {
        Some("noeviction") => Ok(()),
        Some(policy) => Err(format!(
            "the Redis server {target} may evict records: its maxmemory-policy is {policy}; a key \
             that was evicted would run again; set it to noeviction"
        )),
        None => Err(format!("the Redis server {target} does not tell its maxmemory-policy")),
    }
}

fn durable(target: &Target, persistence: &Info, fsync: &Value) -> Result<(), Unfit> {
    if persistence.get("aof_enabled").is_none_or(|enabled| enabled != "1") {
        return Err(Unfit::Wrong(format!(
            "the Redis server {target} would lose records with its process: appendonly is no; set \
             appendonly yes and appendfsync always, or choose a durability below strict"
        )));
    }
    let fsync = match fsync {
        Value::Array(pair) => pair.get(1).and_then(text),
        Value::Map(pairs) => pairs.first().and_then(|(_, value)| text(value)),
        Value::ServerError(error) => {
            return Err(Unfit::Wrong(format!(
                "the Redis server {target} does not let its appendfsync be read ({} {}); grant \
                 +config|get, or choose a durability below strict",
                error.code(),
                error.details().unwrap_or_default()
            )));
        }
        _ => None,
    };
    match fsync.as_deref() {
        Some("always") => Ok(()),
        found => Err(Unfit::Wrong(format!(
            "the Redis server {target} would lose its last records with a crash: appendfsync is \
             {}; set it to always, or choose a durability below strict",
            found.unwrap_or("unknown")
        ))),
    }
}

/// A value as text, if it is one.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_is_known_by_either_name_of_its_mode() {
        let target = Target { host: "s".to_owned(), port: 1 };
        let kind = |name: &str, mode: &str| {
            let info = [("redis_version", "7.2.4"), (name, mode)];
            let info = info.map(|(name, value)| (name.to_owned(), value.to_owned()));
            right_kind(&target, &info.into()).map_err(Unfit::into_reason)
        };
        for name in ["redis_mode", "server_mode"] {
            assert!(kind(name, "sentinel").unwrap_err().contains("is a Sentinel"));
            assert_eq!(kind(name, "standalone"), Ok(()));
        }
    }
}
