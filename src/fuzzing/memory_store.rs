//! A store in memory, which answers at once and leaves nothing behind: thousands of exchanges, each
//! with a store of its own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::{self, Timestamp};
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId};
use crate::store::{Change, Identity, NamesDocument, Query, Store, StoreError, StoreFuture, Swap};

/// Records of a single process, for as long as it runs. Nothing is listed.
#[derive(Debug)]
pub(super) struct MemoryStore {
    records: Mutex<HashMap<RecordId, Record>>,
    identity: Identity,
}

impl MemoryStore {
    pub(super) fn new() -> Self {
        let created = clock::now();
        let identity = Identity { store_id: crate::nonce::uuid(), schema: 0, created };
        Self { records: Mutex::default(), identity }
    }

    /// Number of records whose call has no end.
    pub(super) fn in_flight(&self) -> usize {
        self.records().values().filter(|record| record.is_in_flight()).count()
    }

    fn records(&self) -> MutexGuard<'_, HashMap<RecordId, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn swapped(&self, changes: Vec<Change>) -> Swap {
        let mut records = self.records();
        for (index, change) in changes.iter().enumerate() {
            let present = records.get(&change.id);
            if present.map(|record| record.version) != change.expect {
                return Swap::Lost { index, winner: present.cloned().map(Box::new) };
            }
        }
        for change in changes {
            match change.put {
                Some(record) => drop(records.insert(change.id, (*record).clone())),
                None => drop(records.remove(&change.id)),
            }
        }
        Swap::Done
    }
}

impl Store for MemoryStore {
    fn get(&self, id: RecordId) -> StoreFuture<'_, Option<Record>> {
        Box::pin(async move { Ok(self.records().get(&id).cloned()) })
    }

    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap> {
        Box::pin(async move { Ok(self.swapped(changes)) })
    }

    fn list(&self, _: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn owner(&self) -> Nonce {
        Nonce::default()
    }

    fn names(&self) -> StoreFuture<'_, Option<NamesDocument>> {
        Box::pin(async { Ok(None) })
    }

    fn swap_names(&self, _: Option<u64>, _: Vec<u8>) -> StoreFuture<'_, bool> {
        Box::pin(async { Ok(true) })
    }

    fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
