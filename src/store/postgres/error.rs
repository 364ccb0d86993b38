//! What the driver's and the server's errors mean: one line for the log, and whether anything may
//! have been changed.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::store::shared::engine::EngineError;

/// The file that operators run who forbid the gateway to create tables; it grants the rights too.
pub(super) const RIGHTS_FILE: &str = "config/postgres.sql";

/// Why a statement has no answer.
#[derive(Debug, Clone)]
pub(super) enum Failed {
    /// The server said so, and has undone it.
    Said {
        /// The server's code.
        code: SqlState,
        /// One line.
        reason: String,
    },
    /// It did not leave this process.
    Unsent(String),
    /// Nobody knows what became of it.
    Silent(String),
}

impl From<Failed> for EngineError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Said { reason, .. } | Failed::Unsent(reason) => Self::Rejected(reason),
            Failed::Silent(reason) => Self::Indeterminate(reason),
        }
    }
}

impl Failed {
    /// As a trouble of a question, which changes nothing whatever becomes of it.
    pub(super) fn of_question(self) -> EngineError {
        match self {
            Self::Said { reason, .. } | Self::Unsent(reason) | Self::Silent(reason) => {
                EngineError::Rejected(reason)
            }
        }
    }

    /// What the driver's error means for a statement that was sent.
    pub(super) fn of(error: &Error) -> Self {
        let Some(said) = error.as_db_error() else { return Self::Silent(line(error)) };
        if undone(said) {
            Self::Said { code: said.code().clone(), reason: line(error) }
        } else {
            Self::Silent(line(error))
        }
    }

    /// Whether the connection should not be used again.
    pub(super) fn ends_link(&self) -> bool {
        match self {
            Self::Unsent(_) | Self::Silent(_) => true,
            Self::Said { code, .. } => [
                // Became a standby: the next connection may find the primary.
                SqlState::READ_ONLY_SQL_TRANSACTION,
                // A prepared statement that is gone, or no longer fits the tables.
                SqlState::INVALID_SQL_STATEMENT_NAME,
                SqlState::DUPLICATE_PSTATEMENT,
                SqlState::FEATURE_NOT_SUPPORTED,
            ]
            .contains(code),
        }
    }
}

/// Whether an error proves that the server undid the statement. One that ends the session does not:
/// it may come after the commit. Nor do the codes for an outcome that the server does not know
/// itself, and those for its own faults.
fn undone(said: &DbError) -> bool {
    let fatal = !matches!(said.parsed_severity(), Some(Severity::Error));
    let code = said.code().code();
    let doubtful = ["08", "57P", "XX"].iter().any(|class| code.starts_with(class));
    !fatal && !doubtful && *said.code() != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
}

/// An error as one line: what the server said, or what happened to the connection, and what to do
/// where that is known.
pub(super) fn line(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        let code = said.code().code();
        let detail = said.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let advice = advice(said.code()).map(|advice| format!("; {advice}")).unwrap_or_default();
        return one_line(&format!("PostgreSQL says: {}{detail}, {code}{advice}", said.message()));
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

fn advice(code: &SqlState) -> Option<String> {
    let advice = match code.code() {
        "42501" => return Some(format!("the rights it needs are in {RIGHTS_FILE}")),
        "28P01" | "28000" => "check the user and the password in `url`, and pg_hba.conf",
        "3D000" => "create the database, or name another one in `url`",
        "26000" | "42P05" => {
            "a transaction pooler that does not know prepared statements? set `prepared = false`"
        }
        "53300" => "raise max_connections, or lower `pool` in [store.postgres]",
        "53100" => "the server's disk is full",
        "57014" => "it took longer than `timeout` in [store.postgres]",
        "25006" => "it is a standby or read-only; name all hosts in `url`",
        _ => return None,
    };
    Some(advice.to_owned())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
