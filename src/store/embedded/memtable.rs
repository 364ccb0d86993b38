//! The memtable: records with their newest state durable in the log and not yet in the table.
//!
//! The writer adds records, a checkpoint removes records contained in the table, and every thread
//! reads. Readers search the memtable first and the table second: a record gone from the memtable
//! is in the table.
//!
//! A record belongs to a *generation*: the current generation at the record's last change. A
//! checkpoint thereby recognizes the records of its generation changed since, and leaves them to a
//! later generation.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::expiry::ExpiryIndex;
use super::layout::{DirtyRecord, IndexedRecord};
use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;
use crate::store::codec::Head;

/// Newest state of a record, and its state in the table.
struct MemtableEntry {
    /// Newest state; `None`: the record was removed.
    current: Option<IndexedRecord>,
    /// State in the table; its index entries are removed by the record's checkpoint. Boxed because
    /// few of the many entries have such a state.
    stored: Option<Box<Head>>,
    generation: u64,
}

/// Records missing in the table, or older there.
#[derive(Default)]
pub(super) struct Memtable {
    entries: DashMap<RecordId, MemtableEntry, BuildIdHasher>,
    expiry: ExpiryIndex,
}

fn expires(record: Option<&IndexedRecord>) -> Option<Timestamp> {
    record?.head.expires
}

impl Memtable {
    /// Gives `look` the record's newest state, if the record is in the memtable; `None` in it: the
    /// record was removed. `look` holds up the writer and has to be short.
    pub(super) fn get<T>(
        &self,
        id: &RecordId,
        look: impl FnOnce(Option<&IndexedRecord>) -> T,
    ) -> Option<T> {
        self.entries.get(id).map(|entry| look(entry.current.as_ref()))
    }

    /// Adds a record to a generation; returns true if new to the generation. `before` is the
    /// record's previous state; for a record not in the memtable, its state in the table.
    pub(super) fn put(
        &self,
        id: RecordId,
        before: Option<Head>,
        current: Option<IndexedRecord>,
        generation: u64,
    ) -> bool {
        match self.entries.entry(id) {
            Entry::Vacant(place) => {
                self.expiry.replace(id, None, expires(current.as_ref()));
                let stored = before.map(Box::new);
                place.insert(MemtableEntry { current, stored, generation });
                true
            }
            Entry::Occupied(mut present) => {
                let present = present.get_mut();
                let old = expires(present.current.as_ref());
                self.expiry.replace(id, old, expires(current.as_ref()));
                present.current = current;
                std::mem::replace(&mut present.generation, generation) != generation
            }
        }
    }

    /// Record to checkpoint, if the record still belongs to `generation`.
    pub(super) fn dirty(&self, id: RecordId, generation: u64) -> Option<DirtyRecord> {
        let entry = self.entries.get(&id).filter(|entry| entry.generation == generation)?;
        let stored = entry.stored.as_deref().copied();
        Some(DirtyRecord { id, stored, current: entry.current.clone() })
    }

    /// Marks a record as checkpointed in the state returned by [`Memtable::dirty`].
    pub(super) fn checkpointed(&self, record: &DirtyRecord, generation: u64) {
        let Entry::Occupied(mut present) = self.entries.entry(record.id) else { return };
        if present.get().generation == generation {
            self.expiry.replace(record.id, expires(present.get().current.as_ref()), None);
            present.remove();
        } else {
            let head = record.current.as_ref().map(|encoded| encoded.head);
            present.get_mut().stored = head.map(Box::new);
        }
    }

    /// Number of records.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Calls `each` for every record present throughout, and for some of the records added or
    /// removed in the meantime.
    pub(super) fn for_each(&self, mut each: impl FnMut(&RecordId, Option<&Head>)) {
        self.entries.iter().for_each(|entry| {
            each(entry.key(), entry.current.as_ref().map(|encoded| &encoded.head));
        });
    }

    /// Records in order of expiry.
    pub(super) fn expiry(&self) -> &ExpiryIndex {
        &self.expiry
    }
}
