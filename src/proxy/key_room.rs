//! Room for new keys of a caller, where `stored_keys_per_tenant` limits them.

use super::state::Gateway;
use crate::idempotency::{RecordId, TenantId};
use crate::store::StoreError;
use crate::store::key_counts::KeyRoom;

/// Room for the keys among `ids` that are new; `None`: the caller has as many as it may have.
///
/// Only where there is no room for all are the stored ones told from the new ones, by a read. A
/// claim of stored keys is lost, and decided by their records.
///
/// # Errors
/// A failure of the store.
pub(crate) async fn key_room<'a>(
    gateway: &'a Gateway,
    tenant: &TenantId,
    ids: &[RecordId],
) -> Result<Option<KeyRoom<'a>>, StoreError> {
    let counts = &gateway.key_counts;
    if let Ok(room) = counts.reserve(tenant, ids) {
        return Ok(Some(room));
    }
    let stored = gateway.store.get_many(ids).await?;
    let absent = ids.iter().zip(stored).filter(|(_, record)| record.is_none());
    let absent: Vec<RecordId> = absent.map(|(id, _)| *id).collect();
    Ok(counts.reserve(tenant, &absent).ok())
}
