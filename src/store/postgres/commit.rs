//! Groups of changes as one statement, and what the server's answer says about each.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row as Answer;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::connection::{Failed, Link, Sql};
use super::{bigint, fast_path, uuid_of};
use crate::store::shared::engine::{CasResult, EncodedChange, EngineError, Group};

/// How often groups that met a race with somebody else are asked again. Each time the server is
/// asked with what the others had made by then, so that a second time is seldom needed.
const TRIES: usize = 10;

/// Between two tries, times the number of tries so far.
const PAUSE: Duration = Duration::from_millis(2);

/// The statement.
pub(super) const COMMIT: Sql = Sql {
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
        Type::UUID_ARRAY,
        Type::UUID,
    ],
};

pub(super) const OTHER_STORE: &str = "the database holds another store than the one that was opened, or none; \
                           restart to open it";

/// The statement's parameters: the rows of some groups, in the order of their ids.
#[derive(Debug, Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    groups: Vec<i32>,
    positions: Vec<i32>,
    expects: Vec<Option<i64>>,
    resent: Vec<bool>,
    data: Vec<Option<&'a [u8]>>,
    versions: Vec<Option<i64>>,
    open: Vec<Option<bool>>,
    owners: Vec<Option<Uuid>>,
    expires: Vec<Option<i64>>,
    subjects: Vec<Option<Uuid>>,
}

impl<'a> Columns<'a> {
    fn of(groups: &'a [Group], asked: &[usize]) -> Self {
        let mut rows: Vec<(usize, usize, &EncodedChange)> = Vec::new();
        for &at in asked {
            rows.extend(groups[at].changes.iter().enumerate().map(|(pos, row)| (at, pos, row)));
        }
        rows.sort_unstable_by_key(|(_, _, row)| row.id);
        let mut columns = Self::default();
        for (at, pos, row) in rows {
            // A batch is far smaller; a number that wrapped would be nobody's answer.
            columns.groups.push(at as i32);
            columns.positions.push(pos as i32);
            columns.resent.push(groups[at].resent);
            columns.push(row);
        }
        columns
    }

    fn push(&mut self, row: &'a EncodedChange) {
        let put = row.put.as_ref();
        self.ids.push(uuid_of(row.id.as_bytes()));
        self.expects.push(row.expect.map(u64::cast_signed));
        self.data.push(put.map(|put| put.bytes.as_slice()));
        self.versions.push(put.map(|put| put.head.version.cast_signed()));
        self.open.push(put.map(|put| put.head.open));
        self.owners.push(put.and_then(|put| put.owner).map(|owner| uuid_of(&owner)));
        self.expires.push(put.and_then(|put| put.head.expires).map(bigint));
        self.subjects.push(put.and_then(|put| put.head.subject).map(|subject| uuid_of(&subject)));
    }

    fn parameters<'p>(&'p self, store_id: &'p Uuid) -> [&'p (dyn ToSql + Sync); 12] {
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
            &self.expires,
            &self.subjects,
            store_id,
        ]
    }
}

/// Makes the groups in this store, with an answer for each until `end`.
pub(super) async fn commit(
    link: &Link,
    store_id: &Uuid,
    groups: &[Group],
    end: Instant,
) -> Result<Vec<CasResult>, EngineError> {
    let mut results: Vec<Option<CasResult>> = groups.iter().map(|_| None).collect();
    if link.is_tuned() && fast_path::fits(groups) {
        match fast_path::commit(link, store_id, groups, end).await {
            Ok(Some(ends)) => results = ends,
            Ok(None) => return Err(EngineError::Rejected(OTHER_STORE.to_owned())),
            Err(failed) if raced(&failed) => {}
            Err(failed) => return Err(failed.into()),
        }
    }
    let mut asked: Vec<usize> = (0..groups.len()).filter(|at| results[*at].is_none()).collect();
    if asked.is_empty() {
        return Ok(results.into_iter().flatten().collect());
    }
    for tried in 0..TRIES {
        if tried > 0 {
            tokio::time::sleep(PAUSE * tried as u32).await;
        }
        let columns = Columns::of(groups, &asked);
        match link.change(&COMMIT, &columns.parameters(store_id), end).await {
            Ok(answers) if answers.is_empty() => {
                return Err(unsure_if_any(&results, EngineError::Rejected(OTHER_STORE.to_owned())));
            }
            Ok(answers) => {
                note(&answers, &asked, &mut results).map_err(EngineError::Indeterminate)?
            }
            Err(failed) if raced(&failed) => {}
            Err(failed) => return Err(unsure_if_any(&results, failed.into())),
        }
        asked.retain(|at| results[*at].is_none());
        if asked.is_empty() {
            return Ok(results.into_iter().flatten().collect());
        }
    }
    let refused = format!("others changed the same records in each of {TRIES} tries");
    Err(unsure_if_any(&results, EngineError::Rejected(refused)))
}

/// Whether the server undid the statement because of what others did meanwhile.
fn raced(failed: &Failed) -> bool {
    let Failed::Said { code, .. } = failed else { return false };
    [
        // See the end of the statement: only it divides.
        SqlState::DIVISION_BY_ZERO,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        // Where rows are serializable, a conflict may come as this instead of being passed over.
        SqlState::UNIQUE_VIOLATION,
    ]
    .contains(code)
}

/// What an error means once a part of the groups is made: not that nothing was changed.
fn unsure_if_any(results: &[Option<CasResult>], trouble: EngineError) -> EngineError {
    let made = results.iter().any(|result| matches!(result, Some(CasResult::Done)));
    match trouble {
        EngineError::Rejected(reason) if made => EngineError::Indeterminate(reason),
        other => other,
    }
}

/// Takes the answers down. Each group that was asked must have one; those that met a race have
/// none after it.
fn note(
    answers: &[Answer],
    asked: &[usize],
    results: &mut [Option<CasResult>],
) -> Result<(), String> {
    let odd = |what: &str| format!("the server's answer makes no sense: {what}");
    let mut answered = 0;
    for answer in answers {
        let unreadable = |error: tokio_postgres::Error| odd(&error.to_string());
        let group: i32 = answer.try_get(0).map_err(unreadable)?;
        let lost: Option<i32> = answer.try_get(1).map_err(unreadable)?;
        let winner: Option<Vec<u8>> = answer.try_get(2).map_err(unreadable)?;
        let unmade: bool = answer.try_get(3).map_err(unreadable)?;
        let at = usize::try_from(group).ok().filter(|at| asked.contains(at));
        let at = at.ok_or_else(|| odd("a group that was not asked"))?;
        answered += 1;
        results[at] = match lost {
            Some(index) => {
                let index = usize::try_from(index).map_err(|_| odd("a row below zero"))?;
                Some(CasResult::Lost { index, winner })
            }
            None if unmade => None,
            None => Some(CasResult::Done),
        };
    }
    if answered == asked.len() { Ok(()) } else { Err(odd("not one line for each group")) }
}
