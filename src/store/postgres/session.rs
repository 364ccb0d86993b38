//! The server's end of a connection that was lost.
//!
//! What was sent may still be under way when the connection is given up: in a buffer, in a proxy, or
//! in a session that waits for a lock. Done late, it could bring back a record that was removed
//! meanwhile. So whoever takes the place of a lost connection first ends the session behind it;
//! what that session has not read then, nobody will.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connection::{Failed, Link, Sql};

/// Pause between two looks at whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Asks the session to end and tells whether it is still there.
///
/// One that waits for the synchronous standby is left alone: its changes are made and locked, and to
/// end its wait would show them to everybody before the standby has them.
const END: Sql = Sql {
    text: "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE pid = $1 AND backend_start::text = $2 AND wait_event IS DISTINCT FROM 'SyncRep'",
    types: &[Type::INT4, Type::TEXT],
};

/// A session of the server: its process, and when that began, for numbers come again.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pid: i32,
    began: String,
}

impl Session {
    /// From the columns `pg_backend_pid()` and `backend_start::text`; `None` where the server does
    /// not tell them.
    pub(super) fn of(row: &Row, pid: usize, began: usize) -> Option<Self> {
        Some(Self { pid: row.try_get(pid).ok()?, began: row.try_get(began).ok()? })
    }

    /// Ends it, seen from another connection, and waits until it has ended. Of another server,
    /// after a failover, there is nothing to end.
    pub(super) async fn end(&self, link: &Link, end: Instant) -> Result<(), Failed> {
        while !link.ask(&END, &[&self.pid, &self.began], end).await?.is_empty() {
            if Instant::now() >= end {
                let reason = "the server does not end the session of a lost connection";
                return Err(Failed::Unsent(reason.to_owned()));
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}
