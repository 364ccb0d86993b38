//! In-process locks of the batches in flight: item ids, and `serialize_by` values with a limit of a
//! single batch at a time. A batch takes its locks in a single step or not at all, so overlapping
//! batches never deadlock.
//!
//! The locks make duplicates wait instead of losing a swap; correctness rests on the store alone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;

/// A record's id, or the digest of a `serialize_by` value in the same form.
pub(crate) type LockName = RecordId;

type HeldLocks = HashMap<LockName, Arc<ActiveBatch>, BuildIdHasher>;

/// The names in use.
#[derive(Debug, Default)]
pub(crate) struct BatchLocks {
    held: Mutex<HeldLocks>,
}

/// A batch in flight.
#[derive(Debug)]
pub(crate) struct ActiveBatch {
    ended: watch::Sender<bool>,
}

/// The locks of a batch. A drop releases the locks and wakes the waiters.
#[derive(Debug)]
pub(crate) struct LockSet {
    locks: Arc<BatchLocks>,
    names: Vec<LockName>,
    sending: Arc<ActiveBatch>,
}

impl BatchLocks {
    /// Takes all of `names`, or returns the batch in possession of a lock.
    pub(crate) fn hold(
        self: &Arc<Self>,
        mut names: Vec<LockName>,
    ) -> Result<LockSet, Arc<ActiveBatch>> {
        names.sort_unstable();
        names.dedup();
        let sending = Arc::new(ActiveBatch { ended: watch::Sender::new(false) });
        let mut held = self.lock();
        if let Some(other) = names.iter().find_map(|name| held.get(name)) {
            return Err(other.clone());
        }
        held.extend(names.iter().map(|name| (*name, sending.clone())));
        drop(held);
        Ok(LockSet { locks: self.clone(), names, sending })
    }

    /// The batch in possession of the lock.
    pub(crate) fn holder(&self, name: &LockName) -> Option<Arc<ActiveBatch>> {
        self.lock().get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HeldLocks> {
        // No code between lock and unlock can leave the map inconsistent.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ActiveBatch {
    /// Returns when the batch has an outcome or was given up.
    pub(crate) async fn ended(&self) {
        // The sender lives in `self`, so waiting can only end with the value.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

impl LockSet {
    /// Keeps the locks in `names` and releases the rest.
    pub(crate) fn keep(self, names: Vec<LockName>) -> Self {
        let sending = Arc::new(ActiveBatch { ended: watch::Sender::new(false) });
        let mut held = self.locks.lock();
        for name in &names {
            // Replaced in a single step: no waiter ever finds the lock free in between.
            held.insert(*name, sending.clone());
        }
        drop(held);
        Self { locks: self.locks.clone(), names, sending }
    }
}

impl Drop for LockSet {
    fn drop(&mut self) {
        let mut held = self.locks.lock();
        for name in &self.names {
            if let Entry::Occupied(entry) = held.entry(*name)
                && Arc::ptr_eq(entry.get(), &self.sending)
            {
                entry.remove();
            }
        }
        drop(held);
        self.sending.ended.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_all_of_its_names_or_none() {
        let locks = Arc::new(BatchLocks::default());
        let name = |number| RecordId::from_bytes([number; 16]);
        let first = locks.hold(vec![name(1), name(2), name(1)]).expect("free");
        assert!(locks.hold(vec![name(3), name(2)]).is_err());
        let other = locks.hold(vec![name(3)]).expect("not taken by the one that failed");
        assert!(locks.holder(&name(1)).is_some());
        let before = locks.holder(&name(1)).unwrap();
        let first = first.keep(vec![name(1)]);
        assert!(*before.ended.borrow(), "who waited looks again");
        assert!(locks.hold(vec![name(1)]).is_err());
        drop(locks.hold(vec![name(2)]).expect("given back"));
        drop(first);
        assert!(locks.holder(&name(1)).is_none());
        drop(locks.hold(vec![name(2), name(1)]).expect("free again"));
        drop(other);
        assert!(locks.lock().is_empty());
    }
}
