//! Commands on a store not opened by any gateway: create, info, verify.

use std::fs;
use std::path::Path;

use super::disk::FileSystem;
use super::error::OpenError;
use super::interrupted::MAX_NAMED;
use super::layout::{Keyspace, TableKey, index_differences};
use super::names;
use super::open::{DirectoryOptions, OpenedStore, data, open};
use super::read::RecordReadError;
use super::table::Table;
use crate::idempotency::RecordId;
use crate::store::Identity;
use crate::store::codec::Head;

/// Number of records between two calls of the progress function.
const STEP: u64 = 10_000;

/// Figures of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// Identity of the store.
    pub identity: Identity,
    /// Records in flight: the gateway ended before their completion, and its next start marks them
    /// unknown.
    pub in_flight: u64,
    /// Records with an unknown outcome.
    pub unknown: u64,
    /// Corrupt open records.
    pub corrupt: u64,
    /// Number of records.
    pub records: u64,
    /// Bytes of all files on disk.
    pub disk_bytes: u64,
}

/// Progress of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Number of checked records.
    pub done: u64,
    /// Total number of records.
    pub total: u64,
}

/// Findings of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Number of sound records.
    pub sound: u64,
    /// Corrupt records and inconsistent index entries, at most a hundred, with the record's id, if
    /// known, and a description.
    pub problems: Vec<(Option<RecordId>, String)>,
    /// Number of problems.
    pub problem_count: u64,
}

impl VerifyReport {
    fn problem(&mut self, id: Option<RecordId>, reason: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < MAX_NAMED {
            self.problems.push((id, reason.into()));
        }
    }
}

/// Finds the store, or creates it in an empty or absent directory; returns true if it was created.
///
/// # Errors
/// When there is no store and none can be made, or the store cannot be opened.
pub fn init(options: &DirectoryOptions) -> Result<(Identity, bool), OpenError> {
    let opened = opened(&DirectoryOptions { create: true, ..options.clone() })?;
    Ok((opened.identity, opened.created))
}

/// True if the directory holds a store, whether it can be opened or not.
pub fn is_store(path: &Path) -> bool {
    data(path).is_dir()
}

/// Summarizes a store. Records are unchanged, but changes left in the log by a crash are moved into
/// the table.
///
/// # Errors
/// When the store cannot be opened, for example because a gateway has it open.
pub fn info(options: &DirectoryOptions) -> Result<StoreInfo, OpenError> {
    let path = &options.path;
    let opened = opened(options)?;
    let table = &opened.table;
    let damaged = |reason| OpenError::Damaged { path: path.clone(), reason };
    let mut info = StoreInfo {
        identity: opened.identity.clone(),
        in_flight: 0,
        unknown: 0,
        corrupt: 0,
        records: table.marker().map_err(damaged)?.records,
        disk_bytes: disk_bytes(path),
    };
    for entry in table.entries(Keyspace::Open) {
        let (key, _) = entry.map_err(|error| damaged(error.to_string()))?;
        let record = TableKey::parse(&key).map(|key| table.get(&key.id()));
        match record.map(|found| found.map(|record| record.as_ref().map(Head::of))) {
            Some(Ok(Some(Head { in_flight: true, .. }))) => info.in_flight += 1,
            Some(Ok(Some(Head { open: true, .. }))) => info.unknown += 1,
            Some(Ok(Some(_) | None) | Err(_)) | None => info.corrupt += 1,
        }
    }
    Ok(info)
}

/// Reads every record and every index entry, and reports inconsistencies; records are unchanged.
///
/// # Errors
/// When the store cannot be opened, for example because a gateway has it open.
pub fn verify(
    options: &DirectoryOptions,
    mut progress: impl FnMut(VerifyProgress),
) -> Result<VerifyReport, OpenError> {
    let path = &options.path;
    let opened = opened(options)?;
    let table = &opened.table;
    let marker = table.marker();
    let marker = marker.map_err(|reason| OpenError::Damaged { path: path.clone(), reason })?;
    let mut report = VerifyReport::default();
    let mut done = 0;
    let mut readable = true;
    for entry in table.records(None) {
        let (key, bytes) = match entry {
            Ok(pair) => pair,
            Err(error) => {
                report.problem(None, format!("the table's records cannot be read: {error}"));
                readable = false;
                break;
            }
        };
        done += 1;
        if done % STEP == 0 {
            progress(VerifyProgress { done, total: marker.records });
        }
        match TableKey::parse(&key) {
            Some(key) => check_record(table, &key.id(), &bytes, &mut report),
            None => report.problem(None, format!("a key of {} bytes is no id", key.len())),
        }
    }
    if readable && done != marker.records {
        let reason = format!("the table has {done} records and counts {}", marker.records);
        report.problem(None, reason);
    }
    if let Err(error) = names::check(&data(path), opened.identity.store_id) {
        report.problem(None, error.to_string());
    }
    for (keyspace, name) in INDEXES {
        check_index(table, keyspace, name, &mut report);
    }
    progress(VerifyProgress { done, total: marker.records });
    Ok(report)
}

/// The indexes and their names.
const INDEXES: [(Keyspace, &str); 4] = [
    (Keyspace::Open, "open"),
    (Keyspace::Expiry, "expiry"),
    (Keyspace::Subject, "subject"),
    (Keyspace::Times, "time"),
];

/// Calls `each` for every index entry of a record.
fn index_entries(id: &RecordId, head: Head, mut each: impl FnMut(TableKey)) {
    index_differences(id, None, Some(head), |key, _| each(key));
}

/// Checks a record and the presence of its index entries.
fn check_record(table: &Table, id: &RecordId, bytes: &[u8], report: &mut VerifyReport) {
    let head = match table.codec.decode(id, bytes) {
        Ok(record) => Head::of(&record),
        Err(error) => return report.problem(Some(*id), error.to_string()),
    };
    let problems = report.problem_count;
    index_entries(id, head, |key| {
        let index = INDEXES.iter().find(|(keyspace, _)| *keyspace as u8 == key.as_bytes()[0]);
        let index = index.map_or("", |(_, name)| name);
        match table.contains(&key) {
            Ok(true) => {}
            Ok(false) => report.problem(Some(*id), format!("the index `{index}` lacks it")),
            Err(error) => {
                let reason = format!("the index `{index}` cannot be read: {error}");
                report.problem(Some(*id), reason);
            }
        }
    });
    if report.problem_count == problems {
        report.sound += 1;
    }
}

/// Checks the entries of an index against the current records.
fn check_index(table: &Table, keyspace: Keyspace, name: &str, report: &mut VerifyReport) {
    for entry in table.entries(keyspace) {
        let key = match entry {
            Ok((key, _)) => key,
            Err(error) => {
                return report.problem(None, format!("the index `{name}` breaks off: {error}"));
            }
        };
        let Some(key) = TableKey::parse(&key) else {
            report.problem(None, format!("the index `{name}` has a key without an id"));
            continue;
        };
        let id = key.id();
        match table.get(&id) {
            Ok(Some(record)) => {
                let mut fits = false;
                index_entries(&id, Head::of(&record), |entry| fits |= entry == key);
                if !fits {
                    report.problem(Some(id), format!("the index `{name}` has it and should not"));
                }
            }
            Ok(None) => {
                report.problem(Some(id), format!("the index `{name}` names it, it is missing"));
            }
            // Reported with the records.
            Err(RecordReadError::Descriptors(_) | RecordReadError::Failed(_)) => {}
        }
    }
}

fn opened(options: &DirectoryOptions) -> Result<OpenedStore, OpenError> {
    open(options, &FileSystem { dir: options.path.clone() })
}

/// Size on disk of all files below a directory; unreadable files count as empty.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        // Blocks of 512 bytes: a sparse file is longer than its blocks.
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
