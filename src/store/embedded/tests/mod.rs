//! The embedded store passes the port's contract, and survives what disks and processes do.

mod crashes;
mod faults;
mod id_filter;
mod merged;
mod stress;
mod tables;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tempfile::TempDir;

use super::directory::DirectoryLock;
use super::disk::{RunEntry, SEGMENT};
use super::layout::{IDENTITY, TableKey, encode_identity};
use super::wal::BLOCK;
use super::*;
use crate::idempotency::State;
use crate::idempotency::outcome::UnknownReason;
use crate::store::codec::{Codec, Head, SCHEMA};
use crate::store::contract::{self, done, lost, put_new, replace};
use crate::store::samples::{self, id};

const CACHE: u64 = 1 << 20;
/// The filter of what is not there is made anew again and again.
const FEW_IDS: FilterSizes = FilterSizes { least: 16, most: 128 };

fn options(path: &Path) -> DirectoryOptions {
    DirectoryOptions {
        path: path.to_owned(),
        cache: CACHE,
        create: true,
        expect_id: None,
        codec: Codec::plain(),
    }
}

fn open(path: &Path) -> (Arc<Embedded>, Recovered) {
    unlocked(|| match Embedded::open(&options(path)) {
        Err(OpenError::Locked(_)) => None,
        opened => Some(opened.unwrap()),
    })
}

/// The table of a closed store.
fn table(path: &Path) -> Table {
    let lock = unlocked(|| match DirectoryLock::take(path) {
        Err(OpenError::Locked(_)) => None,
        locked => Some(locked.unwrap()),
    });
    Table::open(&path.join("data/table"), Codec::plain(), CACHE, lock).ok().unwrap()
}

/// Tries for a while: a process that another test starts holds all files of this one for a moment,
/// and their locks with them.
pub(super) fn unlocked<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(opened) = attempt() {
            return opened;
        }
        assert!(std::time::Instant::now() < end, "the store is still locked");
        std::thread::yield_now();
    }
}

fn refused(options: &DirectoryOptions) -> String {
    Embedded::open(options).map(|_| ()).unwrap_err().to_string()
}

/// A store whose directory goes with it.
struct Temporary {
    store: Arc<dyn Store>,
    _dir: TempDir,
}

impl std::ops::Deref for Temporary {
    type Target = Arc<dyn Store>;
    fn deref(&self) -> &Self::Target {
        &self.store
    }
}

async fn temporary() -> Temporary {
    let dir = TempDir::new().unwrap();
    Temporary { store: open(dir.path()).0, _dir: dir }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_passes_the_contract() {
    contract::every_clause(temporary).await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let (store, recovered) = open(dir.path());
    assert_eq!(recovered, Recovered { created: true, ..Recovered::default() });
    let identity = store.identity().clone();
    let records: Vec<Record> = samples::every_state();
    for (at, record) in records.iter().enumerate() {
        done(&*store, vec![put_new(id(at as u64), record.clone())]).await;
    }
    let owner = store.owner();
    drop(store);
    let (store, recovered) = open(dir.path());
    assert_eq!(store.identity(), &identity);
    assert_ne!(store.owner(), owner);
    assert_eq!((recovered.created, recovered.corrupt_count), (false, 0));
    for (at, record) in records.into_iter().enumerate() {
        let stored = store.get(id(at as u64)).await.unwrap();
        let Some(ledger) = record.ledger() else {
            if record.state != State::InFlight {
                assert_eq!(stored, Some(record));
            }
            continue;
        };
        // Exactly the units in flight are unknown now; everything else is as it was.
        let stored = stored.unwrap();
        let unknown = ledger.lose(UnknownReason::ProcessEnded).unwrap_or_else(|_| ledger.clone());
        assert_eq!(stored.ledger(), Some(&unknown));
    }
}

#[tokio::test]
async fn calls_in_flight_when_the_process_ended_are_unknown_at_the_next_start() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path());
    // More than one write of the recovery takes.
    let claims = 1500;
    let changes = (0..claims).map(|n| put_new(id(n), samples::claim(n))).collect();
    done(&*store, changes).await;
    let unknown = samples::claim(9).lost(UnknownReason::Timeout, samples::T0);
    done(&*store, vec![replace(id(9), 1, Some(unknown.clone()))]).await;
    done(&*store, vec![replace(id(8), 1, Some(samples::kept(8, 10)))]).await;
    drop(store);
    for (round, interrupted) in [(0, claims - 2), (1, 0)] {
        let (store, recovered) = open(dir.path());
        assert_eq!(recovered.interrupted, interrupted, "round {round}");
        assert_eq!(recovered.unknown, claims - 1, "round {round}");
        let record = store.get(id(7)).await.unwrap().unwrap();
        assert_eq!(record.version, 2);
        let lost =
            |state| matches!(state, State::Unknown { reason: UnknownReason::ProcessEnded, .. });
        assert!(lost(record.state));
        assert_eq!(store.get(id(9)).await.unwrap(), Some(unknown.clone()));
        assert_eq!(store.get(id(8)).await.unwrap(), Some(samples::kept(8, 10)));
        let late = replace(id(7), 1, Some(samples::kept(7, 10)));
        contract::lost(&*store, vec![late]).await;
        drop(store);
    }
    let verified = verify(&options(dir.path()), |_| {}).unwrap();
    assert_eq!((verified.sound, verified.problem_count), (claims, 0));
}

#[tokio::test]
async fn a_queued_change_is_made_although_the_store_closes() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path());
    for n in 0..100 {
        drop(store.swap(vec![put_new(id(n), samples::kept(n, 10))]));
    }
    drop(store);
    let (store, _) = open(dir.path());
    for n in 0..100 {
        assert_eq!(store.get(id(n)).await.unwrap(), Some(samples::kept(n, 10)));
    }
}

#[test]
fn a_store_outlives_the_runtime_that_asked_first() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for round in 0..3 {
        runtime().block_on(async {
            // Several at once are handed out by a task of the runtime that asked first.
            let asked =
                (0..100).map(|n| store.swap(vec![put_new(id(100 * round + n), samples::claim(n))]));
            for swap in asked.collect::<Vec<_>>() {
                assert!(matches!(swap.await, Ok(Swap::Done)));
            }
        });
    }
}

/// Puts entries, sorted by key, into the table of a closed store; without a value they are removed.
fn put_entries(table: &Table, entries: &[(&[u8], Option<&[u8]>)]) {
    let disk = FileSystem { dir: PathBuf::new() };
    let mut entries = entries.iter().map(|(key, value)| RunEntry { key, value: *value });
    disk.ingest(table.tree(), &mut entries).unwrap();
}

/// Changes one byte of a stored record, past the store's back.
fn damage(dir: &Path, id: RecordId) {
    let table = table(dir);
    let mut bytes = table.raw(&id).unwrap().unwrap().to_vec();
    bytes[50] ^= 1;
    put_entries(&table, &[(TableKey::record(&id).as_bytes(), Some(&bytes))]);
}

#[tokio::test]
async fn a_corrupt_record_is_refused_and_left_while_others_go_on() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path());
    for n in 1..=3 {
        done(&*store, vec![put_new(id(n), samples::claim(n))]).await;
    }
    done(&*store, vec![put_new(id(4), samples::kept(4, 10))]).await;
    drop(store);
    damage(dir.path(), id(2));
    damage(dir.path(), id(4));

    let (store, recovered) = open(dir.path());
    assert_eq!((recovered.interrupted, recovered.unknown), (2, 2));
    let named = vec![(id(2), "the checksum does not match".to_owned())];
    assert_eq!((recovered.corrupt, recovered.corrupt_count), (named, 1));

    for n in [2, 4] {
        let corrupt =
            StoreError::Corrupt { id: id(n), reason: "the checksum does not match".to_owned() };
        assert_eq!(store.get(id(n)).await, Err(corrupt.clone()));
        for change in [put_new(id(n), samples::claim(n)), replace(id(n), 1, None)] {
            let both = vec![put_new(id(100), samples::claim(100)), change];
            assert_eq!(store.swap(both).await.unwrap_err(), corrupt);
        }
    }
    assert_eq!(store.get(id(100)).await, Ok(None));
    done(&*store, vec![put_new(id(100), samples::claim(100))]).await;
    assert_eq!(store.ready(), Ok(()));
    let all = store.list(Query { limit: 10, ..Query::default() }).await.unwrap();
    assert_eq!(all.len(), 3, "the others are listed");
    drop(store);

    let info = info(&options(dir.path())).unwrap();
    assert_eq!((info.in_flight, info.unknown, info.corrupt), (1, 2, 1));
    let mut calls = 0;
    let verified = verify(&options(dir.path()), |_| calls += 1).unwrap();
    assert_eq!((verified.sound, verified.problem_count), (3, 2));
    let ids: Vec<_> = verified.problems.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [Some(id(2)), Some(id(4))]);
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn verify_finds_an_index_that_does_not_fit() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path());
    done(&*store, vec![put_new(id(1), samples::kept(1, 10))]).await;
    done(&*store, vec![put_new(id(2), samples::claim(2))]).await;
    drop(store);
    let mut entries = [
        (TableKey::open(samples::at(1)), true),
        (TableKey::open(samples::at(7)), true),
        (TableKey::open(samples::at(2)), false),
    ];
    entries.sort_unstable();
    let entries = entries.each_ref().map(|(key, put)| (key.as_bytes(), put.then_some(&[][..])));
    put_entries(&table(dir.path()), &entries);
    let verified = verify(&options(dir.path()), |_| {}).unwrap();
    let problems: Vec<_> =
        verified.problems.iter().map(|(id, reason)| (id.unwrap(), reason.as_str())).collect();
    let expected = [
        (id(2), "the index `open` lacks it"),
        (id(1), "the index `open` has it and should not"),
        (id(7), "the index `open` names it, it is missing"),
    ];
    assert_eq!(problems, expected);
    assert_eq!((verified.sound, verified.problem_count), (1, 3));
}

#[test]
fn a_second_process_is_told_that_the_store_is_in_use() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path());
    let started = std::time::Instant::now();
    let message = refused(&options(dir.path()));
    assert!(message.ends_with(
        "is in use by another process; stop that one first, two gateways cannot share a directory"
    ));
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(matches!(info(&options(dir.path())), Err(OpenError::Locked(_))));
    drop(store);
    drop(open(dir.path()));
}

#[test]
fn every_reason_not_to_open_is_said_in_one_line() {
    let dir = TempDir::new().unwrap();
    let check = |options: &DirectoryOptions, expected: &str| {
        let message = refused(options);
        let message = message.replace(&dir.path().display().to_string(), "DIR");
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n'));
    };
    let at = |name: &str| options(&dir.path().join(name));
    let existing = |name: &str| DirectoryOptions { create: false, ..at(name) };

    fs::write(dir.path().join("file"), "x").unwrap();
    check(&at("file"), "DIR/file is not a directory");
    check(&at("file/below"), "DIR/file/below is not a directory");
    check(&existing("absent"), "there is no store in DIR/absent, and none is made here");
    assert!(!dir.path().join("absent").exists());
    fs::create_dir(dir.path().join("emptied")).unwrap();
    check(&existing("emptied"), "there is no store in DIR/emptied, and none is made here");
    fs::create_dir_all(dir.path().join("home/photos")).unwrap();
    check(&at("home"), "DIR/home is not a store: it holds `photos`");
    assert_eq!(fs::read_dir(dir.path().join("home")).unwrap().count(), 1, "left as it was");
    check(&options(Path::new("/proc/oncegate")), "cannot write the store at /proc/oncegate");

    let (store, _) = Embedded::open(&at("store")).unwrap();
    let found = store.identity().store_id;
    drop(store);
    let expected = uuid::Uuid::new_v4();
    let pinned = |id| DirectoryOptions { expect_id: Some(id), ..at("store") };
    check(&pinned(expected), &format!("is {found}, but `expect_id` is {expected}"));
    drop(Embedded::open(&pinned(found)).unwrap());
    let found_again = init(&options(&dir.path().join("store"))).unwrap();
    assert_eq!((found_again.0.store_id, found_again.1), (found, false));
    let (made, created) = init(&options(&dir.path().join("made"))).unwrap();
    assert!(created);
    assert_eq!(info(&options(&dir.path().join("made"))).unwrap().identity, made);

    let with_schema = |schema: u32| {
        let table = table(&dir.path().join("store"));
        let identity = encode_identity(&Identity { schema, ..table.identity().unwrap() });
        put_entries(&table, &[(IDENTITY, Some(&identity))]);
    };
    with_schema(SCHEMA + 1);
    let newer = format!("DIR/store has schema {}, this oncegate knows {SCHEMA}", SCHEMA + 1);
    check(&at("store"), &format!("{newer}: upgrade oncegate"));
    with_schema(2);
    check(&at("store"), "DIR/store has schema 2, written before the first release");
    fs::create_dir_all(dir.path().join("old/data/keyspaces")).unwrap();
    check(&at("old"), "DIR/old has an earlier layout, written before the first release");
    fs::create_dir_all(dir.path().join("older/data/table/keyspaces")).unwrap();
    check(&at("older"), "DIR/older has an earlier layout, written before the first release");

    let current = dir.path().join("made/data/table/current");
    let bytes = fs::read(&current).unwrap();
    fs::write(&current, "???").unwrap();
    check(&at("made"), "the store in DIR/made is damaged");
    // An empty table must not take the place of one that is gone.
    fs::remove_file(&current).unwrap();
    check(&at("made"), "DIR/made is damaged: the file `current` of its table is gone");
    fs::write(&current, bytes).unwrap();
    drop(Embedded::open(&at("made")).unwrap());
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("data.new/table")).unwrap();
    fs::write(dir.path().join("data.new/table/v0"), "half").unwrap();
    fs::write(dir.path().join("lock"), "").unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    let (_, recovered) = open(dir.path());
    assert!(recovered.created);
    assert!(!dir.path().join("data.new").exists());
}

#[tokio::test]
async fn names_survive_a_restart_and_damage_to_them_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    assert!(store.swap_names(None, b"one".to_vec()).await.unwrap());
    let names = store.names().await.unwrap();
    drop(store);
    let (store, _) = open(dir.path());
    assert_eq!(store.names().await.unwrap(), names);
    drop(store);
    let file = dir.path().join("data/names");
    let sound = fs::read(&file).unwrap();
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        fs::write(&file, damaged).unwrap();
        let (store, _) = open(dir.path());
        let error = store.names().await.unwrap_err().to_string();
        assert!(error.contains("data/names: its checksum is wrong"), "{error}");
        assert!(store.swap_names(Some(1), b"two".to_vec()).await.is_err());
    }
    let found = verify(&options(dir.path()), |_| {}).unwrap();
    assert_eq!(found.problem_count, 1, "{found:?}");
}
