//! A decision tells whoever may have the record in memory, whatever the store says of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio_util::task::TaskTracker;

use super::resolve::purge;
use crate::admin::state::AdminState;
use crate::clock::Timestamp;
use crate::config;
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId, State};
use crate::observe::metrics::{Figures, Metrics};
use crate::observe::traffic::Traffic;
use crate::store::cache::RecordCache;
use crate::store::samples::{self, T0};
use crate::store::{Change, Identity, NamesDocument, Query, Store, StoreError, StoreFuture, Swap};

/// A store of one record, which makes every change and confirms it or not.
#[derive(Debug)]
struct Fake {
    record: Mutex<Record>,
    confirms: AtomicBool,
    announced: AtomicUsize,
}

impl Store for Fake {
    fn get(&self, _: RecordId) -> StoreFuture<'_, Option<Record>> {
        Box::pin(async { Ok(Some(self.record.lock().unwrap().clone())) })
    }
    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap> {
        Box::pin(async move {
            let next = changes[0].put.clone().expect("no decision removes a record");
            *self.record.lock().unwrap() = (*next).clone();
            match self.confirms.load(Ordering::SeqCst) {
                true => Ok(Swap::Done),
                false => Err(StoreError::Unavailable("on purpose".to_owned())),
            }
        })
    }
    fn list(&self, _: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn now(&self) -> Timestamp {
        T0
    }
    fn identity(&self) -> &Identity {
        unreachable!("nobody asks")
    }
    fn owner(&self) -> Nonce {
        unreachable!("nobody asks")
    }
    fn announce(&self, _: RecordId) -> StoreFuture<'_, ()> {
        self.announced.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
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

/// Routes that never change.
#[derive(Debug)]
struct Fixed(Arc<[config::RouteConfig]>);

impl crate::admin::ServedGateway for Fixed {
    fn routes(&self) -> Arc<[config::RouteConfig]> {
        self.0.clone()
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }
}

/// A state whose memory has the answer of a record, and its store.
fn state() -> (Arc<AdminState>, Arc<Fake>) {
    let record = samples::kept(1, 10);
    let cache = Arc::new(RecordCache::new(1 << 20));
    cache.put(samples::id(1), record.clone());
    let store = Arc::new(Fake {
        record: Mutex::new(record),
        confirms: AtomicBool::new(true),
        announced: AtomicUsize::new(0),
    });
    let text = "[[upstream]]\nname = \"api\"\nurl = \"http://127.0.0.1:9000\"\n[[route]]\nname = \
                \"create\"\nmethods = [\"POST\"]\npath = \"/v1/orders\"\nupstream = \"api\"\n";
    let config = config::parse(text, "t.toml", &|_| None).unwrap();
    let routes = Arc::new(Fixed(config.routes.clone().into()));
    let tasks = TaskTracker::default();
    let metrics = Metrics::new();
    let figures = (metrics.clone(), Traffic::new(metrics, T0));
    let state = AdminState::new(&config, routes, store.clone(), cache, figures, tasks);
    (Arc::new(state), store)
}

fn dropped_and_announced(state: &AdminState, store: &Fake) -> (bool, usize) {
    (state.cache.get(&samples::id(1)).is_none(), store.announced.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_purge_that_was_not_confirmed_is_told_as_well() {
    let (state, store) = state();
    store.confirms.store(false, Ordering::SeqCst);
    let error = purge(&state, samples::id(1), (None, None), None).await.unwrap_err();
    assert_eq!((error.status.as_u16(), error.code), (503, "store-unavailable"));
    assert_eq!(dropped_and_announced(&state, &store), (true, 1));
}

#[tokio::test]
async fn a_purge_of_what_is_purged_is_told_once_more() {
    let (state, store) = state();
    let before = store.record.lock().unwrap().clone();
    purge(&state, samples::id(1), (None, None), None).await.unwrap();
    assert_eq!(dropped_and_announced(&state, &store), (true, 1));
    assert!(matches!(store.record.lock().unwrap().state, State::Tombstone { .. }));
    state.cache.put(samples::id(1), before);
    let shown = purge(&state, samples::id(1), (None, None), None).await.unwrap();
    assert_eq!(shown["history"].as_array().map(Vec::len), Some(1));
    assert_eq!(dropped_and_announced(&state, &store), (true, 2));
}

#[tokio::test]
async fn a_decision_is_a_task_that_a_drain_waits_for() {
    let (state, store) = state();
    {
        // Polled once and dropped, as when the operator's connection ends.
        let purging = purge(&state, samples::id(1), (None, None), None);
        let mut purging = std::pin::pin!(purging);
        assert!(polled_once(purging.as_mut()).await.is_none());
    }
    assert!(crate::shutdown::ended(&state.tasks, std::time::Duration::from_secs(60)).await);
    assert_eq!(dropped_and_announced(&state, &store), (true, 1));
}

/// What a future gives when it is polled once.
async fn polled_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
