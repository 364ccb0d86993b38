//! Server session behind a connection, and its termination after the connection is lost.
//!
//! Statements may still be under way when a connection is given up: in a buffer, in a proxy, or in
//! a session that waits for a lock. Executed late, a statement could bring back a record that was
//! removed meanwhile. So a replacement connection first terminates the session of its predecessor;
//! bytes that the session has not read by then are never executed.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::statement::SqlStatement;

/// Terminates a session; returns a row while the session exists.
///
/// A session that waits for a synchronous standby is spared: the changes are committed locally and
/// locked, and ending the wait would show the changes to every reader before the standby has the
/// changes.
pub(super) const TERMINATE: SqlStatement = SqlStatement {
    text: "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE pid = $1 AND backend_start::text = $2 AND wait_event IS DISTINCT FROM 'SyncRep'",
    types: &[Type::INT4, Type::TEXT],
};

/// Identity of a server session: process id and start time, because process ids are reused.
#[derive(Debug, Clone)]
pub(super) struct ServerSession {
    pub(super) pid: i32,
    pub(super) started: String,
}

impl ServerSession {
    /// Reads the columns `pg_backend_pid()` and `backend_start::text`; `None` where the server
    /// hides them.
    pub(super) fn of(row: &Row, pid: usize, started: usize) -> Option<Self> {
        Some(Self { pid: row.try_get(pid).ok()?, started: row.try_get(started).ok()? })
    }
}
