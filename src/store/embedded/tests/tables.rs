//! What files that reach the table past the engine's journal, and that journal, make of each other.

use super::faults::flaky_with;
use super::*;
use crate::idempotency::record::Expiry;
use crate::idempotency::retention::Keep;
use crate::store::samples::T0;

const SEGMENT: u64 = 128 << 10;

/// Fills a file of the log, and part of the next one, with keys that leave nothing behind.
async fn fill(store: &Embedded, numbers: std::ops::Range<u64>) {
    for n in numbers {
        done(store, vec![put_new(id(n), samples::claim(n))]).await;
        done(store, vec![replace(id(n), 1, None)]).await;
    }
}

async fn fold(store: &Embedded) {
    store.list(Query { limit: 1, ..Query::default() }).await.unwrap();
}

/// A copy of the store as a process that is killed leaves it: without what it has in buffers.
pub(super) fn killed(dir: &Path) -> TempDir {
    loop {
        let copied = TempDir::new().unwrap();
        let before = files(dir);
        // The engine may be merging files.
        if copy(dir, copied.path()).is_ok() && files(dir) == before {
            return copied;
        }
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries
        .flat_map(|entry| match entry.path() {
            path if path.is_dir() => files(&path),
            path => vec![path],
        })
        .collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_stays_removed_when_the_engine_reads_its_journal_again() {
    for rounds in 3..5 {
        let dir = TempDir::new().unwrap();
        let (store, _) = flaky_with(dir.path(), SEGMENT);
        for round in 0..rounds {
            done(&*store, vec![put_new(id(7), samples::claim(7))]).await;
            // A small part: by way of the journal.
            fold(&store).await;
            done(&*store, vec![replace(id(7), 1, None)]).await;
            // A large part: its removal is in a file only.
            fill(&store, 100 + round * 40..140 + round * 40).await;
        }
        // The engine merges the files, which leaves nothing of it.
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(store);
        let (store, recovered) = open(dir.path());
        assert_eq!(recovered, Recovered::default(), "{rounds} rounds");
        assert_eq!(store.get(id(7)).await.unwrap(), None, "{rounds} rounds");
        drop(store);
        let verified = verify(dir.path(), CACHE, |_| {}).unwrap();
        assert_eq!((verified.sound, verified.problems), (0, vec![]));
        assert_eq!(info(dir.path(), CACHE).unwrap().corrupt, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_between_two_parts_of_the_table_leaves_no_entry_of_an_earlier_state() {
    for left in 0..3 {
        let dir = TempDir::new().unwrap();
        let (store, _) = open(dir.path());
        let answered = samples::kept(1, 10);
        done(&*store, vec![put_new(id(1), answered.clone())]).await;
        drop(store);
        let (store, disk) = flaky_with(dir.path(), SEGMENT);
        let later = T0.saturating_add(Duration::from_secs(3600));
        let Expiry::Bury(buried) = answered.expired(later) else { panic!("it is due") };
        done(&*store, vec![replace(id(1), answered.version, Some(*buried))]).await;
        // In the engine's memory and, unsynced, in its journal.
        fold(&store).await;
        disk.ingests_left.store(left, Ordering::SeqCst);
        let mut n = 100;
        while store.swap(vec![put_new(id(n), samples::claim(n))]).await.is_ok() {
            n += 1;
        }
        let killed = killed(dir.path());
        drop(store);
        drop(open(killed.path()));
        let verified = verify(killed.path(), CACHE, |_| {}).unwrap();
        assert_eq!((verified.sound, verified.problems), (n - 99, vec![]), "{left} left");
    }
}

/// Bytes of the engine's journals.
fn journals(dir: &Path) -> u64 {
    let files = fs::read_dir(dir.join("data/table")).unwrap().map(|entry| entry.unwrap().path());
    let journals = files.filter(|path| path.extension().is_some_and(|ext| ext == "jnl"));
    journals.map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[tokio::test]
async fn crashes_in_a_row_leave_no_more_than_a_few() {
    let dir = TempDir::new().unwrap();
    let mut random = samples::Random::seeded(1);
    for round in 0..10 {
        let (store, disk) = flaky_with(dir.path(), super::SEGMENT);
        for n in 0..30 {
            let answer = samples::noise(&mut random, 500_000);
            let keep = samples::kept_for(Keep::Forever, Keep::Forever);
            let record = samples::claim(n).completed(answer, keep, T0);
            let record = Record { version: round + 2, ..record };
            let change = match round {
                0 => put_new(id(n), record),
                _ => replace(id(n), round + 1, Some(record)),
            };
            done(&*store, vec![change]).await;
        }
        disk.failing.store(true, Ordering::SeqCst);
        disk.table_failing.store(true, Ordering::SeqCst);
        store.swap(vec![put_new(id(u64::MAX), samples::claim(0))]).await.unwrap_err();
        drop(store);
        assert!(journals(dir.path()) < 110 << 20, "after {} crashes", round + 1);
    }
}

/// An id like those that are digests.
fn spread(n: u64) -> RecordId {
    let mut random = samples::Random::seeded(n);
    RecordId::from_bytes(std::array::from_fn(|_| random.next() as u8))
}

#[tokio::test]
async fn records_that_are_forgotten_do_not_gather_in_memory() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path());
    let numbers: Vec<u64> = (0..40_000).collect();
    for numbers in numbers.chunks(2_000) {
        let puts = numbers.iter().map(|n| put_new(spread(*n), samples::kept(*n, 10)));
        done(&*store, puts.collect()).await;
    }
    drop(store);
    let (store, _) = open(dir.path());
    for numbers in numbers.chunks(64) {
        let gone = numbers.iter().map(|n| replace(spread(*n), 2, None));
        done(&*store, gone.collect()).await;
        // As the sweeper does after each page.
        fold(&store).await;
    }
    let in_memory = store.engine().unwrap().db.write_buffer_size();
    assert!(in_memory < 3 << 20, "{in_memory} bytes");
}
