//! Retries of changes not confirmed by the store.
//!
//! An unconfirmed claim without a request, or a known but unrecorded outcome, would keep its key in
//! flight for the lifetime of the process. Such a change is therefore retried until the store has
//! the change or a conflicting record.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId};
use crate::shutdown;
use crate::store::{Change, Store, StoreError, Swap};

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
    outcomes: Arc<Semaphore>,
    withdrawals: Arc<Semaphore>,
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
            outcomes: Arc::new(Semaphore::new(limit)),
            withdrawals: Arc::new(Semaphore::new(limit)),
            tasks: TaskTracker::new(),
            recording: TaskTracker::new(),
        }
    }

    /// Applies the final changes of `attempt`, all or none, as soon as the store accepts them.
    /// Retries end with the process; another process, or the next start, marks the remaining
    /// records unknown.
    pub(crate) fn finish(
        &self,
        store: &Arc<dyn Store>,
        changes: Vec<Change>,
        (attempt, kind): (Nonce, RetryKind),
    ) {
        let (permits, tasks) = match kind {
            RetryKind::Outcome => (&self.outcomes, &self.recording),
            RetryKind::Withdrawal => (&self.withdrawals, &self.tasks),
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::error!(
                "too many changes wait for the store; a record stays in flight until a restart"
            );
            return;
        };
        tasks.spawn(retry_until_stored(Arc::downgrade(store), changes, attempt, permit));
    }

    /// Waits until every outcome is recorded, at most for `limit`; returns true on success.
    pub(crate) async fn recorded(&self, limit: Duration) -> bool {
        shutdown::ended(&self.recording, limit).await
    }
}

async fn retry_until_stored(
    store: Weak<dyn Store>,
    mut changes: Vec<Change>,
    attempt: Nonce,
    _permit: OwnedSemaphorePermit,
) {
    let mut pause = FIRST_PAUSE;
    let mut lost = 0;
    // A weak reference, so that retries never delay the closing of the store.
    while let Some(store) = store.upgrade() {
        match store.swap(changes.clone()).await {
            Ok(Swap::Done) => return,
            Ok(Swap::Lost { index, winner }) => {
                let Some(change) = changes.get_mut(index) else { return };
                if conflict(change, winner.as_deref(), &attempt) == SwapConflict::Made {
                    return;
                }
                if !rebase(&*store, &mut changes, &attempt).await {
                    lost += 1;
                    if !store.is_shared() || lost == LINGER {
                        let id = changes.get(index).map(|change| change.id);
                        tracing::debug!(
                            record = ?id,
                            "the record was already settled; the change is dropped"
                        );
                        return;
                    }
                }
            }
            Err(StoreError::Corrupt { id, reason }) => {
                tracing::error!(
                    record = ?id, reason,
                    "record is unreadable; it is left unchanged and its key stays held"
                );
                return;
            }
            Err(StoreError::Unavailable(_)) => {}
        }
        drop(store);
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Rebases the changes after this process was declared dead by another: its records became unknown,
/// its locks were taken, and an operator may have decided. Changes still owned by the attempt are
/// rebased on the current records, in a single read; the rest is dropped. Returns true if any
/// change remains.
async fn rebase(store: &dyn Store, changes: &mut Vec<Change>, attempt: &Nonce) -> bool {
    let ids: Vec<RecordId> = changes.iter().map(|change| change.id).collect();
    let Ok(found) = store.get_many(&ids).await else { return false };
    let mut own = Vec::with_capacity(changes.len());
    for (change, now) in changes.iter().zip(&found) {
        let mut change = change.clone();
        match conflict(&mut change, now.as_ref(), attempt) {
            SwapConflict::Awaiting | SwapConflict::Untouched => own.push(change),
            SwapConflict::Made | SwapConflict::Nothing | SwapConflict::Other => {}
        }
    }
    if own.is_empty() {
        return false;
    }
    *changes = own;
    true
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
        (Some(winner), put) if winner.awaits(attempt) => {
            change.expect = Some(winner.version);
            if let Some(put) = put {
                Arc::make_mut(put).version = winner.version.wrapping_add(1);
            }
            SwapConflict::Awaiting
        }
        (None | Some(_), _) => SwapConflict::Other,
    }
}
