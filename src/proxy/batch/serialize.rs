//! Turns of `serialize_by` on a shared store.

use std::sync::Arc;

use crate::idempotency::{Record, RecordId, State};
use crate::items;
use crate::proxy::request::claim::first_version;
use crate::proxy::state::Gateway;
use crate::store::Change;

/// The turns of a batch: one for each `serialize_by` value, so that batches of several processes go
/// one after the other. Within one process `busy` sees to that, and a store of one process has none.
#[derive(Default)]
pub(crate) struct SerializeRecords(Vec<(RecordId, Arc<Record>)>);

impl SerializeRecords {
    /// The turns that `batch` needs, as records of the attempt that `like` is a record of.
    pub(crate) fn of(gateway: &Gateway, batch: &items::Batch, like: Option<&Record>) -> Self {
        let (true, Some(like)) = (gateway.store.is_shared(), like) else { return Self::default() };
        let turn = |digest: &[u8; 16]| {
            let key: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            // Names of routes have no colon, so a turn never collides with anything else.
            let id = RecordId::new(&like.tenant, "turn:", &key);
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
        Self(batch.serial.iter().map(turn).collect())
    }

    /// Taking them all.
    pub(crate) fn take(&self) -> impl Iterator<Item = Change> {
        self.0.iter().map(|(id, record)| Change {
            id: *id,
            expect: None,
            put: Some(record.clone()),
        })
    }

    /// Giving them all back.
    pub(crate) fn give_back(&self) -> impl Iterator<Item = Change> {
        self.0.iter().map(|(id, record)| Change {
            id: *id,
            expect: Some(record.version),
            put: None,
        })
    }

    /// Their ids.
    pub(crate) fn ids(&self) -> impl Iterator<Item = RecordId> {
        self.0.iter().map(|(id, _)| *id)
    }

    /// Id of the turn at this place among the turns.
    pub(crate) fn id(&self, at: usize) -> Option<RecordId> {
        self.0.get(at).map(|(id, _)| *id)
    }

    /// Forgets those that are not this batch's any more, from what the store has now.
    pub(crate) fn retain(&mut self, found: &[Option<Record>]) {
        let mut found = found.iter();
        self.0.retain(|(_, own)| {
            let now = found.next().and_then(Option::as_ref);
            now.is_some_and(|now| now.version == own.version && now.attempt == own.attempt)
        });
    }

    /// Set when the batch has no turns.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets the turns after they were given back.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
