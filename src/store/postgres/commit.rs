//! Groups of changes as one statement, and the result of each group.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::connection::PostgresConnection;
use super::error::{StatementError, other_store};
use super::fast_path;
use super::statement::SqlStatement;
use super::values::{to_bigint, to_uuid};
use crate::store::shared::engine::{CasResult, EngineError, Group, GroupChange};

/// Number of attempts for groups that meet a race. Each attempt sees the changes that won the race,
/// so more than two are rare.
const ATTEMPTS: usize = 10;

/// Pause between two attempts, multiplied by the number of attempts so far.
const PAUSE: Duration = Duration::from_millis(2);

/// Statement for every kind of change.
pub(super) const COMMIT: SqlStatement = SqlStatement {
    text: include_str!("commit.sql"),
    types: &[
        Type::UUID_ARRAY,
        Type::INT4_ARRAY,
        Type::INT4_ARRAY,
        Type::INT8_ARRAY,
        Type::BOOL_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::BOOL_ARRAY,
        Type::UUID_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::UUID_ARRAY,
        Type::UUID,
    ],
};

/// Parameters of the statement: the changes of several groups as columns, in the order of the ids.
#[derive(Debug, Default)]
struct CommitColumns<'a> {
    ids: Vec<Uuid>,
    groups: Vec<i32>,
    positions: Vec<i32>,
    expects: Vec<Option<i64>>,
    resent: Vec<bool>,
    data: Vec<Option<&'a [u8]>>,
    versions: Vec<Option<i64>>,
    open: Vec<Option<bool>>,
    owners: Vec<Option<Uuid>>,
    first_seen: Vec<Option<i64>>,
    expires: Vec<Option<i64>>,
    subjects: Vec<Option<Uuid>>,
}

impl<'a> CommitColumns<'a> {
    fn of(groups: &'a [Group], pending: &[usize]) -> Self {
        let mut changes: Vec<(usize, usize, &GroupChange)> = Vec::new();
        for &group in pending {
            let numbered = groups[group].changes.iter().enumerate();
            changes.extend(numbered.map(|(position, change)| (group, position, change)));
        }
        changes.sort_unstable_by_key(|(_, _, change)| change.id);
        let mut columns = Self::default();
        for (group, position, change) in changes {
            // Batches are far smaller than i32::MAX, and a wrapped number would match no group.
            columns.groups.push(group as i32);
            columns.positions.push(position as i32);
            columns.resent.push(groups[group].resent);
            columns.push(change);
        }
        columns
    }

    fn push(&mut self, change: &'a GroupChange) {
        let put = change.put.as_ref();
        self.ids.push(to_uuid(change.id.as_bytes()));
        self.expects.push(change.expect.map(u64::cast_signed));
        self.data.push(put.map(|put| put.bytes.as_slice()));
        self.versions.push(put.map(|put| put.head.version.cast_signed()));
        self.open.push(put.map(|put| put.head.open));
        self.owners.push(put.and_then(|put| put.owner).map(|owner| to_uuid(&owner)));
        self.first_seen.push(put.map(|put| to_bigint(put.head.first_seen)));
        self.expires.push(put.and_then(|put| put.head.expires).map(to_bigint));
        self.subjects.push(put.and_then(|put| put.head.subject).map(|subject| to_uuid(&subject)));
    }

    fn parameters<'p>(&'p self, store_id: &'p Uuid) -> [&'p (dyn ToSql + Sync); 13] {
        [
            &self.ids,
            &self.groups,
            &self.positions,
            &self.expects,
            &self.resent,
            &self.data,
            &self.versions,
            &self.open,
            &self.owners,
            &self.first_seen,
            &self.expires,
            &self.subjects,
            store_id,
        ]
    }
}

/// Commits the groups to the store `store_id` until `deadline`; returns a result for each group.
pub(super) async fn commit(
    connection: &PostgresConnection,
    store_id: &Uuid,
    groups: &[Group],
    deadline: Instant,
) -> Result<Vec<CasResult>, EngineError> {
    let mut results: Vec<Option<CasResult>> = groups.iter().map(|_| None).collect();
    if connection.is_configured() && fast_path::supports(groups) {
        match fast_path::commit(connection, store_id, groups, deadline).await {
            Ok(Some(fast)) => results = fast,
            Ok(None) => return Err(other_store()),
            Err(error) if is_race(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut pending: Vec<usize> = (0..groups.len()).filter(|at| results[*at].is_none()).collect();
    for attempt in 0..ATTEMPTS {
        if pending.is_empty() {
            return Ok(results.into_iter().flatten().collect());
        }
        if attempt > 0 {
            tokio::time::sleep(PAUSE * attempt as u32).await;
        }
        let columns = CommitColumns::of(groups, &pending);
        match connection.change(&COMMIT, &columns.parameters(store_id), deadline).await {
            Ok(rows) if rows.is_empty() => {
                return Err(after_partial_success(&results, other_store()));
            }
            Ok(rows) => {
                read_results(&rows, &pending, &mut results).map_err(EngineError::Indeterminate)?;
            }
            Err(error) if is_race(&error) => {}
            Err(error) => return Err(after_partial_success(&results, error.into())),
        }
        pending.retain(|at| results[*at].is_none());
    }
    if pending.is_empty() {
        return Ok(results.into_iter().flatten().collect());
    }
    let reason = format!("other sessions changed the same records in each of {ATTEMPTS} attempts");
    Err(after_partial_success(&results, EngineError::Rejected(reason)))
}

/// True if the server rolled the statement back because of concurrent changes.
fn is_race(error: &StatementError) -> bool {
    let StatementError::Rejected { code, .. } = error else { return false };
    [
        // Raised on purpose, by the division at the end of each statement.
        SqlState::DIVISION_BY_ZERO,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        // Under serializable isolation a conflict may raise this error despite ON CONFLICT.
        SqlState::UNIQUE_VIOLATION,
    ]
    .contains(code)
}

/// Converts an error after some groups were committed: a rejection no longer means that no record
/// was changed.
fn after_partial_success(results: &[Option<CasResult>], error: EngineError) -> EngineError {
    let committed = results.iter().any(|result| matches!(result, Some(CasResult::Done)));
    match error {
        EngineError::Rejected(reason) if committed => EngineError::Indeterminate(reason),
        other => other,
    }
}

/// Reads the result of every pending group; a group that met a race keeps `None`.
fn read_results(
    rows: &[Row],
    pending: &[usize],
    results: &mut [Option<CasResult>],
) -> Result<(), String> {
    let invalid = |defect: &str| format!("PostgreSQL's reply to a commit is invalid: {defect}");
    let mut count = 0;
    for row in rows {
        let unreadable = |error: tokio_postgres::Error| invalid(&error.to_string());
        let group: i32 = row.try_get(0).map_err(unreadable)?;
        let lost: Option<i32> = row.try_get(1).map_err(unreadable)?;
        let winner: Option<Vec<u8>> = row.try_get(2).map_err(unreadable)?;
        let raced: bool = row.try_get(3).map_err(unreadable)?;
        let at = usize::try_from(group).ok().filter(|at| pending.contains(at));
        let at = at.ok_or_else(|| invalid("an unknown group"))?;
        count += 1;
        results[at] = match lost {
            Some(index) => {
                let index = usize::try_from(index).map_err(|_| invalid("a negative index"))?;
                Some(CasResult::Lost { index, winner })
            }
            None if raced => None,
            None => Some(CasResult::Done),
        };
    }
    if count == pending.len() { Ok(()) } else { Err(invalid("not one row for each group")) }
}
