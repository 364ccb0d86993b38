//! The names under which keys are kept: the row of the table `names`.

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::error::{StatementError, other_store};
use super::pool::ConnectionPool;
use super::statement::SqlStatement;
use super::values::to_uuid;
use crate::idempotency::record::Nonce;
use crate::store::NamesDocument;
use crate::store::shared::engine::EngineError;

const READ: SqlStatement = SqlStatement {
    text: "SELECT n.version, n.data FROM oncegate.store AS s LEFT JOIN oncegate.names AS n ON true \
           WHERE s.store_id = $1",
    types: &[Type::UUID],
};

const INSERT: SqlStatement = SqlStatement {
    text: "INSERT INTO oncegate.names (version, data) \
           SELECT 1, $2 FROM oncegate.store AS s WHERE s.store_id = $1 \
           ON CONFLICT (one) DO NOTHING RETURNING version",
    types: &[Type::UUID, Type::BYTEA],
};

const REPLACE: SqlStatement = SqlStatement {
    text: "UPDATE oncegate.names SET version = version + 1, data = $2 \
           WHERE version = $3 AND (SELECT s.store_id FROM oncegate.store AS s) = $1 \
           RETURNING version",
    types: &[Type::UUID, Type::BYTEA, Type::INT8],
};

const LIVE_OWNERS: SqlStatement = SqlStatement {
    text: "SELECT id FROM oncegate.replica \
           WHERE id = ANY ($1::uuid[]) AND lease_until > clock_timestamp()",
    types: &[Type::UUID_ARRAY],
};

pub(super) async fn read(
    pool: &ConnectionPool,
    store_id: &Uuid,
) -> Result<Option<NamesDocument>, EngineError> {
    let rows = pool.query(&pool.control, &READ, &[store_id]).await;
    let rows = rows.map_err(StatementError::of_read)?;
    let row = rows.first().ok_or_else(other_store)?;
    let (Ok(version), Ok(data)) = (row.try_get::<_, Option<i64>>(0), row.try_get(1)) else {
        return Err(EngineError::Rejected("the table oncegate.names cannot be read".to_owned()));
    };
    let version = version.and_then(|version| u64::try_from(version).ok());
    Ok(version.zip(data).map(|(version, bytes)| NamesDocument { version, bytes }))
}

pub(super) async fn replace(
    pool: &ConnectionPool,
    store_id: &Uuid,
    expect: Option<u64>,
    bytes: &[u8],
) -> Result<bool, EngineError> {
    let rows = match expect {
        None => pool.query(&pool.control, &INSERT, &[store_id, &bytes]).await?,
        Some(version) => {
            let version = i64::try_from(version).unwrap_or(i64::MAX);
            pool.query(&pool.control, &REPLACE, &[store_id, &bytes, &version]).await?
        }
    };
    Ok(!rows.is_empty())
}

pub(super) async fn live_owners(
    pool: &ConnectionPool,
    owners: &[Nonce],
) -> Result<Vec<Nonce>, EngineError> {
    let owners: Vec<Uuid> = owners.iter().map(to_uuid).collect();
    let rows = pool.query(&pool.control, &LIVE_OWNERS, &[&owners]).await;
    let rows = rows.map_err(StatementError::of_read)?;
    let id = |row: &tokio_postgres::Row| row.try_get::<_, Uuid>(0).map(|id| *id.as_bytes());
    let unreadable = |_| EngineError::Rejected("the table oncegate.replica is unreadable".into());
    rows.iter().map(id).collect::<Result<_, _>>().map_err(unreadable)
}
