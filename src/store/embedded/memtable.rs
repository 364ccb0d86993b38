//! Records whose last change is durable in the log and not yet in the table.
//!
//! The writer puts them here, the folder takes them away when the table has them, everybody reads. A
//! reader looks here first and into the table after that: what leaves this place is in the table.
//!
//! Each belongs to a *part* of what is to be folded: the one that was being gathered when it last
//! changed. So the folder sees which of its records have changed since, and leaves those to a later
//! part.

use dashmap::DashMap;
use dashmap::mapref::entry;

use super::table::EncodedRecord;
use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;
use crate::store::codec::Head;

/// A record as it is, and what the table has of it.
struct MemtableEntry {
    /// The record; `None`: it is gone.
    after: Option<EncodedRecord>,
    /// What the table has: its index entries must go when the record changes. Seldom anything, and entries
    /// are many: it has a place of its own.
    stored: Option<Box<Head>>,
    /// The part it belongs to.
    part: u64,
}

/// A record that is to be folded.
pub(super) struct DirtyRecord {
    pub(super) id: RecordId,
    /// What the table has of it.
    pub(super) before: Option<Head>,
    /// What the table is to have of it.
    pub(super) after: Option<EncodedRecord>,
}

/// The records that the table has not, or not as they are.
#[derive(Default)]
pub(super) struct Memtable(DashMap<RecordId, MemtableEntry, BuildIdHasher>);

impl Memtable {
    /// What `look` sees of the record with this id, if it is one of these; `None` in it: the record
    /// is gone. Nothing is to be done in it that takes long.
    pub(super) fn get<T>(
        &self,
        id: &RecordId,
        look: impl FnOnce(Option<&EncodedRecord>) -> T,
    ) -> Option<T> {
        self.0.get(id).map(|entry| look(entry.after.as_ref()))
    }

    /// Puts a record here, as one of `part`; whether that part did not have it before. `before` is
    /// what the record was: if it is not here any more, that is what the table has.
    pub(super) fn put(
        &self,
        id: RecordId,
        before: Option<Head>,
        after: Option<EncodedRecord>,
        part: u64,
    ) -> bool {
        match self.0.entry(id) {
            entry::Entry::Vacant(place) => {
                place.insert(MemtableEntry { after, stored: before.map(Box::new), part });
                true
            }
            entry::Entry::Occupied(mut present) => {
                let present = present.get_mut();
                present.after = after;
                std::mem::replace(&mut present.part, part) != part
            }
        }
    }

    /// The record, if it still belongs to this part.
    pub(super) fn take(&self, id: RecordId, part: u64) -> Option<DirtyRecord> {
        let entry = self.0.get(&id).filter(|entry| entry.part == part)?;
        Some(DirtyRecord {
            id,
            before: entry.stored.as_deref().copied(),
            after: entry.after.clone(),
        })
    }

    /// How many are here.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The id of each that is here all the while, and of some that come or go meanwhile.
    pub(super) fn for_each_id(&self, mut each: impl FnMut(&RecordId)) {
        self.0.iter().for_each(|entry| each(entry.key()));
    }

    /// The table has it as it was taken from this part.
    pub(super) fn folded(&self, taken: &DirtyRecord, part: u64) {
        let entry::Entry::Occupied(mut present) = self.0.entry(taken.id) else { return };
        if present.get().part == part {
            present.remove();
        } else {
            let head = taken.after.as_ref().map(|written| written.head);
            present.get_mut().stored = head.map(Box::new);
        }
    }
}
