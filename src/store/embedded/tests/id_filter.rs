//! What the filter says of records that are there, of others, and while it does not know yet.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::id_filter::*;
use super::super::memtable::Memtable;
use super::super::table::{EncodedRecord, Table, TableError};
use super::unlocked;
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
    unlocked(|| match Table::open(dir, Codec::plain(), 1 << 20, true) {
        Err(TableError::Locked) => None,
        opened => Some(opened.ok().unwrap()),
    })
}

fn put(engine: &Table, ids: &[RecordId]) {
    ids.iter().for_each(|id| engine.records.insert(id.as_bytes(), b"a record").unwrap());
}

fn put_recent(recent: &Memtable, ids: &[RecordId]) {
    for id in ids {
        recent.put(*id, None, Some(EncodedRecord::of(&Codec::plain(), id, &claim(1))), 0);
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
    let filter = Filter::new(made_for);
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
    let (engine, recent) = (table(dir.path()), Arc::new(Memtable::default()));
    // More than are read in one step, so that the writer has its turn in between.
    let (old, new) = (ids(&mut random, 2 * STEP + 1), ids(&mut random, 100));
    put(&engine, &old);
    put_recent(&recent, &new);
    let mut absent = IdFilter::new(engine, recent, SIZES);
    let added = ids(&mut random, 100);
    added.iter().for_each(|id| absent.add(id));
    let others = ids(&mut random, 1_000);
    let mut present = old.iter().chain(&new).chain(&added);
    assert!(!others.iter().chain(present.clone()).any(|id| absent.is_certain(id)));
    whole(&mut absent);
    assert!(!present.any(|id| absent.is_certain(id)));
    let certain = others.iter().filter(|id| absent.is_certain(id)).count();
    assert!(certain > 990, "{certain} of {}", others.len());
}

#[test]
fn a_full_filter_is_made_anew_and_forgets_what_is_gone() {
    let mut random = Random::new();
    let dir = TempDir::new().unwrap();
    let (engine, recent) = (table(dir.path()), Arc::new(Memtable::default()));
    let sizes = FilterSizes { least: 512, most: 2048 };
    let absent = &mut IdFilter::new(engine.clone(), recent.clone(), sizes);
    whole(absent);
    let (kept, here, gone) = (ids(&mut random, 300), ids(&mut random, 300), ids(&mut random, 424));
    put(&engine, &kept);
    put_recent(&recent, &here);
    kept.iter().chain(&here).chain(&gone).for_each(|id| absent.add(id));
    assert!(!gone.iter().any(|id| absent.is_certain(id)));
    absent.advance();
    // Until it has been read again nothing is certain.
    assert!(!gone.iter().chain(&kept).chain(&here).any(|id| absent.is_certain(id)));
    whole(absent);
    assert!(!kept.iter().chain(&here).any(|id| absent.is_certain(id)));
    let certain = gone.iter().filter(|id| absent.is_certain(id)).count();
    assert!(certain > 400, "{certain} of {}", gone.len());
}

#[test]
fn with_too_many_records_the_table_is_asked() {
    let mut random = Random::new();
    let dir = TempDir::new().unwrap();
    let (engine, recent) = (table(dir.path()), Arc::new(Memtable::default()));
    put(&engine, &ids(&mut random, 129));
    let sizes = FilterSizes { least: 16, most: 128 };
    let mut absent = IdFilter::new(engine.clone(), recent, sizes);
    let others = ids(&mut random, 128);
    for id in &others {
        absent.advance();
        assert!(!absent.is_certain(id));
        absent.add(id);
    }
    // It may have become smaller: it is looked at again after so many more.
    engine.records.clear().unwrap();
    absent.advance();
    whole(&mut absent);
    assert!(others.iter().filter(|id| absent.is_certain(id)).count() > 100);
}

#[test]
fn what_is_not_wanted_any_more_is_not_read() {
    let mut random = Random::new();
    let dir = TempDir::new().unwrap();
    let (engine, recent) = (table(dir.path()), Memtable::default());
    put(&engine, &ids(&mut random, 2 * STEP));
    let (wanted, end) = sync_channel(0);
    drop(wanted);
    assert!(!read(&engine, &recent, &Filter::new(16), &end).unwrap());
}

#[test]
fn a_counter_of_changes_that_began_anew_hides_nothing() {
    let mut random = Random::new();
    let dir = TempDir::new().unwrap();
    let ids = ids(&mut random, 300);
    let engine = table(dir.path());
    put(&engine, &ids);
    engine.meta.insert(b"some", b"thing").unwrap();
    engine.rotate().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while engine.records.l0_table_count() == 0 || engine.meta.l0_table_count() == 0 {
        assert!(Instant::now() < end, "the engine writes no file");
        std::thread::yield_now();
    }
    drop(engine);
    let journals = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let journals = journals.filter(|path| path.extension().is_some_and(|ext| ext == "jnl"));
    journals.for_each(|path| std::fs::remove_file(path).unwrap());

    let engine = table(dir.path());
    assert_eq!(engine.records.iter().count(), 0, "what the engine's own iterator shows");
    assert_eq!(Table::entries(&engine.records).count(), ids.len());
    let mut absent = IdFilter::new(engine, Arc::default(), SIZES);
    whole(&mut absent);
    assert!(!ids.iter().any(|id| absent.is_certain(id)));
}
