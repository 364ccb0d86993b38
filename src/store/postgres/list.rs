//! Listings: one statement per form of a query.

use std::fmt::Write as _;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::error::{StatementError, line, other_store};
use super::pool::ConnectionPool;
use super::statement::SqlStatement;
use super::values::{to_bigint, to_uuid};
use crate::idempotency::RecordId;
use crate::store::Query;
use crate::store::shared::engine::{EngineError, ListedRecord};

const IS_STORE: SqlStatement = SqlStatement {
    text: "SELECT FROM oncegate.store AS s WHERE s.store_id = $1::uuid",
    types: &[Type::UUID],
};

/// Statement and parameters of a query. The limit is part of the text, because the planner chooses
/// the index with the requested order only for a known small number of rows.
pub(super) struct ListStatement {
    pub(super) text: String,
    pub(super) uuids: Vec<Uuid>,
    pub(super) expired_at: Option<i64>,
}

impl ListStatement {
    pub(super) fn of(query: &Query) -> Self {
        let mut text = "SELECT r.id, r.data FROM oncegate.record AS r WHERE true".to_owned();
        let mut uuids = Vec::new();
        let mut add_condition = |text: &mut String, condition: &str, bytes: &[u8; 16]| {
            uuids.push(to_uuid(bytes));
            // Writing to a string cannot fail.
            let _ = write!(text, " AND {condition} ${}", uuids.len());
        };
        if let Some(subject) = &query.subject {
            add_condition(&mut text, "r.subject =", subject);
        }
        if let Some(after) = &query.after {
            add_condition(&mut text, "r.id >", after.as_bytes());
        }
        if query.open {
            text.push_str(" AND r.open");
        }
        if query.abandoned {
            text.push_str(
                " AND r.owner IS NOT NULL AND NOT EXISTS (SELECT FROM oncegate.replica AS l \
                 WHERE l.id = r.owner AND l.lease_until > clock_timestamp())",
            );
        }
        let expired_at = query.expired_at.map(to_bigint);
        if expired_at.is_some() {
            let _ = write!(text, " AND r.expires <= ${} ORDER BY r.expires, r.id", uuids.len() + 1);
        } else {
            text.push_str(" ORDER BY r.id");
        }
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let _ = write!(text, " LIMIT {limit}");
        Self { text, uuids, expired_at }
    }
}

/// Lists the records that match `query` in the store `store_id`.
pub(super) async fn list(
    pool: &ConnectionPool,
    store_id: &Uuid,
    query: &Query,
) -> Result<Vec<ListedRecord>, EngineError> {
    let ListStatement { text, uuids, expired_at } = ListStatement::of(query);
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = Vec::new();
    for uuid in &uuids {
        parameters.push((uuid, Type::UUID));
    }
    if let Some(at) = &expired_at {
        parameters.push((at, Type::INT8));
    }
    let connection = pool.connection(pool.reader(0)).await?;
    let deadline = Instant::now() + pool.timeout;
    let rows = connection.query_unprepared(&text, &parameters, deadline).await;
    let rows = rows.map_err(StatementError::of_read)?;
    let is_store = connection.query(&IS_STORE, &[store_id], deadline).await;
    if is_store.map_err(StatementError::of_read)?.is_empty() {
        return Err(other_store());
    }
    Ok(records_of(&rows)?.0)
}

/// Decodes rows of id and bytes; returns true if a row without an id is among them.
pub(super) fn records_of(rows: &[Row]) -> Result<(Vec<ListedRecord>, bool), EngineError> {
    let unreadable = |error| EngineError::Rejected(line(&error));
    let (mut records, mut has_marker) = (Vec::with_capacity(rows.len()), false);
    for row in rows {
        match row.try_get::<_, Option<Uuid>>(0).map_err(unreadable)? {
            None => has_marker = true,
            Some(id) => {
                let bytes = row.try_get(1).map_err(unreadable)?;
                records.push((RecordId::from_bytes(id.into_bytes()), bytes));
            }
        }
    }
    Ok((records, has_marker))
}
