//! Errors of the driver and the server: one line for the log, and whether a change is possible.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store::shared::engine::EngineError;

/// Script for operators who forbid the gateway to create tables; grants the required rights too.
pub(super) const RIGHTS_FILE: &str = "config/postgres.sql";

/// Failure of a statement.
#[derive(Debug, Clone)]
pub(super) enum StatementError {
    /// The server reported an error and rolled the statement back.
    Rejected {
        /// SQLSTATE of the error.
        code: SqlState,
        /// Description as one line.
        reason: String,
    },
    /// The statement was not sent.
    Unsent(String),
    /// The statement was sent and its result is unknown.
    Indeterminate(String),
}

impl From<StatementError> for EngineError {
    fn from(error: StatementError) -> Self {
        match error {
            StatementError::Rejected { reason, .. } | StatementError::Unsent(reason) => {
                Self::Rejected(reason)
            }
            StatementError::Indeterminate(reason) => Self::Indeterminate(reason),
        }
    }
}

impl StatementError {
    /// Description as one line.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Rejected { reason, .. } | Self::Unsent(reason) | Self::Indeterminate(reason) => {
                reason
            }
        }
    }

    /// Converts the error of a read, which never changes a record.
    pub(super) fn of_read(self) -> EngineError {
        EngineError::Rejected(self.reason())
    }

    /// Classifies the driver's error for a statement that was sent.
    pub(super) fn of(error: &Error) -> Self {
        match error.as_db_error() {
            Some(reported) if rolled_back(reported) => {
                Self::Rejected { code: reported.code().clone(), reason: line(error) }
            }
            _ => Self::Indeterminate(line(error)),
        }
    }

    /// True if the connection must be replaced.
    pub(super) fn breaks_connection(&self) -> bool {
        match self {
            Self::Unsent(_) | Self::Indeterminate(_) => true,
            Self::Rejected { code, .. } => [
                // The server became a standby; the next connection may reach the primary.
                SqlState::READ_ONLY_SQL_TRANSACTION,
                // A prepared statement is gone, or no longer matches the tables.
                SqlState::INVALID_SQL_STATEMENT_NAME,
                SqlState::DUPLICATE_PSTATEMENT,
                SqlState::FEATURE_NOT_SUPPORTED,
            ]
            .contains(code),
        }
    }
}

/// Error of a statement that met a different store than the opened store.
pub(super) fn other_store() -> EngineError {
    let reason = "the database holds another store than the one that was opened, or none; restart \
                  to open it";
    EngineError::Rejected(reason.to_owned())
}

/// True if an error proves that the server rolled the statement back.
///
/// An error that ends the session is no proof, since the commit may precede the error. The same
/// holds for codes of an outcome unknown to the server, and for codes of the server's own faults.
fn rolled_back(error: &DbError) -> bool {
    let fatal = !matches!(error.parsed_severity(), Some(Severity::Error));
    let code = error.code().code();
    let doubtful = ["08", "57P", "XX"].iter().any(|class| code.starts_with(class));
    !fatal && !doubtful && *error.code() != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
}

/// Formats an error as one line: the server's message or the connection's failure, and a remedy for
/// well-known codes.
pub(super) fn line(error: &Error) -> String {
    if let Some(reported) = error.as_db_error() {
        let code = reported.code().code();
        let detail = reported.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let remedy = remedy(reported.code()).map(|text| format!("; {text}")).unwrap_or_default();
        let message = reported.message();
        return one_line(&format!("PostgreSQL reports: {message}{detail}, {code}{remedy}"));
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    one_line(&text)
}

fn remedy(code: &SqlState) -> Option<String> {
    let remedy = match code.code() {
        "42501" => return Some(format!("the required rights are in {RIGHTS_FILE}")),
        "28P01" | "28000" => "check the user and the password in `url`, and pg_hba.conf",
        "3D000" => "create the database, or name another one in `url`",
        "26000" | "42P05" => {
            "behind a transaction pooler without prepared statements, set `prepared = false`"
        }
        "53300" => "raise max_connections, or lower `pool` in [store.postgres]",
        "53100" => "the server's disk is full",
        "57014" => {
            "the statement took longer than `timeout` in [store.postgres] or a statement_timeout \
             of the server allows, or was cancelled"
        }
        "25006" => "the server is a standby or read-only; name all hosts in `url`",
        _ => return None,
    };
    Some(remedy.to_owned())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
