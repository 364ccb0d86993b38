//! Repetition of a request whose earlier outcome is unknown, for backends that deduplicate: its
//! claim, its sending, and the meaning of its answer for the earlier tries.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use tokio::time::timeout;

use super::already_done;
use super::claim::{Claimed, Settled};
use super::existing::{unavailable, unknown_reply};
use super::late;
use super::send::{self, SendOutcome, SendRules, kept, respond_undecided, send, unless_pending};
use crate::config::{RepeatMark, RequestMode, ResendRules};
use crate::failpoint::{self, Point};
use crate::idempotency::outcome::{UnknownReason, Verdict};
use crate::idempotency::record::StoredResponse;
use crate::idempotency::retention::Retention;
use crate::idempotency::{Record, RecordId};
use crate::items;
use crate::json::Document;
use crate::problem::Disposition;
use crate::proxy::budget::Reservation;
use crate::proxy::collect::Collected;
use crate::proxy::reply::{self, Reply};
use crate::proxy::responder::Responder;
use crate::proxy::rewrite::forget_bytes;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;
use crate::settle::retry::RetryKind;
use crate::settle::rules::author;
use crate::store::{Change, Swap};

/// The result of a claim to send a request again.
pub(crate) enum Repetition {
    /// The claim is durable.
    Claimed(Box<Claimed>),
    /// The record has changed.
    Lost,
    /// The store did not confirm the claim; nothing was sent.
    Refused(Reply),
}

/// Makes the claim of a repetition durable: `next` takes the place of the version `replacing`.
pub(crate) async fn claim(
    gateway: &Arc<Gateway>,
    id: RecordId,
    (next, replacing): (Record, u64),
    retention: Retention,
    reason: UnknownReason,
) -> Repetition {
    let record = Arc::new(next);
    let change = Change { id, expect: Some(replacing), put: Some(record.clone()) };
    match gateway.store.swap(vec![change]).await {
        Ok(Swap::Done) => {
            let gateway = gateway.clone();
            let claimed = Claimed { gateway, id, record, retention, settled: false };
            Repetition::Claimed(Box::new(claimed))
        }
        Ok(Swap::Lost { .. }) => Repetition::Lost,
        Err(error) => {
            // The claim may become durable, but no request was sent under it.
            let lost = record.lost(reason, gateway.store.now());
            let put = Some(Arc::new(lost));
            let change = Change { id, expect: Some(record.version), put };
            let withdrawal = (record.attempt, RetryKind::Withdrawal);
            gateway.retries.finish(&gateway.store, vec![change], withdrawal, ());
            Repetition::Refused(unavailable(&error))
        }
    }
}

/// A repetition under its claim.
pub(super) struct Repeat<'a> {
    pub(super) route: &'a Route,
    pub(super) mode: &'a RequestMode,
    pub(super) rules: Box<ResendRules>,
    pub(super) claimed: Claimed,
    /// The reason why the outcome was unknown before.
    pub(super) reason: UnknownReason,
    /// [`Store::epoch`](crate::store::Store::epoch) at the time of the claim.
    pub(super) epoch: Option<u64>,
}

/// Sends a request again with the marked `body`, records the outcome and replies.
pub(super) async fn run(
    gateway: &Arc<Gateway>,
    mut repeat: Repeat<'_>,
    (mut request, body, reservation): (Request<Bytes>, Bytes, Reservation),
    responder: Responder,
) {
    failpoint::point(Point::SettleClaimed);
    responder.claimed();
    mark(&mut request, body, &repeat.rules.mark);
    let (route, mode) = (repeat.route, repeat.mode);
    let sending = SendRules {
        route,
        most: mode.record.max_stored_body,
        replayed_header: &mode.duplicates.replayed_header,
        epoch: repeat.epoch,
    };
    let mut backend = pin!(send(gateway, &sending, request, reservation));
    match timeout(route.timeout, backend.as_mut()).await {
        Ok(SendOutcome::Answered(answer)) => {
            failpoint::point(Point::SettleAnswered);
            repeat.answered(answer, responder).await;
            failpoint::point(Point::SettleRecorded);
        }
        Ok(SendOutcome::NotSent(why)) => {
            // Proof about this try only.
            let why = format!("the repetition was not sent: {why}");
            repeat.lose(repeat.reason, &why, None).await;
            repeat.respond_unknown(None, responder);
        }
        Ok(SendOutcome::Lost(reason, detail)) => {
            repeat.lose(repeat.kept_reason(reason), &detail, None).await;
            repeat.respond_unknown(Some(reason), responder);
        }
        Err(_) => {
            let reason = UnknownReason::Timeout;
            let kept = repeat.kept_reason(reason);
            repeat.lose(kept, "the upstream timeout ran out", None).await;
            repeat.respond_unknown(Some(reason), responder);
            let end = timeout(route.timeout, backend).await.ok();
            let end = repeat.without_refusals(end);
            Box::pin(late::settle(route, &mut repeat.claimed, mode, end)).await;
        }
    }
}

impl Repeat<'_> {
    async fn lose(
        &mut self,
        reason: UnknownReason,
        detail: &str,
        answer: Option<Arc<StoredResponse>>,
    ) {
        Box::pin(send::lose(self.route, &mut self.claimed, (reason, detail), answer)).await;
    }

    /// The reason why the outcome is unknown after a repetition that decided nothing: a request
    /// that the backend has accepted stays accepted.
    fn kept_reason(&self, reason: UnknownReason) -> UnknownReason {
        match self.reason {
            pending @ UnknownReason::Pending(_) => pending,
            _ => reason,
        }
    }

    /// Replies after a repetition without an answer, once its record is durable. `lost`: the reason
    /// of a repetition that was sent.
    fn respond_unknown(&self, lost: Option<UnknownReason>, responder: Responder) {
        let retry_after = self.claimed.retry_after(self.route);
        let reply = unknown_reply(self.claimed.record(), retry_after);
        let first = match (&reply, lost) {
            (Reply::Pending { .. }, _) | (_, None) => None,
            (_, Some(reason)) => Some(Err(reply::first_unknown(reason, retry_after))),
        };
        responder.respond(reply, first);
    }

    /// Records an answer to a repetition. A refusal because the first try was executed is no
    /// failure of the request, and proof that this try was not executed says nothing of the first.
    async fn answered(&mut self, answer: Collected, responder: Responder) {
        if let Some(rules) = already_done::rules(self.route, &self.claimed, &answer) {
            let (call, refusal) = ((self.route, &mut self.claimed), (self.reason, answer));
            Box::pin(already_done::answered(call, &rules, refusal, responder)).await;
            return;
        }
        let judgement = answer.judge(&self.mode.outcome);
        match (judgement.verdict, answer.stored()) {
            (Verdict::Final, Some(stored)) => {
                let note = ("resend", "the backend answered a repetition");
                let call = (self.route, &mut self.claimed);
                already_done::recovered(call, stored, note, responder).await;
            }
            (Verdict::Final, None) => {
                let kept = kept(None, &answer);
                let note = author("resend", "the backend answered a repetition");
                let settled = self.claimed.complete(kept, Some(note)).await;
                let reply = match settled {
                    Settled::Recorded { completed, .. } => {
                        let status = answer.status().as_u16();
                        Reply::NotRetained { status, completed }
                    }
                    Settled::NotRecorded | Settled::Otherwise(_) => Reply::Unknown,
                };
                let live = answer.respond(Disposition::Recovered, None);
                responder.respond(reply, Some(Ok(live)));
            }
            (Verdict::Released, stored) => {
                let stored = unless_pending(self.reason, stored);
                self.lose(self.reason, "a repetition was not executed", stored).await;
                let live = (Disposition::Unknown, answer);
                respond_undecided(self.route, &self.claimed, live, responder);
            }
            (Verdict::Unknown, stored) => {
                let reason = self.kept_reason(UnknownReason::Status(answer.status().as_u16()));
                let stored = unless_pending(reason, stored);
                self.lose(reason, &judgement.basis.to_string(), stored).await;
                let live = (Disposition::Unknown, answer);
                respond_undecided(self.route, &self.claimed, live, responder);
            }
            (Verdict::Pending, stored) => {
                let reason = UnknownReason::Pending(answer.status().as_u16());
                self.lose(reason, &judgement.basis.to_string(), stored).await;
                let live = (Disposition::Pending, answer);
                respond_undecided(self.route, &self.claimed, live, responder);
            }
        }
    }

    /// A late end without the answers that say nothing of the first try.
    fn without_refusals(&self, end: Option<SendOutcome>) -> Option<SendOutcome> {
        match end? {
            SendOutcome::Answered(answer)
                if already_done::rules(self.route, &self.claimed, &answer).is_none() =>
            {
                Some(SendOutcome::Answered(answer))
            }
            SendOutcome::Answered(_) | SendOutcome::NotSent(_) => None,
            lost @ SendOutcome::Lost(..) => Some(lost),
        }
    }
}

/// The reason for not sending a request again.
pub(super) const NO_MARK: &str = "the body takes no mark of a repetition";

/// The body with the members that mark a repetition; `None`: the body is not of a kind that takes
/// them. Found out before the claim, because nothing may be sent unmarked.
pub(super) fn marked(body: &Bytes, mark: &RepeatMark) -> Option<Bytes> {
    if mark.body.is_empty() {
        return Some(body.clone());
    }
    let marked = items::with_members(std::str::from_utf8(body).ok()?, &mark.body);
    let document = Document::parse(marked.as_bytes()).ok()?;
    let has_all = mark.body.iter().all(|(at, _)| document.find(at).is_some());
    drop(document);
    has_all.then(|| Bytes::from(marked))
}

/// Marks a repetition.
fn mark(request: &mut Request<Bytes>, body: Bytes, mark: &RepeatMark) {
    if let Some((name, value)) = &mark.header {
        request.headers_mut().insert(name, value.clone());
    }
    if !mark.body.is_empty() {
        // A digest of the body as the client sent it would let the backend refuse the marked one.
        forget_bytes(request.headers_mut());
        *request.body_mut() = body;
    }
}
