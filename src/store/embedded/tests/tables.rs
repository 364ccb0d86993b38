//! The table across checkpoints, merges, crashes and left-over files.

use super::faults::flaky_with;
use super::*;
use crate::clock::Timestamp;
use crate::idempotency::record::Expiry;
use crate::store::samples::T0;

pub(super) const SEGMENT: u64 = 128 << 10;
/// Frames that fill a file of the log.
const FILE: u64 = SEGMENT / BLOCK as u64;

/// Fills a file of the log, and part of the next one, with keys that leave nothing behind.
async fn fill(store: &Embedded, from: u64) {
    for n in from..from + FILE / 2 + 1 {
        done(store, vec![put_new(id(n), samples::claim(n))]).await;
        done(store, vec![replace(id(n), 1, None)]).await;
    }
}

/// A copy of the store as a killed process leaves it.
pub(super) fn killed(dir: &Path) -> TempDir {
    loop {
        let copied = TempDir::new().unwrap();
        let before = files(dir);
        // Files may be merged meanwhile.
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
async fn a_removed_record_stays_removed_whatever_is_merged() {
    for rounds in [1, 3, 9, 17] {
        let dir = TempDir::new().unwrap();
        let (store, _) = flaky_with(dir.path(), SEGMENT);
        for round in 0..rounds {
            done(&*store, vec![put_new(id(7), samples::claim(7))]).await;
            // The claim reaches the table before it is removed, and its removal before the next.
            fill(&store, 100 + round * 200).await;
            done(&*store, vec![replace(id(7), 1, None)]).await;
            fill(&store, 200 + round * 200).await;
        }
        drop(store);
        let (store, recovered) = open(dir.path());
        assert_eq!(recovered, Recovered::default(), "{rounds} rounds");
        assert_eq!(store.get(id(7)).await.unwrap(), None, "{rounds} rounds");
        drop(store);
        let report = verify(&options(dir.path()), |_| {}).unwrap();
        assert_eq!((report.sound, report.problems), (0, vec![]));
        assert_eq!(info(&options(dir.path())).unwrap().corrupt, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_around_a_checkpoint_leaves_no_entry_of_an_earlier_state() {
    for left in 0..4 {
        let dir = TempDir::new().unwrap();
        let (store, _) = open(dir.path());
        let answered = samples::kept(1, 10);
        done(&*store, vec![put_new(id(1), answered.clone())]).await;
        drop(store);
        let (store, disk) = flaky_with(dir.path(), SEGMENT);
        let later = T0.saturating_add(Duration::from_secs(3600));
        let Expiry::Bury(buried) = answered.expired(later) else { panic!("it is due") };
        done(&*store, vec![replace(id(1), answered.version, Some(*buried))]).await;
        disk.ingests_left.store(left, Ordering::SeqCst);
        let mut n = 100;
        while store.swap(vec![put_new(id(n), samples::claim(n))]).await.is_ok() {
            n += 1;
        }
        let killed = killed(dir.path());
        drop(store);
        drop(open(killed.path()));
        let report = verify(&options(killed.path()), |_| {}).unwrap();
        assert_eq!((report.sound, report.problems), (n - 99, vec![]), "{left} left");
        assert_eq!(info(&options(killed.path())).unwrap().records, n - 99);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_checkpoint_or_merge_that_was_cut_short_are_removed() {
    let mut random = samples::Random::new();
    let dir = TempDir::new().unwrap();
    for round in 0..10 {
        let (store, _) = open(dir.path());
        done(&*store, vec![put_new(id(round), samples::kept(round, 10))]).await;
        drop(store);
        let tree = dir.path().join("data/table");
        let names = fs::read_dir(tree.join("tables")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let newest = names.map(|name| name.parse::<u64>().unwrap()).max().unwrap();
        let version = fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().file_name());
        let version = version.filter_map(|name| name.to_str()?.strip_prefix('v')?.parse().ok());
        let version: u64 = version.max().unwrap();
        // A file that is whole, one that is half written, and a version that does not count yet.
        let whole = fs::read(tree.join(format!("tables/{newest}"))).unwrap();
        let half = random.below(whole.len());
        fs::write(tree.join(format!("tables/{}", newest + 1)), &whole).unwrap();
        fs::write(tree.join(format!("tables/{}", newest + 2)), &whole[..half]).unwrap();
        let next = tree.join(format!("v{}", version + 1));
        fs::write(next, &fs::read(tree.join(format!("v{version}"))).unwrap()[..round as usize])
            .unwrap();
        fs::write(tree.join(".tmpcurrent"), "half").unwrap();
    }
    let report = verify(&options(dir.path()), |_| {}).unwrap();
    assert_eq!((report.sound, report.problems), (10, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_in_a_row_leave_no_more_than_a_few_runs() {
    let dir = TempDir::new().unwrap();
    for round in 0..40 {
        let (store, disk) = flaky_with(dir.path(), SEGMENT);
        done(&*store, vec![put_new(id(round), samples::kept(round, 10))]).await;
        disk.failing.store(true, Ordering::SeqCst);
        store.swap(vec![put_new(id(u64::MAX), samples::claim(0))]).await.unwrap_err();
        drop(store);
    }
    drop(open(dir.path()));
    let runs = table(dir.path()).unmerged_runs();
    assert!(runs <= 17, "{runs} runs");
    let report = verify(&options(dir.path()), |_| {}).unwrap();
    assert_eq!((report.sound, report.problems), (40, vec![]));
}

/// Lists due records page by page and removes each, as the expiry loop does.
async fn expire(store: &Embedded, until: Timestamp) -> u64 {
    let mut removed = 0;
    loop {
        let page = Query { expired_at: Some(until), limit: 32, ..Query::default() };
        let page = store.list(page).await.unwrap();
        if page.is_empty() {
            return removed;
        }
        for (id, record) in page {
            removed += 1;
            done(store, vec![replace(id, record.version, None)]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_due_record_is_listed_wherever_it_is() {
    let mut random = samples::Random::new();
    let dir = TempDir::new().unwrap();
    let (store, _) = flaky_with(dir.path(), SEGMENT);
    let kept = samples::kept(0, 10);
    let due = kept.expires().unwrap();
    let mut n = 0;
    for _ in 0..12 {
        let from = n;
        // Some in the table, some in the memtable, always due before the ones that were removed.
        for _ in 0..random.below(3 * FILE as usize) {
            done(&*store, vec![put_new(id(n), samples::kept(n, 10))]).await;
            n += 1;
        }
        assert_eq!(expire(&store, due).await, n - from);
        assert_eq!(expire(&store, due).await, 0);
    }
    assert_eq!(store.list(Query { limit: 1, ..Query::default() }).await.unwrap(), vec![]);
}
