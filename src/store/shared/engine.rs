//! The trait of a server that several processes share as a store.
//!
//! An engine compares versions, keeps bytes and tells the time. Queues, timeouts, retries and
//! leases are the same for every engine and live in the files beside this module.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::message::Message;
use crate::clock::Timestamp;
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId};
use crate::shutdown::Shutdown;
use crate::store::codec::{Codec, Head};
use crate::store::{Change, Identity, ListPosition, NamesDocument, Query};

/// A compare-and-swap of a few records, applied as a whole or not at all.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Changes of the group; no two name the same record.
    pub(crate) changes: Vec<GroupChange>,
    /// Set when the group was sent before with an unknown result. A change then also succeeds
    /// against a record that already equals its new bytes, and a removal against an absent record.
    pub(crate) resent: bool,
}

/// Change in a group, with an encoded record.
#[derive(Debug)]
pub(crate) struct GroupChange {
    /// Id of the record to change.
    pub(crate) id: RecordId,
    /// Version the stored record must have; `None` requires an absent record.
    pub(crate) expect: Option<u64>,
    /// Replacement; `None` removes the record.
    pub(crate) put: Option<StoredRecord>,
}

/// A record as kept by an engine: the bytes, and the columns of the engine's indexes.
#[derive(Debug)]
pub(crate) struct StoredRecord {
    /// Output of [`Codec::encode`].
    pub(crate) bytes: Vec<u8>,
    /// Version, expiry, subject, and whether the record is open.
    pub(crate) head: Head,
    /// Process with the record in flight.
    pub(crate) owner: Option<Nonce>,
}

impl Group {
    /// Encodes changes into a group that was not sent yet.
    pub(crate) fn of(codec: &Codec, changes: Vec<Change>) -> Self {
        let changes = changes.into_iter().map(|change| GroupChange {
            put: change.put.map(|record| StoredRecord::of(codec, &change.id, &record)),
            id: change.id,
            expect: change.expect,
        });
        Self { changes: changes.collect(), resent: false }
    }

    /// Sum of the encoded records' sizes in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.changes
            .iter()
            .filter_map(|change| change.put.as_ref())
            .map(|put| put.bytes.len())
            .sum()
    }

    /// True if the group starts a new attempt, rather than ending an attempt.
    pub(super) fn claims(&self) -> bool {
        self.changes.iter().any(|change| change.put.as_ref().is_some_and(|put| put.head.in_flight))
    }
}

impl StoredRecord {
    fn of(codec: &Codec, id: &RecordId, record: &Record) -> Self {
        let head = Head::of(record);
        let owner = head.in_flight.then_some(record.owner);
        Self { bytes: codec.encode(id, record), head, owner }
    }
}

/// Result of a group's compare-and-swap.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CasResult {
    /// Every change is applied and durable.
    Done,
    /// No change was applied.
    Lost {
        /// Index of the first change that met an unexpected record.
        index: usize,
        /// Bytes of the stored record; `None` if the record is absent.
        winner: Option<Vec<u8>>,
    },
}

/// Failure of an engine call. The text is one line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineError {
    /// The call certainly changed no record: the server was not reached, or rejected the call.
    Rejected(String),
    /// The call was sent, and the reply is missing or does not promise durability: the change may
    /// be applied already, or may be applied later.
    Indeterminate(String),
}

impl EngineError {
    /// Cause of the failure, as one line.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Rejected(reason) | Self::Indeterminate(reason) => reason,
        }
    }
}

/// A store that an engine found or created on its server.
#[derive(Debug)]
pub(crate) struct OpenedEngine<E> {
    /// Engine connected to the store.
    pub(crate) engine: Arc<E>,
    /// Identity of the store.
    pub(crate) identity: Identity,
    /// True if the store was created by this call.
    pub(crate) created: bool,
}

/// ListPosition and encoded bytes of a listed record.
pub(crate) type ListedRecord = (ListPosition, Vec<u8>);

/// Record that is read to check the right to read; none has this id.
const READ_TO_CHECK: RecordId = RecordId::from_bytes([0; 16]);

/// A server that several processes share.
///
/// Every method is bounded in time by the engine, reconnects on its own, and may run concurrently
/// with every method.
pub(crate) trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// Number of connections that commit, and so of useful concurrent [`Engine::commit`] calls.
    fn connections(&self) -> usize;

    /// Makes each group durable or leaves its records untouched; returns the results in the order
    /// of the groups.
    ///
    /// No two groups name the same record. `connection` is below [`Engine::connections`] and in use
    /// by one caller at a time.
    fn commit<'a>(
        &'a self,
        connection: usize,
        groups: &'a [Group],
    ) -> impl Future<Output = Result<Vec<CasResult>, EngineError>> + Send + 'a;

    /// Bytes of the records with these ids, in the order of the ids; committed and durable records
    /// only.
    fn read<'a>(
        &'a self,
        ids: &'a [RecordId],
    ) -> impl Future<Output = Result<Vec<Option<Vec<u8>>>, EngineError>> + Send + 'a;

    /// Reads at the server that keeps the lease, to see that the user may. Of a cluster, a server
    /// that is away concerns its own records only.
    fn check_read(&self) -> impl Future<Output = Result<(), EngineError>> + Send + '_ {
        async move { self.read(&[READ_TO_CHECK]).await.map(drop) }
    }

    /// Records that match `query`, in the order of [`Store::list`](crate::store::Store::list).
    fn list<'a>(
        &'a self,
        query: &'a Query,
    ) -> impl Future<Output = Result<Vec<ListedRecord>, EngineError>> + Send + 'a;

    /// Renews the lease of `owner` for `lease` from now, by the server's clock, and returns the
    /// server's time.
    fn heartbeat(
        &self,
        owner: Nonce,
        lease: Duration,
    ) -> impl Future<Output = Result<Timestamp, EngineError>> + Send + '_;

    /// Ends the lease of `owner`.
    fn leave(&self, owner: Nonce) -> impl Future<Output = Result<(), EngineError>> + Send + '_;

    /// The owners whose lease has not ended, by the server's clock.
    fn live_owners<'a>(
        &'a self,
        owners: &'a [Nonce],
    ) -> impl Future<Output = Result<Vec<Nonce>, EngineError>> + Send + 'a;

    /// The names of the store; see [`Store::names`](crate::store::Store::names).
    fn names(&self)
    -> impl Future<Output = Result<Option<NamesDocument>, EngineError>> + Send + '_;

    /// Replaces the names of version `expect`; false if the version is another one. A repeated call
    /// may report false although its first attempt was made.
    fn swap_names<'a>(
        &'a self,
        expect: Option<u64>,
        bytes: &'a [u8],
    ) -> impl Future<Output = Result<bool, EngineError>> + Send + 'a;

    /// Sends messages to the named processes, best effort.
    fn publish(
        &self,
        messages: Vec<(Nonce, Message)>,
    ) -> impl Future<Output = Result<(), EngineError>> + Send + '_;

    /// Delivers the messages addressed to `owner` and to [`EVERYONE`](super::message::EVERYONE)
    /// until shutdown, reconnecting after a lost connection.
    ///
    /// Messages are hints: a message that finds `inbox` full is dropped.
    fn listen(
        self: Arc<Self>,
        owner: Nonce,
        inbox: mpsc::Sender<Message>,
        shutdown: Shutdown,
    ) -> impl Future<Output = ()> + Send;
}
