//! The options of a store on Redis.

use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

/// Options to open a store on Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://user:password@host:port/database`, `rediss://` for TLS: the server, or the primary
    /// and the replicas, or nodes of the cluster, or the Sentinels.
    pub urls: Vec<String>,
    /// The servers are a Redis Cluster.
    pub cluster: bool,
    /// The Sentinels' name for the primary; `urls` then name the Sentinels, with the
    /// user, password and database of the primary.
    pub sentinel: Option<String>,
    /// Refuse a server where a crash may lose acknowledged writes.
    pub strict: bool,
    /// Number of replicas to acknowledge a commit (`WAIT`).
    pub replicas: u32,
    /// Prefix of every key and channel.
    pub prefix: String,
    /// Time limit for opening a connection: TCP, TLS, login and checks together.
    pub connect_timeout: Duration,
    /// Time limit for an answer.
    pub timeout: Duration,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of the certificate chain and the private key to present.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Create the store on an empty server.
    pub create: bool,
    /// The only store id to accept.
    pub expect_id: Option<Uuid>,
}

impl std::fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URLs are left out because they contain passwords.
        f.debug_struct("RedisOptions").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}
