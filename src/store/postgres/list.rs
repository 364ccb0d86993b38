//! Listings: one statement for each form of a query.

use std::fmt::Write as _;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::commit::OTHER_STORE;
use super::connection::Failed;
use super::{IS_STORE, Postgres, bigint, uuid_of};
use crate::idempotency::RecordId;
use crate::store::Query;
use crate::store::shared::engine::{EngineError, ListedRecord};

/// The statement of a query and its parameters. The limit stands in the text, because the planner
/// takes the index that has the order when it knows how few rows are wanted.
pub(super) struct Asked {
    pub(super) text: String,
    pub(super) uuids: Vec<Uuid>,
    pub(super) expired_at: Option<i64>,
}

impl Asked {
    pub(super) fn of(query: &Query) -> Self {
        let mut text = "SELECT r.id, r.data FROM oncegate.record AS r WHERE true".to_owned();
        let mut uuids = Vec::new();
        let mut with = |text: &mut String, condition: &str, bytes: &[u8; 16]| {
            uuids.push(uuid_of(bytes));
            // Writing to a string cannot fail.
            let _ = write!(text, " AND {condition} ${}", uuids.len());
        };
        if let Some(subject) = &query.subject {
            with(&mut text, "r.subject =", subject);
        }
        if let Some(after) = &query.after {
            with(&mut text, "r.id >", after.as_bytes());
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
        let expired_at = query.expired_at.map(bigint);
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

pub(super) async fn list(
    engine: &Postgres,
    query: &Query,
) -> Result<Vec<ListedRecord>, EngineError> {
    let Asked { text, uuids, expired_at } = Asked::of(query);
    let mut parameters: Vec<(&(dyn ToSql + Sync), Type)> = Vec::new();
    for uuid in &uuids {
        parameters.push((uuid, Type::UUID));
    }
    if let Some(at) = &expired_at {
        parameters.push((at, Type::INT8));
    }
    let link = engine.linked(engine.reader(0)).await.map_err(Failed::of_question)?;
    let end = Instant::now() + engine.timeout;
    let rows = link.ask_once(&text, &parameters, end).await.map_err(Failed::of_question)?;
    let is_store = link.ask(&IS_STORE, &[&engine.store_id], end).await;
    if is_store.map_err(Failed::of_question)?.is_empty() {
        return Err(EngineError::Rejected(OTHER_STORE.to_owned()));
    }
    Ok(found(&rows)?.0)
}

/// Rows of an id and its bytes, and whether there is one without an id.
pub(super) fn found(rows: &[Row]) -> Result<(Vec<ListedRecord>, bool), EngineError> {
    let unreadable = |error| EngineError::Rejected(super::error::line(&error));
    let (mut found, mut without) = (Vec::with_capacity(rows.len()), false);
    for row in rows {
        match row.try_get::<_, Option<Uuid>>(0).map_err(unreadable)? {
            None => without = true,
            Some(id) => {
                let bytes = row.try_get(1).map_err(unreadable)?;
                found.push((RecordId::from_bytes(id.into_bytes()), bytes));
            }
        }
    }
    Ok((found, without))
}
