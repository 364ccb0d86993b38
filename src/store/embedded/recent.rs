//! Records whose last change is durable in the log and not yet in the table.
//!
//! The writer alone changes them; everybody reads. A reader looks here first and into the table
//! after that: what leaves this place has been put into the table before.

use dashmap::DashMap;

use super::engine::Written;
use crate::idempotency::RecordId;
use crate::idempotency::record::BuildIdHasher;
use crate::store::codec::Head;

/// A record as it is, and what the table has of it.
pub(super) struct Entry {
    /// The record; `None`: it is gone.
    pub(super) after: Option<Written>,
    /// What the table has: its index entries must go when the record changes.
    pub(super) stored: Option<Head>,
}

/// The records that the table has not, or not as they are.
#[derive(Default)]
pub(super) struct Recent(DashMap<RecordId, Entry, BuildIdHasher>);

impl Recent {
    /// What `look` sees of the record with this id, if it is one of these. Nothing is to be done in
    /// it that takes long.
    pub(super) fn get<T>(&self, id: &RecordId, look: impl FnOnce(&Entry) -> T) -> Option<T> {
        self.0.get(id).map(|entry| look(&entry))
    }

    /// Puts a record here; whether it was not here before.
    pub(super) fn put(&self, id: RecordId, entry: Entry) -> bool {
        self.0.insert(id, entry).is_none()
    }

    /// The table has it.
    pub(super) fn remove(&self, id: &RecordId) {
        self.0.remove(id);
    }
}
