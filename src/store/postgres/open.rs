//! Finding the store in a database, and making it in an empty one.

use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Options;
use super::connection::{Failed, Link};
use super::error::RIGHTS_FILE;
use crate::clock::Timestamp;
use crate::store::Identity;
use crate::store::codec::SCHEMA;

/// The tables. What follows [`RIGHTS`] is for operators.
pub(super) const TABLES: &str = include_str!("../../../config/postgres.sql");

/// Begins the part that needs the role `oncegate`.
pub(super) const RIGHTS: &str = "-- Part 2";

/// The version of the tables; stands in the file as well.
const TABLES_VERSION: i32 = 1;

/// Several gateways may start at once on an empty database; one makes the tables, and the others
/// find them when they look again.
const TRIES: usize = 5;

/// What of the schema there is. Without the right to use it, the question is refused.
const LOOK: &str = "SELECT to_regclass('oncegate.store') IS NOT NULL,
       to_regclass('oncegate.record') IS NOT NULL AND to_regclass('oncegate.replica') IS NOT NULL,
       EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'oncegate')";

const RIGHTS_OF: &str = "SELECT string_agg(t.name || ' ' || p.name, ', ' ORDER BY t.name, p.name)
       FROM (VALUES ('record'), ('replica')) AS t(name),
            (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS p(name)
       WHERE NOT has_table_privilege('oncegate.' || t.name, p.name)";

const IDENTITY: &str = "SELECT store_id, schema, tables, (extract(epoch FROM created) * 1000)::int8 \
     FROM oncegate.store";

/// The store of the database, and whether it was made just now.
///
/// # Errors
/// One line: what is wrong and what to do.
pub(super) async fn find_or_create(
    link: &Link,
    options: &Options,
) -> Result<(Identity, bool), String> {
    for _ in 0..TRIES {
        if is_there(link, options).await? {
            let identity = identity(link, options).await?;
            return Ok((identity, false));
        }
        if !options.create {
            return Err("the database has no store, and `create` in [store] is false; an emptied \
                        store has forgotten which keys were used"
                .to_owned());
        }
        if let Some(expected) = options.expect_id {
            return Err(format!(
                "the database has no store, and `expect_id` asks for {expected}; leave it out to \
                 create one"
            ));
        }
        if create(link, options).await? {
            return Ok((identity(link, options).await?, true));
        }
    }
    Err(format!("the tables could not be created: others were at it in each of {TRIES} tries"))
}

async fn is_there(link: &Link, options: &Options) -> Result<bool, String> {
    let rows = ask(link, options, LOOK).await?;
    let row = rows.first().ok_or("the server does not say which tables it has")?;
    let said = |at| column::<bool>(row, at);
    match (said(0)?, said(1)?, said(2)?) {
        (true, true, _) => Ok(true),
        (false, false, false) => Ok(false),
        _ => Err(format!(
            "the schema `oncegate` has some of a store's tables and not others; restore a backup, \
             or drop the schema if no key was ever used, and see {RIGHTS_FILE}"
        )),
    }
}

/// Makes the tables; says whether it was this process.
async fn create(link: &Link, options: &Options) -> Result<bool, String> {
    let tables = TABLES.split(RIGHTS).next().unwrap_or(TABLES);
    let text = format!("BEGIN; {tables} COMMIT");
    let end = Instant::now() + options.timeout;
    let Err(failed) = link.run(&text, end).await else { return Ok(true) };
    // Leaves the transaction that failed.
    let undone = link.run("ROLLBACK", Instant::now() + options.timeout).await;
    match failed {
        // Schema, table or index exists, a row of the catalog does, or a deadlock over them.
        Failed::Said { code, .. }
            if ["42P06", "42P07", "23505", "40001", "40P01"].contains(&code.code()) =>
        {
            undone.map_err(reason_of)?;
            Ok(false)
        }
        Failed::Said { code, reason } if code.code() == "42501" => Err(format!(
            "the role may not create the store's tables; run {RIGHTS_FILE} as the owner of the \
             database ({reason})"
        )),
        other => Err(format!("the tables could not be created: {}", reason_of(other))),
    }
}

async fn identity(link: &Link, options: &Options) -> Result<Identity, String> {
    let missing = ask(link, options, RIGHTS_OF).await?;
    if let Some(missing) = missing.first().and_then(|row| row.try_get::<_, String>(0).ok()) {
        return Err(format!(
            "the role lacks rights on the tables of `oncegate`: {missing}; grant them as \
             {RIGHTS_FILE} does"
        ));
    }
    let rows = ask(link, options, IDENTITY).await?;
    let row = rows.first().ok_or(
        "the schema `oncegate` has no row in its table `store`; restore a backup, or drop the \
         schema if no key was ever used",
    )?;
    let store_id: Uuid = column(row, 0)?;
    let (schema, tables): (i32, i32) = (column(row, 1)?, column(row, 2)?);
    let known = i32::try_from(SCHEMA).unwrap_or(i32::MAX);
    if schema > known || tables > TABLES_VERSION {
        return Err(format!(
            "the store was made by a newer version (schema {schema}, tables {tables}); this one \
             knows schema {known}, tables {TABLES_VERSION}: run the newer version"
        ));
    }
    if schema < known || tables < TABLES_VERSION {
        return Err(format!(
            "the store was made by an older version (schema {schema}, tables {tables}) and this one \
             knows schema {known}, tables {TABLES_VERSION} only; settle every key in it with that \
             version, then drop the schema `oncegate`"
        ));
    }
    if let Some(expected) = options.expect_id
        && expected != store_id
    {
        return Err(format!("the store is {store_id}, and `expect_id` asks for {expected}"));
    }
    let created = u64::try_from(column::<i64>(row, 3)?).unwrap_or(0);
    Ok(Identity { store_id, schema: SCHEMA, created: Timestamp::from_millis(created) })
}

async fn ask(link: &Link, options: &Options, text: &str) -> Result<Vec<Row>, String> {
    let end = Instant::now() + options.timeout;
    link.ask_once(text, &[], end).await.map_err(reason_of)
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, String> {
    row.try_get(at).map_err(|error| super::error::line(&error))
}

fn reason_of(failed: Failed) -> String {
    failed.of_question().reason().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{RIGHTS, SCHEMA, TABLES, TABLES_VERSION};

    #[test]
    fn the_file_has_two_parts_and_this_versions_numbers() {
        let parts: Vec<&str> = TABLES.split(RIGHTS).collect();
        let [tables, rights] = parts[..] else { panic!("{} parts", parts.len()) };
        assert!(tables.contains("CREATE TABLE") && !tables.contains("GRANT "));
        assert!(rights.contains("GRANT ") && !rights.contains("CREATE "));
        let numbers = format!("::uuid, {SCHEMA}, {TABLES_VERSION});");
        assert!(tables.contains(&numbers), "{numbers}");
    }
}
