//! Random changes, listings and ends of the process, compared with a model.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use super::faults::{Flaky, flaky_with};
use super::tables::killed;
use super::*;
use crate::clock::Timestamp;
use crate::idempotency::record::Expiry;
use crate::idempotency::retention::Keep;
use crate::store::samples::T0;

type Model = BTreeMap<u64, Record>;

/// Who changes records at the same time, each its own.
const TASKS: u64 = 4;
const KEYS: u64 = 60;
const STEPS: usize = 60;

/// When whatever can expire has expired.
fn end() -> Timestamp {
    T0.saturating_add(Duration::from_secs(1 << 20))
}

fn hours(n: u64) -> Timestamp {
    T0.saturating_add(Duration::from_secs(3600 * n))
}

/// What may become of a record; its key may be forgotten.
fn successor(random: &mut samples::Random, n: u64, now: Option<&Record>) -> Option<Record> {
    let Some(record) = now else {
        let claim = samples::claim(n);
        let subject = (random.below(3) > 0).then(|| [random.below(5) as u8; 16]);
        return Some(Record { subject, version: random.next() >> 20, ..claim });
    };
    let keep = Keep::For(Duration::from_secs(3600));
    let complete = |random: &mut samples::Random| {
        let at = hours(random.below(5) as u64);
        let size = [10, 300, 9_000][random.below(3)];
        Some(record.completed(samples::answer(size), samples::kept_for(keep, keep), at))
    };
    match (&record.state, random.below(6)) {
        (State::InFlight, 0) | (_, 5) => None,
        (State::InFlight, 1) => Some(record.lost(UnknownReason::Timeout, T0)),
        (State::InFlight | State::Unknown { .. }, _) => complete(random),
        (_, 0) => complete(random),
        _ => match record.expired(hours(6)) {
            Expiry::Bury(tombstone) => Some(*tombstone),
            Expiry::Keep | Expiry::Forget => None,
        },
    }
}

/// Changes records of one task's keys until the end or a failure.
async fn change(
    store: Arc<Embedded>,
    mut random: samples::Random,
    task: u64,
    mut model: Model,
) -> Model {
    for _ in 0..STEPS {
        let mut wanted = Model::new();
        let mut changes = Vec::new();
        let mut gone = Vec::new();
        for _ in 0..=[0, 0, 0, 12][random.below(4)] {
            let n = random.below(KEYS as usize) as u64 * TASKS + task;
            if gone.contains(&n) || wanted.contains_key(&n) {
                continue;
            }
            let before = model.get(&n);
            let after = successor(&mut random, n, before);
            let expect = before.map(|record| record.version);
            changes.push(Change { id: id(n), expect, put: after.clone().map(Arc::new) });
            match after {
                Some(record) => drop(wanted.insert(n, record)),
                None => gone.push(n),
            }
        }
        match store.swap(changes).await {
            Ok(Swap::Done) => {}
            Ok(lost) => panic!("{lost:?}"),
            Err(_) => return model,
        }
        model.extend(wanted);
        for n in gone {
            model.remove(&n);
        }
        let n = random.below(KEYS as usize) as u64 * TASKS + task;
        assert_eq!(store.get(id(n)).await.unwrap().as_ref(), model.get(&n), "key {n}");
    }
    model
}

/// Compares all that can be read with the model.
async fn compare(store: &Embedded, model: &Model, context: &str) {
    for n in 0..KEYS * TASKS {
        assert_eq!(store.get(id(n)).await.unwrap().as_ref(), model.get(&n), "{context}: key {n}");
    }
    let all = || Query { limit: usize::MAX, ..Query::default() };
    let mut queries = vec![
        all(),
        Query { open: true, ..all() },
        Query { expired_at: Some(end()), ..all() },
        Query { expired_at: Some(hours(3)), ..all() },
    ];
    queries.extend((0..5).map(|digest| Query { subject: Some([digest; 16]), ..all() }));
    for query in queries {
        let fits = |record: &Record| {
            let head = Head::of(record);
            (!query.open || head.open)
                && (query.subject.is_none() || query.subject == head.subject)
                && query.expired_at.is_none_or(|at| head.expires.is_some_and(|due| due <= at))
        };
        let expected: BTreeMap<_, _> =
            model.iter().filter(|(_, record)| fits(record)).map(|(n, r)| (id(*n), r)).collect();
        let listed = store.list(query.clone()).await.unwrap();
        assert_eq!(listed.len(), expected.len(), "{context}: {query:?}");
        for (id, record) in &listed {
            assert_eq!(expected.get(id), Some(&record), "{context}: {query:?}");
        }
    }
}

/// What was in flight is unknown after a start.
async fn recovered(store: &Embedded, model: &mut Model) {
    for (n, record) in model {
        if record.state == State::InFlight {
            let found = store.get(id(*n)).await.unwrap().expect("a claim");
            assert!(matches!(found.state, State::Unknown { .. }), "key {n}: {found:?}");
            assert_eq!(found.version, record.version + 1);
            *record = found;
        }
    }
}

/// One process: changes by several at once, with listings in between.
async fn live(store: &Arc<Embedded>, random: &mut samples::Random, model: Model) -> Model {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let own = model.iter().filter(|(n, _)| *n % TASKS == task);
        let own = own.map(|(n, record)| (*n, record.clone())).collect();
        let seed = samples::Random::seeded(random.next());
        tasks.spawn(change(store.clone(), seed, task, own));
    }
    for _ in 0..random.below(8) {
        let query = Query { expired_at: Some(end()), limit: 20, ..Query::default() };
        let _ = store.list(query).await;
        tokio::time::sleep(Duration::from_millis(random.below(40) as u64)).await;
    }
    let mut after = Model::new();
    for changed in tasks.join_all().await {
        after.extend(changed);
    }
    after
}

/// Ends a process in one of the ways it can end; gives the directory it leaves.
async fn finish(dir: TempDir, store: Arc<Embedded>, disk: &Flaky, way: usize) -> TempDir {
    if way == 0 {
        drop(store);
        return dir;
    }
    disk.failing.store(true, Ordering::SeqCst);
    disk.ingests_left.store(0, Ordering::SeqCst);
    disk.table_failing.store(true, Ordering::SeqCst);
    store.swap(vec![put_new(id(u64::MAX), samples::claim(0))]).await.unwrap_err();
    if way == 1 {
        drop(store);
        return dir;
    }
    // The threads come to a stand before the files are copied.
    tokio::time::sleep(Duration::from_millis(60)).await;
    let killed = killed(dir.path());
    drop(store);
    killed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_store_has_what_it_said() {
    let mut random = samples::Random::new();
    let mut dir = TempDir::new().unwrap();
    let mut model = Model::new();
    let rounds = std::env::var("ONCEGATE_TEST_ROUNDS").ok().and_then(|text| text.parse().ok());
    for round in 0..rounds.unwrap_or(6) {
        let segment = [64 << 10, 128 << 10, 512 << 10][random.below(3)];
        let (store, disk) = flaky_with(dir.path(), segment);
        recovered(&store, &mut model).await;
        compare(&store, &model, &format!("round {round}, at the start")).await;
        if random.below(2) == 0 {
            disk.ingests_left.store(random.below(6), Ordering::SeqCst);
        }
        model = live(&store, &mut random, model).await;
        if store.ready().is_ok() {
            let context = format!("round {round}, at the end");
            if random.below(2) == 0 && disk.ingests_left.load(Ordering::SeqCst) > 1 << 20 {
                compare(&store, &model, &context).await;
            }
        }
        dir = finish(dir, store, &disk, random.below(3)).await;
        if random.below(2) == 0 {
            let verified = verify(&options(dir.path()), |_| {}).unwrap();
            assert_eq!(
                (verified.sound, verified.problems),
                (model.len() as u64, vec![]),
                "{round}"
            );
        }
    }
}
