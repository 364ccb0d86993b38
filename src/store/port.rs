//! The port every store implements, without any rule.
//!
//! A store keeps records, lists them and swaps them: `swap` takes one or several changes, each with
//! the version it expects, and makes all of them durable or none. Meaning of states, expiry and the
//! right to complete a record are rules of `idempotency`; a store only compares versions.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::broadcast;

use super::codec::Head;
use super::watch::Watch;
use crate::clock::Timestamp;
use crate::idempotency::id::{IdScheme, KeyDigest};
use crate::idempotency::record::Nonce;
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::{Record, RecordId};

/// Future of the port; boxed, because stores are used as `dyn Store`.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A single change of a compare-and-swap.
#[derive(Debug, Clone)]
pub struct Change {
    /// The record to change.
    pub id: RecordId,
    /// Version that the stored record must have; `None` requires an absent record.
    pub expect: Option<u64>,
    /// Replacement; `None` removes the record.
    pub put: Option<Arc<Record>>,
}

/// Result of a compare-and-swap.
#[derive(Debug)]
pub enum Swap {
    /// Every change was made and is durable.
    Done,
    /// Nothing was changed: the record at `index` of the changes has another version.
    Lost {
        /// Index of the change that lost.
        index: usize,
        /// Stored record instead of the expected one; `None`: absent.
        winner: Option<Box<Record>>,
    },
}

/// ListPosition of a record in a listing: by the time of its first claim, then by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListPosition {
    /// Time of the first claim.
    pub first_seen: Timestamp,
    /// The record.
    pub id: RecordId,
}

impl ListPosition {
    /// The position before the newest record.
    pub const NEWEST: Self =
        Self { first_seen: Timestamp::from_millis(u64::MAX), id: RecordId::from_bytes([0xff; 16]) };

    /// The position of a record.
    pub fn of(id: &RecordId, record: &Record) -> Self {
        Self { first_seen: record.first_seen, id: *id }
    }
}

/// Selection of the records that [`Store::list`] returns.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only records with this subject digest.
    pub subject: Option<[u8; 16]>,
    /// Only records of keys with one of these digests; empty: of any key. Not combined with
    /// `subject`, `open` or `abandoned`.
    pub keys: Vec<KeyDigest>,
    /// Only records of this shard.
    pub shard: Option<u8>,
    /// Only records first claimed at this time or later.
    pub since: Option<Timestamp>,
    /// Only records that are in flight or unknown.
    pub open: bool,
    /// Only records in flight whose owner's lease has ended, by the store's clock.
    pub abandoned: bool,
    /// Only records due for expiry at this time. Not combined with the fields above, nor with
    /// `after`, because expired records leave the result as they are swapped.
    pub expired_at: Option<Timestamp>,
    /// Only records after this position: older ones.
    pub after: Option<ListPosition>,
    /// Maximum number of records.
    pub limit: usize,
}

impl Query {
    /// True for a record that is selected, as far as its id and head tell: the leases of owners are
    /// not looked at.
    pub(in crate::store) fn selects(&self, id: &RecordId, head: &Head) -> bool {
        let at = ListPosition { first_seen: head.first_seen, id: *id };
        (!self.open || head.open)
            && (!self.abandoned || head.in_flight)
            && (self.subject.is_none() || self.subject == head.subject)
            && (self.keys.is_empty() || self.keys.contains(&id.key_digest()))
            && self.shard.is_none_or(|shard| id.shard() == shard)
            && self.since.is_none_or(|since| head.first_seen >= since)
            && self.after.is_none_or(|after| at < after)
            && self.expired_at.is_none_or(|at| head.expires.is_some_and(|due| due <= at))
    }
}

/// Identity of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Id from the creation of the store; the configuration's `expect_id` pins it.
    pub store_id: uuid::Uuid,
    /// Version of the record layout.
    pub schema: u32,
    /// Time of creation.
    pub created: Timestamp,
}

/// A small document beside the records, with the version that a compare-and-swap expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamesDocument {
    /// Rises with every change.
    pub version: u64,
    /// The document; its meaning is no matter of the store.
    pub bytes: Vec<u8>,
}

/// Keeps, lists and swaps records.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The record with this id, if there is one.
    fn get(&self, id: RecordId) -> StoreFuture<'_, Option<Record>>;

    /// The records with these ids, in the order of the ids. Equal to [`Store::get`] for each, but a
    /// store on a server answers with one round trip.
    fn get_many<'a>(&'a self, ids: &'a [RecordId]) -> StoreFuture<'a, Vec<Option<Record>>> {
        Box::pin(async move {
            let mut records = Vec::with_capacity(ids.len());
            for id in ids {
                records.push(self.get(*id).await?);
            }
            Ok(records)
        })
    }

    /// Makes every change durable, or none. No two changes of a call name the same record.
    ///
    /// An error leaves the outcome open: the change may or may not be durable.
    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap>;

    /// The selected records, newest first: by falling [`ListPosition`]. For `expired_at` in the
    /// order of their expiry and then of their ids.
    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>>;

    /// The store's time, with which records are stamped.
    fn now(&self) -> Timestamp;

    /// The time by which records expire: the store's time, unless the store knows that its clock
    /// was set or may be wrong.
    fn expiry_time(&self) -> ExpiryTime {
        self.now().into()
    }

    /// Identity of this store.
    fn identity(&self) -> &Identity;

    /// The way in which ids and look-up digests of this store are made.
    fn ids(&self) -> &IdScheme {
        const { &IdScheme::plain() }
    }

    /// Name of this process among the owners of claims.
    fn owner(&self) -> Nonce;

    /// Epoch of this process's lease; `None`: the lease has ended, and other processes may give up
    /// the claims of this process. A claim is valid only in the epoch in which it was requested, so
    /// callers compare the epochs from before the claim and from before the first byte is sent.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    /// True for a store that several processes may use at the same time.
    fn is_shared(&self) -> bool {
        false
    }

    /// Watches a record that `owner` has in flight. Callers watch first and read then, so that no
    /// change after the reading is missed.
    fn watch(&self, _id: RecordId, _owner: Nonce) -> Watch {
        // No other process can change a record of a store that is not shared.
        Watch::never()
    }

    /// Announces to all other processes that a record, which they may have cached, was replaced.
    ///
    /// # Errors
    /// When the message was not sent. The time to live of their caches then bounds the staleness.
    fn announce(&self, _id: RecordId) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Announcements of other processes from now on; `None` for a store that is not shared.
    fn announced(&self) -> Option<broadcast::Receiver<RecordId>> {
        None
    }

    /// Ends the lease of this process: other processes may make claims that are still in flight
    /// unknown. Called once, when nothing is sent any more.
    fn leave(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// The names under which keys are kept; `None`: none were pinned yet.
    fn names(&self) -> StoreFuture<'_, Option<NamesDocument>>;

    /// Replaces the names and makes them durable, if their version is still `expect`; `None`
    /// requires that there are none. False: another process was faster, or an earlier attempt of
    /// this call was made after all.
    fn swap_names(&self, expect: Option<u64>, bytes: Vec<u8>) -> StoreFuture<'_, bool>;

    /// The processes among `owners` whose lease has not ended. No other process can have a store
    /// open that is not shared.
    fn live_owners<'a>(&'a self, _owners: &'a [Nonce]) -> StoreFuture<'a, Vec<Nonce>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Readiness for new claims.
    ///
    /// # Errors
    /// When a new claim could not be made durable now.
    fn ready(&self) -> Result<(), StoreError>;

    /// The reason why this store needs a restart of the process; `None`: no restart is needed.
    fn failure(&self) -> Option<StoreError> {
        None
    }

    /// Waits until the store needs a restart of the process, and returns the reason.
    fn failed(&self) -> Pin<Box<dyn Future<Output = StoreError> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

/// Failure of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// Nothing can be made durable now: the store is closed, failed, full or out of reach.
    Unavailable(String),
    /// A record cannot be decoded: its checksum or its layout is wrong. Nothing is sent for its key
    /// until an operator has looked at it.
    Corrupt {
        /// Id of the record.
        id: RecordId,
        /// Reason of the decoder.
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
