//! Nearly all groups there are: claims that expect nothing, and records that take the place of
//! others. Their statement does half of the work of the one for everything (`commit`), which is
//! asked when something was in the way.

use std::collections::HashMap;

use tokio::time::Instant;
use tokio_postgres::Row as Answer;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::connection::{Failed, Link, Sql};
use super::{bigint, uuid_of};
use crate::store::shared::engine::{CasResult, EncodedChange, EncodedRecord, Group};

/// The statement.
pub(super) const QUICK: Sql = Sql {
    text: include_str!("fast_path.sql"),
    types: &[
        Type::UUID_ARRAY,
        Type::BOOL_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BOOL_ARRAY,
        Type::UUID_ARRAY,
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
        Type::UUID_ARRAY,
        Type::UUID,
    ],
};

/// Rows and what they put, in the order of their ids.
#[derive(Debug, Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    several: Vec<bool>,
    expects: Vec<i64>,
    versions: Vec<i64>,
    data: Vec<&'a [u8]>,
    open: Vec<bool>,
    owners: Vec<Option<Uuid>>,
    expires: Vec<Option<i64>>,
    subjects: Vec<Option<Uuid>>,
}

/// A row with what it puts, and whether its group has several.
type Put<'a> = (&'a EncodedChange, &'a EncodedRecord, bool);

impl<'a> Columns<'a> {
    fn of(mut rows: Vec<Put<'a>>) -> Self {
        rows.sort_unstable_by_key(|(row, ..)| row.id);
        let mut columns = Self::default();
        for (row, put, several) in rows {
            columns.ids.push(uuid_of(row.id.as_bytes()));
            columns.several.push(several);
            columns.expects.push(row.expect.unwrap_or_default().cast_signed());
            columns.versions.push(put.head.version.cast_signed());
            columns.data.push(&put.bytes);
            columns.open.push(put.head.open);
            columns.owners.push(put.owner.map(|owner| uuid_of(&owner)));
            columns.expires.push(put.head.expires.map(bigint));
            columns.subjects.push(put.head.subject.map(|subject| uuid_of(&subject)));
        }
        columns
    }
}

/// Whether the statement is for all of these groups.
pub(super) fn fits(groups: &[Group]) -> bool {
    let puts = |group: &Group| group.changes.iter().all(|row| row.put.is_some());
    groups.iter().all(|group| !group.resent && puts(group))
}

/// Makes the groups and says how each ended; `None`: it was not made, and it has to be asked what
/// is in its way. The whole is `None` in another store than this one.
pub(super) async fn commit(
    link: &Link,
    store_id: &Uuid,
    groups: &[Group],
    end: Instant,
) -> Result<Option<Vec<Option<CasResult>>>, Failed> {
    let (mut claims, mut updates) = (Vec::new(), Vec::new());
    for group in groups {
        let several = group.changes.len() > 1;
        for row in &group.changes {
            let Some(put) = &row.put else { continue };
            let rows = if row.expect.is_none() { &mut claims } else { &mut updates };
            rows.push((row, put, several));
        }
    }
    let (claims, updates) = (Columns::of(claims), Columns::of(updates));
    let answers = link
        .change(
            &QUICK,
            &[
                &claims.ids,
                &claims.several,
                &claims.versions,
                &claims.data,
                &claims.open,
                &claims.owners,
                &claims.expires,
                &claims.subjects,
                &updates.ids,
                &updates.several,
                &updates.expects,
                &updates.versions,
                &updates.data,
                &updates.open,
                &updates.owners,
                &updates.expires,
                &updates.subjects,
                store_id,
            ],
            end,
        )
        .await?;
    read(&answers, groups).map_err(|error| {
        Failed::Silent(format!(
            "the server's answer makes no sense: {}",
            super::error::line(&error)
        ))
    })
}

/// What the lines say: one for each row that was not made, and one that says that it is the store.
fn read(
    answers: &[Answer],
    groups: &[Group],
) -> Result<Option<Vec<Option<CasResult>>>, tokio_postgres::Error> {
    let mut missed: HashMap<Uuid, Option<Vec<u8>>> = HashMap::new();
    let mut is_store = false;
    for answer in answers {
        match answer.try_get::<_, Option<Uuid>>(0)? {
            Some(id) => _ = missed.insert(id, answer.try_get(1)?),
            None => is_store = true,
        }
    }
    if !is_store {
        return Ok(None);
    }
    let mut end_of = |group: &Group| {
        // A row of a group of several is never missed alone: the statement fails.
        let first = group.changes.first().map(|row| uuid_of(row.id.as_bytes()));
        match first.and_then(|id| missed.remove(&id)) {
            None => Some(CasResult::Done),
            Some(winner @ Some(_)) => Some(CasResult::Lost { index: 0, winner }),
            Some(None) => None,
        }
    };
    Ok(Some(groups.iter().map(&mut end_of).collect()))
}
