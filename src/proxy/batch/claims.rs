//! The records of a batch's items: reading them, claiming them in one write, and a claim from the
//! moment it is durable until its outcome is.

use std::sync::Arc;

use super::ledger::{Records, forgotten, unavailable};
use super::read::BatchInput;
use super::serialize::SerializeRecords;
use crate::clock::Timestamp;
use crate::config::ItemsMode;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::ledger::{Doubt, ItemOutcome, Ledger, LedgerError};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::Nonce;
use crate::idempotency::retention::Retention;
use crate::idempotency::{Record, RecordId, State};
use crate::items::BatchPlan;
use crate::nonce;
use crate::problem::Problem;
use crate::proxy::reply;
use crate::proxy::request::claim::{MAX_TRIES, first_version};
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;
use crate::settle::retry::RetryKind;
use crate::store::{Change, StoreError, Swap};

/// A durable claim of some items of a batch. Dropped before its outcome was recorded (a panic, a
/// runtime that ends), it records "unknown" as well as it can.
pub(crate) struct ClaimedItems {
    gateway: Arc<Gateway>,
    retention: Retention,
    /// The attempt that all claimed records name.
    attempt: Nonce,
    items: Vec<ClaimedItem>,
    /// Given back with the outcome, unless they are kept longer.
    turns: SerializeRecords,
    keeps_turns: bool,
    settled: bool,
}

/// A claimed item.
struct ClaimedItem {
    /// Its place in the batch.
    at: usize,
    id: RecordId,
    /// The record as this attempt last wrote it.
    record: Arc<Record>,
}

/// Result of a claim.
pub(crate) enum ClaimResult {
    Made(ClaimedItems),
    /// A record is not what was read: read again, plan again.
    Lost,
    /// Another process's batch has the turn of a `serialize_by` value.
    NotItsTurn {
        /// The turn.
        id: RecordId,
        /// The process that has the turn.
        owner: Nonce,
    },
}

/// Records after an outcome was recorded.
pub(crate) struct Recorded {
    /// The records now, by place in the batch, those that were removed included.
    pub(crate) records: Vec<(usize, Arc<Record>)>,
    /// Set when the records are durable.
    pub(crate) durable: bool,
}

/// Makes the claim of all items of `plan` that are to be sent durable, in one write.
///
/// # Errors
/// When the store does not confirm it; nothing may be sent.
pub(crate) async fn claim(
    gateway: &Arc<Gateway>,
    intake: &mut BatchInput,
    route: &Route,
    mode: &ItemsMode,
    (plan, records): (&BatchPlan, &Records),
) -> Result<ClaimResult, Problem> {
    let retention = mode.record.retention;
    let now = gateway.store.now();
    let draft = ItemDraft {
        now,
        retention,
        attempt: nonce::bytes(),
        owner: gateway.store.owner(),
        route: &route.name,
    };
    let mut items = Vec::with_capacity(records.len());
    let mut changes = Vec::with_capacity(records.len());
    for (at, units) in plan.sent() {
        let known = records[at].as_deref();
        let fresh = known.is_none_or(|known| forgotten(known, now));
        let fingerprint = if fresh { intake.fingerprint(mode, at) } else { None };
        let record = draft.record(intake, at, units, known, fingerprint).map_err(|error| {
            tracing::error!(record = ?intake.ids[at], %error, "nothing was sent");
            reply::store_unavailable()
        })?;
        let (id, expect) = (intake.ids[at], known.map(|record| record.version));
        let record = Arc::new(record);
        changes.push(Change { id, expect, put: Some(record.clone()) });
        items.push(ClaimedItem { at, id, record });
    }
    let turns =
        SerializeRecords::of(gateway, &intake.batch, items.first().map(|entry| &*entry.record));
    changes.extend(turns.take());
    let swapped = gateway.store.swap(changes).await;
    let settled = swapped.is_ok();
    let (gateway, attempt) = (gateway.clone(), draft.attempt);
    let mut claimed =
        ClaimedItems { gateway, retention, attempt, items, turns, keeps_turns: false, settled };
    match swapped {
        Ok(Swap::Done) => {
            claimed.settled = false;
            Ok(ClaimResult::Made(claimed))
        }
        Ok(Swap::Lost { index, winner }) => {
            let turn = index.checked_sub(claimed.items.len()).and_then(|at| claimed.turns.id(at));
            Ok(match turn.zip(winner) {
                Some((id, winner)) => ClaimResult::NotItsTurn { id, owner: winner.owner },
                None => ClaimResult::Lost,
            })
        }
        Err(error) => {
            claimed.withdraw();
            Err(unavailable(&error))
        }
    }
}

/// Fields that the records of one attempt have in common.
struct ItemDraft<'a> {
    now: Timestamp,
    retention: Retention,
    attempt: [u8; 16],
    owner: [u8; 16],
    route: &'a Arc<str>,
}

impl ItemDraft<'_> {
    /// The record of an item of which `units` are about to be sent.
    fn record(
        &self,
        intake: &BatchInput,
        at: usize,
        units: u64,
        known: Option<&Record>,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Record, LedgerError> {
        let (now, attempt, owner) = (self.now, self.attempt, self.owner);
        if let Some((record, ledger)) = known
            .filter(|record| !forgotten(record, now))
            .and_then(|record| Some((record, record.ledger()?)))
        {
            let next = record.with_ledger(ledger.claim(units)?, self.retention, now);
            let attempts = record.attempts.saturating_add(1);
            // A jump, so that no other claim of this record has the same version: see `withdraw`.
            let version = next.version.wrapping_add(nonce::number() >> 40);
            return Ok(Record { version, attempts, attempt, owner, ..next });
        }
        let item = &intake.batch.items[at];
        let ledger = Ledger::new(item.quantity)?.claim(units)?;
        Ok(Record {
            // A jump here as well.
            version: known.map_or_else(first_version, |old| {
                old.version.wrapping_add(1).wrapping_add(nonce::number() >> 40)
            }),
            tenant: intake.tenant,
            route: self.route.clone(),
            key: item.id.clone(),
            subject: intake.subject,
            fingerprint: fingerprint.ok_or(LedgerError::Broken)?,
            first_seen: now,
            updated: now,
            attempts: 1,
            attempt,
            owner,
            state: State::item(ledger, self.retention, now),
            settlement_unreported: false,
            history: Vec::new(),
        })
    }
}

impl ClaimedItems {
    /// Records what became of each item, in one write. `next` gives an item's next entry from its
    /// place in the batch and its present one; with `forget`, items about which then nothing is
    /// known are removed.
    ///
    /// A process that was taken for dead finds its items unknown. Where nobody else has decided
    /// since, what its own attempt brought is the truth and settles them; a decision stands.
    pub(crate) async fn record(
        &mut self,
        forget: bool,
        next: impl Fn(usize, &Ledger) -> Result<Ledger, LedgerError>,
    ) -> Recorded {
        let mut decided = Vec::new();
        for _ in 0..MAX_TRIES {
            let (changes, mut records) = self.outcome(forget, &next);
            match self.gateway.store.swap(changes).await {
                Ok(Swap::Done) => {
                    self.settled = true;
                    for (entry, (_, record)) in self.items.iter_mut().zip(&records) {
                        entry.record = record.clone();
                    }
                    if !self.keeps_turns {
                        self.turns.clear();
                    }
                    records.append(&mut decided);
                    return Recorded { records, durable: true };
                }
                Ok(Swap::Lost { index, .. }) => {
                    let id = self.items.get(index).map(|entry| entry.id);
                    match self.rebase(&mut decided).await {
                        Ok(true) => continue,
                        Ok(false) => {
                            self.settled = true;
                            tracing::error!(record = ?id, "an item is gone");
                            self.give_back_turns().await;
                        }
                        Err(error) => {
                            tracing::error!(%error, "the records of a batch cannot be read");
                            let (changes, _) = self.outcome(forget, &next);
                            self.finish_later(changes, RetryKind::Outcome);
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the outcome of a batch could not be recorded");
                    let (changes, _) = self.outcome(forget, &next);
                    self.finish_later(changes, RetryKind::Outcome);
                }
            }
            return Recorded { records, durable: false };
        }
        tracing::error!("the records of a batch kept changing; its outcome is not recorded");
        let (_, records) = self.outcome(forget, &next);
        Recorded { records, durable: false }
    }

    /// The changes that record what became of each item, and the records after them.
    fn outcome(
        &self,
        forget: bool,
        next: impl Fn(usize, &Ledger) -> Result<Ledger, LedgerError>,
    ) -> (Vec<Change>, Vec<(usize, Arc<Record>)>) {
        let now = self.gateway.store.now();
        let mut changes = Vec::with_capacity(self.items.len());
        let mut records: Vec<(usize, Arc<Record>)> = Vec::with_capacity(self.items.len());
        for entry in &self.items {
            let Some(ledger) = entry.record.ledger() else { continue };
            // What cannot be recorded as it came is unknown.
            let doubt = |_| ledger.lose(UnknownReason::NotRecorded);
            let ledger = match next(entry.at, ledger).or_else(doubt) {
                Ok(ledger) => ledger,
                Err(error) => {
                    tracing::error!(record = ?entry.id, %error, "an outcome does not fit");
                    ledger.clone()
                }
            };
            // What was decided about it is kept.
            let gone = forget && ledger.is_blank() && entry.record.history.is_empty();
            let next = Arc::new(entry.record.with_ledger(ledger, self.retention, now));
            let put = (!gone).then(|| next.clone());
            changes.push(Change { id: entry.id, expect: Some(entry.record.version), put });
            records.push((entry.at, next));
        }
        if !self.keeps_turns {
            changes.extend(self.turns.give_back());
        }
        (changes, records)
    }

    /// Takes the items as they are now. Those about which somebody has decided are not this
    /// attempt's any more; they go to `decided`. `false`: one is not there.
    async fn rebase(
        &mut self,
        decided: &mut Vec<(usize, Arc<Record>)>,
    ) -> Result<bool, StoreError> {
        let ids = self.items.iter().map(|entry| entry.id).chain(self.turns.ids());
        let ids: Vec<RecordId> = ids.collect();
        let mut found = self.gateway.store.get_many(&ids).await?;
        let turns = found.split_off(self.items.len().min(found.len()));
        self.turns.retain(&turns);
        let Some(found) = found.into_iter().collect::<Option<Vec<Record>>>() else {
            return Ok(false);
        };
        for (mut entry, now) in std::mem::take(&mut self.items).into_iter().zip(found) {
            if now.awaits(&entry.record.attempt) {
                entry.record = Arc::new(now);
                self.items.push(entry);
            } else {
                tracing::warn!(record = ?entry.id, "an item was settled by somebody else");
                decided.push((entry.at, Arc::new(now)));
            }
        }
        Ok(true)
    }

    /// Queues changes that the store did not confirm, to be repeated until the store has them.
    fn finish_later(&mut self, changes: Vec<Change>, kind: RetryKind) {
        self.settled = true;
        self.gateway.unfinished.finish(&self.gateway.store, changes, (self.attempt, kind));
    }

    /// Records that nobody knows what became of the items.
    pub(crate) async fn lose(&mut self, reason: UnknownReason) {
        let lost = ItemOutcome::Unknown { doubt: Doubt::Lost(reason), row: None };
        self.record(false, |_, ledger| ledger.conclude(&lost)).await;
    }

    /// Records that the items certainly did not reach the backend.
    pub(crate) async fn release(&mut self) {
        self.record(true, |_, ledger| ledger.conclude(&ItemOutcome::NOTHING)).await;
    }

    /// Takes back a claim that was not confirmed and may become durable yet: nothing was sent for
    /// it and nothing will be.
    fn withdraw(mut self) {
        let now = self.gateway.store.now();
        let changes = self
            .items
            .iter()
            .filter_map(|entry| {
                let ledger = entry.record.ledger()?.release().ok()?;
                let kept = !ledger.is_blank() || !entry.record.history.is_empty();
                let put =
                    kept.then(|| entry.record.with_ledger(ledger, self.retention, now).into());
                Some(Change { id: entry.id, expect: Some(entry.record.version), put })
            })
            .chain(self.turns.give_back())
            .collect();
        self.finish_later(changes, RetryKind::Withdrawal);
    }

    /// From now on the turns stay with this call, whatever is recorded, until they are given back.
    pub(crate) fn keep_turns(&mut self) {
        self.keeps_turns = true;
    }

    /// Gives back the turns that were kept.
    pub(crate) async fn give_back_turns(&mut self) {
        let changes: Vec<Change> = self.turns.give_back().collect();
        for change in changes {
            // One that is another's by now is none of this call's.
            if let Err(error) = self.gateway.store.swap(vec![change.clone()]).await {
                tracing::error!(%error, "a turn could not be given back yet");
                self.finish_later(vec![change], RetryKind::Outcome);
            }
        }
        self.turns.clear();
    }

    /// The store's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.gateway.store.now()
    }

    /// Number of claimed items.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }
}

impl Drop for ClaimedItems {
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if self.settled {
            if self.keeps_turns && !self.turns.is_empty() {
                let changes = self.turns.give_back().collect();
                self.finish_later(changes, RetryKind::Outcome);
            }
            return;
        }
        let now = self.gateway.store.now();
        let changes = self
            .items
            .iter()
            .map(|entry| Change {
                id: entry.id,
                expect: Some(entry.record.version),
                put: Some(entry.record.lost(UnknownReason::ProcessEnded, now).into()),
            })
            .chain(self.turns.give_back())
            .collect();
        self.finish_later(changes, RetryKind::Outcome);
    }
}
