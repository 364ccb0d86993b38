//! What a crash leaves of the log and of the table, and what damage is not taken for that.

use super::faults::{Flaky, flaky, flaky_with};
use super::*;

/// The file of the log that was written to last, and how much of it is used.
fn written_to(dir: &Path) -> PathBuf {
    let file = |name: &str| dir.join("data/log").join(name);
    let newest = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        (0..bytes.len())
            .step_by(BLOCK)
            .filter(|at| bytes[*at..].starts_with(b"oncelog1"))
            .map(|at| u64::from_le_bytes(*bytes[at + 8..].first_chunk().unwrap()))
            .max()
    };
    [file("0"), file("1")].into_iter().max_by_key(newest).unwrap()
}

/// Ends a store as a crash does: what the log holds is not folded.
async fn crash(store: Arc<Embedded>, disk: &Flaky) {
    disk.failing.store(true, Ordering::SeqCst);
    store.swap(vec![put_new(id(u64::MAX), samples::claim(0))]).await.unwrap_err();
    drop(store);
    disk.failing.store(false, Ordering::SeqCst);
}

/// A record for each of `numbers`, each in a frame of its own, and then a crash; gives the file of
/// the log, and where in it each frame begins and ends, padding left out.
async fn frames(dir: &Path, count: u64) -> (PathBuf, Vec<std::ops::Range<usize>>) {
    let (store, disk) = flaky(dir);
    for n in 0..count {
        done(&*store, vec![put_new(id(n), samples::kept(n, 10_000))]).await;
    }
    crash(store, &disk).await;
    let log = written_to(dir);
    let bytes = fs::read(&log).unwrap();
    let starts = (0..bytes.len()).step_by(BLOCK);
    let starts = starts.filter(|at| bytes[*at..].starts_with(b"oncelog1"));
    let frames = starts.map(|at| {
        let length = u32::from_le_bytes(*bytes[at + 16..].first_chunk().unwrap()) as usize;
        at..at + 32 + length
    });
    (log, frames.collect())
}

#[tokio::test]
async fn a_torn_tail_of_the_log_costs_only_what_was_never_answered() {
    let mut random = samples::Random::new();
    for round in 0..12 {
        let dir = TempDir::new().unwrap();
        let (log, frames) = frames(dir.path(), 20).await;
        assert_eq!(frames.len(), 20);
        let last = frames[19].clone();
        let cut = last.start + random.below(last.len());
        let mut torn = fs::read(&log).unwrap();
        match round % 2 {
            // Space was taken, nothing written.
            0 => torn[cut..].fill(0),
            // A page in the middle did not arrive.
            _ => torn[cut..(cut + 512).min(last.end)].fill(0xaa),
        }
        fs::write(&log, torn).unwrap();
        let (store, disk) = flaky(dir.path());
        for n in 0..19 {
            assert_eq!(store.get(id(n)).await.unwrap(), Some(samples::kept(n, 10_000)));
        }
        assert_eq!(store.get(id(19)).await.unwrap(), None, "round {round}, cut at {cut}");
        done(&*store, vec![put_new(id(19), samples::claim(19))]).await;
        crash(store, &disk).await;
        let (store, _) = open(dir.path());
        assert_eq!(store.get(id(19)).await.unwrap().unwrap().version, 2);
        assert_eq!(store.get(id(0)).await.unwrap(), Some(samples::kept(0, 10_000)));
        drop(store);
        let verified = verify(&options(dir.path()), |_| {}).unwrap();
        assert_eq!((verified.sound, verified.problem_count), (20, 0));
    }
}

#[tokio::test]
async fn damage_before_the_tail_is_not_taken_for_a_torn_tail() {
    let mut random = samples::Random::new();
    let dir = TempDir::new().unwrap();
    let (log, frames) = frames(dir.path(), 20).await;
    let bytes = fs::read(&log).unwrap();
    for round in 0..60 {
        let frame = frames[random.below(19)].clone();
        // Every third time the header.
        let within = if round % 3 == 0 { 32 } else { frame.len() };
        let at = frame.start + random.below(within);
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << random.below(8);
        fs::write(&log, damaged).unwrap();
        let message = refused(&options(dir.path()));
        assert!(message.contains("is damaged: its log has a bad frame"), "byte {at}: {message}");
    }
    fs::write(&log, bytes).unwrap();
    let (store, _) = open(dir.path());
    assert_eq!(store.get(id(19)).await.unwrap(), Some(samples::kept(19, 10_000)));
}

#[tokio::test]
async fn a_file_of_the_log_that_is_cut_off_is_not_taken_for_a_torn_tail() {
    let mut random = samples::Random::new();
    let dir = TempDir::new().unwrap();
    // More than a step of the file's growth.
    let (log, frames) = frames(dir.path(), 120).await;
    let bytes = fs::read(&log).unwrap();
    let other = log.with_file_name(if log.ends_with("0") { "1" } else { "0" });
    let untouched = fs::read(&other).unwrap();
    // Behind a whole step only frames that were answered tell: the one that began in the step and
    // the next may be all that was ever written.
    let (step, reply) = (1 << 20, (1 << 20) + 2 * frames[0].len().next_multiple_of(BLOCK));
    assert!(reply < frames[118].start);
    for round in 0..40 {
        let cut = match round {
            0 => 0,
            1 => frames[0].end,
            _ if round % 2 == 0 => random.below(step),
            _ => reply + random.below(frames[118].start - reply),
        };
        fs::write(&log, &bytes[..cut]).unwrap();
        let message = refused(&options(dir.path()));
        assert!(message.contains("of its log is cut off"), "{cut}: {message}");
    }
    fs::write(&log, &bytes).unwrap();
    fs::write(&other, &untouched[..100]).unwrap();
    let message = refused(&options(dir.path()));
    assert!(message.contains("of its log is cut off"), "{message}");
    fs::write(&other, &untouched).unwrap();
    // A crash in the middle of growing: the file ends within a step that no frame uses yet.
    let mut grown = bytes.clone();
    grown.resize(grown.len() + 5000, 0);
    fs::write(&log, &grown).unwrap();
    let (store, disk) = flaky(dir.path());
    for n in 0..120 {
        assert_eq!(store.get(id(n)).await.unwrap(), Some(samples::kept(n, 10_000)));
    }
    // The file is used again, and its odd length is no damage then.
    crash(store, &disk).await;
    let (store, disk) = flaky_with(dir.path(), 128 << 10);
    for n in 200..300 {
        done(&*store, vec![put_new(id(n), samples::kept(n, 10_000))]).await;
    }
    crash(store, &disk).await;
    let (store, _) = open(dir.path());
    for n in (0..120).chain(200..300) {
        assert!(store.get(id(n)).await.unwrap().is_some(), "{n}");
    }
}

#[tokio::test]
async fn a_log_that_is_gone_or_another_stores_is_not_taken_for_an_empty_one() {
    let dir = TempDir::new().unwrap();
    let other = TempDir::new().unwrap();
    let (log, _) = frames(dir.path(), 3).await;
    let (foreign, _) = frames(other.path(), 3).await;
    let bytes = fs::read(&log).unwrap();
    drop(open(dir.path()));

    // Now the table has all of it, and the log shows that it is the one that belongs to it.
    fs::write(&log, vec![0; bytes.len()]).unwrap();
    let message = refused(&options(dir.path()));
    assert!(message.contains("its log ends before frame 3, which its table has"), "{message}");
    fs::write(&log, fs::read(&foreign).unwrap()).unwrap();
    assert!(refused(&options(dir.path())).contains("its log ends before frame 3"));
    fs::remove_file(&log).unwrap();
    assert!(refused(&options(dir.path())).contains("is damaged: its log is missing"));
    fs::write(&log, bytes).unwrap();

    let (store, _) = open(dir.path());
    assert_eq!(store.get(id(2)).await.unwrap(), Some(samples::kept(2, 10_000)));
}

#[tokio::test]
async fn the_log_rotates_and_forgets_nothing_at_any_crash() {
    let mut random = samples::Random::new();
    let dir = TempDir::new().unwrap();
    let mut expected: std::collections::BTreeMap<u64, Record> = std::collections::BTreeMap::new();
    for round in 0..12 {
        let (store, disk) = flaky_with(dir.path(), 128 << 10);
        for (n, record) in &expected {
            assert_eq!(store.get(id(*n)).await.unwrap().as_ref(), Some(record), "round {round}");
        }
        // Some 4 to 60 rotations of 128 KiB each.
        for _ in 0..100 + random.below(300) {
            let n = random.below(200) as u64;
            let change = match expected.remove(&n) {
                None => {
                    let record = samples::kept(n, random.below(30_000));
                    expected.insert(n, record.clone());
                    put_new(id(n), record)
                }
                Some(record) if random.below(4) == 0 => replace(id(n), record.version, None),
                Some(record) => {
                    let next = Record { version: record.version + 1, ..record.clone() };
                    expected.insert(n, next.clone());
                    replace(id(n), record.version, Some(next))
                }
            };
            done(&*store, vec![change]).await;
            if random.below(25) == 0 {
                let all = Query { limit: usize::MAX, ..Query::default() };
                let listed = store.list(all).await.unwrap();
                let wanted = expected.iter().rev().map(|(n, record)| (id(*n), record.clone()));
                assert!(listed == wanted.collect::<Vec<_>>(), "round {round}");
            }
        }
        // A frame that is larger than a file.
        let large = (1000 + round..1040 + round).collect::<Vec<_>>();
        let changes = large.iter().filter(|n| !expected.contains_key(n));
        let changes: Vec<_> = changes.map(|n| (*n, samples::kept(*n, 9_000))).collect();
        expected.extend(changes.iter().cloned());
        let changes = changes.into_iter().map(|(n, record)| put_new(id(n), record)).collect();
        done(&*store, changes).await;
        if random.below(3) == 0 { drop(store) } else { crash(store, &disk).await }
    }
    let verified = verify(&options(dir.path()), |_| {}).unwrap();
    assert_eq!((verified.sound, verified.problem_count), (expected.len() as u64, 0));
}

#[tokio::test]
async fn a_listing_sees_all_that_was_answered_before() {
    let dir = TempDir::new().unwrap();
    let (store, _) = open(dir.path());
    for n in 0..300 {
        done(&*store, vec![put_new(id(n), samples::kept(n, 10))]).await;
        if n % 50 == 49 {
            let all = store.list(Query { limit: 1000, ..Query::default() }).await.unwrap();
            assert_eq!(all.len() as u64, n + 1);
        }
    }
}

#[tokio::test]
async fn a_table_that_cannot_be_written_fails_the_store() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = flaky_with(dir.path(), 64 << 10);
    disk.table_failing.store(true, Ordering::SeqCst);
    done(&*store, vec![put_new(id(1), samples::claim(1))]).await;
    let mut n = 2;
    let failed = loop {
        match store.swap(vec![put_new(id(n), samples::claim(n))]).await {
            Ok(_) => n += 1,
            Err(failed) => break failed,
        }
    };
    assert!(failed.to_string().contains("No space left"), "{failed}");
    // The log has two files of 16 frames.
    assert!((17..=33).contains(&n), "{n}");
    assert_eq!(store.swap(vec![put_new(id(99), samples::claim(99))]).await.unwrap_err(), failed);
    assert_eq!(store.ready(), Err(failed.clone()));
    assert_eq!(store.list(Query { limit: 1, ..Query::default() }).await.unwrap_err(), failed);
    assert_eq!(store.get(id(1)).await.unwrap(), Some(samples::claim(1)), "reads go on");
    drop(store);
    let (store, recovered) = open(dir.path());
    assert_eq!(recovered.interrupted, n - 1);
    assert_eq!(store.get(id(1)).await.unwrap().unwrap().version, 2);
}
