//! Locks of `serialize_by` values on a shared store.

use std::sync::Arc;

use crate::hex;
use crate::idempotency::{Record, RecordId, State};
use crate::items;
use crate::proxy::request::draft::first_version;
use crate::proxy::state::Gateway;
use crate::store::Change;

/// Lock records of a batch: a record per `serialize_by` value, so that batches of several
/// processes run in sequence. Within a process
/// [`BatchLocks`](crate::proxy::batch_locks::BatchLocks) has the same effect, and a local store
/// needs no lock records.
#[derive(Default)]
pub(crate) struct SerializeRecords(Vec<(RecordId, Arc<Record>)>);

impl SerializeRecords {
    /// The lock records needed by `batch`, as records of the attempt of `like`.
    pub(crate) fn of(gateway: &Gateway, batch: &items::Batch, like: Option<&Record>) -> Self {
        let (true, Some(like)) = (gateway.store.is_shared(), like) else { return Self::default() };
        let lock = |digest: &[u8; 16]| {
            let key = hex::encode(digest);
            // Route names contain no colon, so the scope of a lock is never the scope of a key.
            let id = gateway.store.ids().record(&like.tenant, "turn:", &key);
            let (version, state) = (first_version(), State::SerializeLock);
            let history = Vec::new();
            let record = Record {
                version,
                key: key.into(),
                subject: None,
                attempts: 1,
                state,
                history,
                ..like.clone()
            };
            (id, record.into())
        };
        Self(batch.serial.iter().map(lock).collect())
    }

    /// Changes that take the locks.
    pub(crate) fn take(&self) -> impl Iterator<Item = Change> {
        self.0.iter().map(|(id, record)| Change {
            id: *id,
            expect: None,
            put: Some(record.clone()),
        })
    }

    /// Changes that release the locks.
    pub(crate) fn give_back(&self) -> impl Iterator<Item = Change> {
        self.0.iter().map(|(id, record)| Change {
            id: *id,
            expect: Some(record.version),
            put: None,
        })
    }

    /// Record id of the lock at position `at`.
    pub(crate) fn id(&self, at: usize) -> Option<RecordId> {
        self.0.get(at).map(|(id, _)| *id)
    }

    /// Drops locks lost to another batch, given the records `found` in the store.
    pub(crate) fn retain(&mut self, found: &[Option<Record>]) {
        let mut found = found.iter();
        self.0.retain(|(_, own)| {
            let now = found.next().and_then(Option::as_ref);
            now.is_some_and(|now| now.version == own.version && now.attempt == own.attempt)
        });
    }

    /// Returns true if the batch has no lock records.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Drops the locks after their release.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
