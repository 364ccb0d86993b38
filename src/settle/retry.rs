//! Changes that the store did not confirm, and that must be made all the same.
//!
//! A claim that may be durable although nobody acts on it, or an outcome that is known and not
//! recorded, would keep its key in flight for as long as this process lives. So they are tried
//! again until the store has them, or has something else.

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

/// How often a lost change is tried again on a store that is asked over a network: what was sent to
/// it before, on a connection that was given up, may arrive and be made yet. About twenty seconds.
const LINGER: u32 = 9;

/// The changes that are tried again, up to a limit.
#[derive(Debug)]
pub(crate) struct RetryQueue {
    /// Outcomes and withdrawals each have their own: what was refused during an outage must not
    /// take the place of what was carried out.
    outcomes: Arc<Semaphore>,
    withdrawals: Arc<Semaphore>,
    /// Not those that a drain waits for: the store may stay away.
    tasks: TaskTracker,
    /// Outcomes, for which a drain waits as long as it may.
    recording: TaskTracker,
}

/// Meaning of a change that the store did not confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryKind {
    /// The outcome of a call that was sent.
    Outcome,
    /// A claim for which nothing was sent.
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

    /// Makes the changes, all or none, as soon as the store takes them: the end of `attempt`.
    /// Ends with the process; another one, or the next start, makes what is left unknown.
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
                "too many changes wait for the store; some records stay in flight until a restart"
            );
            return;
        };
        tasks.spawn(insist(Arc::downgrade(store), changes, attempt, permit));
    }

    /// Waits until every outcome is recorded, for `limit` at most; says whether it is.
    pub(crate) async fn recorded(&self, limit: Duration) -> bool {
        shutdown::ended(&self.recording, limit).await
    }
}

async fn insist(
    store: Weak<dyn Store>,
    mut changes: Vec<Change>,
    attempt: Nonce,
    _permit: OwnedSemaphorePermit,
) {
    let mut pause = FIRST_PAUSE;
    let mut lost = 0;
    // Whoever closes the store is not kept from it.
    while let Some(store) = store.upgrade() {
        match store.swap(changes.clone()).await {
            Ok(Swap::Done) => return,
            Ok(Swap::Lost { index, winner }) => {
                let Some(change) = changes.get_mut(index) else { return };
                if met(change, winner.as_deref(), &attempt) == SwapConflict::Made {
                    return;
                }
                if !rebase(&*store, &mut changes, &attempt).await {
                    lost += 1;
                    if !store.is_shared() || lost == LINGER {
                        let id = changes.get(index).map(|change| change.id);
                        tracing::debug!(record = ?id, "what was unfinished is settled");
                        return;
                    }
                }
            }
            Err(StoreError::Corrupt { id, reason }) => {
                tracing::error!(record = ?id, reason, "it stays as it is");
                return;
            }
            Err(StoreError::Unavailable(_)) => {}
        }
        drop(store);
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// This process was taken for dead: its records became unknown and its turns were taken from it, and
/// an operator may have decided about some. Puts what is still its own on what is there now, in one
/// look, and leaves out the rest; says whether anything is.
async fn rebase(store: &dyn Store, changes: &mut Vec<Change>, attempt: &Nonce) -> bool {
    let ids: Vec<RecordId> = changes.iter().map(|change| change.id).collect();
    let Ok(found) = store.get_many(&ids).await else { return false };
    let mut own = Vec::with_capacity(changes.len());
    for (change, now) in changes.iter().zip(&found) {
        let mut change = change.clone();
        match met(&mut change, now.as_ref(), attempt) {
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
    /// The store has the record that the change puts: an earlier try was made after all.
    Made,
    /// Its own attempt, unknown since this process was taken for dead. What this process knows of
    /// the attempt is the truth and settles it; the change fits now.
    Awaiting,
    /// The very record that it expects: another change of the same swap was lost.
    Untouched,
    /// No record, and it would remove one.
    Nothing,
    /// Something else.
    Other,
}

fn met(change: &mut Change, winner: Option<&Record>, attempt: &Nonce) -> SwapConflict {
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
