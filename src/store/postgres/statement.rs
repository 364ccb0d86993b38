//! Prepared statements and their parameters.

use tokio_postgres::types::{ToSql, Type};

/// A statement and the types of its parameters.
#[derive(Debug)]
pub(super) struct SqlStatement {
    pub(super) text: &'static str,
    pub(super) types: &'static [Type],
}

/// Parameter values of a statement.
pub(super) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];
