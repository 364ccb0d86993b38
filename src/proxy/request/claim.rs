//! A claim from the moment it is durable until its outcome is.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::existing::{known, settled_by_other, unavailable, without_a_claim};
use crate::clock::Timestamp;
use crate::idempotency::key::Key;
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::retention::Retention;
use crate::idempotency::{
    Answer, Decision, Fingerprint, Record, RecordId, State, TenantId, decide,
};
use crate::nonce;
use crate::proxy::reply::{self, Reply};
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;
use crate::settle::retry::RetryKind;
use crate::store::{Change, StoreError, Swap};

/// How often a claim is tried again when the record it met changed under it. Each try lost to a
/// change that somebody else made, so this is only reached under a fault.
pub(crate) const MAX_TRIES: usize = 8;

/// Contents of a new record.
pub(crate) struct ClaimDraft<'a> {
    pub(crate) route: &'a Route,
    pub(crate) tenant: TenantId,
    pub(crate) key: Key,
    pub(crate) subject: Option<[u8; 16]>,
    pub(crate) fingerprint: Fingerprint,
    /// Retention of the record.
    pub(crate) retention: Retention,
}

/// A durable claim. Dropped before its outcome was recorded (a panic, a runtime that ends), it
/// records "unknown" as well as it can.
pub(crate) struct Claimed {
    gateway: Arc<Gateway>,
    id: RecordId,
    /// The record as this attempt last wrote it.
    record: Arc<Record>,
    retention: Retention,
    settled: bool,
}

/// The record that won the swap, and the value of `Hot::dropped` from before the swap.
pub(crate) struct Existing(Option<Box<Record>>, u64);

/// Result of recording a final answer.
pub(crate) enum Settled {
    /// The answer is durable.
    Recorded { expires: Option<Timestamp>, completed: Timestamp },
    /// The store did not confirm the answer.
    NotRecorded,
    /// Somebody else settled the record; see [`Claimed::otherwise`].
    Otherwise(Existing),
}

impl Claimed {
    /// Makes the claim durable, or says what the key's record means for this request. A call that
    /// another process has in flight is waited for, `until` then at most.
    pub(crate) async fn claim(
        gateway: &Arc<Gateway>,
        id: RecordId,
        draft: ClaimDraft<'_>,
        until: Instant,
    ) -> Result<Self, Reply> {
        let (route, retention) = (draft.route, draft.retention);
        let now = gateway.store.now();
        let attempt = nonce::bytes();
        let mut record = Arc::new(Record {
            version: first_version(),
            tenant: draft.tenant,
            route: draft.route.name.clone(),
            key: draft.key.into_string().into(),
            subject: draft.subject,
            fingerprint: draft.fingerprint,
            first_seen: now,
            updated: now,
            attempts: 1,
            attempt,
            owner: gateway.store.owner(),
            state: State::InFlight,
            settlement_unreported: false,
            history: Vec::new(),
        });
        let mut expect = None;
        for _ in 0..MAX_TRIES {
            let dropped = gateway.hot.generation();
            let change = Change { id, expect, put: Some(record.clone()) };
            let winner = match gateway.store.swap(vec![change]).await {
                Ok(Swap::Done) => {
                    let gateway = gateway.clone();
                    return Ok(Self { gateway, id, record, retention, settled: false });
                }
                Ok(Swap::Lost { winner, .. }) => winner,
                Err(error) => {
                    withdraw(gateway, id, &record, retention);
                    return Err(without_a_claim(gateway, id, &record, &error).await);
                }
            };
            let winner = match winner {
                // Another request under its key is refused at once, however the first one ends.
                Some(winner)
                    if winner.state == State::InFlight
                        && winner.fingerprint.digest == record.fingerprint.digest =>
                {
                    elsewhere(gateway, id, winner, (route, until)).await?
                }
                other => other,
            };
            let decision = decide(winner.as_deref(), &record.fingerprint, gateway.store.now());
            match decision {
                Decision::Forward { replacing } => {
                    expect = replacing;
                    Arc::make_mut(&mut record).renew(winner.as_deref(), nonce::number());
                }
                other => {
                    let met = winner.as_deref().map(|record| (record, dropped));
                    return Err(known(gateway, id, met, other).await);
                }
            }
        }
        tracing::error!(record = ?id, "the record kept changing; nothing was sent");
        Err(Reply::Refused(reply::store_unavailable()))
    }

    pub(crate) fn id(&self) -> RecordId {
        self.id
    }

    /// Records a final answer and makes it known to later duplicates.
    ///
    /// A process that was taken for dead finds its record unknown. When nobody else has decided
    /// since, what its own attempt brought is the truth and settles it.
    pub(crate) async fn complete(&mut self, answer: Answer) -> Settled {
        let (now, retention) = (self.gateway.store.now(), self.retention);
        for _ in 0..MAX_TRIES {
            let dropped = self.gateway.hot.generation();
            let next = Arc::new(self.record.completed(answer.clone(), retention, now));
            let expires = next.expires();
            match self.put(Some(next)).await {
                Ok(Swap::Done) => {
                    if self.gateway.store.is_shared() {
                        // A retry that comes soon is answered though the store is away meanwhile.
                        self.gateway.hot.put_completed(self.id, &self.record, dropped);
                    }
                    return Settled::Recorded { expires, completed: now };
                }
                Ok(Swap::Lost { winner: Some(winner), .. })
                    if winner.awaits(&self.record.attempt) =>
                {
                    self.record = winner.into();
                }
                Ok(Swap::Lost { winner, .. }) => {
                    tracing::warn!(record = ?self.id, "the record was settled by somebody else");
                    return Settled::Otherwise(Existing(winner, dropped));
                }
                Err(error) => {
                    tracing::error!(record = ?self.id, %error, "an outcome could not be recorded");
                    self.finish_later(Some(self.record.completed(answer, retention, now).into()));
                    return Settled::NotRecorded;
                }
            }
        }
        tracing::error!(record = ?self.id, "the record kept changing; its outcome is not recorded");
        Settled::NotRecorded
    }

    /// What a client is told whose record somebody else settled. Only for one that is told: of a
    /// settlement by an operator it may be the first.
    pub(crate) async fn otherwise(&self, Existing(winner, dropped): Existing) -> Reply {
        let met = winner.as_deref().map(|record| (record, dropped));
        settled_by_other(&self.gateway, self.id, met, &self.record).await
    }

    /// Records that nobody knows the outcome.
    pub(crate) async fn lose(&mut self, reason: UnknownReason) {
        let next = self.record.lost(reason, self.gateway.store.now());
        self.put_or_later(Some(next.into())).await;
    }

    /// Frees the key: the backend has certainly not acted. What operators decided about it before is
    /// kept. Also when this process was taken for
    /// dead meanwhile, and its call for one whose outcome nobody knows.
    pub(crate) async fn release(&mut self) {
        for _ in 0..MAX_TRIES {
            let next = self.record.freed(self.retention, self.gateway.store.now()).map(Arc::new);
            match self.put_or_later(next).await {
                Some(winner) if winner.awaits(&self.record.attempt) => self.record = winner.into(),
                _ => return,
            }
        }
    }

    /// Gives the record that was met instead.
    async fn put_or_later(&mut self, next: Option<Arc<Record>>) -> Option<Box<Record>> {
        match self.put(next.clone()).await {
            Ok(Swap::Done) => None,
            Ok(Swap::Lost { winner, .. }) => {
                tracing::warn!(record = ?self.id, "somebody else has settled it");
                winner
            }
            Err(error) => {
                tracing::error!(record = ?self.id, %error, "a record could not be updated yet");
                self.finish_later(next);
                None
            }
        }
    }

    /// Queues a change that the store did not confirm, to be repeated until the store has it.
    fn finish_later(&mut self, put: Option<Arc<Record>>) {
        self.settled = true;
        let change = Change { id: self.id, expect: Some(self.record.version), put };
        let outcome = (self.record.attempt, RetryKind::Outcome);
        self.gateway.unfinished.finish(&self.gateway.store, vec![change], outcome);
    }

    async fn put(&mut self, next: Option<Arc<Record>>) -> Result<Swap, StoreError> {
        let expect = Some(self.record.version);
        let change = Change { id: self.id, expect, put: next.clone() };
        let swap = self.gateway.store.swap(vec![change]).await?;
        self.settled = true;
        if let (Swap::Done, Some(next)) = (&swap, next) {
            self.record = next;
        }
        Ok(swap)
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.settled || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let next = self.record.lost(UnknownReason::ProcessEnded, self.gateway.store.now());
        self.finish_later(Some(next.into()));
    }
}

/// Waits for the call that another process has in flight; gives the record then.
async fn elsewhere(
    gateway: &Gateway,
    id: RecordId,
    mut winner: Box<Record>,
    (route, until): (&Route, Instant),
) -> Result<Option<Box<Record>>, Reply> {
    if !gateway.store.is_shared() || winner.owner == gateway.store.owner() {
        return Ok(Some(winner));
    }
    let mut watch = gateway.store.watch(id, winner.owner);
    // Those who joined have places, and this one waits for them.
    let waiting = route.waiters.try_acquire().ok();
    if waiting.is_none() && !gateway.calls.is_joined(&id) {
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

/// Takes back a claim that may become durable yet: nothing was sent for it and nothing will be.
fn withdraw(gateway: &Gateway, id: RecordId, claim: &Record, retention: Retention) {
    let put = claim.freed(retention, gateway.store.now()).map(Arc::new);
    let change = Change { id, expect: Some(claim.version), put };
    let withdrawal = (claim.attempt, RetryKind::Withdrawal);
    gateway.unfinished.finish(&gateway.store, vec![change], withdrawal);
}

/// The version of a new claim. Random, so that it repeats no token of a claim that was released;
/// the upper bits are free for the raises to come.
pub(crate) fn first_version() -> u64 {
    nonce::number() >> 8
}
