//! The claim of a batch's items, held until their outcome is durable. `new_claim` makes it.

use std::sync::Arc;
use std::time::Duration;

use super::serialize::SerializeRecords;
use crate::clock::Timestamp;
use crate::idempotency::ledger::{Doubt, ItemOutcome, Ledger, LedgerError};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::Nonce;
use crate::idempotency::retention::{ExpiryTime, Retention};
use crate::idempotency::{Record, RecordId, TenantId};
use crate::proxy::budget::Reservation;
use crate::proxy::state::Gateway;
use crate::settle::SettleRoute;
use crate::settle::retry::RetryKind;
use crate::settle::rules::author;
use crate::settle::transition::{Advance, Transition, advance};
use crate::store::{Change, ListPosition};

/// A durable claim of items of a batch. A drop without a recorded outcome (a panic, a runtime
/// shutdown) queues the outcome "unknown".
pub(crate) struct ClaimedItems {
    pub(super) gateway: Arc<Gateway>,
    pub(super) retention: Retention,
    /// The attempt id in the claimed records.
    pub(super) attempt: Nonce,
    pub(super) items: Vec<ClaimedItem>,
    /// Released together with the outcome, unless `keeps_locks` is set.
    pub(super) locks: SerializeRecords,
    pub(super) keeps_locks: bool,
    pub(super) settled: bool,
    /// The route's policy for unknown outcomes.
    pub(super) settle: Option<Arc<SettleRoute>>,
}

/// A claimed item.
pub(super) struct ClaimedItem {
    /// Position in the batch.
    pub(super) at: usize,
    pub(super) id: RecordId,
    /// The record as last written by the attempt.
    pub(super) record: Arc<Record>,
    /// Number of the try, of all tries for the item.
    pub(super) number: u32,
}

impl ClaimedItem {
    pub(super) fn new(at: usize, id: RecordId, record: Arc<Record>) -> Self {
        let number = record.attempts;
        Self { at, id, record, number }
    }
}

/// Records after an outcome was recorded.
pub(crate) struct Recorded {
    /// The records by position in the batch, including removed records.
    pub(crate) records: Vec<(usize, Arc<Record>)>,
    /// Id and position of each item that somebody else had decided about.
    pub(crate) decided: Vec<(RecordId, usize)>,
    /// Set when the records are durable.
    pub(crate) durable: bool,
}

impl ClaimedItems {
    /// Records the outcome of every item, in a single write. `next` returns the next ledger entry
    /// for a position in the batch and its present entry; with `forget`, blank items are removed.
    ///
    /// A process declared dead by another finds its items unknown. As long as no operator has
    /// decided, the outcome of the process's own attempt is authoritative and settles the items; a
    /// decision stands.
    pub(crate) async fn record(
        &mut self,
        forget: bool,
        next: impl Fn(usize, &Ledger) -> Result<Ledger, LedgerError> + Send + Sync,
    ) -> Recorded {
        let gateway = self.gateway.clone();
        let mut transition = ItemsTransition {
            claimed: self,
            forget,
            next,
            records: Vec::new(),
            gone: Vec::new(),
            decided: Vec::new(),
            copy: gateway.budget.reserve(),
        };
        let ended = advance(&*gateway.store, &mut transition).await;
        let unconfirmed = match &ended {
            Advance::Indeterminate(_) => transition.changes(),
            Advance::Done | Advance::Lost | Advance::Contended => Vec::new(),
        };
        let ItemsTransition { mut records, gone, decided, copy, .. } = transition;
        let by_others = decided.iter().map(|(entry, _)| (entry.id, entry.at)).collect();
        match ended {
            Advance::Done => {
                self.settled = true;
                for (tenant, at) in gone {
                    gateway.key_counts.removed(&tenant, &at);
                }
                for (entry, (_, record)) in self.items.iter_mut().zip(&records) {
                    if entry.record.is_resent() && !record.is_unknown() && !record.is_in_flight() {
                        gateway.settler.report(entry.id, &record.route, "resend", "executed");
                    }
                    entry.record = record.clone();
                }
                if !self.keeps_locks {
                    self.locks.clear();
                }
                records.extend(decided.into_iter().map(|(entry, record)| (entry.at, record)));
                self.plan_settlements();
                return Recorded { records, decided: by_others, durable: true };
            }
            Advance::Lost => {
                self.settled = true;
                tracing::error!(
                    "a claimed item has no record any more; its outcome is not recorded"
                );
                self.release_locks().await;
            }
            Advance::Contended => {
                tracing::error!(
                    "the records of a batch kept changing; the batch's outcome is not recorded"
                );
            }
            Advance::Indeterminate(error) => {
                tracing::error!(
                    %error,
                    "the store did not confirm the outcome of a batch; the change is repeated"
                );
                self.finish_later(unconfirmed, RetryKind::Outcome, copy);
            }
        }
        Recorded { records, decided: by_others, durable: false }
    }

    /// The changes with the outcome of every item, and the resulting records.
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
            // An outcome that does not fit the ledger is recorded as unknown.
            let doubt = |_| ledger.lose(UnknownReason::NotRecorded);
            let concluded = next(entry.at, ledger).or_else(doubt);
            let is_resent = entry.record.is_resent();
            let concluded = match is_resent {
                // Another try of the item may have acted as well.
                true => concluded.and_then(|after| {
                    ledger.after_try(after, entry.number == entry.record.attempts)
                }),
                false => concluded,
            };
            let before = ledger.fulfilled;
            let ledger = match concluded {
                Ok(ledger) => ledger,
                Err(error) => {
                    tracing::error!(
                        record = ?entry.id, %error,
                        "the outcome of an item does not fit its ledger; the entry is left \
                         unchanged"
                    );
                    ledger.clone()
                }
            };
            // An item with decisions of operators is kept.
            let gone = forget && ledger.is_blank() && entry.record.history.is_empty();
            let units = ledger.fulfilled.saturating_sub(before);
            let mut next = entry.record.with_ledger(ledger, self.retention, now);
            if is_resent && units > 0 {
                let why = "the backend answered a repetition";
                next.note_issued(units, author("resend", why), now);
            }
            let next = Arc::new(next);
            let put = (!gone).then(|| next.clone());
            changes.push(Change { id: entry.id, expect: Some(entry.record.version), put });
            records.push((entry.at, next));
        }
        if !self.keeps_locks {
            changes.extend(self.locks.give_back());
        }
        (changes, records)
    }

    /// Plans the next step for each item whose outcome is unknown.
    fn plan_settlements(&self) {
        let Some(route) = &self.settle else { return };
        for entry in self.items.iter().filter(|entry| entry.record.is_unknown()) {
            self.gateway.settler.plan(entry.id, &entry.record, route);
        }
    }

    /// Queues changes not confirmed by the store, for retries until the store has the changes.
    fn finish_later(&mut self, changes: Vec<Change>, kind: RetryKind, copy: impl Send + 'static) {
        self.settled = true;
        self.gateway.retries.finish(&self.gateway.store, changes, (self.attempt, kind), copy);
    }

    /// Records an unknown outcome for the items.
    pub(crate) async fn lose(&mut self, reason: UnknownReason) {
        let lost = ItemOutcome::Unknown { doubt: Doubt::Lost(reason), row: None };
        self.record(false, |_, ledger| ledger.conclude(&lost)).await;
    }

    /// Records that the items certainly did not reach the backend.
    pub(crate) async fn release(&mut self) {
        self.record(true, |_, ledger| ledger.conclude(&ItemOutcome::NOTHING)).await;
    }

    /// Withdraws an unconfirmed claim. The claim may still become durable, but no request was sent
    /// under the claim and none will be.
    pub(super) fn withdraw(mut self) {
        let now = self.gateway.store.now();
        let changes = self
            .items
            .iter()
            .filter_map(|entry| {
                let ledger = entry.record.ledger()?;
                let ledger = match entry.record.is_resent() {
                    true => ledger.lose(UnknownReason::NotRecorded).ok()?,
                    false => ledger.release().ok()?,
                };
                let kept = !ledger.is_blank() || !entry.record.history.is_empty();
                let put =
                    kept.then(|| entry.record.with_ledger(ledger, self.retention, now).into());
                Some(Change { id: entry.id, expect: Some(entry.record.version), put })
            })
            .chain(self.locks.give_back())
            .collect();
        self.finish_later(changes, RetryKind::Withdrawal, ());
    }

    /// Keeps the locks, whatever is recorded, until `release_locks`.
    pub(crate) fn keep_locks(&mut self) {
        self.keeps_locks = true;
    }

    /// Releases the kept locks.
    pub(crate) async fn release_locks(&mut self) {
        let changes: Vec<Change> = self.locks.give_back().collect();
        for change in changes {
            // A lock of another batch by now is no concern of this call.
            if let Err(error) = self.gateway.store.swap(vec![change.clone()]).await {
                tracing::error!(
                    %error,
                    "a `serialize_by` lock could not be released; the release is retried"
                );
                self.finish_later(vec![change], RetryKind::Outcome, ());
            }
        }
        self.locks.clear();
    }

    /// The store's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.gateway.store.now()
    }

    /// The time by which records expire.
    pub(crate) fn expiry_time(&self) -> ExpiryTime {
        self.gateway.store.expiry_time()
    }

    /// Time until a retry may settle one of the items.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let (settler, policy) = (&self.gateway.settler, self.settle.as_ref()?);
        let unknown = self.items.iter().filter(|entry| entry.record.is_unknown());
        unknown.filter_map(|entry| settler.retry_after(&entry.record, policy)).min()
    }

    /// Number of claimed items.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }
}

/// The claimed items on their way to their outcome.
struct ItemsTransition<'a, N> {
    claimed: &'a mut ClaimedItems,
    /// Removes items left blank by the outcome.
    forget: bool,
    next: N,
    /// The records after the last changes, by place in the batch.
    records: Vec<(usize, Arc<Record>)>,
    /// The items that the last changes remove.
    gone: Vec<(TenantId, ListPosition)>,
    /// Present records of items settled by an operator or another process; no longer owned by the
    /// attempt.
    decided: Vec<(ClaimedItem, Arc<Record>)>,
    /// Memory of the copy that the store writes.
    copy: Reservation,
}

impl<N> Transition for ItemsTransition<'_, N>
where
    N: Fn(usize, &Ledger) -> Result<Ledger, LedgerError> + Send + Sync,
{
    fn changes(&mut self) -> Vec<Change> {
        let (changes, records) = self.claimed.outcome(self.forget, &self.next);
        let bytes = records.iter().map(|(_, record)| record.body_bytes());
        self.copy.hold(bytes.sum::<usize>() as u64);
        // The changes of the locks stand behind those of the items.
        let removed = changes.iter().zip(&records).filter(|(change, _)| change.put.is_none());
        self.gone = removed
            .map(|(change, (_, record))| (record.tenant, ListPosition::of(&change.id, record)))
            .collect();
        self.records = records;
        changes
    }

    fn rebase(&mut self, mut present: Vec<Option<Record>>) -> bool {
        let claimed = &mut *self.claimed;
        let locks = present.split_off(claimed.items.len().min(present.len()));
        if !claimed.keeps_locks {
            claimed.locks.retain(&locks);
        }
        let Some(present) = present.into_iter().collect::<Option<Vec<Record>>>() else {
            return false;
        };
        for (mut entry, now) in std::mem::take(&mut claimed.items).into_iter().zip(present) {
            if now.awaits(&entry.record.attempt) {
                entry.record = Arc::new(now);
                claimed.items.push(entry);
            } else {
                tracing::warn!(
                    record = ?entry.id,
                    "the item was already settled by an operator or another process; it stays so"
                );
                self.decided.push((entry, Arc::new(now)));
            }
        }
        true
    }
}

impl Drop for ClaimedItems {
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if self.settled {
            if self.keeps_locks && !self.locks.is_empty() {
                let changes = self.locks.give_back().collect();
                self.finish_later(changes, RetryKind::Outcome, ());
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
            .chain(self.locks.give_back())
            .collect();
        let mut copy = self.gateway.budget.reserve();
        let records = self.items.iter().map(|entry| entry.record.body_bytes());
        copy.hold(records.sum::<usize>() as u64);
        self.finish_later(changes, RetryKind::Outcome, copy);
    }
}
