//! Connection to the server: statements with a deadline, and the server's unsolicited messages.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, Error, Row, Socket, Statement};
use tokio_util::task::TaskTracker;

use super::error::{StatementError, line};
use super::session::{ServerSession, TERMINATE};
use super::statement::{Parameters, SqlStatement};
use super::tls::EncryptedStream;

/// Pause between two checks for the end of a terminated session.
const TERMINATION_POLL: Duration = Duration::from_millis(5);

/// Prepared statements by the address of the text.
type PreparedStatements = Mutex<HashMap<usize, Statement>>;

/// A connection to the server. Closed when dropped.
pub(super) struct PostgresConnection {
    client: Client,
    /// Prepared statements; `None` behind a pooler, which may give each statement a different
    /// server connection.
    prepared: Option<PreparedStatements>,
    /// Held during each statement behind a pooler, so that statements are not pipelined: poolers
    /// have reassigned the server connection after the first of several pipelined statements,
    /// losing the later replies (PgBouncer's issues 52 and 759).
    serial: Option<tokio::sync::Mutex<()>>,
    driver: Arc<DriverState>,
    closed: AtomicBool,
    configured: AtomicBool,
    session: OnceLock<ServerSession>,
}

/// State shared with the task that drives the connection.
#[derive(Debug, Default)]
struct DriverState {
    /// Number of commits that skipped the wait for the synchronous standby.
    unreplicated: AtomicU64,
    /// Closes the connection.
    stop: Notify,
}

impl std::fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresConnection")
            .field("driver", &self.driver)
            .field("closed", &self.closed)
            .finish()
    }
}

impl PostgresConnection {
    /// Starts driving a connection. Notifications go to `inbox`, and are dropped while `inbox` is
    /// full.
    pub(super) fn start(
        client: Client,
        connection: Connection<Socket, EncryptedStream>,
        prepared: bool,
        inbox: Option<mpsc::Sender<String>>,
        tasks: &TaskTracker,
    ) -> Self {
        let driver = Arc::new(DriverState::default());
        tasks.spawn(drive(connection, driver.clone(), inbox));
        Self {
            client,
            prepared: prepared.then(Mutex::default),
            serial: (!prepared).then(tokio::sync::Mutex::default),
            driver,
            closed: AtomicBool::new(false),
            configured: AtomicBool::new(false),
            session: OnceLock::new(),
        }
    }

    /// True unless the connection is known to be closed.
    pub(super) fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire) && !self.client.is_closed()
    }

    /// True if the session settings of `connect` are in force, as the fast path's plans require.
    pub(super) fn is_configured(&self) -> bool {
        self.configured.load(Ordering::Acquire)
    }

    /// Records that the session settings are in force.
    pub(super) fn set_configured(&self) {
        self.configured.store(true, Ordering::Release);
    }

    /// Server session behind the connection; `None` behind a pooler.
    pub(super) fn session(&self) -> Option<&ServerSession> {
        self.session.get()
    }

    /// Records the server session.
    pub(super) fn set_session(&self, session: ServerSession) {
        // Set once, when the connection is made.
        let _ = self.session.set(session);
    }

    /// Closes the connection for every user.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.driver.stop.notify_one();
    }

    /// Runs a statement. Without a reply at `deadline` the connection is closed, because no caller
    /// would read the reply any more.
    ///
    /// The statement is not canceled on the server. A canceled wait for a synchronous standby would
    /// show a commit to every reader before the standby has the commit; left alone, the commit
    /// stays invisible and locked until the standby confirms. Other statements end by
    /// `statement_timeout`.
    pub(super) async fn query(
        &self,
        statement: &SqlStatement,
        parameters: Parameters<'_>,
        deadline: Instant,
    ) -> Result<Vec<Row>, StatementError> {
        if !self.is_open() {
            let reason = "the connection to PostgreSQL is closed";
            return Err(StatementError::Unsent(reason.to_owned()));
        }
        self.run_until(deadline, self.send(statement, parameters)).await
    }

    /// Runs a statement whose effect must be durable, as [`PostgresConnection::query`] does, on a
    /// connection without concurrent users.
    pub(super) async fn change(
        &self,
        statement: &SqlStatement,
        parameters: Parameters<'_>,
        deadline: Instant,
    ) -> Result<Vec<Row>, StatementError> {
        let before = self.driver.unreplicated.load(Ordering::Acquire);
        let rows = self.query(statement, parameters, deadline).await?;
        // The warning precedes the end of the statement and is counted before the reply arrives.
        if self.driver.unreplicated.load(Ordering::Acquire) == before {
            return Ok(rows);
        }
        let reason = "the commit was not confirmed by the synchronous standby: the wait for it was \
                      canceled";
        Err(StatementError::Indeterminate(reason.to_owned()))
    }

    async fn send(
        &self,
        statement: &SqlStatement,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Error> {
        let Some(prepared) = &self.prepared else {
            let types = statement.types.iter().cloned();
            let typed: Vec<_> = parameters.iter().copied().zip(types).collect();
            return self.client.query_typed(statement.text, &typed).await;
        };
        let statement = self.prepared_statement(prepared, statement).await?;
        self.client.query(&statement, parameters).await
    }

    /// Prepares statements, unless the connection runs behind a pooler.
    pub(super) async fn prepare(
        &self,
        statements: &[&SqlStatement],
        deadline: Instant,
    ) -> Result<(), StatementError> {
        let Some(prepared) = &self.prepared else { return Ok(()) };
        let prepare_all = async {
            for statement in statements {
                self.prepared_statement(prepared, statement).await?;
            }
            Ok(())
        };
        self.run_until(deadline, prepare_all).await
    }

    /// Prepared form of a statement, prepared on first use.
    async fn prepared_statement(
        &self,
        prepared: &PreparedStatements,
        statement: &SqlStatement,
    ) -> Result<Statement, Error> {
        let key = statement.text.as_ptr().addr();
        let found = prepared.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(found) = found {
            return Ok(found);
        }
        let new = self.client.prepare_typed(statement.text, statement.types).await?;
        let mut prepared = prepared.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(prepared.entry(key).or_insert(new).clone())
    }

    /// Runs a statement without preparing it, for rare statements and those of many forms.
    pub(super) async fn query_unprepared(
        &self,
        text: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        deadline: Instant,
    ) -> Result<Vec<Row>, StatementError> {
        self.run_until(deadline, self.client.query_typed(text, parameters)).await
    }

    /// Runs statements without parameters and results.
    pub(super) async fn execute(
        &self,
        text: &str,
        deadline: Instant,
    ) -> Result<(), StatementError> {
        self.run_until(deadline, self.client.batch_execute(text)).await
    }

    /// Terminates the session of a lost connection and waits for the end of the session. After a
    /// failover the session belonged to a different server, and the call returns at once.
    pub(super) async fn end_session(
        &self,
        session: &ServerSession,
        deadline: Instant,
    ) -> Result<(), StatementError> {
        let ServerSession { pid, started } = session;
        while !self.query(&TERMINATE, &[pid, started], deadline).await?.is_empty() {
            if Instant::now() >= deadline {
                let reason = "PostgreSQL does not end the session of a lost connection";
                return Err(StatementError::Unsent(reason.to_owned()));
            }
            sleep(TERMINATION_POLL).await;
        }
        Ok(())
    }

    async fn run_until<T>(
        &self,
        deadline: Instant,
        reply: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StatementError> {
        let serialized = async {
            let Some(serial) = &self.serial else { return reply.await };
            let _serial = serial.lock().await;
            // A caller that gives up here leaves an unread reply on the connection.
            let mut guard = CloseGuard { connection: self, replied: false };
            let result = reply.await;
            guard.replied = true;
            result
        };
        let result = match timeout_at(deadline, serialized).await {
            Ok(result) => result.map_err(|error| StatementError::of(&error)),
            Err(_) => {
                Err(StatementError::Indeterminate("PostgreSQL did not answer in time".to_owned()))
            }
        };
        if let Err(error) = &result
            && error.breaks_connection()
        {
            self.close();
        }
        result
    }
}

/// Closes the connection when dropped before the reply.
struct CloseGuard<'a> {
    connection: &'a PostgresConnection,
    replied: bool,
}

impl Drop for CloseGuard<'_> {
    fn drop(&mut self) {
        if !self.replied {
            self.connection.close();
        }
    }
}

impl Drop for PostgresConnection {
    fn drop(&mut self) {
        self.close();
    }
}

async fn drive(
    mut connection: Connection<Socket, EncryptedStream>,
    state: Arc<DriverState>,
    inbox: Option<mpsc::Sender<String>>,
) {
    let mut stopped = pin!(state.stop.notified());
    loop {
        let message = tokio::select! {
            biased;
            () = &mut stopped => return,
            message = poll_fn(|context| connection.poll_message(context)) => message,
        };
        match message {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                if is_unreplicated(&notice) {
                    state.unreplicated.fetch_add(1, Ordering::AcqRel);
                }
                let (code, notice) = (notice.code().code(), notice.message());
                tracing::debug!(notice, code, "PostgreSQL sent a notice");
            }
            Some(Ok(AsyncMessage::Notification(notification))) => {
                if let Some(inbox) = &inbox {
                    // A full inbox loses the message: messages are hints.
                    let _ = inbox.try_send(notification.payload().to_owned());
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(error = line(&error), "a connection to PostgreSQL was lost");
                return;
            }
            None => return,
        }
    }
}

/// True if a warning reports a commit that skipped the wait for the synchronous standby. The
/// message may be in any language; the warning's place in the server's source is not.
fn is_unreplicated(notice: &DbError) -> bool {
    let warns = !matches!(
        notice.parsed_severity(),
        Some(Severity::Notice | Severity::Debug | Severity::Info | Severity::Log)
    );
    let by_source = notice.routine().is_some_and(|routine| routine.starts_with("SyncRep"))
        || notice.file().is_some_and(|file| file.ends_with("syncrep.c"));
    let by_message = notice.message().contains("synchronous replication")
        || notice.detail().is_some_and(|detail| detail.contains("already committed locally"));
    warns && (by_source || by_message)
}
