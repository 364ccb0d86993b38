//! What the filter says of records that are there, of others, and while it does not know yet.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::directory::DirectoryLock;
use super::super::id_filter::*;
use super::super::layout::{IndexedRecord, MARKER, Marker, TableKey};
use super::super::memtable::Memtable;
use super::super::table::Table;
use super::put_entries;
use crate::idempotency::RecordId;
use crate::store::codec::Codec;
use crate::store::samples::{Random, claim};

fn id(random: &mut Random) -> RecordId {
    let number = u128::from(random.next()) << 64 | u128::from(random.next());
    RecordId::from_bytes(number.to_le_bytes())
}

fn ids(random: &mut Random, count: usize) -> Vec<RecordId> {
    (0..count).map(|_| id(random)).collect()
}

fn table(dir: &Path) -> Table {
    let lock = DirectoryLock::take(dir).unwrap();
    let table = Table::create(dir, Codec::plain(), 1 << 20, lock).ok().unwrap();
    put(&table, &[]);
    table
}

/// Adds records to a table, whose number is all that its marker is about.
fn put(table: &Table, ids: &[RecordId]) {
    let before = table.marker().unwrap_or_default();
    let marker = Marker { records: before.records + ids.len() as u64, ..before }.encode();
    let mut keys: Vec<_> = ids.iter().map(TableKey::record).collect();
    keys.sort_unstable();
    let records = keys.iter().map(|key| (key.as_bytes(), Some(&b"a record"[..])));
    let entries: Vec<_> = std::iter::once((MARKER, Some(&marker[..]))).chain(records).collect();
    put_entries(table, &entries);
}

fn clear(table: &Table, ids: &[RecordId]) {
    let marker = Marker::default().encode();
    let mut keys: Vec<_> = ids.iter().map(TableKey::record).collect();
    keys.sort_unstable();
    let records = keys.iter().map(|key| (key.as_bytes(), None));
    let entries: Vec<_> = std::iter::once((MARKER, Some(&marker[..]))).chain(records).collect();
    put_entries(table, &entries);
}

fn put_memtable(memtable: &Memtable, ids: &[RecordId]) {
    for id in ids {
        memtable.put(*id, None, Some(IndexedRecord::of(&Codec::plain(), id, &claim(1))), 0);
    }
}

/// Lets the filter take what is read for it.
fn whole(absent: &mut IdFilter) {
    let end = Instant::now() + Duration::from_secs(60);
    while absent.reading.is_some() {
        assert!(Instant::now() < end, "the ids are still being read");
        std::thread::yield_now();
        absent.advance();
    }
}

#[test]
fn what_was_added_is_there_and_little_else_is() {
    let mut random = Random::new();
    let made_for = 1 << 14;
    let filter = BloomFilter::new(made_for);
    let others = ids(&mut random, 20_000);
    // As many as it is made for, and as many as it ever holds.
    for wrong in [200, 1_000] {
        let added = ids(&mut random, made_for);
        let (some, more) = added.split_at(made_for / 2);
        some.iter().for_each(|id| filter.add(id));
        more.iter().for_each(|id| filter.add_alone(id));
        assert!(added.iter().all(|id| filter.may_have(id)));
        let found = others.iter().filter(|id| filter.may_have(id)).count();
        assert!(found < wrong, "{found} of {} that were not added", others.len());
    }
}

#[test]
fn all_that_was_there_is_known_before_anything_is_said_to_be_absent() {
    let mut random = Random::new();
    let dir = TempDir::new().unwrap();
    let (table, memtable) = (table(dir.path()), Arc::new(Memtable::default()));
    // More than are read in one step, so that the writer has its turn in between.
    let (old, new) = (ids(&mut random, 2 * STEP + 1), ids(&mut random, 100));
    put(&table, &old);
    put_memtable(&memtable, &new);
    let mut absent = IdFilter::new(table, memtable, SIZES);
    let added = ids(&mut random, 100);
    added.iter().for_each(|id| absent.add(id));
    let others = ids(&mut random, 1_000);
    let mut present = old.iter().chain(&new).chain(&added);
    assert!(!others.iter().chain(present.clone()).any(|id| absent.is_absent(id)));
    whole(&mut absent);
    assert!(!present.any(|id| absent.is_absent(id)));
    let certain = others.iter().filter(|id| absent.is_absent(id)).count();
    assert!(certain > 990, "{certain} of {}", others.len());
}

#[test]
fn a_full_filter_is_made_anew_and_forgets_what_is_gone() {
    let mut random = Random::new();
    let dir = TempDir::new().unwrap();
    let (table, memtable) = (table(dir.path()), Arc::new(Memtable::default()));
    let sizes = FilterSizes { least: 512, most: 2048 };
    let absent = &mut IdFilter::new(table.clone(), memtable.clone(), sizes);
    whole(absent);
    let (kept, here, gone) = (ids(&mut random, 300), ids(&mut random, 300), ids(&mut random, 424));
    put(&table, &kept);
    put_memtable(&memtable, &here);
    kept.iter().chain(&here).chain(&gone).for_each(|id| absent.add(id));
    assert!(!gone.iter().any(|id| absent.is_absent(id)));
    absent.advance();
    // Until it has been read again nothing is certain.
    assert!(!gone.iter().chain(&kept).chain(&here).any(|id| absent.is_absent(id)));
    whole(absent);
    assert!(!kept.iter().chain(&here).any(|id| absent.is_absent(id)));
    let certain = gone.iter().filter(|id| absent.is_absent(id)).count();
    assert!(certain > 400, "{certain} of {}", gone.len());
}

#[test]
fn with_too_many_records_the_table_is_asked() {
    let mut random = Random::new();
    let dir = TempDir::new().unwrap();
    let (table, memtable) = (table(dir.path()), Arc::new(Memtable::default()));
    let old = ids(&mut random, 129);
    put(&table, &old);
    let sizes = FilterSizes { least: 16, most: 128 };
    let mut absent = IdFilter::new(table.clone(), memtable, sizes);
    let others = ids(&mut random, 128);
    for id in &others {
        absent.advance();
        assert!(!absent.is_absent(id));
        absent.add(id);
    }
    // It may have become smaller: it is looked at again after so many more.
    clear(&table, &old);
    absent.advance();
    whole(&mut absent);
    assert!(others.iter().filter(|id| absent.is_absent(id)).count() > 100);
}

#[test]
fn what_is_not_wanted_any_more_is_not_read() {
    let mut random = Random::new();
    let dir = TempDir::new().unwrap();
    let (table, memtable) = (table(dir.path()), Memtable::default());
    put(&table, &ids(&mut random, 2 * STEP));
    let (wanted, end) = sync_channel(0);
    drop(wanted);
    assert!(!read(&table, &memtable, &BloomFilter::new(16), &end).unwrap());
}
