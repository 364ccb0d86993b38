//! The half of a batch beyond the reach of a client's disconnect: claim the unsent items, send,
//! read and record the outcome of every item, reply.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::response;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;

use super::claim::{Claiming, Start};
use super::claims::{ClaimedItems, Recorded};
use super::envelope::KeptEnvelope;
use super::ledger::{Records, as_reported};
use super::read::BatchInput;
use super::response as answers;
use super::unsettled;
use crate::config::{AlreadyDone, ItemsMode};
use crate::failpoint::{self, Point};
use crate::idempotency::ledger::{Doubt, ItemOutcome};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::{RecordId, TenantId};
use crate::items::{self, BatchOutcome, BatchPlan, ResponseShape, join};
use crate::json::Document;
use crate::matcher::{self, HeaderView, MatchInput};
use crate::observe::exchange;
use crate::problem::{Disposition, Problem};
use crate::proxy::answer::{AnswerResult, is_prevented, quota_exceeded, too_many_claims};
use crate::proxy::batch_locks::{LockName, LockSet};
use crate::proxy::budget::Reservation;
use crate::proxy::buffered::BufferedRequest;
use crate::proxy::collect::Collected;
use crate::proxy::inflight::Share;
use crate::proxy::request::forward;
use crate::proxy::request::send::{self, SendOutcome, SendRules};
use crate::proxy::routing::{Route, Routing};
use crate::proxy::state::Gateway;
use crate::proxy::{reply, rewrite};
use crate::settle::contradiction::{self, CallResult};

/// Minimum limit for reading an answer: the issued items must be determined even on routes with a
/// small limit for stored bodies.
const READ: u64 = 16 << 20;

/// The duty to answer the client of a batch and to release its locks.
pub(crate) struct BatchResponder {
    pub(crate) hold: LockSet,
    pub(crate) first: oneshot::Sender<AnswerResult>,
}

impl BatchResponder {
    fn respond(self, answer: AnswerResult) {
        // The locks are released first: a client's next batch must not conflict with its previous
        // batch.
        drop(self.hold);
        // A failed send means a disconnected client; the records are durable all the same.
        let _ = self.first.send(answer);
    }

    /// Answers the client after the timeout. The request to the backend is still open, so the locks
    /// of the `serialize_by` values stay held until its end.
    fn respond_and_keep(self, serial: Vec<LockName>, retry_after: Option<Duration>) -> LockSet {
        let kept = self.hold.keep(serial);
        let problem = reply::first_unknown(UnknownReason::Timeout, retry_after);
        let _ = self.first.send(Err(problem));
        kept
    }
}

/// Permits held by a batch in flight: a claim permit, and a share of the tenant's quota.
pub(crate) struct CallPermits {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share>,
}

impl CallPermits {
    /// # Errors
    /// When the limit or the quota is exhausted; no claim was made.
    pub(crate) fn take(
        gateway: &Gateway,
        routing: &Routing,
        tenant: TenantId,
    ) -> Result<Self, Problem> {
        let _permit = gateway.claims.try_acquire().ok_or_else(too_many_claims)?;
        let share = routing.quota.as_ref().map(|quota| quota.take(tenant));
        let _share = share.map(|share| share.ok_or_else(quota_exceeded)).transpose()?;
        Ok(Self { _permit, _share })
    }
}

/// Starts the batch in a task independent of the client's connection.
pub(crate) fn lead(
    gateway: &Arc<Gateway>,
    rules: (Arc<Route>, Arc<ItemsMode>),
    start: Start,
    responder: BatchResponder,
    permits: CallPermits,
) {
    let task = run(gateway.clone(), rules, start, responder, permits);
    gateway.tasks.spawn(exchange::carried(Box::pin(task)));
}

/// State of a batch from its claim on.
struct ItemsCall<'a> {
    gateway: &'a Arc<Gateway>,
    route: &'a Route,
    mode: &'a ItemsMode,
    batch: items::Batch,
    records: Records,
    plan: BatchPlan,
}

async fn run(
    gateway: Arc<Gateway>,
    (route, mode): (Arc<Route>, Arc<ItemsMode>),
    start: Start,
    responder: BatchResponder,
    permits: CallPermits,
) {
    failpoint::point(Point::BeforeClaim);
    let epoch = gateway.store.epoch();
    if epoch.is_none() {
        // Without a lease the claim would be refused as well, so no claim has to be withdrawn.
        return responder.respond(Err(reply::store_unavailable()));
    }
    let mut claiming = Claiming { gateway: &gateway, route: &route, mode: &mode, start };
    let claim = claiming.claim().await;
    let Start { input, records, plan, .. } = claiming.start;
    let (mut claimed, body) = match claim {
        Ok(claimed) => claimed,
        Err(answer) => {
            if is_prevented(&answer) {
                route.metrics.prevented(plan.items.len());
            }
            return responder.respond(answer);
        }
    };
    route.metrics.prevented(plan.items.len() - plan.sent().count());
    failpoint::point(Point::AfterClaim);
    if gateway.store.epoch() != epoch {
        // Between claim and dispatch the lease ended. Another process may already have declared
        // this process dead and the items lost.
        claimed.release().await;
        return responder.respond(Err(reply::store_unavailable()));
    }
    let BatchInput { batch, buffered, tenant, .. } = *input;
    let target = buffered.head.uri.path_and_query().map_or("", |target| target.as_str());
    let parts = [target.as_bytes(), &buffered.body];
    let without_caller = gateway.callers.digest(&route, &buffered.head.headers, &parts);
    gateway.callers.claimed(without_caller, tenant, &route);
    let BufferedRequest { mut head, client, body: received, reservation } = buffered;
    if body != received {
        rewrite::forget_bytes(&mut head.headers);
    }
    let request = rewrite::to_backend(&route, head, client, body, true);
    let call = ItemsCall { gateway: &gateway, route: &route, mode: &mode, batch, records, plan };
    let sending = SendRules {
        route: &route,
        most: mode.record.max_stored_body.max(READ),
        replayed_header: &mode.duplicates.replayed_header,
        epoch,
    };
    let time_limit = route.timeout;
    let mut backend = pin!(send::send(&gateway, &sending, request, reservation));
    let end = match timeout(time_limit, backend.as_mut()).await {
        Ok(end) => end,
        Err(_) => {
            let serial = call.batch.serial.iter().copied().map(RecordId::from_bytes).collect();
            claimed.keep_locks();
            lose(&mut claimed, UnknownReason::Timeout, "the upstream timeout ran out").await;
            let still_locked = responder.respond_and_keep(serial, claimed.retry_after());
            call.settle_late(&mut claimed, timeout(time_limit, backend).await.ok()).await;
            claimed.release_locks().await;
            drop(still_locked);
            return;
        }
    };
    failpoint::point(Point::AfterAnswer);
    match end {
        SendOutcome::NotSent(reason) => {
            tracing::warn!(items = claimed.len(), reason, "the backend could not be reached");
            claimed.release().await;
            responder.respond(Err(forward::unreachable()));
        }
        SendOutcome::Lost(reason, detail) => {
            lose(&mut claimed, reason, &detail).await;
            responder.respond(Err(reply::first_unknown(reason, claimed.retry_after())));
        }
        SendOutcome::Answered(answer) => call.answered(&mut claimed, answer, responder).await,
    }
    drop(permits);
}

async fn lose(claimed: &mut ClaimedItems, reason: UnknownReason, detail: &str) {
    tracing::warn!(items = claimed.len(), ?reason, detail, "the outcome of items is unknown");
    claimed.lose(reason).await;
}

impl ItemsCall<'_> {
    /// Records the verdict on an answer, then replies. An answer too large to buffer leaves the
    /// items unknown.
    async fn answered(
        mut self,
        claimed: &mut ClaimedItems,
        answer: Collected,
        responder: BatchResponder,
    ) {
        let (head, body, held) = match answer.into_whole() {
            Ok(buffered) => buffered,
            Err(answer) => {
                let status = answer.status();
                tracing::warn!(
                    %status,
                    "the answer was too large to read; the outcome of its items is unknown"
                );
                claimed.record(false, |_, ledger| ledger.conclude(&UNREADABLE)).await;
                // The client may understand the answer even if the gateway cannot.
                return responder.respond(Ok(answer.respond(Disposition::Unknown, None)));
            }
        };
        let joined = self.join(&head, &body);
        let kept = KeptEnvelope::of(&head, &body, (&joined, &self.plan), claimed.now());
        let recorded = claimed.record(joined.released, |at, entry| {
            Ok(kept.keep(at, entry.conclude(outcome_at(&joined, at))?))
        });
        let recorded = recorded.await;
        failpoint::point(Point::AfterCompletion);
        responder.respond(self.answer(head, &body, held, &joined, recorded, claimed.expiry_time()));
    }

    /// The outcome of every item by the answer.
    fn join(&self, head: &response::Parts, body: &Bytes) -> BatchOutcome {
        let (mode, status) = (self.mode, head.status);
        let headers = HeaderView::Map(&head.headers);
        let response = items::BackendResponse { status: status.as_u16(), headers, body };
        let mut joined = join(&mode.rules, &mode.outcome, &self.batch, &self.plan, &response);
        joined.reduce_repeats(&self.plan, |row| self.is_done(status.as_u16(), row));
        for (at, outcome) in joined.outcomes.iter().enumerate() {
            if let Some(ItemOutcome::Unknown { doubt, .. }) = outcome {
                tracing::warn!(item = at, %status, %doubt, "the outcome of an item is unknown");
            }
        }
        if joined.surplus > 0 {
            tracing::warn!(
                rows = joined.surplus,
                "the answer has rows that belong to no item; they are ignored"
            );
        }
        joined
    }

    fn answer(
        &mut self,
        head: response::Parts,
        body: &Bytes,
        held: Option<Reservation>,
        joined: &BatchOutcome,
        recorded: Recorded,
        time: ExpiryTime,
    ) -> AnswerResult {
        let Recorded { records: recorded_now, decided, durable } = recorded;
        self.contradict(&decided, joined);
        if joined.shape == ResponseShape::Unreadable {
            // The client may understand the answer even if the gateway cannot.
            return Ok(answers::as_it_came(head, body.clone(), held));
        }
        if let Cow::Owned(reported) = as_reported(&self.records, time) {
            self.records = reported;
        }
        // Records from this attempt's own outcome are reported unchanged.
        for (at, record) in recorded_now {
            self.records[at] = Some(record);
        }
        let disposition = match (durable, joined.released) {
            (false, _) => Disposition::Unrecorded,
            (true, true) => Disposition::NotExecuted,
            (true, false) => Disposition::Executed,
        };
        let backend = answers::BackendPart { head, body, joined, disposition };
        let retry_after = unsettled::retry_after(self.gateway, self.route, &self.records);
        answers::merged(self.mode, &self.batch, &self.records, Some(backend), (retry_after, held))
    }

    /// Reports the row of a refusal because an earlier try was executed.
    fn is_done(&self, status: u16, row: &str) -> bool {
        let policy = self.route.settle.as_ref().map(|settle| &settle.plan.policy);
        let rules = policy.and_then(|policy| policy.already_done());
        let rules = rules.filter(|rules| rules.then == AlreadyDone::Succeed);
        let (Some(rules), Ok(row)) = (rules, Document::parse(row.as_bytes())) else { return false };
        matcher::any(&rules.matchers, &MatchInput::row(status, row.root()))
    }

    /// Keeps the outcomes of items that somebody else had decided about, with their records.
    fn contradict(&self, decided: &[(RecordId, usize)], joined: &BatchOutcome) {
        for (id, at) in decided {
            let ItemOutcome::Issued { units, .. } = outcome_at(joined, *at) else { continue };
            let what = format!("the call's own answer came late, with {units} issued");
            let (settler, result) = (self.gateway.settler.clone(), CallResult::Units(*units));
            let kept = contradiction::keep(settler, *id, what, result);
            self.gateway.tasks.spawn(kept);
        }
    }

    /// Settles items after the timeout, with the late end of the same attempt. The client already
    /// has the reply "unknown", yet the attempt's real outcome is authoritative. `None`: still no
    /// answer after a second timeout.
    async fn settle_late(self, claimed: &mut ClaimedItems, end: Option<SendOutcome>) {
        match end {
            None | Some(SendOutcome::Lost(..)) => {}
            Some(SendOutcome::NotSent(_)) => {
                claimed.record(true, |_, entry| entry.conclude(&ItemOutcome::NOTHING)).await;
            }
            Some(SendOutcome::Answered(answer)) => {
                let Ok((head, body, _held)) = answer.into_whole() else { return };
                let joined = self.join(&head, &body);
                let kept = KeptEnvelope::of(&head, &body, (&joined, &self.plan), claimed.now());
                let recorded = claimed.record(joined.released, |at, entry| {
                    Ok(kept.keep(at, entry.conclude(outcome_at(&joined, at))?))
                });
                let Recorded { decided, .. } = recorded.await;
                self.contradict(&decided, &joined);
                tracing::info!(items = claimed.len(), "a late answer settled the outcome");
            }
        }
    }
}

static UNREADABLE: ItemOutcome = ItemOutcome::Unknown { doubt: Doubt::Unreadable, row: None };

/// The outcome of the item at position `at`.
fn outcome_at(joined: &BatchOutcome, at: usize) -> &ItemOutcome {
    joined.outcomes.get(at).and_then(Option::as_ref).unwrap_or(&UNREADABLE)
}
