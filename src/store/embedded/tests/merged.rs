//! Records in a merged file, whose index is read in parts.

use super::faults::flaky_with;
use super::tables::SEGMENT;
use super::*;
use crate::idempotency::RecordId;
use crate::store::ListPosition;
use crate::store::samples::Random;

/// Records for more files than a merge begins with, and for several parts of the merged index.
const RECORDS: u64 = 6000;
/// Records of one swap.
const AT_ONCE: u64 = 50;
/// An odd number, so that ids are written in no order.
const STRIDE: u64 = 7919;

fn written(n: u64) -> RecordId {
    id(n * STRIDE % RECORDS)
}

/// Ids of a page.
async fn page(store: &Embedded, query: Query) -> Vec<RecordId> {
    store.list(query).await.unwrap().into_iter().map(|(id, _)| id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_found_and_listed_in_order_in_merged_files() {
    let mut random = Random::new();
    let dir = TempDir::new().unwrap();
    let (store, _) = flaky_with(dir.path(), SEGMENT);
    for from in (0..RECORDS).step_by(AT_ONCE as usize) {
        let put = |n: u64| put_new(written(n), samples::kept(n, 400));
        done(&*store, (from..from + AT_ONCE).map(put).collect()).await;
    }
    drop(store);
    let table = table(dir.path());
    while table.compact().unwrap() {}
    assert!(table.unmerged_runs() < 16, "files were merged");
    drop(table);
    let (store, _) = open(dir.path());
    let mut expected: Vec<RecordId> = (0..RECORDS).map(id).collect();
    expected.reverse();
    for _ in 0..200 {
        let (from, limit) = (random.below(expected.len()), 1 + random.below(300));
        let after = ListPosition { first_seen: samples::T0, id: expected[from] };
        let query = Query { after: Some(after), limit, ..Query::default() };
        let last = (from + 1 + limit).min(expected.len());
        assert_eq!(page(&store, query).await, expected[from + 1..last], "{limit} from {from}");
        let n = random.below(RECORDS as usize) as u64;
        assert_eq!(store.get(written(n)).await, Ok(Some(samples::kept(n, 400))), "{n}");
        assert_eq!(store.get(id(RECORDS + n)).await, Ok(None));
    }
    drop(store);
    let report = verify(&options(dir.path()), |_| {}).unwrap();
    assert_eq!((report.sound, report.problems), (RECORDS, vec![]));
}
