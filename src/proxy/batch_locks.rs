//! What batches of this process are sending: the ids of items, and the values that `serialize_by`
//! allows one batch at a time. A batch takes all its names in one step or none, so that batches
//! that share some never wait for each other in a circle.
//!
//! This only makes duplicates wait instead of losing a swap; the store alone decides who sends.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

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

/// A batch that is being sent.
#[derive(Debug)]
pub(crate) struct ActiveBatch {
    /// Start of the call.
    pub(crate) started: Instant,
    ended: watch::Sender<bool>,
}

/// The names of one batch; given back when dropped, and whoever waits is woken.
#[derive(Debug)]
pub(crate) struct LockSet {
    busy: Arc<BatchLocks>,
    names: Vec<LockName>,
    sending: Arc<ActiveBatch>,
}

impl BatchLocks {
    /// Takes all of `names`, or gives the batch that has one of them.
    pub(crate) fn hold(
        self: &Arc<Self>,
        mut names: Vec<LockName>,
    ) -> Result<LockSet, Arc<ActiveBatch>> {
        names.sort_unstable();
        names.dedup();
        let sending =
            Arc::new(ActiveBatch { started: Instant::now(), ended: watch::Sender::new(false) });
        let mut held = self.lock();
        if let Some(other) = names.iter().find_map(|name| held.get(name)) {
            return Err(other.clone());
        }
        held.extend(names.iter().map(|name| (*name, sending.clone())));
        drop(held);
        Ok(LockSet { busy: self.clone(), names, sending })
    }

    /// The batch that has this name.
    pub(crate) fn holder(&self, name: &LockName) -> Option<Arc<ActiveBatch>> {
        self.lock().get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HeldLocks> {
        // Nothing between lock and unlock can leave the map half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ActiveBatch {
    /// Returns when the batch has its outcome, or nobody sends it any more.
    pub(crate) async fn ended(&self) {
        // The sender lives in `self`, so waiting can only end with the value.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

impl LockSet {
    /// Keeps some of the names, and gives the others back.
    pub(crate) fn keep(self, names: Vec<LockName>) -> Self {
        let (started, ended) = (self.sending.started, watch::Sender::new(false));
        let sending = Arc::new(ActiveBatch { started, ended });
        let mut held = self.busy.lock();
        for name in &names {
            // From one to the other without a moment in between: whoever waits finds it taken again.
            held.insert(*name, sending.clone());
        }
        drop(held);
        Self { busy: self.busy.clone(), names, sending }
    }
}

impl Drop for LockSet {
    fn drop(&mut self) {
        let mut held = self.busy.lock();
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
        let busy = Arc::new(BatchLocks::default());
        let name = |number| RecordId::from_bytes([number; 16]);
        let first = busy.hold(vec![name(1), name(2), name(1)]).expect("free");
        assert!(busy.hold(vec![name(3), name(2)]).is_err());
        let other = busy.hold(vec![name(3)]).expect("not taken by the one that failed");
        assert!(busy.holder(&name(1)).is_some());
        let before = busy.holder(&name(1)).unwrap();
        let first = first.keep(vec![name(1)]);
        assert!(*before.ended.borrow(), "who waited looks again");
        assert!(busy.hold(vec![name(1)]).is_err());
        drop(busy.hold(vec![name(2)]).expect("given back"));
        drop(first);
        assert!(busy.holder(&name(1)).is_none());
        drop(busy.hold(vec![name(2), name(1)]).expect("free again"));
        drop(other);
        assert!(busy.lock().is_empty());
    }
}
