//! Fast path for claims of absent records and replacements, by far the most frequent changes.
//!
//! The statement does about half the work of the general statement in `commit`, which takes over
//! groups that met an unexpected record.

use std::collections::HashMap;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::connection::PostgresConnection;
use super::error::{StatementError, line};
use super::statement::SqlStatement;
use super::values::{to_bigint, to_uuid};
use crate::store::shared::engine::{CasResult, Group, GroupChange, StoredRecord};

/// Statement for claims and replacements.
pub(super) const FAST_PATH: SqlStatement = SqlStatement {
    text: include_str!("fast_path.sql"),
    types: &[
        Type::UUID_ARRAY,
        Type::BOOL_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BOOL_ARRAY,
        Type::UUID_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::UUID_ARRAY,
        Type::UUID_ARRAY,
        Type::BOOL_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BOOL_ARRAY,
        Type::UUID_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::UUID_ARRAY,
        Type::UUID,
    ],
};

/// Changes and records as columns, in the order of the ids.
#[derive(Debug, Default)]
struct PutColumns<'a> {
    ids: Vec<Uuid>,
    grouped: Vec<bool>,
    expects: Vec<i64>,
    versions: Vec<i64>,
    data: Vec<&'a [u8]>,
    open: Vec<bool>,
    owners: Vec<Option<Uuid>>,
    first_seen: Vec<i64>,
    expires: Vec<Option<i64>>,
    subjects: Vec<Option<Uuid>>,
}

/// A change with its new record, and true for a group of several changes.
type GroupedPut<'a> = (&'a GroupChange, &'a StoredRecord, bool);

impl<'a> PutColumns<'a> {
    fn of(mut puts: Vec<GroupedPut<'a>>) -> Self {
        puts.sort_unstable_by_key(|(change, ..)| change.id);
        let mut columns = Self::default();
        for (change, put, grouped) in puts {
            columns.ids.push(to_uuid(change.id.as_bytes()));
            columns.grouped.push(grouped);
            columns.expects.push(change.expect.unwrap_or_default().cast_signed());
            columns.versions.push(put.head.version.cast_signed());
            columns.data.push(&put.bytes);
            columns.open.push(put.head.open);
            columns.owners.push(put.owner.map(|owner| to_uuid(&owner)));
            columns.first_seen.push(to_bigint(put.head.first_seen));
            columns.expires.push(put.head.expires.map(to_bigint));
            columns.subjects.push(put.head.subject.map(|subject| to_uuid(&subject)));
        }
        columns
    }
}

/// True if the statement supports every group in `groups`.
pub(super) fn supports(groups: &[Group]) -> bool {
    let puts = |group: &Group| group.changes.iter().all(|change| change.put.is_some());
    groups.iter().all(|group| !group.resent && puts(group))
}

/// Commits the groups and returns a result for each; `None` for a group that was not applied and
/// whose obstacle is unknown. Returns `None` as a whole for a different store.
pub(super) async fn commit(
    connection: &PostgresConnection,
    store_id: &Uuid,
    groups: &[Group],
    deadline: Instant,
) -> Result<Option<Vec<Option<CasResult>>>, StatementError> {
    let (mut claims, mut updates) = (Vec::new(), Vec::new());
    for group in groups {
        let grouped = group.changes.len() > 1;
        for change in &group.changes {
            let Some(put) = &change.put else { continue };
            let puts = if change.expect.is_none() { &mut claims } else { &mut updates };
            puts.push((change, put, grouped));
        }
    }
    let (claims, updates) = (PutColumns::of(claims), PutColumns::of(updates));
    let rows = connection
        .change(
            &FAST_PATH,
            &[
                &claims.ids,
                &claims.grouped,
                &claims.versions,
                &claims.data,
                &claims.open,
                &claims.owners,
                &claims.first_seen,
                &claims.expires,
                &claims.subjects,
                &updates.ids,
                &updates.grouped,
                &updates.expects,
                &updates.versions,
                &updates.data,
                &updates.open,
                &updates.owners,
                &updates.first_seen,
                &updates.expires,
                &updates.subjects,
                store_id,
            ],
            deadline,
        )
        .await?;
    read_results(&rows, groups).map_err(|error| {
        let defect = line(&error);
        StatementError::Indeterminate(format!(
            "PostgreSQL's reply to a commit is invalid: {defect}"
        ))
    })
}

/// Reads the reply: a row per change left unapplied, and a row without an id to identify the store.
fn read_results(
    rows: &[Row],
    groups: &[Group],
) -> Result<Option<Vec<Option<CasResult>>>, tokio_postgres::Error> {
    let mut missed: HashMap<Uuid, Option<Vec<u8>>> = HashMap::new();
    let mut is_store = false;
    for row in rows {
        match row.try_get::<_, Option<Uuid>>(0)? {
            Some(id) => _ = missed.insert(id, row.try_get(1)?),
            None => is_store = true,
        }
    }
    if !is_store {
        return Ok(None);
    }
    let mut result_of = |group: &Group| {
        // A group of several changes never misses one alone: the statement fails instead.
        let first = group.changes.first().map(|change| to_uuid(change.id.as_bytes()));
        match first.and_then(|id| missed.remove(&id)) {
            None => Some(CasResult::Done),
            Some(winner @ Some(_)) => Some(CasResult::Lost { index: 0, winner }),
            Some(None) => None,
        }
    };
    Ok(Some(groups.iter().map(&mut result_of).collect()))
}
