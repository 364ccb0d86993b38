//! The table: the records' layout in the key-value engine, and how it is read.
//!
//! Five keyspaces: `records` (id → record), `open` (ids in flight or unknown), `expiry` (time of
//! expiry, big endian milliseconds, then id), `subject` (digest, then id) and `meta`. The last three
//! indexes have empty values. Nothing here writes except [`stage`], which puts a record and exactly
//! the index entries that change with it into a batch.

use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use fjall::config::PinningPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, Slice};

use crate::clock::Timestamp;
use crate::idempotency::{Record, RecordId};
use crate::store::codec::{self, Head};
use crate::store::{Query, StoreError};

/// Bytes of journal that call for flushing what holds it; the engine's smallest.
const JOURNAL: u64 = 64 << 20;
/// One thread flushes and compacts. With two, the engine hands a compaction that is under way to
/// and fro between them, which costs a processor for as long as it lasts. One is enough because
/// the writer rotates the memtables itself, see [`Engine::rotate`].
const WORKERS: usize = 1;
/// Open table files.
const FILES: usize = 128;

const ID: usize = 16;

/// The keyspaces of an open store. Cheap to clone.
#[derive(Clone)]
pub(super) struct Engine {
    pub(super) db: Database,
    pub(super) records: Keyspace,
    pub(super) open: Keyspace,
    pub(super) expiry: Keyspace,
    pub(super) subject: Keyspace,
    pub(super) meta: Keyspace,
}

const NAMES: [&str; 5] = ["records", "open", "expiry", "subject", "meta"];

impl Engine {
    /// Opens the engine's directory; `create` makes what is missing.
    pub(super) fn open(dir: &Path, cache: u64, create: bool) -> Result<Self, EngineError> {
        let open = || -> Result<Self, EngineError> {
            let db = Database::builder(dir)
                .cache_size(cache)
                .worker_threads(WORKERS)
                .max_cached_files(Some(FILES))
                .max_journaling_size(JOURNAL)
                .manual_journal_persist(true)
                .open()?;
            if !create {
                let present = db.list_keyspace_names();
                let missing = NAMES
                    .into_iter()
                    .find(|name| !present.iter().any(|have| have.as_ref() == *name));
                if let Some(name) = missing {
                    return Err(EngineError::Damaged(format!("its part `{name}` is missing")));
                }
            }
            let keyspace = |name: &str| db.keyspace(name, options);
            Ok(Self {
                records: keyspace("records")?,
                open: keyspace("open")?,
                expiry: keyspace("expiry")?,
                subject: keyspace("subject")?,
                meta: keyspace("meta")?,
                db,
            })
        };
        // The engine asserts some things of its files; a damaged one must not end the program
        // without a word to the operator.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(open))
            .unwrap_or_else(|_| Err(EngineError::Damaged("the engine gave up on it".to_owned())))
    }

    /// Hands what is in memory to the worker, to be sorted into tables, so that the journals which
    /// hold it can go.
    ///
    /// The engine would do this by itself at a size, but then sends its worker one message for each
    /// commit while a memtable is full, through a queue that the worker also posts to: when a flush
    /// outlasts a thousand commits the worker waits for itself, for ever.
    pub(super) fn rotate(&self) -> Result<(), String> {
        for keyspace in [&self.records, &self.open, &self.expiry, &self.subject, &self.meta] {
            keyspace.rotate_memtable().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The stored bytes of a record.
    pub(super) fn raw(&self, id: &RecordId) -> Result<Option<Slice>, StoreError> {
        self.records.get(id.as_bytes()).map_err(|error| unreadable(&error))
    }

    /// The record with this id.
    pub(super) fn get(&self, id: &RecordId) -> Result<Option<Record>, StoreError> {
        self.raw(id)?.map(|bytes| decode(id, &bytes)).transpose()
    }

    /// A page of records. Those that cannot be read back are left out: `verify` names them, and one
    /// of them must not keep the sweeper or an operator from all others.
    pub(super) fn list(&self, query: &Query) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let mut page = Vec::new();
        if query.limit == 0 {
            return Ok(page);
        }
        let after = query.after.map_or([0; ID], |id| *id.as_bytes());
        let from = |prefix: &[u8]| {
            let key = [prefix, &after].concat();
            if query.after.is_some() { Bound::Excluded(key) } else { Bound::Included(key) }
        };
        let to = |prefix: &[u8]| Bound::Included([prefix, &[0xff; ID]].concat());
        let entries = if let Some(at) = query.expired_at {
            let until = at.as_millis().to_be_bytes();
            self.expiry.range::<Vec<u8>, _>((Bound::Unbounded, to(&until)))
        } else if let Some(subject) = &query.subject {
            self.subject.range((from(subject), to(subject)))
        } else if query.open {
            self.open.range((from(&[]), to(&[])))
        } else {
            self.records.range((from(&[]), to(&[])))
        };
        for entry in entries {
            let key = entry.key().map_err(|error| unreadable(&error))?;
            let Some(id) = id_of(&key) else { continue };
            match self.get(&id) {
                Ok(Some(record)) if matches(&record, query) => page.push((id, record)),
                // Gone or changed since the index was read.
                Ok(Some(_) | None) => {}
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                Err(StoreError::Corrupt { id, reason }) => {
                    tracing::error!(record.id = ?id, reason, "a corrupt record was left out");
                }
            }
            if page.len() == query.limit {
                break;
            }
        }
        Ok(page)
    }
}

/// Why the engine could not be opened.
pub(super) enum EngineError {
    Locked,
    Io(std::io::Error),
    Damaged(String),
}

impl From<fjall::Error> for EngineError {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::Locked,
            fjall::Error::Io(error) => Self::Io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

fn options() -> KeyspaceCreateOptions {
    // Only what was just flushed keeps its index and filter in memory; the rest goes through the
    // cache, so that the number of records costs no memory.
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        // Never by the engine: see [`Engine::rotate`].
        .max_memtable_size(u64::MAX)
        .index_block_pinning_policy(PinningPolicy::new([true, false]))
        .filter_block_pinning_policy(PinningPolicy::new([true, false]))
}

/// The key of a record's entry in `expiry`.
pub(super) fn expiry_key(at: Timestamp, id: &RecordId) -> Vec<u8> {
    [at.as_millis().to_be_bytes().as_slice(), id.as_bytes()].concat()
}

/// The key of a record's entry in `subject`.
pub(super) fn subject_key(subject: &[u8; 16], id: &RecordId) -> Vec<u8> {
    [subject.as_slice(), id.as_bytes()].concat()
}

/// The id at the end of any key of this layout.
pub(super) fn id_of(key: &[u8]) -> Option<RecordId> {
    key.last_chunk().copied().map(RecordId::from_bytes)
}

/// A record and its head, written down. Cheap to clone.
#[derive(Clone)]
pub(super) struct Written {
    pub(super) bytes: Bytes,
    pub(super) head: Head,
}

impl Written {
    pub(super) fn of(id: &RecordId, record: &Record) -> Self {
        Self { bytes: codec::encode(id, record).into(), head: Head::of(record) }
    }
}

/// Puts a change into a batch: the record, and the index entries that differ between the two.
/// A batch may hold one change of each record only.
pub(super) fn stage(
    engine: &Engine,
    batch: &mut OwnedWriteBatch,
    id: &RecordId,
    before: Option<Head>,
    after: Option<Written>,
) {
    let head = after.as_ref().map(|written| written.head);
    let was_open = before.is_some_and(|head| head.open);
    let is_open = head.is_some_and(|head| head.open);
    match (was_open, is_open) {
        (false, true) => batch.insert(&engine.open, *id.as_bytes(), []),
        (true, false) => batch.remove(&engine.open, *id.as_bytes()),
        (true, true) | (false, false) => {}
    }
    let expired = before.and_then(|head| head.expires);
    let expires = head.and_then(|head| head.expires);
    if expired != expires {
        if let Some(at) = expired {
            batch.remove(&engine.expiry, expiry_key(at, id));
        }
        if let Some(at) = expires {
            batch.insert(&engine.expiry, expiry_key(at, id), []);
        }
    }
    let old_subject = before.and_then(|head| head.subject);
    let subject = head.and_then(|head| head.subject);
    if old_subject != subject {
        if let Some(digest) = old_subject {
            batch.remove(&engine.subject, subject_key(&digest, id));
        }
        if let Some(digest) = subject {
            batch.insert(&engine.subject, subject_key(&digest, id), []);
        }
    }
    match after {
        Some(written) => {
            batch.insert(&engine.records, *id.as_bytes(), Slice::from(&*written.bytes))
        }
        None => batch.remove(&engine.records, *id.as_bytes()),
    }
}

/// Puts a record into a batch with every index entry it has, whatever the indexes hold: after a crash
/// the table may have the record and not the entries.
pub(super) fn restage(
    engine: &Engine,
    batch: &mut OwnedWriteBatch,
    id: &RecordId,
    before: Option<Head>,
    after: Option<Written>,
) {
    let head = after.as_ref().map(|written| written.head);
    if !head.is_some_and(|head| head.open) {
        batch.remove(&engine.open, *id.as_bytes());
    }
    // An entry that both have is put by hand, and one that only `before` has is removed by `stage`.
    let both = before.filter(|before| head.is_some_and(|head| head.expires == before.expires));
    if let Some(at) = both.and_then(|head| head.expires) {
        batch.insert(&engine.expiry, expiry_key(at, id), []);
    }
    let both = before.filter(|before| head.is_some_and(|head| head.subject == before.subject));
    if let Some(digest) = both.and_then(|head| head.subject) {
        batch.insert(&engine.subject, subject_key(&digest, id), []);
    }
    let before = before.map(|before| Head { open: false, ..before });
    stage(engine, batch, id, before, after);
}

/// Whether a record is what the query asks for.
fn matches(record: &Record, query: &Query) -> bool {
    let head = Head::of(record);
    (!query.open || head.open)
        && (query.subject.is_none() || query.subject == head.subject)
        && query.expired_at.is_none_or(|at| head.expires.is_some_and(|expires| expires <= at))
}

pub(super) fn decode(id: &RecordId, bytes: &[u8]) -> Result<Record, StoreError> {
    codec::decode(id, bytes).map_err(|error| corrupt(id, error))
}

pub(super) fn corrupt(id: &RecordId, error: codec::DecodeError) -> StoreError {
    StoreError::Corrupt { id: *id, reason: error.to_string() }
}

fn unreadable(error: &fjall::Error) -> StoreError {
    StoreError::Unavailable(format!(
        "reading failed ({error}); check the disk, then run `oncegate store verify`"
    ))
}
