//! Opening a directory as a store: whose it is, whether it is one, and what a crash left in flight.
//!
//! ```text
//! lock          held while a process has the store open
//! data/table/   the engine's files
//! data/log/     what is not in the table yet
//! data.new/     a store that is being created; renamed to `data` when complete
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use fjall::{OwnedWriteBatch, PersistMode};
use uuid::Uuid;

use super::checkpoint::MARK;
use super::disk::Disk;
use super::error::OpenError;
use super::journal::{self, JournalError};
use super::recovery::{RecoveryError, replay};
use super::table::{EncodedRecord, Table, TableError, id_of, stage};
use super::wal::{self, Wal};
use crate::clock::{self, Timestamp};
use crate::idempotency::RecordId;
use crate::idempotency::outcome::UnknownReason;
use crate::store::codec::{Codec, Head, SCHEMA};
use crate::store::{Identity, StoreError};

const LOCK: &str = "lock";
const DATA: &str = "data";
const NEW: &str = "data.new";
const TABLE: &str = "table";
const LOG: &str = "log";
/// What a fresh file system has in its root.
const LOST_AND_FOUND: &str = "lost+found";

const STORE_ID: &[u8] = b"store_id";
const SCHEMA_KEY: &[u8] = b"schema";
const CREATED: &[u8] = b"created";

/// Records made unknown by one write when the store is opened.
const RECOVER_AT_ONCE: usize = 512;
/// Corrupt records that are named; more are only counted.
pub const NAMED: usize = 100;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct DirectoryOptions {
    /// The directory.
    pub path: PathBuf,
    /// Bytes of memory for the engine's block cache.
    pub cache: u64,
    /// Whether an empty place may become a store.
    pub create: bool,
    /// The only identity to accept.
    pub expect_id: Option<Uuid>,
    /// Encoder and decoder of the store's records.
    pub codec: Codec,
}

/// What was found when the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Whether the store was created just now.
    pub created: bool,
    /// Calls that were in flight when the last process ended; unknown now.
    pub interrupted: u64,
    /// Records that are unknown, those included.
    pub unknown: u64,
    /// Open records that cannot be read back, and why; they are left as they are, and their keys
    /// are refused. The first [`NAMED`].
    pub corrupt: Vec<(RecordId, String)>,
    /// How many those are in all.
    pub corrupt_count: u64,
}

/// A directory that is open, locked, and known to be a store.
pub(super) struct OpenedStore {
    pub(super) engine: Table,
    /// All it holds is in the table.
    pub(super) log: Wal,
    pub(super) identity: Identity,
    pub(super) created: bool,
    /// Unlocks when dropped, which must be after the engine.
    pub(super) lock: File,
}

/// Opens the directory, creating the store when that is allowed, and brings the table up to the log.
pub(super) fn open(options: &DirectoryOptions, disk: &dyn Disk) -> Result<OpenedStore, OpenError> {
    let path = &options.path;
    let unwritable = |error| OpenError::Unwritable { path: path.clone(), error };
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => return Err(OpenError::NotADirectory(path.clone())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(OpenError::NotADirectory(path.clone()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !options.create {
                return Err(OpenError::Missing(path.clone()));
            }
            fs::create_dir_all(path).map_err(unwritable)?;
        }
        Err(error) => return Err(unwritable(error)),
    }
    let is_store = path.join(DATA).is_dir();
    if !is_store {
        refuse_foreign(path)?;
        if !options.create {
            return Err(OpenError::Missing(path.clone()));
        }
    }
    let lock = lock(path)?;
    let created = !path.join(DATA).is_dir();
    if created {
        create(options)?;
    }
    let data = path.join(DATA);
    if !data.join(TABLE).is_dir() {
        return Err(OpenError::OlderLayout(path.clone()));
    }
    let damaged = |reason| OpenError::Damaged { path: path.clone(), reason };
    journal::check(&data.join(TABLE)).map_err(|error| match error {
        JournalError::Io(error) => unwritable(error),
        JournalError::Damaged(reason) => damaged(reason),
    })?;
    let engine = open_engine(options, &data, false)?;
    let identity = identity(&engine, path)?;
    if let Some(expected) = options.expect_id.filter(|expected| *expected != identity.store_id) {
        let found = identity.store_id;
        return Err(OpenError::WrongId { path: path.clone(), found, expected });
    }
    let salt = *identity.store_id.as_bytes();
    let log = replay(&engine, disk, &data.join(LOG), salt).map_err(|error| match error {
        RecoveryError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            damaged("its log is missing".to_owned())
        }
        RecoveryError::Io(error) => unwritable(error),
        RecoveryError::Damaged(reason) => damaged(reason),
    })?;
    Ok(OpenedStore { engine, log, identity, created, lock })
}

/// Only an empty directory may become a store.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let unwritable = |error| OpenError::Unwritable { path: path.to_owned(), error };
    for entry in fs::read_dir(path).map_err(unwritable)? {
        let name = entry.map_err(unwritable)?.file_name();
        if ![LOCK, NEW, LOST_AND_FOUND].iter().any(|ours| name == *ours) {
            let found = name.to_string_lossy().into_owned();
            return Err(OpenError::NotAStore { path: path.to_owned(), found });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let name = path.join(LOCK);
    let unwritable = |error| OpenError::Unwritable { path: name.clone(), error };
    let file = File::options().create(true).truncate(false).write(true).open(&name);
    let file = file.map_err(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(unwritable(error)),
    }
}

/// Makes a store under another name, whole and durable, and gives it its name at the end.
fn create(options: &DirectoryOptions) -> Result<(), OpenError> {
    let path = &options.path;
    let unwritable = |error| OpenError::Unwritable { path: path.to_owned(), error };
    let new = path.join(NEW);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(error)),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir(&new).map_err(unwritable)?;
    let engine = open_engine(options, &new, true)?;
    let mut batch = engine.db.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(&engine.meta, STORE_ID, *Uuid::new_v4().as_bytes());
    batch.insert(&engine.meta, SCHEMA_KEY, SCHEMA.to_le_bytes());
    batch.insert(&engine.meta, CREATED, clock::now().as_millis().to_le_bytes());
    batch.insert(&engine.meta, MARK, 0u64.to_le_bytes());
    batch.commit().map_err(|error| unwritable(io::Error::other(error.to_string())))?;
    drop(engine);
    wal::create(&new.join(LOG)).map_err(unwritable)?;
    let sync = |dir: &Path| File::open(dir).and_then(|dir| dir.sync_all());
    sync(&new).map_err(unwritable)?;
    fs::rename(&new, path.join(DATA)).map_err(unwritable)?;
    sync(path).map_err(unwritable)?;
    // The directory itself may be new as well.
    match path.canonicalize().map_err(unwritable)?.parent() {
        Some(parent) => sync(parent).map_err(unwritable),
        None => Ok(()),
    }
}

fn open_engine(options: &DirectoryOptions, data: &Path, create: bool) -> Result<Table, OpenError> {
    let path = &options.path;
    let codec = options.codec.clone();
    Table::open(&data.join(TABLE), codec, options.cache, create).map_err(|error| match error {
        TableError::Locked => OpenError::Locked(path.to_owned()),
        TableError::Io(error) => OpenError::Unwritable { path: path.to_owned(), error },
        TableError::Damaged(reason) => OpenError::Damaged { path: path.to_owned(), reason },
    })
}

fn identity(engine: &Table, path: &Path) -> Result<Identity, OpenError> {
    let damaged = |reason: String| OpenError::Damaged { path: path.to_owned(), reason };
    let read = |key: &[u8]| engine.meta.get(key).map_err(|error| damaged(error.to_string()));
    let missing = || damaged("its identity is missing".to_owned());
    let number = |bytes: Option<fjall::Slice>| {
        bytes.as_deref().and_then(|bytes| bytes.first_chunk().copied()).ok_or_else(missing)
    };
    let schema = read(SCHEMA_KEY)?;
    let schema = schema.as_deref().and_then(|bytes| bytes.first_chunk().copied());
    let schema = u32::from_le_bytes(schema.ok_or_else(missing)?);
    if schema > SCHEMA {
        return Err(OpenError::NewerSchema { path: path.to_owned(), found: schema });
    }
    if schema < SCHEMA {
        return Err(OpenError::OlderSchema { path: path.to_owned(), found: schema });
    }
    let created = Timestamp::from_millis(u64::from_le_bytes(number(read(CREATED)?)?));
    let id = read(STORE_ID)?;
    let id = id.as_deref().and_then(|bytes| bytes.first_chunk().copied()).ok_or_else(missing)?;
    Ok(Identity { store_id: Uuid::from_bytes(id), schema, created })
}

/// Makes every record that is in flight unknown, durably: the process that dispatched it is gone,
/// and nobody can say any more whether the backend acted.
pub(super) fn recover(
    engine: &Table,
    disk: &dyn Disk,
    now: Timestamp,
) -> Result<Recovered, StoreError> {
    let unavailable = |reason: String| StoreError::Unavailable(reason);
    let commit = |batch: OwnedWriteBatch| {
        disk.fold(batch).and_then(|()| disk.persist(&engine.db)).map_err(unavailable)
    };
    let mut recovered = Recovered::default();
    let mut batch = engine.db.batch();
    for entry in Table::entries(&engine.open) {
        let key = entry.key().map_err(|error| unavailable(error.to_string()))?;
        let found = match id_of(&key) {
            Some(id) => engine.get(&id).map(|record| (id, record)),
            None => continue,
        };
        let (id, reason) = match found {
            Ok((id, Some(record))) => {
                let head = Head::of(&record);
                if head.in_flight {
                    let lost = record.lost(UnknownReason::ProcessEnded, now);
                    stage(
                        engine,
                        &mut batch,
                        &id,
                        Some(head),
                        Some(EncodedRecord::of(&engine.codec, &id, &lost)),
                    );
                    recovered.interrupted += 1;
                    recovered.unknown += 1;
                    if batch.len() >= RECOVER_AT_ONCE {
                        let full = std::mem::replace(&mut batch, engine.db.batch());
                        commit(full)?;
                    }
                    continue;
                }
                if head.open {
                    recovered.unknown += 1;
                    continue;
                }
                (id, "the index calls it open and it is not".to_owned())
            }
            Ok((id, None)) => (id, "the index names it and it is missing".to_owned()),
            Err(StoreError::Corrupt { id, reason }) => (id, reason),
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
        };
        recovered.corrupt_count += 1;
        if recovered.corrupt.len() < NAMED {
            recovered.corrupt.push((id, reason));
        }
    }
    if !batch.is_empty() {
        commit(batch)?;
    }
    Ok(recovered)
}
