//! Observe mode: requests are passed through exactly as on a route without keys, and beside them a
//! task does what request mode would do with the store. Nothing of it reaches the client or the
//! backend: neither a wait nor a refusal nor a failure of the store.
//!
//! The first final answer of a key is kept, so that its record is honored when the route becomes
//! one of request mode.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::answer::AnswerResult;
use super::capture::{Capture, CapturedEnd, CapturedUpload};
use super::incoming::Arrived;
use super::passthrough;
use super::reply::Reply;
use super::request::claim::{ClaimRefusal, Claimed};
use super::request::draft::ClaimDraft;
use super::request::read::{self, KeyedRead, KeyedRequest, ReadInput};
use super::request::send::kept;
use super::request::suspect;
use super::routing::Route;
use super::state::Gateway;
use crate::config::RequestMode;
use crate::idempotency::key::KeyError;
use crate::idempotency::outcome::{UnknownReason, Verdict};
use crate::idempotency::{Fingerprint, Key, RecordId, State};
use crate::observe::exchange;
use crate::observe::repeated::Repeated;
use crate::problem::{Disposition, Problem, STATUS, Slug};

static NOT_OBSERVED: Repeated = Repeated::new("a request was not observed");

/// Passes a request through and observes it.
pub(crate) async fn through(
    gateway: &Arc<Gateway>,
    route: &Arc<Route>,
    mode: &Arc<RequestMode>,
    arrived: Box<Arrived<'_>>,
    disposition: Option<Disposition>,
) -> AnswerResult {
    let capture = match gateway.claims.try_acquire() {
        Some(permit) => Some(observe(gateway, route, mode, &arrived, permit)),
        None => {
            not_observed(route, "too many calls are in flight");
            None
        }
    };
    passthrough::through(route, arrived, disposition, capture).await
}

fn not_observed(route: &Route, reason: &str) {
    if let Some(times) = NOT_OBSERVED.occur() {
        tracing::warn!(
            route = &*route.name,
            times,
            reason,
            "a request in observe mode was passed on and not recorded"
        );
    }
}

/// A request that is observed.
struct Observed {
    gateway: Arc<Gateway>,
    route: Arc<Route>,
    mode: Arc<RequestMode>,
    /// `None`: taken by the task.
    input: Option<ReadInput>,
    /// The key, unless a place of the key is in the body.
    from_head: Option<Result<Key, KeyError>>,
    /// The bound of the tasks at once.
    _permit: OwnedSemaphorePermit,
}

/// Starts the task beside the exchange; returns the copies that it waits for.
fn observe(
    gateway: &Arc<Gateway>,
    route: &Arc<Route>,
    mode: &Arc<RequestMode>,
    arrived: &Arrived<'_>,
    permit: OwnedSemaphorePermit,
) -> Capture {
    let (capture, uploaded, ended) = Capture::new(
        (gateway.budget.reserve(), route.max_buffered),
        (gateway.budget.reserve(), mode.record.max_stored_body),
    );
    let Arrived { head, path, client, caller, routing, .. } = arrived;
    let input = ReadInput {
        parameters: routing.parameters(&head.method, path.of(&head.uri)),
        caller: caller.clone(),
        head: head.clone(),
        path: path.clone(),
        client: client.address(&routing.trusted_proxies),
        ids: gateway.store.ids().clone(),
    };
    let observed = Observed {
        gateway: gateway.clone(),
        route: route.clone(),
        mode: mode.clone(),
        from_head: (!mode.key.places.in_body()).then(|| read::key_in_head(mode, arrived)),
        input: Some(input),
        _permit: permit,
    };
    gateway.tasks.spawn(exchange::carried(Box::pin(observed.run(uploaded, ended))));
    capture
}

impl Observed {
    async fn run(
        mut self,
        uploaded: oneshot::Receiver<CapturedUpload>,
        ended: oneshot::Receiver<CapturedEnd>,
    ) {
        let (body, reservation) = match uploaded.await {
            Ok(CapturedUpload::Whole(body, reservation)) => (body, reservation),
            Ok(CapturedUpload::TooLarge) => return self.count(Slug::BodyTooLarge.as_str()),
            Ok(CapturedUpload::OutOfMemory) => {
                return not_observed(&self.route, "the memory for bodies is used up");
            }
            // The client's upload broke off.
            Err(_) => return,
        };
        let body = (body, reservation);
        let Some(input) = self.input.take() else { return };
        match read::identified(&self.route, &self.mode, input, self.from_head.take(), body) {
            Ok(KeyedRead::Keyed(request)) => self.keyed(*request, ended).await,
            Ok(KeyedRead::Keyless(_)) => self.count(Disposition::Bypassed.as_str()),
            Err(problem) => self.count(problem.slug.as_str()),
        }
    }

    /// Records a request with a valid key.
    async fn keyed(self, request: KeyedRequest, ended: oneshot::Receiver<CapturedEnd>) {
        let (gateway, mode) = (&self.gateway, &*self.mode);
        let identity = match request.identify(mode) {
            Ok(identity) => identity,
            Err(problem) => return self.count(problem.slug.as_str()),
        };
        let fingerprint = identity.compared.fingerprint(&request.tenant);
        let compared = (&fingerprint, identity.subject);
        let refused = suspect::search(&self.gateway, &self.mode, &request, compared).await.err();
        let retention = mode.record.retention;
        let draft = ClaimDraft {
            route: &self.route,
            tenant: request.tenant,
            caller: request.caller,
            key: request.key,
            subject: identity.subject,
            fingerprint: fingerprint.clone(),
            values: None,
        };
        let (id, new) = (request.id, draft.into_record(gateway));
        // Nothing waits: a claim in flight in another process is reported at once.
        let claim = Claimed::claim(gateway, id, new, (&self.route, retention), Instant::now());
        let claimed = match claim.await {
            Ok(claimed) => claimed,
            Err(ClaimRefusal::Reply(reply)) => {
                return self.count_existing(id, outcome_of(reply, mode));
            }
            Err(ClaimRefusal::Unknown(_)) => {
                self.count_existing(id, Slug::OutcomeUnknown.as_str());
                return self.settle(id, &fingerprint, ended).await;
            }
        };
        let outcome = record(claimed, mode, ended.await.ok()).await;
        match refused {
            Some(problem) => self.count_existing(id, problem.slug.as_str()),
            None => self.count(outcome),
        }
    }

    /// Completes a record that was unknown: this call was made after all, and its final answer is
    /// the first of the key.
    async fn settle(
        &self,
        id: RecordId,
        fingerprint: &Fingerprint,
        ended: oneshot::Receiver<CapturedEnd>,
    ) {
        let Ok(CapturedEnd::Answered(answer)) = ended.await else { return };
        if answer.judge(&self.mode.outcome).verdict != Verdict::Final {
            return;
        }
        let Ok(Some(record)) = self.gateway.store.get(id).await else { return };
        let is_same = record.fingerprint.is_same_request(fingerprint);
        if is_same && matches!(record.state, State::Unknown { .. }) {
            let retention = self.mode.record.retention;
            let mut adopted = Claimed::adopt(&self.gateway, id, record, retention);
            let stored = answer.stored();
            adopted.complete(kept(stored.as_ref(), &answer), None).await;
        }
    }

    /// Counts a request that request mode would have answered from the record of its key.
    fn count_existing(&self, id: RecordId, outcome: &'static str) {
        tracing::info!(
            record = %id, outcome,
            "request mode would have answered this request without a call"
        );
        self.count(outcome);
    }

    fn count(&self, outcome: &'static str) {
        self.gateway.metrics.observed(&self.route.name, outcome).inc();
    }
}

/// Records the end of a call; returns the outcome as request mode would have reported it. `None`:
/// the exchange broke off.
async fn record(
    mut claimed: Claimed,
    mode: &RequestMode,
    end: Option<CapturedEnd>,
) -> &'static str {
    let disposition = match end {
        Some(CapturedEnd::NotSent) => {
            claimed.release().await;
            return Slug::UpstreamUnreachable.as_str();
        }
        Some(CapturedEnd::Lost(reason)) => {
            claimed.lose(reason, None).await;
            return Slug::OutcomeUnknown.as_str();
        }
        None => {
            claimed.lose(UnknownReason::ConnectionLost, None).await;
            return Slug::OutcomeUnknown.as_str();
        }
        Some(CapturedEnd::Answered(answer)) => match answer.judge(&mode.outcome).verdict {
            Verdict::Released => {
                claimed.release().await;
                Disposition::NotExecuted
            }
            Verdict::Pending => {
                let reason = UnknownReason::Pending(answer.status().as_u16());
                claimed.lose(reason, answer.stored()).await;
                Disposition::Pending
            }
            Verdict::Unknown => {
                let reason = UnknownReason::Status(answer.status().as_u16());
                claimed.lose(reason, answer.stored()).await;
                Disposition::Unknown
            }
            Verdict::Final => {
                let stored = answer.stored();
                claimed.complete(kept(stored.as_ref(), &answer), None).await;
                Disposition::Executed
            }
        },
    };
    disposition.as_str()
}

/// The outcome that request mode would have reported: the slug of its problem, else the
/// disposition.
fn outcome_of(reply: Reply, mode: &RequestMode) -> &'static str {
    match reply.replay(&mode.duplicates.replayed_header) {
        Ok(response) => {
            let shown = response.headers().get(STATUS).map(|value| value.as_bytes());
            let of = |disposition: &&Disposition| shown == Some(disposition.as_str().as_bytes());
            let dispositions = crate::problem::DISPOSITIONS.iter();
            dispositions.clone().find(of).map_or("passed", |disposition| disposition.as_str())
        }
        Err(Problem { slug, .. }) => slug.as_str(),
    }
}
