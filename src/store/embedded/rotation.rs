//! Rewriting a store under a new master key, while no gateway has it open.
//!
//! All records are encoded anew into a second directory, which then takes the place of `data` in
//! one step. Nothing of the former files is left: they may hold records in plain, or under a key
//! that is to be forgotten.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::disk::{Disk as _, FileSystem, RunEntry};
use super::error::OpenError;
use super::ingest::ingest;
use super::inspect::VerifyProgress;
use super::layout::{
    DirtyRecord, IDENTITY, IndexedRecord, MARKER, Marker, TableKey, encode_identity,
};
use super::names::NamesFile;
use super::open::{DirectoryOptions, OpenedStore, data, open};
use super::table::Table;
use super::wal;
use crate::store::sealed_names;

const ROTATED: &str = "data.rotated";

/// Records that are added in one step.
const STEP: usize = 10_000;
/// Steps between two merges of the new table.
const MERGE_EVERY: u64 = 16;

/// Encodes all records of a store anew with the present key of `options`, and returns their number.
///
/// # Errors
/// When the store cannot be opened, a record is corrupt, or the new files cannot be written. The
/// store is then as it was.
pub fn rotate(
    options: &DirectoryOptions,
    mut progress: impl FnMut(VerifyProgress),
) -> Result<u64, OpenError> {
    let path = &options.path;
    let disk = FileSystem { dir: path.clone() };
    let OpenedStore { table, wal, identity, .. } = open(options, &disk)?;
    drop(wal);
    let unwritable = |error| OpenError::Unwritable { path: path.clone(), error };
    let damaged = |reason| OpenError::Damaged { path: path.clone(), reason };
    let new = path.join(ROTATED);
    remove(&new).map_err(unwritable)?;
    fs::create_dir(&new).map_err(unwritable)?;
    // One lock holds for both, until the copy is in its place.
    let lock = table.lock();
    let copy =
        Table::create(&new.join("table"), options.codec.clone(), options.cache, lock.clone());
    let copy = copy.map_err(|_| unwritable(io::Error::other("no table can be made there")))?;
    let old = table.marker().map_err(damaged)?;
    let marker = Marker { frame: 0, records: 0, ..old };
    let (identity_bytes, marker) = (encode_identity(&identity), marker.encode());
    let entries = [(IDENTITY, &identity_bytes[..]), (MARKER, &marker[..])];
    let mut entries = entries.into_iter().map(|(key, value)| RunEntry { key, value: Some(value) });
    disk.ingest(copy.tree(), &mut entries).map_err(unwritable)?;
    let copied = copy_records(&table, &copy, &disk, old.records, &mut progress);
    let copied = copied.map_err(|error| match error {
        CopyError::Corrupt(reason) => damaged(reason),
        CopyError::Io(error) => unwritable(error),
    })?;
    wal::create(&new.join("log")).map_err(unwritable)?;
    copy_names(options, identity.store_id, &new)?;
    drop((table, copy));
    sync(&new).map_err(unwritable)?;
    let exchanged = renameat_with(CWD, &new, CWD, data(path), RenameFlags::EXCHANGE);
    exchanged.map_err(|error| unwritable(error.into()))?;
    sync(path).map_err(unwritable)?;
    remove(&new).map_err(unwritable)?;
    drop(lock);
    Ok(copied)
}

enum CopyError {
    Corrupt(String),
    Io(io::Error),
}

fn copy_records(
    from: &Table,
    to: &Table,
    disk: &FileSystem,
    total: u64,
    progress: &mut impl FnMut(VerifyProgress),
) -> Result<u64, CopyError> {
    let clock = from.marker().map_err(CopyError::Corrupt)?.clock;
    let (mut done, mut steps, mut batch) = (0, 0, Vec::with_capacity(STEP));
    let mut flush = |batch: &mut Vec<DirtyRecord>| -> Result<(), CopyError> {
        ingest(to, disk, batch, (0, clock)).map_err(CopyError::Io)?;
        batch.clear();
        steps += 1;
        while steps % MERGE_EVERY == 0
            && to.compact().map_err(|error| CopyError::Io(io::Error::other(error)))?
        {}
        Ok(())
    };
    for entry in from.records(None) {
        let (key, bytes) = entry.map_err(|error| CopyError::Corrupt(error.to_string()))?;
        let key = TableKey::parse(&key);
        let id = key.ok_or_else(|| CopyError::Corrupt("a key without an id".to_owned()))?.id();
        let record = from.codec.decode(&id, &bytes);
        let record = record.map_err(|error| CopyError::Corrupt(format!("record {id}: {error}")))?;
        let current = Some(IndexedRecord::of(&to.codec, &id, &record));
        batch.push(DirtyRecord { id, stored: None, current });
        done += 1;
        if batch.len() == STEP {
            flush(&mut batch)?;
            progress(VerifyProgress { done, total });
        }
    }
    flush(&mut batch)?;
    progress(VerifyProgress { done, total });
    Ok(done)
}

/// Copies the document of names, its seal under the present key.
fn copy_names(
    options: &DirectoryOptions,
    store_id: uuid::Uuid,
    new: &Path,
) -> Result<(), OpenError> {
    let path = &options.path;
    let failed = |error: crate::store::StoreError| OpenError::Damaged {
        path: path.clone(),
        reason: error.to_string(),
    };
    let stored = NamesFile::new(data(path), store_id).read().map_err(failed)?;
    let (Some(stored), Some(keyring)) = (stored, options.codec.keyring()) else { return Ok(()) };
    let resealed = sealed_names::resealed(keyring, store_id, &stored.bytes)
        .map_err(|problem| OpenError::Sealed { path: path.clone(), reason: problem.0 })?;
    let bytes = resealed.unwrap_or(stored.bytes);
    NamesFile::new(new.to_owned(), store_id).replace(None, &bytes).map_err(failed).map(drop)
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
