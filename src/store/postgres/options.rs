//! Options of a PostgreSQL store.

use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

/// Options of a PostgreSQL store.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgresql://user:password@host:port/database?…`, or libpq's `key=value` form. Several
    /// hosts are tried in order.
    pub url: String,
    /// Number of connections that change records, running a single statement at a time.
    pub connections: usize,
    /// Time limit for making a connection.
    pub connect_timeout: Duration,
    /// Time limit for the reply to a statement.
    pub timeout: Duration,
    /// PEM file of the trusted authorities, in place of the system's. Requires TLS.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's certificate chain and private key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// True if a store may be created in a database without one.
    pub create: bool,
    /// Only store identity to accept.
    pub expect_id: Option<Uuid>,
    /// True if prepared statements survive between statements; false behind a transaction pooler
    /// that does not support them.
    pub prepared: bool,
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Omits the URL, which contains a password.
        f.debug_struct("PostgresOptions")
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}
