//! Scans of many open records: how much of the index each of them reads.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::idle;
use super::route::{SettleRoute, SettleRoutes};
use super::scan::{OpenScan, SCAN};
use super::state::Settler;
use crate::clock::Timestamp;
use crate::config::{self, Mode};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::Nonce;
use crate::idempotency::retention::{Keep, Retention};
use crate::idempotency::settling::{Schedule, Settling};
use crate::idempotency::{Record, RecordId};
use crate::observe::metrics::Metrics;
use crate::shutdown;
use crate::store::cache::RecordCache;
use crate::store::samples::{T0, claim, id};
use crate::store::{
    Change, Identity, ListPosition, NamesDocument, Query, Store, StoreError, StoreFuture, Swap,
};
use crate::upstream::Upstream;

/// Time of the store: all samples are old by then.
const NOW: Timestamp = Timestamp::from_millis(T0.as_millis() + 86_400_000);
const HOUR: Duration = Duration::from_secs(3600);

/// Lists open records, and counts them.
#[derive(Debug)]
struct OpenRecords {
    records: Mutex<BTreeMap<Reverse<ListPosition>, Record>>,
    listed: AtomicUsize,
    identity: Identity,
}

impl OpenRecords {
    fn put(&self, number: u64, record: Record) {
        let at = ListPosition::of(&id(number), &record);
        self.records.lock().unwrap().insert(Reverse(at), record);
    }

    /// The number of records that were listed since the last call.
    fn listed(&self) -> usize {
        self.listed.swap(0, Ordering::Relaxed)
    }
}

impl Store for OpenRecords {
    fn get(&self, _: RecordId) -> StoreFuture<'_, Option<Record>> {
        Box::pin(async { Ok(None) })
    }

    fn swap(&self, _: Vec<Change>) -> StoreFuture<'_, Swap> {
        unreachable!("a scan changes nothing")
    }

    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>> {
        let records = self.records.lock().unwrap();
        let after = query.after.unwrap_or(ListPosition::NEWEST);
        let behind = records.range(Reverse(after)..).filter(|(at, _)| at.0 != after);
        let page: Vec<_> =
            behind.take(query.limit).map(|(at, record)| (at.0.id, record.clone())).collect();
        self.listed.fetch_add(page.len(), Ordering::Relaxed);
        Box::pin(async { Ok(page) })
    }

    fn now(&self) -> Timestamp {
        NOW
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn owner(&self) -> Nonce {
        [0; 16]
    }

    fn names(&self) -> StoreFuture<'_, Option<NamesDocument>> {
        unreachable!("nobody asks")
    }

    fn swap_names(&self, _: Option<u64>, _: Vec<u8>) -> StoreFuture<'_, bool> {
        unreachable!("nobody asks")
    }

    fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A single route with a policy.
#[derive(Debug)]
struct OneRoute(Arc<SettleRoute>);

impl OneRoute {
    fn new() -> Self {
        let text = "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                    [store.embedded]\npath = \"x\"\n[[upstream]]\nname = \"b\"\n\
                    url = \"http://127.0.0.1:1\"\n[[route]]\nname = \"redeem\"\n\
                    methods = [\"POST\"]\npath = \"/r\"\nupstream = \"b\"\n\
                    outcome.on_unknown = \"probe\"\nprobe = { path = \"/s/{key}\", \
                    give_up_after = \"9d\", executed = { pointer = \"/ok\", equals = true } }";
        let config = config::parse(text, "test.toml", &|_| None).expect("a configuration");
        let Mode::Request(mode) = &config.routes[0].mode else { panic!("request mode") };
        let upstream = Arc::new(Upstream::new(&config.upstreams[0]).expect("an upstream"));
        let kept = Retention { answer: Keep::Forever, tombstone: Keep::Forever };
        let policy = Arc::new(mode.on_unknown.clone());
        let times = (Duration::from_secs(30), kept, mode.dialect);
        Self(SettleRoute::new("redeem".into(), upstream, &policy, times).expect("a policy"))
    }
}

impl SettleRoutes for OneRoute {
    fn settle_routes(&self) -> Vec<Arc<SettleRoute>> {
        vec![self.0.clone()]
    }

    fn is_configured(&self, name: &str) -> bool {
        name == "redeem"
    }
}

/// An unknown outcome whose next step is so far away. Higher numbers are newer.
fn unknown(number: u64, delay: Duration) -> Record {
    let seen = Timestamp::from_millis(T0.as_millis() + number);
    let schedule =
        Schedule { next: Some(NOW.saturating_add(delay)), tries: 9, ..Schedule::default() };
    let settling = Settling { schedule, ..Settling::new(seen, Vec::new()) };
    let claim = Record { first_seen: seen, settling: Some(Box::new(settling)), ..claim(number) };
    claim.lost(UnknownReason::Timeout, NOW)
}

struct Scene {
    store: Arc<OpenRecords>,
    settler: Settler,
    routes: OneRoute,
    scan: OpenScan,
    now: Instant,
}

impl Scene {
    fn with(records: u64) -> Self {
        let identity = Identity { store_id: uuid::Uuid::nil(), schema: 1, created: T0 };
        let (records_kept, listed) = (Mutex::default(), AtomicUsize::new(0));
        let store = Arc::new(OpenRecords { records: records_kept, listed, identity });
        for number in 0..records {
            store.put(number, unknown(number, HOUR));
        }
        let cache = Arc::new(RecordCache::new(0));
        let settler = Settler::new(store.clone(), cache, Metrics::new());
        let routes = OneRoute::new();
        settler.learn(&routes);
        Self { store, settler, routes, scan: OpenScan::default(), now: Instant::now() }
    }

    /// Scans all open records; gives the number of those that were read.
    async fn scan(&mut self) -> usize {
        let (_trigger, shutdown) = shutdown::channel();
        self.settler
            .scan((&self.routes, self.now), &mut self.scan, &shutdown)
            .await
            .expect("a scan");
        assert!(self.scan.cursor.is_none(), "not to its end");
        self.store.listed()
    }

    fn queued(&self, within: Duration) -> usize {
        let until = Instant::now() + within;
        std::iter::from_fn(|| self.routes.0.dequeue(until)).count()
    }
}

#[tokio::test]
async fn what_is_not_due_is_passed_over_and_read_again_in_the_end() {
    let mut scene = Scene::with(1000);
    assert_eq!(scene.scan().await, 1000);
    let mut reads = Vec::new();
    while reads.len() < 100 {
        scene.now += SCAN;
        reads.push(scene.scan().await);
    }
    let soon = &reads[..15];
    assert!(soon.iter().all(|read| *read <= 64), "only the newest: {reads:?}");
    let rounds = (SCAN * 100).as_secs() / idle::LONGEST.as_secs();
    let total: usize = reads.iter().sum();
    assert!(total as u64 >= 1000 * rounds, "each is read again: {reads:?}");
    assert!(total < 20_000, "{total} of 100,000 reads: {reads:?}");
    assert_eq!(scene.queued(HOUR), 0);
}

#[tokio::test]
async fn a_step_that_comes_near_is_queued_in_time() {
    let mut scene = Scene::with(1000);
    scene.store.put(500, unknown(500, Duration::from_secs(20)));
    scene.store.put(501, unknown(501, idle::LONGEST + SCAN * 3));
    scene.scan().await;
    assert_eq!(scene.queued(Duration::from_secs(20)), 1, "ahead of its time");
    // The store's clock stands still, so the record is due before it is queued.
    scene.now += idle::LONGEST;
    scene.store.put(501, unknown(501, SCAN));
    scene.scan().await;
    assert_eq!(scene.queued(SCAN), 1);
}

#[tokio::test]
async fn new_records_are_found_in_the_next_scan_and_changed_ones_when_a_process_has_ended() {
    let mut scene = Scene::with(1000);
    scene.scan().await;
    scene.store.put(2000, unknown(2000, Duration::ZERO));
    scene.store.put(300, unknown(300, Duration::ZERO));
    assert!(scene.scan().await <= 64);
    assert_eq!(scene.queued(SCAN), 1, "the newest");
    scene.settler.look_at_all();
    assert!(scene.scan().await >= 1000);
    assert_eq!(scene.queued(SCAN), 2, "the newest, and one in between");
    assert!(scene.scan().await <= 64);
}

#[tokio::test]
async fn records_that_leave_are_no_hindrance() {
    let mut scene = Scene::with(1000);
    scene.scan().await;
    scene.store.records.lock().unwrap().retain(|at, _| at.0.first_seen.as_millis() % 7 == 0);
    scene.now += idle::LONGEST;
    let left = scene.store.records.lock().unwrap().len();
    assert!(scene.scan().await >= left);
    assert!(scene.scan().await <= 64);
    scene.store.records.lock().unwrap().clear();
    assert_eq!(scene.scan().await, 0);
    scene.store.put(5, unknown(5, Duration::ZERO));
    assert_eq!(scene.scan().await, 1);
    assert_eq!(scene.queued(SCAN), 1);
}

#[tokio::test]
async fn records_beyond_the_queue_are_read_again_when_they_are_due() {
    let mut scene = Scene::with(12_000);
    for number in 0..12_000 {
        scene.store.put(number, unknown(number, Duration::from_secs(120)));
    }
    assert_eq!(scene.scan().await, 12_000);
    let queued = scene.queued(HOUR);
    assert!((5000..=10_000).contains(&queued), "{queued} queued");
    scene.now += Duration::from_secs(110);
    assert!(scene.scan().await >= 6_000, "the others");
}

#[tokio::test]
async fn a_full_queue_stops_the_scan_unless_its_backend_is_down() {
    let mut scene = Scene::with(12_000);
    for number in 0..12_000 {
        scene.store.put(number, unknown(number, Duration::ZERO));
    }
    let (_trigger, shutdown) = shutdown::channel();
    let at = (&scene.routes as &dyn SettleRoutes, scene.now);
    scene.settler.scan(at, &mut scene.scan, &shutdown).await.expect("a scan");
    assert!(scene.scan.cursor.is_some(), "it waits for room");
    for _ in 0..5 {
        scene.routes.0.breaker.failed(scene.now);
    }
    scene.scan().await;
    assert!(scene.scan().await <= 64);
    assert_eq!(scene.queued(SCAN), 10_000);
    scene.routes.0.breaker.succeeded();
    scene.now += Duration::from_secs(60);
    assert!(scene.scan().await >= 1900, "the others");
}

/// No route at all.
#[derive(Debug)]
struct NoRoute;

impl SettleRoutes for NoRoute {
    fn settle_routes(&self) -> Vec<Arc<SettleRoute>> {
        Vec::new()
    }

    fn is_configured(&self, _: &str) -> bool {
        false
    }
}

#[tokio::test]
async fn a_removed_route_stays_while_it_has_open_records_or_requests() {
    let scene = Scene::with(200);
    let Scene { store, settler, routes, mut scan, mut now } = scene;
    let (_trigger, shutdown) = shutdown::channel();
    settler.learn(&NoRoute);
    let mut pass = async || {
        scan.unused = settler.unused_routes(&NoRoute);
        settler.scan((&NoRoute, now), &mut scan, &shutdown).await.expect("a scan");
        now += idle::LONGEST;
        settler.route("redeem").is_some()
    };
    assert!(pass().await);
    store.records.lock().unwrap().clear();
    assert!(pass().await, "a request may hold it");
    drop(routes);
    store.put(3, unknown(3, HOUR));
    assert!(pass().await);
    store.records.lock().unwrap().clear();
    assert!(!pass().await, "nothing is left");
}
