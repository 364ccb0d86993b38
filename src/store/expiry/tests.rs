//! What time does to records, on the embedded store with a clock that the test moves.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tempfile::TempDir;

use super::*;
use crate::clock::Timestamp;
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::Nonce;
use crate::idempotency::retention::Keep;
use crate::idempotency::{Record, RecordId, State};
use crate::shutdown;
use crate::store::codec::Codec;
use crate::store::contract::{done, put_new};
use crate::store::embedded::{DirectoryOptions, Embedded};
use crate::store::samples::{self, T0, id, kept_for};
use crate::store::{Identity, NamesDocument, StoreFuture};

/// A store whose time the test sets.
#[derive(Debug)]
struct Timed {
    store: Arc<Embedded>,
    now: AtomicU64,
    lists: AtomicUsize,
    _dir: TempDir,
}

impl Timed {
    fn new() -> Arc<Self> {
        let dir = TempDir::new().unwrap();
        let path = dir.path().to_owned();
        let options = DirectoryOptions {
            path,
            cache: 1 << 20,
            create: true,
            expect_id: None,
            codec: Codec::plain(),
        };
        let (store, _) = Embedded::open(&options).unwrap();
        let now = AtomicU64::new(T0.as_millis());
        Arc::new(Self { store, now, lists: AtomicUsize::new(0), _dir: dir })
    }

    fn set(&self, after: Duration) {
        self.now.store(T0.saturating_add(after).as_millis(), Ordering::SeqCst);
    }

    async fn keep(&self, n: u64, answer: Keep, tombstone: Keep) {
        let retention = kept_for(answer, tombstone);
        let record = samples::claim(n).completed(samples::answer(10), retention, T0);
        done(self, vec![put_new(id(n), record)]).await;
    }

    /// Sweeps at a time, and checks what was done.
    async fn check(&self, after: Duration, buried: u64, forgotten: u64) {
        self.set(after);
        let (_trigger, shutdown) = shutdown::channel();
        let swept = pass(self, &KeyCounts::new(None), &shutdown).await.unwrap();
        assert_eq!(swept, Swept { buried, forgotten }, "after {after:?}");
    }

    async fn state(&self, n: u64) -> Option<State> {
        self.get(id(n)).await.unwrap().map(|record| record.state)
    }
}

impl Store for Timed {
    fn get(&self, id: RecordId) -> StoreFuture<'_, Option<Record>> {
        self.store.get(id)
    }
    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap> {
        self.store.swap(changes)
    }
    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.store.list(query)
    }
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }
    fn identity(&self) -> &Identity {
        self.store.identity()
    }
    fn owner(&self) -> Nonce {
        self.store.owner()
    }
    fn names(&self) -> StoreFuture<'_, Option<NamesDocument>> {
        self.store.names()
    }
    fn swap_names(&self, expect: Option<u64>, bytes: Vec<u8>) -> StoreFuture<'_, bool> {
        self.store.swap_names(expect, bytes)
    }
    fn ready(&self) -> Result<(), StoreError> {
        self.store.ready()
    }
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_answer_becomes_a_tombstone_and_that_is_forgotten() {
    let store = Timed::new();
    store.keep(1, Keep::For(MINUTE), Keep::For(MINUTE)).await;
    store.check(MINUTE - Duration::from_millis(1), 0, 0).await;
    store.check(MINUTE, 1, 0).await;
    assert!(matches!(store.state(1).await, Some(State::Tombstone { status: 201, .. })));
    store.check(2 * MINUTE - SECOND, 0, 0).await;
    store.check(2 * MINUTE, 0, 1).await;
    assert_eq!(store.state(1).await, None);
    store.check(9 * MINUTE, 0, 0).await;
}

#[tokio::test]
async fn without_a_tombstone_an_expired_record_is_gone_at_once() {
    let store = Timed::new();
    store.keep(1, Keep::For(MINUTE), Keep::For(Duration::ZERO)).await;
    store.check(MINUTE, 0, 1).await;
    assert_eq!(store.state(1).await, None);
}

#[tokio::test]
async fn what_is_past_both_periods_is_gone_in_one_step() {
    let store = Timed::new();
    store.keep(1, Keep::For(MINUTE), Keep::For(MINUTE)).await;
    store.check(5 * MINUTE, 0, 1).await;
}

#[tokio::test]
async fn for_ever_is_for_ever_and_nothing_open_expires() {
    let store = Timed::new();
    store.keep(1, Keep::Forever, Keep::For(MINUTE)).await;
    store.keep(2, Keep::For(MINUTE), Keep::Forever).await;
    done(&*store, vec![put_new(id(3), samples::claim(3))]).await;
    let unknown = samples::claim(4).lost(UnknownReason::Timeout, T0);
    done(&*store, vec![put_new(id(4), unknown)]).await;
    let century = Duration::from_secs(100 * 365 * 86_400);
    store.check(century, 1, 0).await;
    store.check(2 * century, 0, 0).await;
    assert!(matches!(store.state(1).await, Some(State::Final { .. })));
    assert!(matches!(store.state(2).await, Some(State::Tombstone { expires: None, .. })));
    assert!(matches!(store.state(3).await, Some(State::InFlight)));
    assert!(matches!(store.state(4).await, Some(State::Unknown { .. })));
}

#[tokio::test]
async fn a_clock_that_goes_back_only_makes_it_later() {
    let store = Timed::new();
    store.keep(1, Keep::For(MINUTE), Keep::For(MINUTE)).await;
    store.keep(2, Keep::For(2 * MINUTE), Keep::For(MINUTE)).await;
    store.check(MINUTE, 1, 0).await;
    store.check(Duration::ZERO, 0, 0).await;
    assert!(matches!(store.state(1).await, Some(State::Tombstone { .. })));
    assert!(matches!(store.state(2).await, Some(State::Final { .. })));
    store.check(2 * MINUTE, 1, 1).await;
}

#[tokio::test]
async fn many_are_swept_page_by_page_and_only_what_is_due_is_read() {
    let store = Timed::new();
    let many = PAGE as u64 * 3 + 5;
    for n in 0..many {
        store.keep(n, Keep::For(MINUTE), Keep::For(MINUTE)).await;
    }
    for n in many..many + 200 {
        store.keep(n, Keep::For(3 * MINUTE), Keep::For(MINUTE)).await;
    }
    store.check(SECOND, 0, 0).await;
    assert_eq!(store.lists.swap(0, Ordering::SeqCst), 1);
    store.check(MINUTE, many, 0).await;
    assert_eq!(store.lists.swap(0, Ordering::SeqCst), 4);
}

#[tokio::test]
async fn it_waits_until_something_is_due() {
    let store = Timed::new();
    let expect = |after: Duration, pause: Duration| {
        let store = store.clone();
        async move {
            store.set(after);
            assert_eq!(next(&*store).await.unwrap(), pause, "after {after:?}");
        }
    };
    expect(Duration::ZERO, LATEST).await;
    store.keep(1, Keep::For(MINUTE), Keep::Forever).await;
    expect(Duration::ZERO, LATEST).await;
    expect(MINUTE - 10 * SECOND, 10 * SECOND).await;
    expect(MINUTE, SOONEST).await;
    expect(2 * MINUTE, SOONEST).await;
}

#[tokio::test]
async fn it_sweeps_in_the_background_and_ends_when_told() {
    let store = Timed::new();
    store.keep(1, Keep::For(Duration::ZERO), Keep::For(Duration::ZERO)).await;
    store.keep(2, Keep::For(MINUTE), Keep::For(Duration::ZERO)).await;
    let (trigger, shutdown) = shutdown::channel();
    tokio::join!(run(store.clone(), KeyCounts::new(None), shutdown), async {
        while store.state(1).await.is_some() {
            tokio::task::yield_now().await;
        }
        trigger.fire();
    });
    assert!(store.state(2).await.is_some());
}
