//! The port every store implements, and nothing of the rules.
//!
//! A store keeps records, lists them and swaps them: `swap` takes one or several changes, each with
//! the version it expects, and makes all of them durable or none. What a state means, when a record
//! may expire and who may complete it is decided in `idempotency`; a store only compares versions.

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod samples;

pub mod cache;
pub mod codec;
pub mod embedded;
pub mod expiry;
pub mod postgres;
pub mod reaper;
pub mod redis;
pub mod server;
mod shared;
pub(crate) mod urls;
pub mod watch;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::broadcast;

use crate::clock::Timestamp;
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId};
use watch::Watch;

/// A future of the port; boxed, because stores are used as `dyn Store`.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// One change of a compare-and-swap.
#[derive(Debug, Clone)]
pub struct Change {
    /// The record to change.
    pub id: RecordId,
    /// The version it must have now; `None`: it must be absent.
    pub expect: Option<u64>,
    /// What takes its place; `None` removes it.
    pub put: Option<Arc<Record>>,
}

/// How a compare-and-swap ended.
#[derive(Debug)]
pub enum Swap {
    /// Every change was made and is durable.
    Done,
    /// Nothing was changed: the record at `index` of the changes is not what was expected.
    Lost {
        /// Which change met something else.
        index: usize,
        /// What is there instead; `None`: nothing.
        winner: Option<Box<Record>>,
    },
}

/// Which records [`Store::list`] gives.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only records with this subject digest.
    pub subject: Option<[u8; 16]>,
    /// Only records that are in flight or unknown.
    pub open: bool,
    /// Only records that are in flight and whose owner no longer lives, by the store's clock.
    pub abandoned: bool,
    /// Only records due for expiry at this time.
    pub expired_at: Option<Timestamp>,
    /// Only records after this id, in id order; not used together with `expired_at`, whose records
    /// leave the result as they are swapped.
    pub after: Option<RecordId>,
    /// At most this many.
    pub limit: usize,
}

/// What a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Made when the store was created; `expect_id` pins it.
    pub store_id: uuid::Uuid,
    /// The version of the record layout.
    pub schema: u32,
    /// When the store was created.
    pub created: Timestamp,
}

/// Keeps, lists and swaps records.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The record with this id, if there is one.
    fn get(&self, id: RecordId) -> StoreFuture<'_, Option<Record>>;

    /// The records with these ids, in their order; the same as [`Store::get`] for each, and for a
    /// store that is asked over a network, in one question.
    fn get_many<'a>(&'a self, ids: &'a [RecordId]) -> StoreFuture<'a, Vec<Option<Record>>> {
        Box::pin(async move {
            let mut records = Vec::with_capacity(ids.len());
            for id in ids {
                records.push(self.get(*id).await?);
            }
            Ok(records)
        })
    }

    /// Makes every change durable, or none. Of two changes in one call no two name the same record.
    ///
    /// When this returns an error the caller knows nothing: the change may or may not be durable.
    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap>;

    /// Records in the order of their ids (of their expiry for `expired_at`).
    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>>;

    /// The store's time; retention is counted in it.
    fn now(&self) -> Timestamp;

    /// What this store is.
    fn identity(&self) -> &Identity;

    /// Names this process among the owners of claims.
    fn owner(&self) -> Nonce;

    /// Which of its lives this process is in; `None`: others may take it for dead. A claim may be
    /// acted on in the life in which it was asked for and in no other: asked before a claim, and
    /// between the claim and its first byte.
    fn life(&self) -> Option<u64> {
        Some(0)
    }

    /// Whether other processes may use it at the same time.
    fn is_shared(&self) -> bool {
        false
    }

    /// Watches a record that `owner` has in flight. Watch first, read then: a change that comes
    /// after the reading is not missed.
    fn watch(&self, _id: RecordId, _owner: Nonce) -> Watch {
        // Of a store that no other process shares, nobody else can change a record.
        Watch::never()
    }

    /// Tells every other process that this record, which may be in its memory, is another now.
    ///
    /// # Errors
    /// When the message was not sent; see [`cache::RecordCache::with_time_to_live`] for what holds then.
    fn announce(&self, _id: RecordId) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// The records that other processes announce from now on; `None`: there are none.
    fn announced(&self) -> Option<broadcast::Receiver<RecordId>> {
        None
    }

    /// Says goodbye: claims of this process that are still in flight are nobody's from now on.
    /// Called once, when nothing is sent any more.
    fn leave(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Whether new claims can be made durable now; the error says why not.
    fn ready(&self) -> Result<(), StoreError>;
}

/// Why a store could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// It cannot make anything durable now: closed, failed, full or out of reach.
    Unavailable(String),
    /// A record could not be read back: its checksum or its layout is wrong. Nothing is sent for
    /// its key until an operator has looked at it.
    Corrupt {
        /// Which record.
        id: RecordId,
        /// What is wrong with it.
        reason: String,
    },
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unavailable(reason) => write!(f, "the store is unavailable: {reason}"),
            Self::Corrupt { id, reason } => write!(f, "record {id} is corrupt: {reason}"),
        }
    }
}

impl std::error::Error for StoreError {}
