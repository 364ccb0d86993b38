//! Replies to a request whose key already has a record.

use std::time::Duration;

use tokio::time::timeout;

use crate::idempotency::{Decision, Fingerprint, Record, RecordId, decide};
use crate::proxy::reply::{self, Reply};
use crate::proxy::state::Gateway;
use crate::store::{Change, StoreError, Swap};

/// How long the answer of a settled record waits for the store to note that it was told. After that
/// it is told all the same, and perhaps once more as the first.
const NOTE_WITHIN: Duration = Duration::from_secs(1);

/// A record as it was read, and what [`RecordCache::generation`](crate::store::cache::RecordCache::generation) gave before.
pub(crate) type ReadRecord<'a> = (&'a Record, u64);

/// What a request is told that could not be claimed: a disk that takes no claims can be read all the
/// same, and what is final there is true. A store on a server that did not answer is not asked again.
pub(crate) async fn without_a_claim(
    gateway: &Gateway,
    id: RecordId,
    claim: &Record,
    error: &StoreError,
) -> Reply {
    if gateway.store.is_shared() {
        return unavailable(error);
    }
    let dropped = gateway.hot.generation();
    let found = gateway.store.get(id).await.ok().flatten();
    let Some(found) = found.filter(|found| found.attempt != claim.attempt) else {
        return unavailable(error);
    };
    match decide(Some(&found), &claim.fingerprint, gateway.store.now()) {
        Decision::Forward { .. } => unavailable(error),
        decision => known(gateway, id, Some((&found, dropped)), decision).await,
    }
}

/// The store did not do what was asked, and nothing was sent.
pub(crate) fn unavailable(error: &StoreError) -> Reply {
    match error {
        StoreError::Unavailable(_) => tracing::error!(%error, "nothing was sent"),
        StoreError::Corrupt { .. } => {
            tracing::error!(%error, "nothing was sent; run `oncegate store verify`");
        }
    }
    Reply::Refused(reply::store_unavailable())
}

/// Looks a key up for a request that does not claim it; `None`: the key is free.
pub(crate) async fn recorded(
    gateway: &Gateway,
    id: RecordId,
    fingerprint: &Fingerprint,
) -> Option<Reply> {
    let dropped = gateway.hot.generation();
    let record = match gateway.store.get(id).await {
        Ok(record) => record?,
        Err(error) => return Some(unavailable(&error)),
    };
    match decide(Some(&record), fingerprint, gateway.store.now()) {
        Decision::Forward { .. } => None,
        decision => Some(known(gateway, id, Some((&record, dropped)), decision).await),
    }
}

/// Reply of an existing record to a request that wanted to claim its key.
pub(crate) async fn known(
    gateway: &Gateway,
    id: RecordId,
    met: Option<ReadRecord<'_>>,
    decision: Decision<'_>,
) -> Reply {
    match decision {
        Decision::Replay { response, expires, recovered } => {
            let mut first = false;
            if let Some((record, dropped)) = met {
                if recovered {
                    first = tell_first(gateway, id, record).await;
                } else {
                    gateway.hot.put_read(id, record.clone(), dropped);
                }
            }
            Reply::Final { response: response.clone(), expires, recovered: first }
        }
        Decision::NotRetained { status, completed } => Reply::NotRetained { status, completed },
        Decision::InProgress => Reply::InProgress,
        Decision::Unknown => Reply::Unknown,
        Decision::Reused { differing } => Reply::Refused(reply::reused(differing)),
        Decision::Expired => Reply::Refused(reply::expired()),
        // The caller tries again instead of telling this.
        Decision::Forward { .. } => Reply::Refused(reply::store_unavailable()),
    }
}

/// Notes that a client is told of a settlement; says whether this client is the first. When the
/// store does not say, it may be: the answer is the same, and true.
async fn tell_first(gateway: &Gateway, id: RecordId, record: &Record) -> bool {
    let change =
        Change { id, expect: Some(record.version), put: Some(record.settlement_reported().into()) };
    match timeout(NOTE_WITHIN, gateway.store.swap(vec![change])).await {
        Ok(Ok(Swap::Done)) => true,
        Ok(Ok(Swap::Lost { .. })) => false,
        Ok(Err(error)) => {
            tracing::debug!(record = ?id, %error, "it could not be noted that a client was told");
            true
        }
        Err(_) => true,
    }
}

/// Reply of a record that was settled while this attempt was still out.
pub(crate) async fn settled_by_other(
    gateway: &Gateway,
    id: RecordId,
    met: Option<ReadRecord<'_>>,
    own: &Record,
) -> Reply {
    let winner = met.map(|(record, _)| record);
    match decide(winner, &own.fingerprint, gateway.store.now()) {
        Decision::Forward { .. } => Reply::Unknown,
        other => known(gateway, id, met, other).await,
    }
}
