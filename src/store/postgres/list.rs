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
use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::store::shared::engine::{EngineError, ListedRecord};
use crate::store::{ListPosition, Query};

const IS_STORE: SqlStatement = SqlStatement {
    text: "SELECT FROM oncegate.store AS s WHERE s.store_id = $1::uuid",
    types: &[Type::UUID],
};

/// Statement and parameters of a query. The limit is part of the text, because the planner chooses
/// the index with the requested order only for a known small number of rows.
pub(super) struct ListStatement {
    pub(super) text: String,
    pub(super) parameters: Vec<ListParameter>,
}

/// A parameter of a listing.
pub(super) enum ListParameter {
    Id(Uuid),
    Time(i64),
    Ids(Vec<Uuid>),
}

impl ListParameter {
    pub(super) fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Id(id) => (id, Type::UUID),
            Self::Time(time) => (time, Type::INT8),
            Self::Ids(ids) => (ids, Type::UUID_ARRAY),
        }
    }
}

impl ListStatement {
    pub(super) fn of(query: &Query) -> Self {
        let mut new = Self { text: String::new(), parameters: Vec::new() };
        new.select(query);
        if let Some(subject) = &query.subject {
            let subject = new.id(subject);
            new.add(format_args!(" AND r.subject = {subject}"));
        }
        if let Some(since) = query.since {
            let since = new.time(since);
            new.add(format_args!(" AND r.first_seen >= {since}"));
        }
        if let Some(after) = query.after {
            let (first_seen, id) = (new.time(after.first_seen), new.id(after.id.as_bytes()));
            new.add(format_args!(" AND (r.first_seen, r.id) < ({first_seen}, {id})"));
        }
        if query.open {
            new.text.push_str(" AND r.open");
        }
        if query.abandoned {
            new.text.push_str(
                " AND r.owner IS NOT NULL AND NOT EXISTS (SELECT FROM oncegate.replica AS l \
                 WHERE l.id = r.owner AND l.lease_until > clock_timestamp())",
            );
        }
        if let Some(at) = query.expired_at {
            let at = new.time(at);
            new.add(format_args!(" AND r.expires <= {at} ORDER BY r.expires, r.id"));
        } else {
            new.text.push_str(" ORDER BY r.first_seen DESC, r.id DESC");
        }
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        new.add(format_args!(" LIMIT {limit}"));
        new
    }

    /// Begins the statement, with the conditions on ids. Records of a key are found by a range of
    /// ids in each shard, which costs an operator some milliseconds and a request no index.
    fn select(&mut self, query: &Query) {
        self.text.push_str("SELECT r.id, r.data, r.first_seen FROM ");
        let shards = query.shard.map_or(0..=u8::MAX, |shard| shard..=shard);
        if query.keys.is_empty() {
            self.text.push_str("oncegate.record AS r WHERE true");
            if let Some(shard) = query.shard {
                let [low, high] = [0, 0xff].map(|rest| self.id(&bound(shard, &[], rest)));
                self.add(format_args!(" AND r.id >= {low} AND r.id <= {high}"));
            }
            return;
        }
        let ids = |rest: u8| {
            let of_key = |key| shards.clone().map(move |shard| bound(shard, key, rest));
            let bounds = query.keys.iter().flat_map(|key| of_key(key));
            ListParameter::Ids(bounds.map(|bytes| to_uuid(&bytes)).collect())
        };
        let (low, high) = (self.parameter(ids(0)), self.parameter(ids(0xff)));
        self.add(format_args!(
            "unnest({low}::uuid[], {high}::uuid[]) AS k(low, high) CROSS JOIN LATERAL \
             (SELECT * FROM oncegate.record AS i WHERE i.id >= k.low AND i.id <= k.high OFFSET 0) \
             AS r WHERE true"
        ));
    }

    fn id(&mut self, bytes: &[u8; 16]) -> String {
        self.parameter(ListParameter::Id(to_uuid(bytes)))
    }

    fn time(&mut self, at: Timestamp) -> String {
        self.parameter(ListParameter::Time(to_bigint(at)))
    }

    /// Adds a parameter, and returns its name.
    fn parameter(&mut self, parameter: ListParameter) -> String {
        self.parameters.push(parameter);
        format!("${}", self.parameters.len())
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(text);
    }
}

/// The first or last id of a shard, or of a key in a shard; all other bytes are `rest`.
fn bound(shard: u8, key: &[u8], rest: u8) -> [u8; 16] {
    let mut bytes = [rest; 16];
    bytes[0] = shard;
    bytes[1..=key.len()].copy_from_slice(key);
    bytes
}

/// Lists the records that match `query` in the store `store_id`.
pub(super) async fn list(
    pool: &ConnectionPool,
    store_id: &Uuid,
    query: &Query,
) -> Result<Vec<ListedRecord>, EngineError> {
    let statement = ListStatement::of(query);
    let parameters: Vec<_> = statement.parameters.iter().map(ListParameter::typed).collect();
    let connection = pool.connection(pool.reader(0)).await?;
    let deadline = Instant::now() + pool.timeout;
    let rows = connection.query_unprepared(&statement.text, &parameters, deadline).await;
    let rows = rows.map_err(StatementError::of_read)?;
    let is_store = connection.query(&IS_STORE, &[store_id], deadline).await;
    if is_store.map_err(StatementError::of_read)?.is_empty() {
        return Err(other_store());
    }
    let first_seen =
        |row: &Row| row.try_get(2).map_err(|error| EngineError::Rejected(line(&error)));
    let times: Result<Vec<i64>, _> = rows.iter().map(first_seen).collect();
    let positions = times?.into_iter().zip(records_of(&rows)?.0);
    let listed = positions.map(|(first_seen, (id, bytes))| {
        let first_seen = Timestamp::from_millis(first_seen.unsigned_abs());
        (ListPosition { first_seen, id }, bytes)
    });
    Ok(listed.collect())
}

/// Id and encoded bytes of a record.
pub(super) type RecordRow = (RecordId, Vec<u8>);

/// Decodes rows of id and bytes; returns true if a row without an id is among them.
pub(super) fn records_of(rows: &[Row]) -> Result<(Vec<RecordRow>, bool), EngineError> {
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
