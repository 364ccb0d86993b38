//! Ledger entries of a batch's items: reading their records and planning from them.

use std::borrow::Cow;
use std::sync::Arc;

use crate::idempotency::record::Expiry;
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::{Record, RecordId};
use crate::items::{self, Batch, BatchPlan};
use crate::problem::Problem;
use crate::proxy::reply;
use crate::proxy::request::existing::log_unavailable;
use crate::proxy::state::Gateway;
use crate::store::StoreError;

/// Records of a batch's items, in the order of the batch.
pub(crate) type Records = Vec<Option<Arc<Record>>>;

/// Reads the records of a batch's items.
///
/// # Errors
/// When a record cannot be read; no item may be sent.
pub(crate) async fn read(gateway: &Gateway, ids: &[RecordId]) -> Result<Records, Problem> {
    let records = gateway.store.get_many(ids).await.map_err(|error| unavailable(&error))?;
    let other = |record: &Option<Record>| record.as_ref().is_some_and(|it| it.ledger().is_none());
    if let Some(at) = records.iter().position(other) {
        tracing::error!(
            record = ?ids.get(at),
            "the record is not an item's; the batch was not sent"
        );
        return Err(reply::store_unavailable());
    }
    Ok(records.into_iter().map(|record| record.map(Arc::new)).collect())
}

/// Records for items not yet looked up in the store.
pub(crate) fn unread(ids: &[RecordId]) -> Records {
    vec![None; ids.len()]
}

/// Plans a batch from the records of its items.
pub(crate) fn plan(batch: &Batch, records: &Records, time: ExpiryTime) -> BatchPlan {
    let existing: Vec<Option<items::ExistingItem<'_>>> = records
        .iter()
        .map(|record| {
            let record = record.as_deref()?;
            if forgotten(record, time) {
                return None;
            }
            let fingerprint = &record.fingerprint;
            Some(items::ExistingItem { fingerprint, ledger: record.ledger()? })
        })
        .collect();
    BatchPlan::of(batch, &existing)
}

/// Reports whether a record is of the very item at position `at`.
pub(crate) fn is_same(batch: &Batch, at: usize, record: &Record) -> bool {
    let existing = record.ledger().zip(batch.items.get(at));
    existing.is_some_and(|(ledger, item)| {
        items::ExistingItem { fingerprint: &record.fingerprint, ledger }.is_same(batch, item)
    })
}

/// The records as reported to clients: after the end of the retention only the quantities, whether
/// or not the expiry task has already trimmed the record. Claims are based on the untrimmed
/// records.
pub(crate) fn as_reported(records: &Records, time: ExpiryTime) -> Cow<'_, Records> {
    let due = |record: &Arc<Record>| record.expires().is_some_and(|at| at <= time.at);
    if !records.iter().flatten().any(due) {
        return Cow::Borrowed(records);
    }
    let reported = |record: &Arc<Record>| match record.expired(time) {
        Expiry::Bury(next) => next.into(),
        Expiry::Keep | Expiry::Forget => record.clone(),
    };
    Cow::Owned(records.iter().map(|record| record.as_ref().map(reported)).collect())
}

pub(crate) fn forgotten(record: &Record, time: ExpiryTime) -> bool {
    record.expired(time) == Expiry::Forget
}

pub(crate) fn unavailable(error: &StoreError) -> Problem {
    log_unavailable(error);
    reply::store_unavailable()
}
