//! One connection: statements with an end, and what the server says unasked.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, Error, Row, Socket, Statement};

pub(super) use super::error::Failed;
use super::session::Session;
use super::tls::Encrypted;
use crate::shutdown::Tasks;

/// A statement and the types of its parameters.
#[derive(Debug)]
pub(super) struct Sql {
    pub(super) text: &'static str,
    pub(super) types: &'static [Type],
}

/// Parameters of a statement.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

type Prepared = Mutex<HashMap<usize, Statement>>;

/// A connection to the server. Closed when dropped.
pub(super) struct Link {
    client: Client,
    /// Statements prepared so far, by where their text is; `None`: a pooler gives each statement
    /// another connection.
    prepared: Option<Prepared>,
    /// Held for each statement where one has to end before the next is sent: poolers have given the
    /// server's connection away when the first of several had ended, answers to come and all
    /// (PgBouncer's issues 52 and 759).
    turn: Option<tokio::sync::Mutex<()>>,
    said: Arc<Said>,
    ended: AtomicBool,
    tuned: AtomicBool,
    session: OnceLock<Session>,
}

/// What the task that drives the connection shares with those who use it.
#[derive(Debug, Default)]
struct Said {
    /// Commits that did not wait for the synchronous standby.
    unreplicated: AtomicU64,
    /// Closes the connection.
    stop: Notify,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("said", &self.said).field("ended", &self.ended).finish()
    }
}

impl Link {
    /// Starts to drive a connection. Notifications go to `heard`, and are dropped where it is full.
    pub(super) fn start(
        client: Client,
        connection: Connection<Socket, Encrypted>,
        prepared: bool,
        heard: Option<mpsc::Sender<String>>,
        tasks: &Tasks,
    ) -> Self {
        let said = Arc::new(Said::default());
        tasks.spawn(drive(connection, said.clone(), heard));
        let turn = (!prepared).then(tokio::sync::Mutex::default);
        let prepared = prepared.then(Mutex::default);
        let (ended, tuned) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { client, prepared, turn, said, ended, tuned, session: OnceLock::new() }
    }

    /// Whether it can be used, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.ended.load(Ordering::Acquire) && !self.client.is_closed()
    }

    /// Whether the settings of `connect` hold on it, and so the plans that rely on them.
    pub(super) fn is_tuned(&self) -> bool {
        self.tuned.load(Ordering::Acquire)
    }

    /// Notes that the settings were made.
    pub(super) fn set_tuned(&self) {
        self.tuned.store(true, Ordering::Release);
    }

    /// The server's end of it, where a pooler does not hide that.
    pub(super) fn session(&self) -> Option<&Session> {
        self.session.get()
    }

    /// Notes the server's end.
    pub(super) fn set_session(&self, session: Session) {
        // Noted once, when the connection is made.
        let _ = self.session.set(session);
    }

    /// Ends it for all who use it.
    pub(super) fn close(&self) {
        self.ended.store(true, Ordering::Release);
        self.said.stop.notify_one();
    }

    /// Runs a statement, which ends the connection when it has no answer at `end`: whatever the
    /// server still does with it, nobody reads the answer.
    ///
    /// The server is not asked to cancel it. A commit that waits for a synchronous standby would
    /// then be seen by everybody without being there; left alone, it stays invisible and locked
    /// until the standby has it. Anything else ends by `statement_timeout`.
    pub(super) async fn ask(
        &self,
        sql: &Sql,
        parameters: Parameters<'_>,
        end: Instant,
    ) -> Result<Vec<Row>, Failed> {
        if !self.is_open() {
            return Err(Failed::Unsent("the connection to PostgreSQL is closed".to_owned()));
        }
        self.until(end, self.query(sql, parameters)).await
    }

    /// As [`Link::ask`], for a statement whose effect must be durable, on a connection that nobody
    /// else uses meanwhile.
    pub(super) async fn change(
        &self,
        sql: &Sql,
        parameters: Parameters<'_>,
        end: Instant,
    ) -> Result<Vec<Row>, Failed> {
        let before = self.said.unreplicated.load(Ordering::Acquire);
        let rows = self.ask(sql, parameters, end).await?;
        // The warning comes before the end of the statement, and is counted before that is told.
        if self.said.unreplicated.load(Ordering::Acquire) == before {
            return Ok(rows);
        }
        let reason = "the commit was not confirmed by the synchronous standby: the wait for it was \
                      canceled";
        Err(Failed::Silent(reason.to_owned()))
    }

    async fn query(&self, sql: &Sql, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        let Some(prepared) = &self.prepared else {
            let types = sql.types.iter().cloned();
            let typed: Vec<_> = parameters.iter().copied().zip(types).collect();
            return self.client.query_typed(sql.text, &typed).await;
        };
        let statement = self.statement(prepared, sql).await?;
        self.client.query(&statement, parameters).await
    }

    /// Prepares statements, where the server keeps them.
    pub(super) async fn prepare(&self, statements: &[&Sql], end: Instant) -> Result<(), Failed> {
        let Some(prepared) = &self.prepared else { return Ok(()) };
        let each = async {
            for sql in statements {
                self.statement(prepared, sql).await?;
            }
            Ok(())
        };
        self.until(end, each).await
    }

    /// The statement as this connection knows it; prepared now if it does not.
    async fn statement(&self, prepared: &Prepared, sql: &Sql) -> Result<Statement, Error> {
        let name = sql.text.as_ptr().addr();
        let known = prepared.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare_typed(sql.text, sql.types).await?;
        let mut prepared = prepared.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(prepared.entry(name).or_insert(statement).clone())
    }

    /// Runs a statement without preparing it: one that is seldom used, or has many forms.
    pub(super) async fn ask_once(
        &self,
        text: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
        end: Instant,
    ) -> Result<Vec<Row>, Failed> {
        self.until(end, self.client.query_typed(text, parameters)).await
    }

    /// Runs statements without parameters and answers.
    pub(super) async fn run(&self, text: &str, end: Instant) -> Result<(), Failed> {
        self.until(end, self.client.batch_execute(text)).await
    }

    async fn until<T>(
        &self,
        end: Instant,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failed> {
        let in_turn = async {
            let Some(turn) = &self.turn else { return answer.await };
            let _turn = turn.lock().await;
            // Whoever gives up in the middle leaves an answer to come.
            let mut unless = CloseUnless { link: self, answered: false };
            let answered = answer.await;
            unless.answered = true;
            answered
        };
        let result = match timeout_at(end, in_turn).await {
            Ok(result) => result.map_err(|error| Failed::of(&error)),
            Err(_) => Err(Failed::Silent("PostgreSQL did not answer in time".to_owned())),
        };
        if let Err(failed) = &result
            && failed.ends_link()
        {
            self.close();
        }
        result
    }
}

/// Closes the connection when it is dropped before there was an answer.
struct CloseUnless<'a> {
    link: &'a Link,
    answered: bool,
}

impl Drop for CloseUnless<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.link.close();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

async fn drive(
    mut connection: Connection<Socket, Encrypted>,
    said: Arc<Said>,
    heard: Option<mpsc::Sender<String>>,
) {
    let mut stopped = pin!(said.stop.notified());
    loop {
        let message = tokio::select! {
            biased;
            () = &mut stopped => return,
            message = poll_fn(|context| connection.poll_message(context)) => message,
        };
        match message {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                if is_unreplicated(&notice) {
                    said.unreplicated.fetch_add(1, Ordering::AcqRel);
                }
                let (code, text) = (notice.code().code(), notice.message());
                tracing::debug!(store.notice = text, store.code = code, "PostgreSQL says");
            }
            Some(Ok(AsyncMessage::Notification(notification))) => {
                if let Some(heard) = &heard {
                    // Where it is full, the message is lost: messages are hints.
                    let _ = heard.try_send(notification.payload().to_owned());
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let reason = super::error::line(&error);
                tracing::debug!(error = reason, "the connection to PostgreSQL ended");
                return;
            }
            None => return,
        }
    }
}

/// Whether a warning says that a commit did not wait for the synchronous standby. Its text may be
/// in any language; where it was written in the server is not.
fn is_unreplicated(notice: &DbError) -> bool {
    let warns = !matches!(
        notice.parsed_severity(),
        Some(Severity::Notice | Severity::Debug | Severity::Info | Severity::Log)
    );
    let written = notice.routine().is_some_and(|routine| routine.starts_with("SyncRep"))
        || notice.file().is_some_and(|file| file.ends_with("syncrep.c"));
    let told = notice.message().contains("synchronous replication")
        || notice.detail().is_some_and(|detail| detail.contains("already committed locally"));
    warns && (written || told)
}
