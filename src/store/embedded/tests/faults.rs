//! What the disk can do to a store: writes that fail, and no room.

use std::fs::File;

use super::*;

/// A disk that fails when told to, and can be held.
pub(super) struct Flaky {
    real: FileSystem,
    commits: AtomicUsize,
    pub(super) failing: AtomicBool,
    pub(super) table_failing: AtomicBool,
    /// The table takes nothing, and does not say so.
    table_held: AtomicBool,
    /// Checkpoints that still succeed.
    pub(super) ingests_left: AtomicUsize,
    /// Checkpoints that lack file descriptors.
    descriptors_lacking: AtomicUsize,
    segment: u64,
    free: AtomicU64,
    /// DirtyRecord for each commit, so that a test can hold it.
    gate: Mutex<()>,
}

impl Disk for Flaky {
    fn append(&self, file: &File, bytes: &[u8], at: u64) -> Result<(), String> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let _held = self.gate.lock().unwrap();
        if self.failing.load(Ordering::SeqCst) {
            return Err("Input/output error (os error 5)".to_owned());
        }
        self.real.append(file, bytes, at)
    }

    fn ingest(
        &self,
        tree: &lsm_tree::AnyTree,
        entries: &mut dyn Iterator<Item = RunEntry<'_>>,
    ) -> std::io::Result<()> {
        while self.table_held.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        if self.descriptors_lacking.load(Ordering::SeqCst) > 0 {
            self.descriptors_lacking.fetch_sub(1, Ordering::SeqCst);
            return Err(std::io::Error::from_raw_os_error(24));
        }
        let one_less = |left: usize| left.checked_sub(1);
        let left = self.ingests_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        if left.is_err() || self.table_failing.load(Ordering::SeqCst) {
            return Err(std::io::Error::from_raw_os_error(28));
        }
        self.real.ingest(tree, entries)
    }

    fn segment(&self) -> u64 {
        self.segment
    }

    fn free(&self) -> io::Result<u64> {
        Ok(self.free.load(Ordering::SeqCst))
    }
}

pub(super) fn flaky(path: &Path) -> (Arc<Embedded>, Arc<Flaky>) {
    flaky_with(path, SEGMENT)
}

/// With files of the log that are full sooner.
pub(super) fn flaky_with(path: &Path, segment: u64) -> (Arc<Embedded>, Arc<Flaky>) {
    let disk = Arc::new(Flaky {
        real: FileSystem { dir: PathBuf::from(path) },
        commits: AtomicUsize::new(0),
        failing: AtomicBool::new(false),
        table_failing: AtomicBool::new(false),
        table_held: AtomicBool::new(false),
        ingests_left: AtomicUsize::new(usize::MAX),
        descriptors_lacking: AtomicUsize::new(0),
        segment,
        free: AtomicU64::new(u64::MAX),
        gate: Mutex::new(()),
    });
    let store = unlocked(|| {
        match Embedded::open_on(&options(path), disk.clone(), Space::eager(disk.clone()), FEW_IDS) {
            Err(OpenError::Locked(_)) => None,
            opened => Some(opened.unwrap().0),
        }
    });
    (store, disk)
}

#[tokio::test]
async fn a_failed_write_ends_all_writing_and_nothing_is_lost() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = flaky(dir.path());
    done(&*store, vec![put_new(id(1), samples::claim(1))]).await;
    disk.failing.store(true, Ordering::SeqCst);
    let completion = || vec![replace(id(1), 1, Some(samples::kept(1, 10)))];
    let failed = store.swap(completion()).await.unwrap_err();
    let StoreError::Unavailable(reason) = &failed else { panic!("{failed:?}") };
    assert!(reason.contains("failed (Input/output error (os error 5))"), "{reason}");
    assert!(reason.contains("then restart oncegate"), "{reason}");

    // The disk recovers; the store must not.
    disk.failing.store(false, Ordering::SeqCst);
    let commits = disk.commits.load(Ordering::SeqCst);
    assert_eq!(store.swap(completion()).await.unwrap_err(), failed);
    assert_eq!(store.swap(vec![put_new(id(2), samples::claim(2))]).await.unwrap_err(), failed);
    assert_eq!(store.ready(), Err(failed));
    assert_eq!(disk.commits.load(Ordering::SeqCst), commits, "no second try");
    assert_eq!(store.get(id(1)).await.unwrap(), Some(samples::claim(1)), "reads go on");
    assert_eq!(store.get(id(2)).await.unwrap(), None);

    drop(store);
    let (store, recovered) = open(dir.path());
    assert_eq!((recovered.interrupted, recovered.unknown), (1, 1));
    done(&*store, vec![put_new(id(2), samples::claim(2))]).await;
}

#[tokio::test]
async fn a_lack_of_descriptors_ends_nothing() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = flaky_with(dir.path(), 64 << 10);
    disk.descriptors_lacking.store(3, Ordering::SeqCst);
    // Several files of the log, so that checkpoints are needed.
    for n in 0..400 {
        done(&*store, vec![put_new(id(n), samples::kept(n, 10))]).await;
    }
    assert_eq!(disk.descriptors_lacking.load(Ordering::SeqCst), 0, "no checkpoint was tried");
    assert_eq!((store.ready(), store.failure()), (Ok(()), None));
    drop(store);
    let verified = verify(&options(dir.path()), |_| {}).unwrap();
    assert_eq!((verified.sound, verified.problem_count), (400, 0));
}

#[tokio::test]
async fn whoever_waits_for_a_failure_is_told_its_reason() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = flaky(dir.path());
    assert_eq!(store.failure(), None);
    disk.failing.store(true, Ordering::SeqCst);
    let swapped = store.swap(vec![put_new(id(1), samples::claim(1))]);
    let (reply, swapped) = tokio::join!(store.failed(), swapped);
    let failed = swapped.unwrap_err();
    assert_eq!(reply, failed);
    assert_eq!(store.failed().await, failed);
    assert_eq!(store.failure(), Some(failed));
}

#[tokio::test]
async fn everyone_who_waits_for_a_failed_write_is_told() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = flaky(dir.path());
    let gate = disk.gate.lock().unwrap();
    // The first goes to the disk and is held there; the others queue behind it.
    let first = store.swap(vec![put_new(id(0), samples::claim(0))]);
    let rest: Vec<_> =
        (0..50).map(|n| store.swap(vec![put_new(id(n), samples::claim(n))])).collect();
    disk.failing.store(true, Ordering::SeqCst);
    drop(gate);
    let failed = first.await.unwrap_err();
    for swap in rest {
        assert_eq!(swap.await.unwrap_err(), failed);
    }
    assert_eq!(
        store.get(id(0)).await.unwrap(),
        None,
        "a lost claim has no winner that is not durable"
    );
}

#[tokio::test]
async fn changes_that_wait_share_one_write_and_see_each_other() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = flaky(dir.path());
    let gate = disk.gate.lock().unwrap();
    let first = store.swap(vec![put_new(id(0), samples::claim(0))]);
    while disk.commits.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    // One batch: claim, lose against it, complete it, lose again, release, claim anew.
    let claim = store.swap(vec![put_new(id(1), samples::claim(1))]);
    let duplicate = store.swap(vec![put_new(id(1), samples::claim(2))]);
    let complete = store.swap(vec![replace(id(1), 1, Some(samples::kept(1, 10)))]);
    let stale = store.swap(vec![replace(id(1), 1, None)]);
    let remove = store.swap(vec![replace(id(1), 2, None)]);
    let anew = store.swap(vec![put_new(id(1), samples::claim(3))]);
    let brief = store.swap(vec![put_new(id(5), samples::kept(5, 1))]);
    let gone = store.swap(vec![replace(id(5), 2, None)]);
    drop(gate);
    let winner = |swap| match swap {
        Ok(Swap::Lost { winner, .. }) => winner.map(|winner| *winner),
        other => panic!("{other:?}"),
    };
    for swap in [first, claim, complete, remove, anew, brief, gone] {
        assert!(matches!(swap.await, Ok(Swap::Done)));
    }
    assert_eq!(winner(duplicate.await), Some(samples::claim(1)));
    assert_eq!(winner(stale.await), Some(samples::kept(1, 10)));
    assert_eq!(disk.commits.load(Ordering::SeqCst), 2);
    assert_eq!(store.get(id(1)).await.unwrap(), Some(samples::claim(3)));
    drop(store);
    let verified = verify(&options(dir.path()), |_| {}).unwrap();
    assert_eq!((verified.sound, verified.problem_count), (2, 0));
}

#[tokio::test]
async fn without_room_nothing_new_begins_and_what_began_completes() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = flaky(dir.path());
    done(&*store, vec![put_new(id(1), samples::claim(1))]).await;
    disk.free.store(FREE_SPACE_MARGIN - 1, Ordering::SeqCst);
    let refused = store.swap(vec![put_new(id(2), samples::claim(2))]).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the store is unavailable: only 63 MiB are free on the store's file system and new claims \
         need 64 MiB; free some space, claims resume by themselves"
    );
    assert_eq!(store.ready(), Err(refused));
    done(&*store, vec![replace(id(1), 1, Some(samples::kept(1, 10)))]).await;
    // A claim in place of a forgotten record is a new claim, too.
    let again = replace(id(1), 2, Some(samples::claim(1)));
    assert!(store.swap(vec![again.clone()]).await.is_err());
    disk.free.store(FREE_SPACE_MARGIN, Ordering::SeqCst);
    assert_eq!(store.ready(), Ok(()));
    done(&*store, vec![again]).await;
    lost(&*store, vec![put_new(id(1), samples::claim(2))]).await;
}

#[tokio::test]
async fn a_listing_does_not_wait_for_a_table_that_stands_still() {
    const RECORDS: u64 = 80;
    let dir = TempDir::new().unwrap();
    let (store, disk) = flaky_with(dir.path(), 64 << 10);
    disk.table_held.store(true, Ordering::SeqCst);
    let all = || Query { limit: 1000, ..Query::default() };
    // More than one file of the log, fewer than two.
    for n in 0..RECORDS / 4 {
        done(&*store, vec![put_new(id(n), samples::kept(n, 10))]).await;
        assert_eq!(store.list(all()).await.unwrap().len() as u64, n + 1);
    }
    disk.table_held.store(false, Ordering::SeqCst);
    for n in RECORDS / 4..RECORDS {
        done(&*store, vec![put_new(id(n), samples::kept(n, 10))]).await;
    }
    assert_eq!(store.list(all()).await.unwrap().len() as u64, RECORDS);
    assert_eq!(store.ready(), Ok(()));
}
