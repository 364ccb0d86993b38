//! A claim from the moment it is durable until its outcome is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Gateway;
use super::outcome::{self, Told};
use super::unfinished::Kind;
use crate::clock::Timestamp;
use crate::idempotency::key::Key;
use crate::idempotency::record::{Retention, UnknownReason};
use crate::idempotency::{
    Answer, Decision, Fingerprint, Record, RecordId, State, TenantId, decide,
};
use crate::store::{Change, StoreError, Swap};
use crate::unique;

/// How often a claim is tried again when the record it met changed under it. Each try lost to a
/// change that somebody else made, so this is only reached under a fault.
pub(super) const MAX_TRIES: usize = 8;

/// What a new record says.
pub(super) struct Draft {
    pub(super) route: usize,
    pub(super) tenant: TenantId,
    pub(super) key: Key,
    pub(super) subject: Option<[u8; 16]>,
    pub(super) fingerprint: Fingerprint,
}

/// A durable claim. Dropped before its outcome was recorded (a panic, a runtime that ends), it
/// records "unknown" as well as it can.
pub(super) struct Claimed {
    gateway: Arc<Gateway>,
    id: RecordId,
    /// The record as this attempt last wrote it.
    record: Arc<Record>,
    settled: bool,
}

/// How recording a final answer ended.
pub(super) enum Settled {
    /// It is durable.
    Recorded { expires: Option<Timestamp>, completed: Timestamp },
    /// It is not known to be durable.
    NotRecorded,
    /// Somebody else settled the record; this is what it says.
    Otherwise(Told),
}

impl Claimed {
    /// Makes the claim durable, or says what the key's record means for this request. A call that
    /// another process has in flight is waited for, `wait` at most.
    pub(super) async fn claim(
        gateway: &Arc<Gateway>,
        id: RecordId,
        draft: Draft,
        wait: Duration,
    ) -> Result<Self, Told> {
        let (route, until) = (draft.route, Instant::now() + wait);
        let now = gateway.store.now();
        let attempt = unique::bytes();
        let mut record = Arc::new(Record {
            version: first_version(),
            tenant: draft.tenant,
            route: gateway.config.routes[draft.route].name.clone(),
            key: draft.key.into_string(),
            subject: draft.subject,
            fingerprint: draft.fingerprint,
            first_seen: now,
            updated: now,
            attempts: 1,
            attempt,
            owner: gateway.store.owner(),
            state: State::InFlight,
        });
        let mut expect = None;
        for _ in 0..MAX_TRIES {
            let change = Change { id, expect, put: Some(record.clone()) };
            let winner = match gateway.store.swap(vec![change]).await {
                Ok(Swap::Done) => {
                    return Ok(Self { gateway: gateway.clone(), id, record, settled: false });
                }
                Ok(Swap::Lost { winner, .. }) => winner,
                Err(error) => {
                    withdraw(gateway, id, &record);
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
                    Arc::make_mut(&mut record).version =
                        replacing.map_or_else(first_version, |version| version.wrapping_add(1));
                }
                other => return Err(known(gateway, id, winner.as_deref(), other)),
            }
        }
        tracing::error!(record = ?id, "the record kept changing; nothing was sent");
        Err(Told::Refused(outcome::store_unavailable()))
    }

    pub(super) fn id(&self) -> RecordId {
        self.id
    }

    /// Records a final answer and makes it known to later duplicates.
    ///
    /// A process that was taken for dead finds its record unknown. When nobody else has decided
    /// since, what its own attempt brought is the truth and settles it.
    pub(super) async fn complete(&mut self, answer: Answer, retention: Retention) -> Settled {
        let now = self.gateway.store.now();
        for _ in 0..MAX_TRIES {
            let next = Arc::new(self.record.completed(answer.clone(), retention, now));
            let expires = next.expires();
            match self.put(Some(next)).await {
                Ok(Swap::Done) => {
                    if self.gateway.store.is_shared() {
                        // A retry that comes soon is answered though the store is away meanwhile.
                        self.gateway.hot.put(self.id, self.record.clone());
                    }
                    return Settled::Recorded { expires, completed: now };
                }
                Ok(Swap::Lost { winner: Some(winner), .. })
                    if winner.awaits(&self.record.attempt) =>
                {
                    self.record = winner.into();
                }
                Ok(Swap::Lost { winner, .. }) => {
                    let told =
                        settled_by_other(&self.gateway, self.id, winner.as_deref(), &self.record);
                    return Settled::Otherwise(told);
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

    /// Records that nobody knows the outcome.
    pub(super) async fn lose(&mut self, reason: UnknownReason) {
        let next = self.record.lost(reason, self.gateway.store.now());
        self.put_or_later(Some(next.into())).await;
    }

    /// Removes the record: the backend has certainly not acted. Also when this process was taken for
    /// dead meanwhile, and its call for one whose outcome nobody knows.
    pub(super) async fn release(&mut self) {
        for _ in 0..MAX_TRIES {
            match self.put_or_later(None).await {
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

    /// What the store did not confirm is tried again until it has it.
    fn finish_later(&mut self, put: Option<Arc<Record>>) {
        self.settled = true;
        let change = Change { id: self.id, expect: Some(self.record.version), put };
        let outcome = (self.record.attempt, Kind::Outcome);
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
    (route, until): (usize, Instant),
) -> Result<Option<Box<Record>>, Told> {
    if !gateway.store.is_shared() || winner.owner == gateway.store.owner() {
        return Ok(Some(winner));
    }
    let mut watch = gateway.store.watch(id, winner.owner);
    let Some(_waiting) = gateway.waiters[route].take() else { return Err(Told::InProgress) };
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
            return Err(Told::InProgress);
        }
    }
}

/// Takes back a claim that may become durable yet: nothing was sent for it and nothing will be.
fn withdraw(gateway: &Gateway, id: RecordId, claim: &Record) {
    let change = Change { id, expect: Some(claim.version), put: None };
    let withdrawal = (claim.attempt, Kind::Withdrawal);
    gateway.unfinished.finish(&gateway.store, vec![change], withdrawal);
}

/// The version of a new claim. Random, so that it repeats no token of a claim that was released;
/// the upper bits are free for the raises to come.
pub(super) fn first_version() -> u64 {
    unique::number() >> 8
}

/// What a request is told that could not be claimed: a disk that takes no claims can be read all the
/// same, and what is final there is true. A store on a server that did not answer is not asked again.
async fn without_a_claim(
    gateway: &Gateway,
    id: RecordId,
    claim: &Record,
    error: &StoreError,
) -> Told {
    if gateway.store.is_shared() {
        return unavailable(error);
    }
    let found = gateway.store.get(id).await.ok().flatten();
    let Some(found) = found.filter(|found| found.attempt != claim.attempt) else {
        return unavailable(error);
    };
    match decide(Some(&found), &claim.fingerprint, gateway.store.now()) {
        Decision::Forward { .. } => unavailable(error),
        decision => known(gateway, id, Some(&found), decision),
    }
}

fn unavailable(error: &StoreError) -> Told {
    match error {
        StoreError::Unavailable(_) => tracing::error!(%error, "nothing was sent"),
        StoreError::Corrupt { .. } => {
            tracing::error!(%error, "nothing was sent; run `oncegate store verify`");
        }
    }
    Told::Refused(outcome::store_unavailable())
}

/// What the store says of a key, for a request that does not claim it; `None`: the key is free.
pub(super) async fn recorded(
    gateway: &Gateway,
    id: RecordId,
    fingerprint: &Fingerprint,
) -> Option<Told> {
    let record = match gateway.store.get(id).await {
        Ok(record) => record?,
        Err(error) => return Some(unavailable(&error)),
    };
    match decide(Some(&record), fingerprint, gateway.store.now()) {
        Decision::Forward { .. } => None,
        decision => Some(known(gateway, id, Some(&record), decision)),
    }
}

/// What an existing record means for a request that wanted to claim its key.
fn known(gateway: &Gateway, id: RecordId, winner: Option<&Record>, decision: Decision<'_>) -> Told {
    match decision {
        Decision::Replay { response, expires } => {
            if let Some(record) = winner {
                gateway.hot.put(id, record.clone());
            }
            Told::Final { response: response.clone(), expires }
        }
        Decision::NotRetained { status, completed } => Told::NotRetained { status, completed },
        Decision::InProgress => Told::InProgress,
        Decision::Unknown => Told::Unknown,
        Decision::Reused { differing } => Told::Refused(outcome::reused(differing)),
        Decision::Expired => Told::Refused(outcome::expired()),
        // The caller tries again instead of telling this.
        Decision::Forward { .. } => Told::Refused(outcome::store_unavailable()),
    }
}

/// What a record says that was settled while this attempt was still out.
fn settled_by_other(
    gateway: &Gateway,
    id: RecordId,
    winner: Option<&Record>,
    own: &Record,
) -> Told {
    tracing::warn!(record = ?id, "the record was settled by somebody else");
    let decision = decide(winner, &own.fingerprint, gateway.store.now());
    match decision {
        Decision::Forward { .. } => Told::Unknown,
        other => known(gateway, id, winner, other),
    }
}
