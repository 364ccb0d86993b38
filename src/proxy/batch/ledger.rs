//! Ledger entries of a batch's items: reading their records and planning from them.

use std::borrow::Cow;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::idempotency::record::Expiry;
use crate::idempotency::{Record, RecordId};
use crate::items::{self, Batch, BatchPlan};
use crate::problem::Problem;
use crate::proxy::reply;
use crate::proxy::state::Gateway;
use crate::store::StoreError;

/// Records of a batch's items, in the order of the batch.
pub(crate) type Records = Vec<Option<Arc<Record>>>;

/// Reads the records of all items.
///
/// # Errors
/// When one cannot be read: nothing may be sent for the batch.
pub(crate) async fn read(gateway: &Gateway, ids: &[RecordId]) -> Result<Records, Problem> {
    let records = gateway.store.get_many(ids).await.map_err(|error| unavailable(&error))?;
    let other = |record: &Option<Record>| record.as_ref().is_some_and(|it| it.ledger().is_none());
    if let Some(at) = records.iter().position(other) {
        tracing::error!(record = ?ids.get(at), "this record is not an item's; nothing was sent");
        return Err(reply::store_unavailable());
    }
    Ok(records.into_iter().map(|record| record.map(Arc::new)).collect())
}

/// The records of items that nothing is known of.
pub(crate) fn unread(ids: &[RecordId]) -> Records {
    vec![None; ids.len()]
}

/// Plans a batch from the records of its items.
pub(crate) fn plan(batch: &Batch, records: &Records, now: Timestamp) -> BatchPlan {
    let known: Vec<Option<items::ExistingItem<'_>>> = records
        .iter()
        .map(|record| {
            let record = record.as_deref()?;
            if forgotten(record, now) {
                return None;
            }
            Some(items::ExistingItem {
                digest: &record.fingerprint.digest,
                ledger: record.ledger()?,
            })
        })
        .collect();
    BatchPlan::of(batch, &known)
}

/// The records as clients are told of them: of those whose retention has ended the quantities alone,
/// whether or not the sweeper has been there. What is claimed is claimed of the records as they were
/// read.
pub(crate) fn as_told(records: &Records, now: Timestamp) -> Cow<'_, Records> {
    let due = |record: &Arc<Record>| record.expires().is_some_and(|at| at <= now);
    if !records.iter().flatten().any(due) {
        return Cow::Borrowed(records);
    }
    let told = |record: &Arc<Record>| match record.expired(now) {
        Expiry::Bury(next) => next.into(),
        Expiry::Keep | Expiry::Forget => record.clone(),
    };
    Cow::Owned(records.iter().map(|record| record.as_ref().map(told)).collect())
}

pub(crate) fn forgotten(record: &Record, now: Timestamp) -> bool {
    record.expired(now) == Expiry::Forget
}

pub(crate) fn unavailable(error: &StoreError) -> Problem {
    tracing::error!(%error, "nothing was sent");
    reply::store_unavailable()
}
