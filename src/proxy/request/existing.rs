//! Replies to a request whose key already has a record.

use std::time::Duration;

use tokio::time::timeout;

use crate::idempotency::{Decision, Fingerprint, Record, RecordId, decide};
use crate::observe::repeated::Repeated;
use crate::proxy::reply::{self, Reply};
use crate::proxy::state::Gateway;
use crate::settle::SettleRoute;
use crate::settle::transition::{Advance, Transition, advance};
use crate::store::{Change, StoreError};

/// Time limit for the store to note the delivery of a settlement. After the limit the client gets
/// the answer anyway, and a later client may get the answer marked as the first delivery once more.
const NOTE_WITHIN: Duration = Duration::from_secs(1);

/// A record and the [generation of the cache](crate::store::cache::RecordCache::generation) from
/// before the read.
pub(crate) type ReadRecord<'a> = (&'a Record, u64);

/// The reply after a failed claim. A local disk without room for claims is still readable, and a
/// final record there is valid. A server that just failed to respond is not queried a second time.
pub(crate) async fn without_a_claim(
    gateway: &Gateway,
    id: RecordId,
    claim: &Record,
    error: &StoreError,
) -> Reply {
    if gateway.store.is_shared() {
        return unavailable(error);
    }
    let dropped = gateway.cache.generation();
    let found = gateway.store.get(id).await.ok().flatten();
    let Some(found) = found.filter(|found| found.attempt != claim.attempt) else {
        return unavailable(error);
    };
    match decide(Some(&found), &claim.fingerprint, gateway.store.expiry_time()) {
        Decision::Forward { .. } => unavailable(error),
        decision => reply_for(gateway, id, Some((&found, dropped)), decision).await,
    }
}

static AWAY: Repeated = Repeated::new("the store is unavailable");

/// Logs that the store did not take or give a record, once a minute.
pub(crate) fn log_unavailable(error: &StoreError) {
    if let Some(times) = AWAY.occur() {
        tracing::error!(
            %error, times,
            "the store is unavailable; requests with keys are refused and not sent"
        );
    }
}

/// Reports a failed store operation; the request was not sent.
pub(crate) fn unavailable(error: &StoreError) -> Reply {
    match error {
        StoreError::Unavailable(_) => log_unavailable(error),
        StoreError::Corrupt { .. } => {
            tracing::error!(
                %error,
                "a record is unreadable; the request was not sent; run `oncegate store verify`"
            );
        }
    }
    Reply::Refused(reply::store_unavailable())
}

/// The reply of the key's record to a request without a claim; `None`: the key is free. `settling`:
/// the policy that may settle the record until the request comes again.
pub(crate) async fn lookup(
    gateway: &Gateway,
    settling: Option<&SettleRoute>,
    (id, fingerprint): (RecordId, &Fingerprint),
) -> Option<Reply> {
    let dropped = gateway.cache.generation();
    let record = match gateway.store.get(id).await {
        Ok(record) => record?,
        Err(error) => return Some(unavailable(&error)),
    };
    match decide(Some(&record), fingerprint, gateway.store.expiry_time()) {
        Decision::Forward { .. } => None,
        Decision::Unknown => {
            let after = settling.and_then(|route| gateway.settler.retry_after(&record, route));
            Some(unknown_reply(&record, after))
        }
        decision => Some(reply_for(gateway, id, Some((&record, dropped)), decision).await),
    }
}

/// Reply of an existing record to a request for its key.
pub(crate) async fn reply_for(
    gateway: &Gateway,
    id: RecordId,
    existing: Option<ReadRecord<'_>>,
    decision: Decision<'_>,
) -> Reply {
    match decision {
        Decision::Replay { response, expires, recovered } => {
            let mut first = false;
            if let Some((record, dropped)) = existing {
                if recovered {
                    first = note_delivery(gateway, id, record).await;
                } else {
                    gateway.cache.put_read(id, record.clone(), dropped);
                }
            }
            Reply::Final { response: response.clone(), expires, recovered: first }
        }
        Decision::NotRetained { status, completed } => Reply::NotRetained { status, completed },
        Decision::InProgress => Reply::InProgress,
        Decision::Unknown => {
            existing.map_or(Reply::Unknown, |(record, _)| unknown_reply(record, None))
        }
        Decision::Reused { differing } => Reply::Refused(reply::reused(differing)),
        Decision::Expired => Reply::Refused(reply::expired()),
        // Unreachable for clients: the caller retries the claim instead.
        Decision::Forward { .. } => Reply::Refused(reply::store_unavailable()),
    }
}

/// The reply of a record whose outcome is unknown. `retry_after`: the time until a step that may
/// settle the record.
pub(crate) fn unknown_reply(record: &Record, retry_after: Option<Duration>) -> Reply {
    match (record.pending_answer(), retry_after) {
        (Some(response), _) => Reply::Pending { response: response.clone(), retry_after },
        (None, Some(delay)) => Reply::Unsettled(delay),
        (None, None) => Reply::Unknown,
    }
}

/// Records the delivery of a settlement; returns true for the first client. Without confirmation
/// from the store the answer is true: the reply is valid for every client.
async fn note_delivery(gateway: &Gateway, id: RecordId, record: &Record) -> bool {
    let mut delivery = Delivery { id, record: Some(Box::new(record.clone())) };
    match timeout(NOTE_WITHIN, advance(&*gateway.store, &mut delivery)).await {
        Ok(Advance::Done) => true,
        Ok(Advance::Lost) => false,
        Ok(Advance::Indeterminate(error)) => {
            tracing::debug!(
                record = ?id, %error,
                "the delivery of a settlement could not be recorded"
            );
            true
        }
        Ok(Advance::Contended) | Err(_) => true,
    }
}

/// The transition of a settled record to one whose settlement was delivered. A change of another
/// kind in between, such as a late result that joins the history, is no delivery.
struct Delivery {
    id: RecordId,
    /// The settled record as last known.
    record: Option<Box<Record>>,
}

impl Transition for Delivery {
    fn changes(&mut self) -> Vec<Change> {
        let change = |record: &Record| Change {
            id: self.id,
            expect: Some(record.version),
            put: Some(record.settlement_reported().into()),
        };
        self.record.as_deref().map(change).into_iter().collect()
    }

    fn rebase(&mut self, present: Vec<Option<Record>>) -> bool {
        let present = present.into_iter().flatten().next();
        self.record = present.filter(|record| record.settlement_unreported).map(Box::new);
        self.record.is_some()
    }
}

/// Reply of a record settled while the attempt was still running.
pub(crate) async fn settled_by_other(
    gateway: &Gateway,
    id: RecordId,
    existing: Option<ReadRecord<'_>>,
    own: &Record,
) -> Reply {
    let winner = existing.map(|(record, _)| record);
    match decide(winner, &own.fingerprint, gateway.store.expiry_time()) {
        Decision::Forward { .. } => Reply::Unknown,
        other => reply_for(gateway, id, existing, other).await,
    }
}
