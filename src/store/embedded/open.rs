//! Opening a directory as a store, and creating one.
//!
//! ```text
//! lock          locked while a process has the store open
//! data/table/   files of the table
//! data/log/     changes not yet in the table
//! data/names    names under which keys are kept, see `names`
//! data.new/     a store under creation; renamed to `data` when complete
//! ```

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::directory::DirectoryLock;
use super::disk::{Disk, RunEntry};
use super::error::OpenError;
use super::layout::{IDENTITY, MARKER, Marker, encode_identity};
use super::names::NamesFile;
use super::recovery::{RecoveryError, recover};
use super::table::{Table, TableError};
use super::wal::{self, Wal};
use crate::clock;
use crate::store::codec::{Codec, SCHEMA};
use crate::store::{Identity, StoreError, sealed_names};

const DATA: &str = "data";
const NEW: &str = "data.new";
const TABLE: &str = "table";
const LOG: &str = "log";
/// Folder in the root of a fresh file system.
const LOST_AND_FOUND: &str = "lost+found";

/// Options for opening a directory as a store.
#[derive(Debug, Clone)]
pub struct DirectoryOptions {
    /// The directory.
    pub path: PathBuf,
    /// Bytes of memory for the table's block cache.
    pub cache: u64,
    /// Lets an empty directory become a store.
    pub create: bool,
    /// Expected identity; `None` accepts any.
    pub expect_id: Option<Uuid>,
    /// Encoder and decoder of the store's records.
    pub codec: Codec,
}

/// An open, locked directory verified to be a store.
pub(super) struct OpenedStore {
    pub(super) table: Table,
    /// The log; the table contains all its frames.
    pub(super) wal: Wal,
    pub(super) identity: Identity,
    pub(super) created: bool,
}

/// Opens the directory, creates the store if allowed, and brings the table up to the log.
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
    let lock = DirectoryLock::take(path)?;
    let created = !path.join(DATA).is_dir();
    if created {
        create(options, disk, lock.clone())?;
    }
    let data = path.join(DATA);
    if !data.join(TABLE).is_dir() {
        return Err(OpenError::EarlierLayout(path.clone()));
    }
    let table = Table::open(&data.join(TABLE), options.codec.clone(), options.cache, lock);
    let table = table.map_err(|error| refused(path, error))?;
    let identity = identity(&table, path)?;
    if let Some(expected) = options.expect_id.filter(|expected| *expected != identity.store_id) {
        let found = identity.store_id;
        return Err(OpenError::WrongId { path: path.clone(), found, expected });
    }
    open_seal(options, identity.store_id)?;
    let damaged = |reason| OpenError::Damaged { path: path.clone(), reason };
    let salt = *identity.store_id.as_bytes();
    let wal = recover(&table, disk, &data.join(LOG), salt).map_err(|error| match error {
        RecoveryError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            damaged("its log is missing".to_owned())
        }
        RecoveryError::Io(error) => unwritable(error),
        RecoveryError::Damaged(reason) => damaged(reason),
    })?;
    Ok(OpenedStore { table, wal, identity, created })
}

/// Checks the keys against the store's secret, and makes a secret for a store without one.
fn open_seal(options: &DirectoryOptions, store_id: Uuid) -> Result<(), OpenError> {
    let path = &options.path;
    let unwritable = |error: StoreError| OpenError::Unwritable {
        path: path.clone(),
        error: io::Error::other(error.to_string()),
    };
    let names = NamesFile::new(data(path), store_id);
    let stored = match names.read() {
        // Nothing is unsealed here: whoever reads the names next is told of the damage.
        Err(_) if options.codec.keyring().is_none() => None,
        read => read.map_err(unwritable)?,
    };
    let opened = sealed_names::open(&options.codec, store_id, stored.as_ref())
        .map_err(|problem| OpenError::Sealed { path: path.clone(), reason: problem.0 })?;
    if let Some(bytes) = opened.write {
        // No other process has the directory open.
        names.replace(stored.map(|stored| stored.version), &bytes).map_err(unwritable)?;
    }
    options.codec.bind(store_id, opened.ids);
    Ok(())
}

/// The folder of a store's log.
pub(super) fn log(path: &Path) -> PathBuf {
    path.join(DATA).join(LOG)
}

/// The folder `data` of a store.
pub(super) fn data(path: &Path) -> PathBuf {
    path.join(DATA)
}

/// Only an empty directory may become a store.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let unwritable = |error| OpenError::Unwritable { path: path.to_owned(), error };
    for entry in fs::read_dir(path).map_err(unwritable)? {
        let name = entry.map_err(unwritable)?.file_name();
        if ![DirectoryLock::NAME, NEW, LOST_AND_FOUND].iter().any(|ours| name == *ours) {
            let found = name.to_string_lossy().into_owned();
            return Err(OpenError::NotAStore { path: path.to_owned(), found });
        }
    }
    Ok(())
}

/// Creates a store under a temporary name and renames the complete, durable store at the end.
fn create(
    options: &DirectoryOptions,
    disk: &dyn Disk,
    lock: Arc<DirectoryLock>,
) -> Result<(), OpenError> {
    let path = &options.path;
    let unwritable = |error| OpenError::Unwritable { path: path.clone(), error };
    let new = path.join(NEW);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(error)),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir(&new).map_err(unwritable)?;
    let table = Table::create(&new.join(TABLE), options.codec.clone(), options.cache, lock)
        .map_err(|error| refused(path, error))?;
    let identity = Identity { store_id: Uuid::new_v4(), schema: SCHEMA, created: clock::now() };
    let (identity, marker) = (encode_identity(&identity), Marker::default().encode());
    let entries = [(IDENTITY, &identity[..]), (MARKER, &marker[..])];
    let mut entries = entries.into_iter().map(|(key, value)| RunEntry { key, value: Some(value) });
    disk.ingest(table.tree(), &mut entries).map_err(unwritable)?;
    drop(table);
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

fn refused(path: &Path, error: TableError) -> OpenError {
    let path = path.to_owned();
    match error {
        TableError::EarlierLayout => OpenError::EarlierLayout(path),
        TableError::Io(error) => OpenError::Unwritable { path, error },
        TableError::Damaged(reason) => OpenError::Damaged { path, reason },
    }
}

fn identity(table: &Table, path: &Path) -> Result<Identity, OpenError> {
    let damaged = |reason| OpenError::Damaged { path: path.to_owned(), reason };
    let identity = table.identity().map_err(damaged)?;
    let (path, found) = (path.to_owned(), identity.schema);
    match found.cmp(&SCHEMA) {
        Ordering::Greater => Err(OpenError::NewerSchema { path, found }),
        Ordering::Less => Err(OpenError::OlderSchema { path, found }),
        Ordering::Equal => Ok(identity),
    }
}
