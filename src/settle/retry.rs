//! Retries of changes not confirmed by the store.
//!
//! An unconfirmed claim without a request, or a known but unrecorded outcome, would keep its key in
//! flight for the lifetime of the process. Such a change is therefore retried until the store has
//! the change or a conflicting record.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, State};
use crate::limit::Limit;
use crate::settle::transition::{Advance, Transition, advance};
use crate::shutdown;
use crate::store::{Change, Store, StoreError};

/// The pause before the first repetition, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Number of retries of a lost change on a networked store: an earlier attempt, sent on an
/// abandoned connection, may still arrive and take effect. About twenty seconds.
const LINGER: u32 = 9;

/// The changes under retry, up to a limit.
#[derive(Debug)]
pub(crate) struct RetryQueue {
    /// Outcomes and withdrawals have separate limits: withdrawals from an outage must not displace
    /// outcomes of executed requests.
    outcomes: Limit,
    withdrawals: Limit,
    /// Withdrawals. A drain does not wait for withdrawals: the store may stay unavailable.
    tasks: TaskTracker,
    /// Outcomes. A drain waits for outcomes within its limit.
    recording: TaskTracker,
}

/// Meaning of an unconfirmed change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryKind {
    /// The outcome of a sent request.
    Outcome,
    /// A claim without a sent request.
    Withdrawal,
}

impl RetryQueue {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            outcomes: Limit::new(limit),
            withdrawals: Limit::new(limit),
            tasks: TaskTracker::new(),
            recording: TaskTracker::new(),
        }
    }

    /// Changes the limit. Changes above a lowered limit stay under retry.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.outcomes.set(limit);
        self.withdrawals.set(limit);
    }

    /// Applies the final changes of `attempt`, all or none, as soon as the store accepts them.
    /// Retries end with the process; another process, or the next start, marks the remaining
    /// records unknown. `held` is dropped with the changes: the memory reserved for their records.
    pub(crate) fn finish(
        &self,
        store: &Arc<dyn Store>,
        changes: Vec<Change>,
        (attempt, kind): (Nonce, RetryKind),
        held: impl Send + 'static,
    ) {
        let (permits, tasks) = match kind {
            RetryKind::Outcome => (&self.outcomes, &self.recording),
            RetryKind::Withdrawal => (&self.withdrawals, &self.tasks),
        };
        let Some(permit) = permits.try_acquire() else {
            tracing::error!(
                "too many changes wait for the store; a record stays in flight until a restart"
            );
            return;
        };
        let owned = (permit, held);
        tasks.spawn(retry_until_stored(Arc::downgrade(store), changes, attempt, owned));
    }

    /// Waits until every outcome is recorded, at most for `limit`; returns true on success.
    pub(crate) async fn recorded(&self, limit: Duration) -> bool {
        shutdown::ended(&self.recording, limit).await
    }
}

async fn retry_until_stored(
    store: Weak<dyn Store>,
    changes: Vec<Change>,
    attempt: Nonce,
    _owned: (OwnedSemaphorePermit, impl Send),
) {
    let mut pause = FIRST_PAUSE;
    let mut lost = 0;
    let mut pending = UnconfirmedChanges { changes, attempt, made: false };
    // A weak reference: a change that is repeated does not keep the store open.
    while let Some(store) = store.upgrade() {
        match advance(&*store, &mut pending).await {
            Advance::Done => return,
            Advance::Lost if pending.made => return,
            Advance::Lost => {
                lost += 1;
                if !store.is_shared() || lost == LINGER {
                    let id = pending.changes.first().map(|change| change.id);
                    tracing::debug!(
                        record = ?id,
                        "an unconfirmed change no longer applies; the present record stands"
                    );
                    return;
                }
            }
            Advance::Indeterminate(StoreError::Corrupt { id, reason }) => {
                tracing::error!(
                    record = ?id, error = reason,
                    "the record is unreadable; it is left unchanged and its key stays held"
                );
                return;
            }
            Advance::Indeterminate(StoreError::Unavailable(_)) | Advance::Contended => {}
        }
        drop(store);
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Unconfirmed changes under retry.
struct UnconfirmedChanges {
    changes: Vec<Change>,
    attempt: Nonce,
    /// An earlier attempt made the changes after all.
    made: bool,
}

impl Transition for UnconfirmedChanges {
    fn changes(&mut self) -> Vec<Change> {
        self.changes.clone()
    }

    /// A process declared dead by another finds its records unknown and its serialize locks
    /// removed, and an operator may have decided about some records. Changes of records still owned
    /// by the attempt apply to the present records; the rest is left out.
    fn rebase(&mut self, present: Vec<Option<Record>>) -> bool {
        let mut own = Vec::with_capacity(self.changes.len());
        for (change, now) in self.changes.iter().zip(&present) {
            let mut change = change.clone();
            // The repeated items of a batch keep the attempts of their first tries.
            let attempt = change.put.as_ref().map_or(self.attempt, |put| put.attempt);
            match conflict(&mut change, now.as_ref(), &attempt) {
                SwapConflict::Made => {
                    // A swap is made completely or not at all.
                    self.made = true;
                    return false;
                }
                SwapConflict::Awaiting | SwapConflict::Untouched => own.push(change),
                SwapConflict::Nothing | SwapConflict::Other => {}
            }
        }
        if own.is_empty() {
            return false;
        }
        self.changes = own;
        true
    }
}

/// Reason for a lost swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SwapConflict {
    /// The store already has the record of the change: an earlier attempt took effect.
    Made,
    /// The process's own attempt, marked unknown after the process was declared dead. The outcome
    /// known to this process is authoritative and settles the record; the change now fits.
    Awaiting,
    /// The expected record itself: a different change of the same swap was lost.
    Untouched,
    /// No record, and the change is a removal.
    Nothing,
    /// A conflicting record.
    Other,
}

fn conflict(change: &mut Change, winner: Option<&Record>, attempt: &Nonce) -> SwapConflict {
    match (winner, &mut change.put) {
        (None, None) => SwapConflict::Nothing,
        (Some(winner), Some(put)) if **put == *winner => SwapConflict::Made,
        (Some(winner), _)
            if change.expect == Some(winner.version) && winner.attempt == *attempt =>
        {
            SwapConflict::Untouched
        }
        (Some(winner), put) if applies(put.as_deref(), winner, attempt) => {
            change.expect = Some(winner.version);
            if let Some(put) = put {
                Arc::make_mut(put).version = winner.version.wrapping_add(1);
            }
            SwapConflict::Awaiting
        }
        (None | Some(_), _) => SwapConflict::Other,
    }
}

/// Reports whether the unconfirmed change of `attempt` still applies to the present record. A call
/// that was sent again meanwhile is neither freed nor given up by an earlier try.
fn applies(put: Option<&Record>, winner: &Record, attempt: &Nonce) -> bool {
    let decides = match put.map(|put| &put.state) {
        Some(State::Final { .. }) => true,
        // The try that ends may be under way still, with the late end of an earlier one noted.
        Some(State::Unknown { .. }) if put.is_some_and(|put| winner.is_under_way_like(put)) => {
            return true;
        }
        // Units that stay unknown decide nothing, least of all about a later try.
        Some(State::Item { ledger, .. }) => !ledger.is_open(),
        Some(
            State::Unknown { .. }
            | State::InFlight
            | State::SerializeLock
            | State::Tombstone { .. }
            | State::Released { .. },
        )
        | None => false,
    };
    if decides { winner.awaits(attempt) } else { winner.awaits_release(attempt) }
}
