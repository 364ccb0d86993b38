//! A claim, from its durable record to its durable outcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::existing::{reply_for, settled_by_other, unavailable, without_a_claim};
use crate::clock::Timestamp;
use crate::idempotency::history::{HistoryEvent, Note};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::StoredResponse;
use crate::idempotency::retention::Retention;
use crate::idempotency::{Answer, Decision, Record, RecordId, State, decide};
use crate::nonce;
use crate::proxy::answer::too_many_keys;
use crate::proxy::budget::Reservation;
use crate::proxy::key_room::key_room;
use crate::proxy::reply::{self, Reply};
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;
use crate::settle::retry::RetryKind;
use crate::settle::transition::{
    Advance, ClaimTransition, MAX_TRIES, Rebase, Transition as _, advance,
};
use crate::settle::{SettleRoute, contradiction};
use crate::store::{Change, ListPosition, Swap};

/// A durable claim. A drop without a recorded outcome (a panic, a runtime shutdown) queues the
/// outcome "unknown".
pub(crate) struct Claimed {
    pub(super) gateway: Arc<Gateway>,
    pub(super) id: RecordId,
    /// The record as last written by the attempt.
    pub(super) record: Arc<Record>,
    pub(super) retention: Retention,
    pub(super) settled: bool,
}

/// The record that won the swap, and the cache generation from before the swap.
pub(crate) struct Existing(Option<Box<Record>>, u64);

/// The refusal of a claim.
pub(crate) enum ClaimRefusal {
    /// The reply of the existing record.
    Reply(Reply),
    /// The outcome of the existing record is unknown, and the request is the same.
    Unknown(Box<Record>),
}

impl From<Reply> for ClaimRefusal {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// Result of recording a final answer.
pub(crate) enum Settled {
    /// The answer is durable.
    Recorded { expires: Option<Timestamp>, completed: Timestamp },
    /// The store did not confirm the answer.
    NotRecorded,
    /// The record was settled by an operator or another process; see [`Claimed::otherwise`].
    Otherwise(Existing),
}

impl Claimed {
    /// Makes the claim durable, or returns the reply of the existing record. A claim in flight in
    /// another process is awaited, at most until `until`.
    pub(crate) async fn claim(
        gateway: &Arc<Gateway>,
        id: RecordId,
        mut record: Arc<Record>,
        (route, retention): (&Route, Retention),
        until: Instant,
    ) -> Result<Self, ClaimRefusal> {
        let mut expect = None;
        let mut archived = None;
        let room = key_room(gateway, &record.tenant, &[id]).await;
        let room = room.map_err(|error| unavailable(&error))?;
        let mut room = room.ok_or_else(|| Reply::Refused(too_many_keys()))?;
        for _ in 0..MAX_TRIES {
            let dropped = gateway.cache.generation();
            let mut changes = vec![Change { id, expect, put: Some(record.clone()) }];
            changes.extend(archived.take());
            let winner = match gateway.store.swap(changes).await {
                Ok(Swap::Done) => {
                    if expect.is_none() {
                        room.keep(&[ListPosition::of(&id, &record)]);
                    }
                    let gateway = gateway.clone();
                    return Ok(Self { gateway, id, record, retention, settled: false });
                }
                // The predecessor stands in the archive already.
                Ok(Swap::Lost { index: 1.., .. }) => continue,
                Ok(Swap::Lost { winner, .. }) => {
                    if winner.is_some() {
                        // A stored key takes no room while it waits for its owner.
                        room.give_back();
                    }
                    winner
                }
                Err(error) => {
                    room.doubt();
                    withdraw(gateway, id, &record, retention);
                    return Err(without_a_claim(gateway, id, &record, &error).await.into());
                }
            };
            let winner = match winner {
                // A different request under the same key is refused at once, whatever the outcome
                // of the first.
                Some(winner)
                    if winner.state == State::InFlight
                        && winner.fingerprint.is_same_request(&record.fingerprint) =>
                {
                    wait_for_owner(gateway, id, winner, (route, until)).await?
                }
                other => other,
            };
            let decision =
                decide(winner.as_deref(), &record.fingerprint, gateway.store.expiry_time());
            match decision {
                Decision::Forward { replacing } => {
                    expect = replacing;
                    archived = winner.as_deref().and_then(|before| archive(id, before, &record));
                    let claim = Arc::make_mut(&mut record);
                    // The request may have waited for another call of its key.
                    claim.dispatched_at(gateway.store.now());
                    claim.renew(winner.as_deref(), nonce::number());
                }
                Decision::Unknown if winner.is_some() => {
                    return Err(winner.map_or(Reply::Abandoned.into(), ClaimRefusal::Unknown));
                }
                other => {
                    let existing = winner.as_deref().map(|record| (record, dropped));
                    return Err(reply_for(gateway, id, existing, other).await.into());
                }
            }
        }
        tracing::error!(
            record = ?id,
            "the record kept changing during the claim; the request was not sent"
        );
        Err(Reply::Refused(reply::store_unavailable()).into())
    }

    /// A record with an unknown outcome, to be completed by a call that was made all the same.
    pub(crate) fn adopt(
        gateway: &Arc<Gateway>,
        id: RecordId,
        record: Record,
        retention: Retention,
    ) -> Self {
        // Nothing is owed to the record: dropped without an answer, it stays unknown.
        Self { gateway: gateway.clone(), id, record: Arc::new(record), retention, settled: true }
    }

    pub(crate) fn id(&self) -> RecordId {
        self.id
    }

    /// Records a final answer for later duplicates. `note`: the reason by which an unknown outcome
    /// is settled.
    pub(crate) async fn complete(&mut self, answer: Answer, note: Option<Note>) -> Settled {
        let (now, retention) = (self.gateway.store.now(), self.retention);
        let cache = self.gateway.cache.clone();
        let (mut generation, mut expires) = (cache.generation(), None);
        let ended = self
            .advance(Some(Rebase::Answer), |record| {
                // Read before each swap: a purge in between must keep the answer out of the cache.
                generation = cache.generation();
                let mut next = record.completed(answer.clone(), retention, now);
                if let Some(note) = &note {
                    next.step(HistoryEvent::Executed, note.clone(), now);
                }
                expires = next.expires();
                Some(Arc::new(next))
            })
            .await;
        match ended {
            Ended::Done => {
                if self.gateway.store.is_shared() {
                    // Cached, so that an early retry is answered even during an outage of the
                    // store.
                    cache.put_completed(self.id, &self.record, generation);
                }
                Settled::Recorded { expires, completed: now }
            }
            Ended::Lost(winner) => Settled::Otherwise(Existing(winner, generation)),
            Ended::NotRecorded => Settled::NotRecorded,
        }
    }

    /// The reply of a record settled by an operator or another process. Call only for an actual
    /// client: the reply may be the first report of an operator's settlement.
    pub(crate) async fn otherwise(&self, Existing(winner, dropped): Existing) -> Reply {
        let existing = winner.as_deref().map(|record| (record, dropped));
        settled_by_other(&self.gateway, self.id, existing, &self.record).await
    }

    /// Records an unknown outcome, with the answer that arrived. An already unknown record is left
    /// unchanged.
    pub(crate) async fn lose(
        &mut self,
        reason: UnknownReason,
        answer: Option<Arc<StoredResponse>>,
    ) {
        let now = self.gateway.store.now();
        let step = |record: &Record| Some(Arc::new(record.lost_with(reason, answer.clone(), now)));
        // A late end of an earlier try may have been noted while a repetition was under way.
        self.advance(Some(Rebase::Loss), step).await;
    }

    /// Keeps a late answer of the call that decides nothing, and plans the next step from it.
    pub(crate) async fn answered_late(
        &mut self,
        route: &Route,
        reason: UnknownReason,
        answer: Option<Arc<StoredResponse>>,
    ) {
        let now = self.gateway.store.now();
        let step = |record: &Record| Some(record.answered_late(reason, answer.clone(), now).into());
        let ended = self.advance(Some(Rebase::Answer), step).await;
        if let (Ended::Done, Some(settle)) = (ended, &route.settle) {
            self.plan(settle);
        }
    }

    /// The record as last written by the attempt.
    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Time until a retry may settle the outcome; `None`: no retry does.
    pub(crate) fn retry_after(&self, route: &Route) -> Option<Duration> {
        self.gateway.settler.retry_after(&self.record, route.settle.as_deref()?)
    }

    /// Plans the settlement of the unknown outcome.
    pub(crate) fn plan(&self, route: &SettleRoute) {
        self.gateway.settler.plan(self.id, &self.record, route);
    }

    /// Keeps the call's own result, which came after somebody else had decided.
    pub(crate) fn contradict(&self, what: String, executed: bool) {
        let settler = self.gateway.settler.clone();
        let result = contradiction::CallResult::Executed(executed);
        self.gateway.tasks.spawn(contradiction::keep(settler, self.id, what, result));
    }

    /// Frees the key: the backend has certainly not acted. Earlier decisions of operators about the
    /// record are kept.
    pub(crate) async fn release(&mut self) {
        let (now, retention) = (self.gateway.store.now(), self.retention);
        let step = |record: &Record| record.freed(retention, now).map(Arc::new);
        self.advance(Some(Rebase::Release), step).await;
    }

    /// Changes the record by `step`; with a `rebase` even after another process declared this
    /// process dead, unless an operator has decided since. An unconfirmed change is retried in the
    /// background.
    async fn advance(
        &mut self,
        rebase: Option<Rebase>,
        mut step: impl FnMut(&Record) -> Option<Arc<Record>> + Send,
    ) -> Ended {
        // The store writes a copy of the answer.
        let mut copy = self.gateway.budget.reserve();
        let step = |record: &Record| {
            let next = step(record);
            copy.hold_copy(next.as_ref().map_or(0, |next| next.body_bytes() as u64));
            next
        };
        let mut transition = ClaimTransition::new(self.id, self.record.clone(), step);
        if let Some(rebase) = rebase {
            transition = transition.with_rebase(rebase);
        }
        let ended = advance(&*self.gateway.store, &mut transition).await;
        self.settled = true;
        match ended {
            Advance::Done => {
                if transition.has_removed() {
                    let at = ListPosition::of(&self.id, &transition.record);
                    self.gateway.key_counts.removed(&self.record.tenant, &at);
                }
                self.record = transition.into_record();
                Ended::Done
            }
            Advance::Lost => {
                tracing::warn!(
                    record = ?self.id,
                    "the record was already settled by an operator or another process; it stays so"
                );
                self.record = transition.record;
                Ended::Lost(transition.winner)
            }
            Advance::Contended => {
                tracing::error!(
                    record = ?self.id,
                    "the record kept changing; the outcome of its call is not recorded"
                );
                Ended::NotRecorded
            }
            Advance::Indeterminate(error) => {
                tracing::error!(
                    record = ?self.id, %error,
                    "the store did not confirm the outcome of a call; the change is repeated"
                );
                self.record = transition.record.clone();
                let changes = transition.changes();
                copy.hold(self.record.body_bytes() as u64);
                self.finish_later(changes, copy);
                Ended::NotRecorded
            }
        }
    }

    /// Queues changes not confirmed by the store, for retries until the store has the changes.
    fn finish_later(&mut self, changes: Vec<Change>, copy: Reservation) {
        self.settled = true;
        let outcome = (self.record.attempt, RetryKind::Outcome);
        self.gateway.retries.finish(&self.gateway.store, changes, outcome, copy);
    }
}

/// End of a change by the attempt with the claim.
enum Ended {
    Done,
    /// The present record, put by an operator or another process.
    Lost(Option<Box<Record>>),
    NotRecorded,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.settled || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let next = self.record.lost(UnknownReason::ProcessEnded, self.gateway.store.now());
        let (id, expect) = (self.id, Some(self.record.version));
        let mut copy = self.gateway.budget.reserve();
        copy.hold(next.body_bytes() as u64);
        self.finish_later(vec![Change { id, expect, put: Some(next.into()) }], copy);
    }
}

/// The copy of a released record whose key is used for another business id: both ids must find the
/// key. `None`: nothing would be lost.
fn archive(id: RecordId, before: &Record, claim: &Record) -> Option<Change> {
    let is_lost = matches!(before.state, State::Released { .. })
        && before.subject.is_some()
        && before.subject != claim.subject;
    is_lost.then(|| {
        let id = id.archived(before.version);
        Change { id, expect: None, put: Some(Arc::new(before.clone())) }
    })
}

/// Waits for the end of a claim of another process; returns the record from then.
async fn wait_for_owner(
    gateway: &Gateway,
    id: RecordId,
    mut winner: Box<Record>,
    (route, until): (&Route, Instant),
) -> Result<Option<Box<Record>>, Reply> {
    if !gateway.store.is_shared() || winner.owner == gateway.store.owner() {
        return Ok(Some(winner));
    }
    let mut watch = gateway.store.watch(id, winner.owner);
    // Duplicates joined to the flight hold permits of their own, and the leader waits on their
    // behalf.
    let waiting = route.waiters.try_acquire().ok();
    if waiting.is_none() && !gateway.in_flight.is_joined(&id) {
        return Err(Reply::InProgress);
    }
    loop {
        // Read once more than was waited: the watch may be older than the reading, not younger.
        let owner = winner.owner;
        match gateway.store.get(id).await {
            Ok(Some(record)) if record.state == State::InFlight => *winner = record,
            Ok(record) => return Ok(record.map(Box::new)),
            Err(error) => return Err(unavailable(&error)),
        }
        if winner.owner != owner {
            watch = gateway.store.watch(id, winner.owner);
        }
        if timeout_at(until, watch.changed()).await.is_err() {
            return Err(Reply::InProgress);
        }
    }
}

/// Withdraws an unconfirmed claim. The claim may still become durable, but no request was sent
/// under the claim and none will be.
fn withdraw(gateway: &Gateway, id: RecordId, claim: &Record, retention: Retention) {
    let put = claim.freed(retention, gateway.store.now()).map(Arc::new);
    let change = Change { id, expect: Some(claim.version), put };
    let withdrawal = (claim.attempt, RetryKind::Withdrawal);
    gateway.retries.finish(&gateway.store, vec![change], withdrawal, ());
}
