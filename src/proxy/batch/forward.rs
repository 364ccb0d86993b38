//! The half of a batch that a client's disconnect cannot cancel: claim what is missing, send it,
//! read what became of each item, record it, tell.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;

use super::claim::{Claiming, Start};
use super::claims::{ClaimedItems, Recorded};
use super::ledger::{Records, as_told};
use super::read::BatchInput;
use super::response;
use crate::clock::Timestamp;
use crate::config::ItemsMode;
use crate::failpoint::{self, Point};
use crate::idempotency::ledger::{Doubt, ItemOutcome};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::outcome::Verdict as StatusVerdict;
use crate::idempotency::{RecordId, TenantId};
use crate::items::{self, BatchOutcome, BatchPlan, ResponseShape, join};
use crate::problem::{Disposition, Problem};
use crate::proxy::answer::{AnswerResult, quota_exceeded, too_many_claims};
use crate::proxy::batch_locks::{LockName, LockSet};
use crate::proxy::budget::Reservation;
use crate::proxy::buffered::BufferedRequest;
use crate::proxy::collect::Collected;
use crate::proxy::inflight::Share;
use crate::proxy::request::forward::{self, SendOutcome, SendRules};
use crate::proxy::routing::{Route, Routing};
use crate::proxy::state::Gateway;
use crate::proxy::{reply, rewrite};

/// Bytes of an answer that are read in any case: what it says was issued has to be known, however
/// small the answers are that a route keeps.
const READ: u64 = 16 << 20;

/// The duty to tell the client what came of its batch, and to let the next one go.
pub(crate) struct BatchResponder {
    pub(crate) hold: LockSet,
    pub(crate) first: oneshot::Sender<AnswerResult>,
}

impl BatchResponder {
    fn tell(self, answer: AnswerResult) {
        // First: a client that sends its next batch at once must not meet this one.
        drop(self.hold);
        // The client may have gone; nobody is harmed.
        let _ = self.first.send(answer);
    }

    /// Tells that time ran out. The call is still open: no other batch with one of these
    /// `serialize_by` values may begin before it has ended.
    fn tell_and_keep(self, serial: Vec<LockName>) -> LockSet {
        let kept = self.hold.keep(serial);
        let _ = self.first.send(Err(reply::outcome_unknown(StatusCode::GATEWAY_TIMEOUT)));
        kept
    }
}

/// Permits that a call holds while it runs: a place among the claims at once, and a share of its
/// tenant's quota.
pub(crate) struct CallPermits {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share>,
}

impl CallPermits {
    /// # Errors
    /// When there is none; nothing was claimed.
    pub(crate) fn take(
        gateway: &Gateway,
        routing: &Routing,
        tenant: TenantId,
    ) -> Result<Self, Problem> {
        let permit = gateway.claims.clone().try_acquire_owned();
        let _permit = permit.map_err(|_| too_many_claims())?;
        let share = routing.quota.as_ref().map(|quota| quota.take(tenant));
        let _share = share.map(|share| share.ok_or_else(quota_exceeded)).transpose()?;
        Ok(Self { _permit, _share })
    }
}

/// Starts the call in a task that outlives the request.
pub(crate) fn lead(
    gateway: &Arc<Gateway>,
    rules: (Arc<Route>, Arc<ItemsMode>),
    start: Start,
    conclusion: BatchResponder,
    places: CallPermits,
) {
    let task = run(gateway.clone(), rules, start, conclusion, places);
    gateway.tasks.spawn(Box::pin(task));
}

/// Everything about a call from its claim on.
struct ItemsCall<'a> {
    mode: &'a ItemsMode,
    batch: items::Batch,
    records: Records,
    plan: BatchPlan,
}

async fn run(
    gateway: Arc<Gateway>,
    (route, mode): (Arc<Route>, Arc<ItemsMode>),
    start: Start,
    conclusion: BatchResponder,
    places: CallPermits,
) {
    failpoint::point(Point::BeforeClaim);
    let life = gateway.store.life();
    if life.is_none() {
        // The claim would be refused as well; so there is certainly none to take back.
        return conclusion.tell(Err(reply::store_unavailable()));
    }
    let mut claiming = Claiming { gateway: &gateway, route: &route, mode: &mode, start };
    let claim = claiming.claim().await;
    let Start { intake, records, plan, .. } = claiming.start;
    let (mut claimed, body) = match claim {
        Ok(claimed) => claimed,
        Err(answer) => return conclusion.tell(answer),
    };
    failpoint::point(Point::AfterClaim);
    if gateway.store.life() != life {
        // Others may take this process for dead, and the call for one that was lost.
        claimed.release().await;
        return conclusion.tell(Err(reply::store_unavailable()));
    }
    let BatchInput { batch, whole, .. } = *intake;
    let BufferedRequest { mut head, peer, body: received, reservation } = whole;
    if body != received {
        response::forget_bytes(&mut head.headers);
    }
    let request = rewrite::to_backend(&route, head, peer, body, true);
    let call = ItemsCall { mode: &mode, batch, records, plan };
    let sending = SendRules {
        route: &route,
        most: mode.record.max_stored_body.max(READ),
        replayed_header: &mode.duplicates.replayed_header,
        life,
    };
    let patience = route.timeout;
    let mut backend = pin!(forward::send(&gateway, &sending, request, reservation));
    let end = match timeout(patience, backend.as_mut()).await {
        Ok(end) => end,
        Err(_) => {
            let serial = call.batch.serial.iter().copied().map(RecordId::from_bytes).collect();
            claimed.keep_turns();
            lose(&mut claimed, UnknownReason::Timeout, "the upstream timeout ran out").await;
            let alone = conclusion.tell_and_keep(serial);
            call.late(&mut claimed, timeout(patience, backend).await.ok()).await;
            claimed.give_back_turns().await;
            drop(alone);
            return;
        }
    };
    failpoint::point(Point::AfterAnswer);
    match end {
        SendOutcome::NotSent(reason) => {
            tracing::warn!(items = claimed.len(), reason, "the backend could not be reached");
            claimed.release().await;
            conclusion.tell(Err(forward::unreachable()));
        }
        SendOutcome::Lost(reason, detail) => {
            lose(&mut claimed, reason, &detail).await;
            conclusion.tell(Err(reply::outcome_unknown(StatusCode::BAD_GATEWAY)));
        }
        SendOutcome::Answered(answer) => call.answered(&mut claimed, answer, conclusion).await,
    }
    drop(places);
}

async fn lose(claimed: &mut ClaimedItems, reason: UnknownReason, detail: &str) {
    tracing::warn!(items = claimed.len(), ?reason, detail, "the outcome of items is unknown");
    claimed.lose(reason).await;
}

impl ItemsCall<'_> {
    /// A whole answer, or as much of it as may be held: records what it means, then tells.
    async fn answered(
        mut self,
        claimed: &mut ClaimedItems,
        answer: Collected,
        conclusion: BatchResponder,
    ) {
        let (head, body, held) = match answer.into_whole() {
            Ok(whole) => whole,
            Err(answer) => {
                let status = answer.status();
                tracing::warn!(%status, "an answer was too large to read; its items are unknown");
                claimed.record(false, |_, ledger| ledger.conclude(&UNREADABLE)).await;
                // The client may read in it what the gateway cannot.
                return conclusion.tell(Ok(answer.respond(Disposition::Unknown, None)));
            }
        };
        let (joined, released) = self.join(head.status, &body);
        let recorded = claimed.record(released, |at, entry| entry.conclude(said(&joined, at)));
        let recorded = recorded.await;
        failpoint::point(Point::AfterCompletion);
        conclusion.tell(self.tell(head, &body, held, &joined, (recorded, released), claimed.now()));
    }

    /// What an answer says of each item, and whether it says that the call was not executed at all.
    fn join(&self, status: StatusCode, body: &Bytes) -> (BatchOutcome, bool) {
        let mode = self.mode;
        let response = items::BackendResponse { status: status.as_u16(), body };
        let joined = join(&mode.rules, &mode.outcome, &self.batch, &self.plan, &response);
        let released = joined.shape == ResponseShape::Refused
            && mode.outcome.verdict(status.as_u16()) == StatusVerdict::Released;
        for (at, outcome) in joined.outcomes.iter().enumerate() {
            if let Some(ItemOutcome::Unknown { doubt, .. }) = outcome {
                tracing::warn!(item = at, %status, %doubt, "what became of an item is unknown");
            }
        }
        if joined.surplus > 0 {
            tracing::warn!(rows = joined.surplus, "an answer has rows that are no item's");
        }
        (joined, released)
    }

    fn tell(
        &mut self,
        head: http::response::Parts,
        body: &Bytes,
        held: Option<Reservation>,
        joined: &BatchOutcome,
        (recorded, released): (Recorded, bool),
        now: Timestamp,
    ) -> AnswerResult {
        let Recorded { records: recorded_now, durable } = recorded;
        if joined.shape == ResponseShape::Unreadable {
            let status = match head.status {
                StatusCode::GATEWAY_TIMEOUT => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::BAD_GATEWAY,
            };
            return Err(reply::outcome_unknown(status));
        }
        if let Cow::Owned(told) = as_told(&self.records, now) {
            self.records = told;
        }
        // What this call concluded is told as it is.
        for (at, record) in recorded_now {
            self.records[at] = Some(record);
        }
        let disposition = match (durable, released) {
            (false, _) => Disposition::Unrecorded,
            (true, true) => Disposition::NotExecuted,
            (true, false) => Disposition::Executed,
        };
        let brought = response::BackendPart { head, body, joined, disposition };
        response::merged(self.mode, &self.batch, &self.records, Some(brought), held)
    }

    /// After the timeout the client has been told and the items are unknown; what the same attempt
    /// still brings is the truth and settles them. `None`: nothing came in a second timeout's time.
    async fn late(self, claimed: &mut ClaimedItems, end: Option<SendOutcome>) {
        match end {
            None | Some(SendOutcome::Lost(..)) => {}
            Some(SendOutcome::NotSent(_)) => {
                claimed.record(true, |_, entry| entry.conclude(&ItemOutcome::NOTHING)).await;
            }
            Some(SendOutcome::Answered(answer)) => {
                let Ok((head, body, _held)) = answer.into_whole() else { return };
                let (joined, released) = self.join(head.status, &body);
                claimed.record(released, |at, entry| entry.conclude(said(&joined, at))).await;
                tracing::info!(items = claimed.len(), "a late answer settled the outcome");
            }
        }
    }
}

static UNREADABLE: ItemOutcome = ItemOutcome::Unknown { doubt: Doubt::Unreadable, row: None };

/// What an answer says of the item at this place.
fn said(joined: &BatchOutcome, at: usize) -> &ItemOutcome {
    joined.outcomes.get(at).and_then(Option::as_ref).unwrap_or(&UNREADABLE)
}
