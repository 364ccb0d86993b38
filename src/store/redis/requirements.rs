//! Requirements for a server with records: version, role, eviction policy and durability.
//! Checked on every new connection, because after a failover the next primary may be set up
//! otherwise.

use std::collections::HashMap;

use ::redis::{Pipeline, Value};

use super::address::ServerAddress;
use super::connection::RedisConnection;
use super::error;
use super::reply::text;

/// The oldest version with the commands used here.
const OLDEST: (u32, u32) = (6, 2);

/// Requirements set by the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerRequirements {
    /// The server belongs to a cluster.
    pub(super) cluster: bool,
    /// The server keeps acknowledged writes through a crash.
    pub(super) strict: bool,
}

/// The reason not to use a server.
#[derive(Debug, Clone)]
pub(super) enum UnusableServer {
    /// No connection, or no login.
    Unreachable(String),
    /// A replica; the primary may be among the remaining servers.
    Replica(String),
    /// An unmet requirement of a different kind.
    Misconfigured(String),
}

impl UnusableServer {
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Unreachable(reason) | Self::Replica(reason) | Self::Misconfigured(reason) => {
                reason
            }
        }
    }
}

/// Checks the requirements. Unbounded in time.
///
/// # Errors
/// The unmet requirement, in a line of text.
pub(super) async fn check(
    connection: &RedisConnection,
    address: &ServerAddress,
    requirements: ServerRequirements,
) -> Result<(), UnusableServer> {
    let mut commands = Pipeline::new();
    commands.cmd("INFO").arg("server").cmd("INFO").arg("cluster").cmd("ROLE");
    commands.cmd("INFO").arg("memory").cmd("INFO").arg("persistence");
    commands.cmd("CONFIG").arg("GET").arg("appendfsync");
    let replies = connection
        .send(&commands)
        .await
        .map_err(|error| UnusableServer::Unreachable(error::unreachable(address, &error)))?;
    let [server, cluster, role, memory, persistence, fsync] = replies.as_slice() else {
        let reason = error::unreachable(address, "answers are missing");
        return Err(UnusableServer::Misconfigured(reason));
    };
    check_version(address, &read_info(address, "server", server)?)?;
    check_cluster_mode(address, &read_info(address, "cluster", cluster)?, requirements)?;
    check_role(address, role)?;
    check_eviction_policy(address, &read_info(address, "memory", memory)?)
        .map_err(UnusableServer::Misconfigured)?;
    if requirements.strict {
        check_durability(address, &read_info(address, "persistence", persistence)?, fsync)?;
    }
    Ok(())
}

/// Checks a reply to `INFO memory` for the eviction policy, in case `CONFIG SET` changed the policy
/// of a running server.
pub(super) fn check_memory_info(address: &ServerAddress, reply: &Value) -> Result<(), String> {
    let memory = read_info(address, "memory", reply).map_err(UnusableServer::into_reason)?;
    check_eviction_policy(address, &memory)
}

/// The fields of a section of `INFO`.
type InfoSection = HashMap<String, String>;

/// Reads a reply to `INFO`.
fn read_info(
    address: &ServerAddress,
    section: &str,
    answer: &Value,
) -> Result<InfoSection, UnusableServer> {
    let text = match answer {
        Value::BulkString(text) => String::from_utf8_lossy(text).into_owned(),
        Value::VerbatimString { text, .. } => text.clone(),
        Value::ServerError(error) if matches!(error.code(), "NOPERM") => {
            return Err(UnusableServer::Misconfigured(format!(
                "the Redis server {address} denies the user INFO {section}; grant +info +role, \
                 without them its settings cannot be checked"
            )));
        }
        Value::ServerError(error) => {
            return Err(UnusableServer::Misconfigured(error::server_error(address, error)));
        }
        _ => return Err(unexpected_reply(address, "INFO")),
    };
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    Ok(lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

/// The error for a reply unlike any Redis server's.
fn unexpected_reply(address: &ServerAddress, command: &str) -> UnusableServer {
    UnusableServer::Misconfigured(format!(
        "{address} answers {command} in a way no Redis server does"
    ))
}

fn check_version(address: &ServerAddress, server: &InfoSection) -> Result<(), UnusableServer> {
    // Valkey has a field name of its own, unless it is configured to look like Redis.
    let mode = server.get("redis_mode").or_else(|| server.get("server_mode"));
    if mode.is_some_and(|mode| mode == "sentinel") {
        return Err(UnusableServer::Misconfigured(format!(
            "{address} is a Sentinel; set `sentinel` to the name of the primary it watches"
        )));
    }
    // Valkey reports the version of Redis that it is compatible with.
    let version =
        server.get("redis_version").ok_or_else(|| unexpected_reply(address, "INFO server"))?;
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < OLDEST {
        let (major, minor) = OLDEST;
        return Err(UnusableServer::Misconfigured(format!(
            "the Redis server {address} has version {version}; {major}.{minor} is the oldest that \
             can be used"
        )));
    }
    Ok(())
}

fn check_cluster_mode(
    address: &ServerAddress,
    cluster: &InfoSection,
    requirements: ServerRequirements,
) -> Result<(), UnusableServer> {
    let is_cluster = cluster.get("cluster_enabled").is_some_and(|enabled| enabled == "1");
    match (is_cluster, requirements.cluster) {
        (true, false) => Err(UnusableServer::Misconfigured(format!(
            "the Redis server {address} belongs to a cluster; set `cluster = true`"
        ))),
        (false, true) => Err(UnusableServer::Misconfigured(format!(
            "the Redis server {address} belongs to no cluster; set `cluster = false`"
        ))),
        (true, true) | (false, false) => Ok(()),
    }
}

/// Refuses a replica: the records may be old, and writes fail.
fn check_role(address: &ServerAddress, role: &Value) -> Result<(), UnusableServer> {
    let Value::Array(parts) = role else {
        return Err(match role {
            Value::ServerError(error) if matches!(error.code(), "NOPERM") => {
                UnusableServer::Misconfigured(format!(
                    "the Redis server {address} denies the user ROLE; grant +role +info"
                ))
            }
            Value::ServerError(error) => {
                UnusableServer::Misconfigured(error::server_error(address, error))
            }
            _ => unexpected_reply(address, "ROLE"),
        });
    };
    match parts.first().and_then(text).as_deref() {
        Some("master") => Ok(()),
        Some("slave") => Err(UnusableServer::Replica(format!(
            "the Redis server {address} is a replica; name its primary, or all of them in `urls`"
        ))),
        Some(_) | None => Err(unexpected_reply(address, "ROLE")),
    }
}

fn check_eviction_policy(address: &ServerAddress, memory: &InfoSection) -> Result<(), String> {
    match memory.get("maxmemory_policy").map(String::as_str) {
        Some("noeviction") => Ok(()),
        Some(policy) => Err(format!(
            "the Redis server {address} may evict records: its maxmemory-policy is {policy}; a key \
             that was evicted would run again; set it to noeviction"
        )),
        None => Err(format!("the Redis server {address} does not tell its maxmemory-policy")),
    }
}

fn check_durability(
    address: &ServerAddress,
    persistence: &InfoSection,
    fsync: &Value,
) -> Result<(), UnusableServer> {
    if persistence.get("aof_enabled").is_none_or(|enabled| enabled != "1") {
        return Err(UnusableServer::Misconfigured(format!(
            "the Redis server {address} would lose records with its process: appendonly is no; set \
             appendonly yes and appendfsync always, or choose a durability below strict"
        )));
    }
    let fsync = match fsync {
        Value::Array(pair) => pair.get(1).and_then(text),
        Value::Map(pairs) => pairs.first().and_then(|(_, value)| text(value)),
        Value::ServerError(error) => {
            return Err(UnusableServer::Misconfigured(format!(
                "the Redis server {address} does not let its appendfsync be read ({} {}); grant \
                 +config|get, or choose a durability below strict",
                error.code(),
                error.details().unwrap_or_default()
            )));
        }
        _ => None,
    };
    match fsync.as_deref() {
        Some("always") => Ok(()),
        found => Err(UnusableServer::Misconfigured(format!(
            "the Redis server {address} would lose its last records with a crash: appendfsync is \
             {}; set it to always, or choose a durability below strict",
            found.unwrap_or("unknown")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentinel_is_recognized_by_either_name_of_its_mode() {
        let address = ServerAddress { host: "s".to_owned(), port: 1 };
        let kind = |name: &str, mode: &str| {
            let info = [("redis_version", "7.2.4"), (name, mode)];
            let info = info.map(|(name, value)| (name.to_owned(), value.to_owned()));
            check_version(&address, &info.into()).map_err(UnusableServer::into_reason)
        };
        for name in ["redis_mode", "server_mode"] {
            assert!(kind(name, "sentinel").unwrap_err().contains("is a Sentinel"));
            assert_eq!(kind(name, "standalone"), Ok(()));
        }
    }
}
