//! What an engine that several processes share has to offer. It compares versions, keeps bytes and
//! tells the time; queues, patience, retries and leases are the same for all engines and stand
//! beside this file.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::message::Message;
use crate::clock::Timestamp;
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId};
use crate::shutdown::Shutdown;
use crate::store::codec::{self, Head};
use crate::store::{Change, Identity, Query};

/// A compare-and-swap over some records, all or nothing.
#[derive(Debug)]
pub(crate) struct Group {
    /// The changes; no two name the same record.
    pub(crate) changes: Vec<EncodedChange>,
    /// It was sent before and nobody knows whether it was made. A row whose record already is what
    /// it puts, byte for byte, then fits as well; so does one that removes what is absent.
    pub(crate) resent: bool,
}

/// One change, with its record written down.
#[derive(Debug)]
pub(crate) struct EncodedChange {
    /// The record to change.
    pub(crate) id: RecordId,
    /// The version it must have; `None`: it must be absent.
    pub(crate) expect: Option<u64>,
    /// What takes its place; `None` removes it.
    pub(crate) put: Option<EncodedRecord>,
}

/// A record as an engine keeps it: its bytes, and what the engine's indexes need.
#[derive(Debug)]
pub(crate) struct EncodedRecord {
    /// As [`codec::encode`] wrote it.
    pub(crate) bytes: Vec<u8>,
    /// Version, expiry, subject, and whether it is open.
    pub(crate) head: Head,
    /// Who has it in flight.
    pub(crate) owner: Option<Nonce>,
}

impl Group {
    /// A group that was not sent yet.
    pub(crate) fn of(changes: Vec<Change>) -> Self {
        let changes = changes.into_iter().map(|change| EncodedChange {
            put: change.put.map(|record| EncodedRecord::of(&change.id, &record)),
            id: change.id,
            expect: change.expect,
        });
        Self { changes: changes.collect(), resent: false }
    }

    /// Bytes of its records.
    pub(super) fn bytes(&self) -> usize {
        self.changes.iter().filter_map(|row| row.put.as_ref()).map(|put| put.bytes.len()).sum()
    }

    /// Whether it begins something new rather than ending what was begun.
    pub(super) fn claims(&self) -> bool {
        self.changes.iter().any(|row| row.put.as_ref().is_some_and(|put| put.head.in_flight))
    }
}

impl EncodedRecord {
    fn of(id: &RecordId, record: &Record) -> Self {
        let head = Head::of(record);
        let owner = head.in_flight.then_some(record.owner);
        Self { bytes: codec::encode(id, record), head, owner }
    }
}

/// How a group ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CasResult {
    /// Every change was made and is durable.
    Done,
    /// Nothing was changed.
    Lost {
        /// The first row that met something else.
        index: usize,
        /// The bytes of what is there instead; `None`: nothing.
        winner: Option<Vec<u8>>,
    },
}

/// Why an engine did not do what it was asked. The text is one line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EngineError {
    /// Certainly nothing was changed: the server was not reached, or said no.
    Rejected(String),
    /// It was sent, and no answer came, or one that does not promise durability: the change may
    /// have been made, or may be made yet.
    Indeterminate(String),
}

impl EngineError {
    /// What happened.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Rejected(reason) | Self::Indeterminate(reason) => reason,
        }
    }
}

/// A store that was found on its server, or made there.
#[derive(Debug)]
pub(crate) struct OpenedEngine<E> {
    /// The engine.
    pub(crate) engine: Arc<E>,
    /// What the store is.
    pub(crate) identity: Identity,
    /// Whether it was created just now.
    pub(crate) created: bool,
}

/// An id and the bytes under it.
pub(crate) type ListedRecord = (RecordId, Vec<u8>);

/// A server that several processes share. Every method is bounded in time by the engine, connects
/// by itself where it has to, and may be called at the same time as every other.
pub(crate) trait Engine: Send + Sync + std::fmt::Debug + 'static {
    /// How many [`Engine::commit`]s make sense at once.
    fn connections(&self) -> usize;

    /// Makes each group durable or leaves it as if it had not been asked; the results are in the
    /// order of the groups. No two groups name the same record. `lane` is below
    /// [`Engine::connections`] and in use by one caller at a time.
    fn commit<'a>(
        &'a self,
        lane: usize,
        groups: &'a [Group],
    ) -> impl Future<Output = Result<Vec<CasResult>, EngineError>> + Send + 'a;

    /// The bytes of these records, in their order; committed and durable ones.
    fn read<'a>(
        &'a self,
        ids: &'a [RecordId],
    ) -> impl Future<Output = Result<Vec<Option<Vec<u8>>>, EngineError>> + Send + 'a;

    /// What [`Store::list`](crate::store::Store::list) gives, in its order.
    fn list<'a>(
        &'a self,
        query: &'a Query,
    ) -> impl Future<Output = Result<Vec<ListedRecord>, EngineError>> + Send + 'a;

    /// Renews the life of `owner` for `lease` from now, by the server's clock, which it gives.
    fn heartbeat(
        &self,
        owner: Nonce,
        lease: Duration,
    ) -> impl Future<Output = Result<Timestamp, EngineError>> + Send + '_;

    /// Ends the life of `owner`.
    fn leave(&self, owner: Nonce) -> impl Future<Output = Result<(), EngineError>> + Send + '_;

    /// Sends messages to the processes named, best effort.
    fn publish(
        &self,
        messages: Vec<(Nonce, Message)>,
    ) -> impl Future<Output = Result<(), EngineError>> + Send + '_;

    /// Hands over the messages to `owner` and to [`EVERYONE`](super::message::EVERYONE), connecting again when the connection is lost, until the
    /// end starts. A message that finds `heard` full is dropped: messages are hints.
    fn listen(
        self: Arc<Self>,
        owner: Nonce,
        heard: mpsc::Sender<Message>,
        end: Shutdown,
    ) -> impl Future<Output = ()> + Send;
}
