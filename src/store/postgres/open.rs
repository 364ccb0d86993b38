//! Opening a store: finding the tables in a database, or creating tables in an empty database.

use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::PostgresConnection;
use super::error::{RIGHTS_FILE, StatementError, line};
use super::options::PostgresOptions;
use crate::clock::Timestamp;
use crate::store::Identity;
use crate::store::codec::SCHEMA;

/// Script that creates the tables. The part from [`RIGHTS`] on is for operators.
pub(super) const TABLES: &str = include_str!("../../../config/postgres.sql");

/// First line of the part that requires the role `oncegate`.
pub(super) const RIGHTS: &str = "-- Part 2";

/// Version of the tables, which the script inserts too.
const TABLES_VERSION: i32 = 3;

/// Number of attempts. Several gateways may start at once on an empty database: a single gateway
/// creates the tables, and the rest find the tables in a later attempt.
const ATTEMPTS: usize = 5;

/// Existing parts of the schema. The server rejects the query without the right to the schema.
const EXISTING: &str = "SELECT to_regclass('oncegate.store') IS NOT NULL,
       to_regclass('oncegate.record') IS NOT NULL AND to_regclass('oncegate.replica') IS NOT NULL
           AND to_regclass('oncegate.names') IS NOT NULL,
       EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'oncegate')";

const MISSING_RIGHTS: &str =
    "SELECT string_agg(t.name || ' ' || p.name, ', ' ORDER BY t.name, p.name)
       FROM (VALUES ('record'), ('replica'), ('names')) AS t(name),
            (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS p(name)
       WHERE NOT has_table_privilege('oncegate.' || t.name, p.name)";

const IDENTITY: &str = "SELECT store_id, schema, tables, \
     (extract(epoch FROM created) * 1000)::int8 \
     FROM oncegate.store";

/// Finds or creates the store of the database; returns its identity, and true if created.
///
/// # Errors
/// Single-line description of the defect and the remedy.
pub(super) async fn find_or_create(
    connection: &PostgresConnection,
    options: &PostgresOptions,
) -> Result<(Identity, bool), String> {
    for _ in 0..ATTEMPTS {
        if exists(connection, options).await? {
            let identity = read_identity(connection, options).await?;
            return Ok((identity, false));
        }
        if !options.create {
            return Err("the database has no store, and `create` in [store] is false; an emptied \
                        store has lost the keys that were used"
                .to_owned());
        }
        if let Some(expected) = options.expect_id {
            return Err(format!(
                "the database has no store, and `expect_id` asks for {expected}; leave it out to \
                 create one"
            ));
        }
        if create(connection, options).await? {
            return Ok((read_identity(connection, options).await?, true));
        }
    }
    Err(format!(
        "the tables could not be created: other sessions changed the schema in each of {ATTEMPTS} \
         attempts"
    ))
}

async fn exists(
    connection: &PostgresConnection,
    options: &PostgresOptions,
) -> Result<bool, String> {
    let rows = query(connection, options, EXISTING).await?;
    let row = rows.first().ok_or("the server does not report its tables")?;
    let part = |at| column::<bool>(row, at);
    match (part(0)?, part(1)?, part(2)?) {
        (true, true, _) => Ok(true),
        (false, false, false) => Ok(false),
        _ => Err(format!(
            "the schema `oncegate` has some of a store's tables and lacks the others; restore a \
             backup, or drop the schema if no key was ever used, and see {RIGHTS_FILE}"
        )),
    }
}

/// Creates the tables; returns false if a concurrent session was faster.
async fn create(
    connection: &PostgresConnection,
    options: &PostgresOptions,
) -> Result<bool, String> {
    let tables = TABLES.split(RIGHTS).next().unwrap_or(TABLES);
    let text = format!("BEGIN; {tables} COMMIT");
    let deadline = Instant::now() + options.timeout;
    let Err(error) = connection.execute(&text, deadline).await else { return Ok(true) };
    // Leaves the failed transaction.
    let rollback = connection.execute("ROLLBACK", Instant::now() + options.timeout).await;
    match error {
        // Schema, table or index exists, a row of the catalog does, or a deadlock over them.
        StatementError::Rejected { code, .. }
            if ["42P06", "42P07", "23505", "40001", "40P01"].contains(&code.code()) =>
        {
            rollback.map_err(StatementError::reason)?;
            Ok(false)
        }
        StatementError::Rejected { code, reason } if code.code() == "42501" => Err(format!(
            "the role may not create the store's tables; run {RIGHTS_FILE} as the owner of the \
             database ({reason})"
        )),
        other => Err(format!("the tables could not be created: {}", other.reason())),
    }
}

async fn read_identity(
    connection: &PostgresConnection,
    options: &PostgresOptions,
) -> Result<Identity, String> {
    let missing = query(connection, options, MISSING_RIGHTS).await?;
    if let Some(missing) = missing.first().and_then(|row| row.try_get::<_, String>(0).ok()) {
        return Err(format!(
            "the role lacks rights on the tables of `oncegate`: {missing}; grant them as \
             {RIGHTS_FILE} does"
        ));
    }
    let rows = query(connection, options, IDENTITY).await?;
    let row = rows.first().ok_or(
        "the schema `oncegate` has no row in its table `store`; restore a backup, or drop the \
         schema if no key was ever used",
    )?;
    let store_id: Uuid = column(row, 0)?;
    let (schema, tables): (i32, i32) = (column(row, 1)?, column(row, 2)?);
    check_versions(schema, tables)?;
    if let Some(expected) = options.expect_id
        && expected != store_id
    {
        return Err(format!("the store is {store_id}, and `expect_id` asks for {expected}"));
    }
    let created = u64::try_from(column::<i64>(row, 3)?).unwrap_or(0);
    Ok(Identity { store_id, schema: SCHEMA, created: Timestamp::from_millis(created) })
}

fn check_versions(schema: i32, tables: i32) -> Result<(), String> {
    let supported = i32::try_from(SCHEMA).unwrap_or(i32::MAX);
    if schema > supported || tables > TABLES_VERSION {
        return Err(format!(
            "the store was made by a newer version (schema {schema}, tables {tables}); this \
             version supports schema {supported}, tables {TABLES_VERSION}: run the newer version"
        ));
    }
    if schema < supported || tables < TABLES_VERSION {
        return Err(format!(
            "the store was made by an older version (schema {schema}, tables {tables}) and this \
             version supports schema {supported}, tables {TABLES_VERSION} only; settle every key \
             in it with that version, then drop the schema `oncegate`"
        ));
    }
    Ok(())
}

async fn query(
    connection: &PostgresConnection,
    options: &PostgresOptions,
    text: &str,
) -> Result<Vec<Row>, String> {
    let deadline = Instant::now() + options.timeout;
    connection.query_unprepared(text, &[], deadline).await.map_err(StatementError::reason)
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, String> {
    row.try_get(at).map_err(|error| line(&error))
}

#[cfg(test)]
mod tests {
    use super::{RIGHTS, SCHEMA, TABLES, TABLES_VERSION};

    #[test]
    fn the_script_has_two_parts_and_the_current_versions() {
        let parts: Vec<&str> = TABLES.split(RIGHTS).collect();
        let [tables, rights] = parts[..] else { panic!("{} parts", parts.len()) };
        assert!(tables.contains("CREATE TABLE") && !tables.contains("GRANT "));
        assert!(rights.contains("GRANT ") && !rights.contains("CREATE "));
        let numbers = format!("::uuid, {SCHEMA}, {TABLES_VERSION});");
        assert!(tables.contains(&numbers), "{numbers}");
    }
}
