//! Many records at once: sorted, they become files of the table without a detour through the engine's
//! journal and memory.
//!
//! Each part of the table gets its files for itself, so that a crash may come in between. Index
//! entries that no longer hold go first, then come the records, then their index entries: whatever
//! record a start then finds, it lacks entries of its own and no entry of another state is left over.
//! The log is still there and is folded again, which makes the entries whole. That holds for what went
//! through the engine's journal before as well, as that is synced first: a part that gets files gets
//! what was in its memory too, and the other parts must not lose theirs.

use std::time::{Duration, Instant};

use fjall::{Keyspace, Slice};

use super::disk::Disk;
use super::memtable::DirtyRecord;
use super::table::{Index, IndexKey, REACHED, Table, differences};
use crate::failpoint::{self, Point};

/// How long a part waits, in all, for the engine to merge files it has too many of; after that the
/// part is added all the same, and reading takes longer. Meanwhile no file of the log becomes free.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Files that are not merged yet, of which each read looks into every one. A part may add two, and with 30 of
/// them the engine lets whatever takes its own way wait until it has merged, however long that is.
const TOO_MANY: usize = 26;

/// Puts records, in the order of their ids, and their index entries into the table, durably.
pub(super) fn put(engine: &Table, disk: &dyn Disk, taken: &[DirtyRecord]) -> Result<(), String> {
    disk.persist(&engine.db)?;
    let patience = Instant::now() + PATIENCE;
    let (mut gone, mut new) = (IndexEntries::default(), IndexEntries::default());
    for record in taken {
        let after = record.after.as_ref().map(|written| written.head);
        differences(&record.id, record.before, after, |index, key, there| {
            if there { new.add(index, key) } else { gone.add(index, key) }
        });
    }
    gone.put((engine, disk, patience), false)?;
    let records = taken.iter().filter_map(|record| {
        let value = record.after.as_ref().map(|written| Slice::from(&*written.bytes));
        let known = record.before.is_some() || value.is_some();
        known.then(|| (record.id.as_bytes().as_slice(), value))
    });
    let removes = taken.iter().any(|record| record.after.is_none());
    add(&engine.records, (disk, patience), records, removes)?;
    new.put((engine, disk, patience), true)
}

/// IndexEntries of the indexes.
#[derive(Default)]
struct IndexEntries([Vec<IndexKey>; 3]);

impl IndexEntries {
    fn add(&mut self, index: Index, key: IndexKey) {
        self.0[index as usize].push(key);
    }

    fn put(
        self,
        (engine, disk, patience): (&Table, &dyn Disk, Instant),
        there: bool,
    ) -> Result<(), String> {
        for (index, mut keys) in Index::ALL.into_iter().zip(self.0) {
            keys.sort_unstable();
            let value = || there.then(|| Slice::from([]));
            let entries = keys.iter().map(|key| (key.as_bytes(), value()));
            add(engine.index(index), (disk, patience), entries, !there)?;
        }
        Ok(())
    }
}

/// Adds what is sorted, and not twice the same, to a part of the table; `None` removes. Where something
/// is removed, [`REACHED`] is added, which stays.
fn add<'a>(
    keyspace: &Keyspace,
    (disk, patience): (&dyn Disk, Instant),
    entries: impl Iterator<Item = (&'a [u8], Option<Slice>)>,
    removes: bool,
) -> Result<(), String> {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return Ok(());
    }
    while keyspace.l0_table_count() >= TOO_MANY && Instant::now() < patience {
        std::thread::sleep(LOOK_AGAIN);
    }
    let reached = removes.then(|| (REACHED, Some(Slice::from([]))));
    disk.ingest(keyspace, &mut reached.into_iter().chain(entries))?;
    failpoint::point(Point::AfterFold);
    Ok(())
}
