//! A store whose operations are timed and counted, whatever the store is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::broadcast;

use super::watch::Watch;
use super::{Change, Identity, NamesDocument, Query, Store, StoreError, StoreFuture, Swap};
use crate::clock::Timestamp;
use crate::idempotency::id::IdScheme;
use crate::idempotency::record::Nonce;
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::{Record, RecordId};
use crate::observe::metrics::{StoreMetrics, StoreOperation};

/// A store with metrics.
#[derive(Debug)]
pub(crate) struct MeteredStore {
    store: Arc<dyn Store>,
    metrics: Arc<StoreMetrics>,
}

impl MeteredStore {
    /// Times and counts the operations of `store`.
    pub(crate) fn new(store: Arc<dyn Store>, metrics: Arc<StoreMetrics>) -> Self {
        Self { store, metrics }
    }

    fn timed<'a, T: Send + 'a>(
        &'a self,
        operation: StoreOperation,
        running: impl Future<Output = Result<T, StoreError>> + Send + 'a,
    ) -> StoreFuture<'a, T> {
        let started = Instant::now();
        Box::pin(async move {
            let ended = running.await;
            self.metrics.ended(operation, started, ended.is_err());
            ended
        })
    }
}

impl Store for MeteredStore {
    fn get(&self, id: RecordId) -> StoreFuture<'_, Option<Record>> {
        self.timed(StoreOperation::Get, self.store.get(id))
    }

    fn get_many<'a>(&'a self, ids: &'a [RecordId]) -> StoreFuture<'a, Vec<Option<Record>>> {
        self.timed(StoreOperation::Get, self.store.get_many(ids))
    }

    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap> {
        self.timed(StoreOperation::Swap, self.store.swap(changes))
    }

    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>> {
        self.timed(StoreOperation::List, self.store.list(query))
    }

    fn now(&self) -> Timestamp {
        self.store.now()
    }

    fn expiry_time(&self) -> ExpiryTime {
        self.store.expiry_time()
    }

    fn identity(&self) -> &Identity {
        self.store.identity()
    }

    fn ids(&self) -> &IdScheme {
        self.store.ids()
    }

    fn owner(&self) -> Nonce {
        self.store.owner()
    }

    fn epoch(&self) -> Option<u64> {
        self.store.epoch()
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn watch(&self, id: RecordId, owner: Nonce) -> Watch {
        self.store.watch(id, owner)
    }

    fn announce(&self, id: RecordId) -> StoreFuture<'_, ()> {
        self.timed(StoreOperation::Announce, self.store.announce(id))
    }

    fn announced(&self) -> Option<broadcast::Receiver<RecordId>> {
        self.store.announced()
    }

    fn leave(&self) -> StoreFuture<'_, ()> {
        self.store.leave()
    }

    fn names(&self) -> StoreFuture<'_, Option<NamesDocument>> {
        self.timed(StoreOperation::Names, self.store.names())
    }

    fn swap_names(&self, expect: Option<u64>, bytes: Vec<u8>) -> StoreFuture<'_, bool> {
        self.timed(StoreOperation::Names, self.store.swap_names(expect, bytes))
    }

    fn live_owners<'a>(&'a self, owners: &'a [Nonce]) -> StoreFuture<'a, Vec<Nonce>> {
        self.timed(StoreOperation::Names, self.store.live_owners(owners))
    }

    fn ready(&self) -> Result<(), StoreError> {
        self.store.ready()
    }

    fn failure(&self) -> Option<StoreError> {
        self.store.failure()
    }

    fn failed(&self) -> Pin<Box<dyn Future<Output = StoreError> + Send + '_>> {
        self.store.failed()
    }
}
