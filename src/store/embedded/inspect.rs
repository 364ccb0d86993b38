//! What the command line does with a store that no gateway has open: create, look, check.

use std::fs;
use std::path::Path;

use super::disk::FileSystem;
use super::error::OpenError;
use super::open::{self, DirectoryOptions, NAMED};
use super::table::{REACHED, Table, expiry_key, id_of, subject_key};
use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::store::codec::{Codec, Head};
use crate::store::{Identity, StoreError};

/// Records between two calls of the progress function.
const STEP: u64 = 10_000;

/// A store at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreInfo {
    /// What the store is.
    pub identity: Identity,
    /// Records in flight: the gateway ended without completing them, its next start makes them
    /// unknown.
    pub in_flight: u64,
    /// Records whose outcome nobody knows.
    pub unknown: u64,
    /// Open records that cannot be read back.
    pub corrupt: u64,
    /// About how many records there are in all; old versions that were not compacted yet count too.
    pub records: u64,
    /// Bytes of all files.
    pub disk_bytes: u64,
}

/// How far a check has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Records looked at.
    pub done: u64,
    /// About how many there are.
    pub about: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Records read back as they were written.
    pub sound: u64,
    /// Records that are corrupt, and index entries that do not fit: the first [`NAMED`], each with
    /// the record it is about, when it can be told, and what is wrong.
    pub problems: Vec<(Option<RecordId>, String)>,
    /// How many those are in all.
    pub problem_count: u64,
}

impl VerifyReport {
    fn problem(&mut self, id: Option<RecordId>, reason: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < NAMED {
            self.problems.push((id, reason.into()));
        }
    }
}

/// Creates a store in an empty or absent directory.
///
/// # Errors
/// When a store is there already, or none can be made.
pub fn init(path: &Path, cache: u64) -> Result<Identity, OpenError> {
    let options = DirectoryOptions {
        path: path.to_owned(),
        cache,
        create: true,
        expect_id: None,
        codec: Codec::plain(),
    };
    let opened = opened(&options)?;
    if opened.created { Ok(opened.identity) } else { Err(OpenError::Exists(path.to_owned())) }
}

/// Looks at a store; changes no record, but folds what a crash left in the log.
///
/// # Errors
/// When it cannot be opened, for one because a gateway has it open.
pub fn info(path: &Path, cache: u64) -> Result<StoreInfo, OpenError> {
    let opened = existing(path, cache)?;
    let engine = &opened.engine;
    let mut info = StoreInfo {
        identity: opened.identity.clone(),
        in_flight: 0,
        unknown: 0,
        corrupt: 0,
        records: engine.records.approximate_len() as u64,
        disk_bytes: disk_bytes(path),
    };
    for entry in Table::entries(&engine.open) {
        let key = entry.key().map_err(|error| damaged(path, &error))?;
        if *key == *REACHED {
            continue;
        }
        let record = id_of(&key).map(|id| engine.get(&id));
        match record.map(|found| found.map(|record| record.as_ref().map(Head::of))) {
            Some(Ok(Some(Head { in_flight: true, .. }))) => info.in_flight += 1,
            Some(Ok(Some(Head { open: true, .. }))) => info.unknown += 1,
            Some(Ok(Some(_) | None) | Err(_)) | None => info.corrupt += 1,
        }
    }
    Ok(info)
}

/// Reads every record and every index entry, and reports what does not fit; changes no record.
///
/// # Errors
/// When the store cannot be opened, for one because a gateway has it open.
pub fn verify(
    path: &Path,
    cache: u64,
    mut progress: impl FnMut(VerifyProgress),
) -> Result<VerifyReport, OpenError> {
    let opened = existing(path, cache)?;
    let engine = &opened.engine;
    let mut verified = VerifyReport::default();
    let about = engine.records.approximate_len() as u64;
    let mut done = 0;
    for entry in Table::entries(&engine.records) {
        let (key, bytes) = match entry.into_inner() {
            Ok(pair) => pair,
            Err(error) => {
                verified.problem(None, format!("a table of records cannot be read: {error}"));
                break;
            }
        };
        if *key == *REACHED {
            continue;
        }
        done += 1;
        if done % STEP == 0 {
            progress(VerifyProgress { done, about: about.max(done) });
        }
        match key.as_ref().try_into().map(RecordId::from_bytes) {
            Ok(id) => check_record(engine, &id, &bytes, &mut verified),
            Err(_) => verified.problem(None, format!("a key of {} bytes is no id", key.len())),
        }
    }
    check_index(engine, &engine.open, "open", &mut verified, |key, head, _| {
        key.len() == 16 && head.open
    });
    check_index(engine, &engine.expiry, "expiry", &mut verified, |key, head, id| {
        head.expires.is_some_and(|at: Timestamp| expiry_key(at, id).as_bytes() == key)
    });
    check_index(engine, &engine.subject, "subject", &mut verified, |key, head, id| {
        head.subject.is_some_and(|digest| subject_key(&digest, id).as_bytes() == key)
    });
    progress(VerifyProgress { done, about: done });
    Ok(verified)
}

/// Checks a record, and that every index has the entry it needs.
fn check_record(engine: &Table, id: &RecordId, bytes: &[u8], verified: &mut VerifyReport) {
    let head = match engine.codec.decode(id, bytes) {
        Ok(record) => Head::of(&record),
        Err(error) => return verified.problem(Some(*id), error.to_string()),
    };
    let mut entries = Vec::new();
    if head.open {
        entries.push(("open", engine.open.contains_key(id.as_bytes())));
    }
    if let Some(at) = head.expires {
        entries.push(("expiry", engine.expiry.contains_key(expiry_key(at, id).as_bytes())));
    }
    if let Some(digest) = &head.subject {
        entries.push(("subject", engine.subject.contains_key(subject_key(digest, id).as_bytes())));
    }
    let problems = verified.problem_count;
    for (index, found) in entries {
        match found {
            Ok(true) => {}
            Ok(false) => verified.problem(Some(*id), format!("the index `{index}` lacks it")),
            Err(error) => {
                let reason = format!("the index `{index}` cannot be read: {error}");
                verified.problem(Some(*id), reason);
            }
        }
    }
    if verified.problem_count == problems {
        verified.sound += 1;
    }
}

/// Checks that every entry of an index belongs to a record as it is.
fn check_index(
    engine: &Table,
    index: &fjall::Keyspace,
    name: &str,
    verified: &mut VerifyReport,
    fits: impl Fn(&[u8], &Head, &RecordId) -> bool,
) {
    for entry in Table::entries(index) {
        let key = match entry.key() {
            Ok(key) => key,
            Err(error) => {
                return verified.problem(None, format!("the index `{name}` breaks off: {error}"));
            }
        };
        if *key == *REACHED {
            continue;
        }
        let Some(id) = id_of(&key) else {
            verified.problem(None, format!("the index `{name}` has a key without an id"));
            continue;
        };
        match engine.get(&id) {
            Ok(Some(record)) if fits(&key, &Head::of(&record), &id) => {}
            Ok(Some(_)) => {
                verified.problem(Some(id), format!("the index `{name}` has it and should not"));
            }
            Ok(None) => {
                verified.problem(Some(id), format!("the index `{name}` names it, it is missing"));
            }
            // Reported with the records.
            Err(StoreError::Corrupt { .. } | StoreError::Unavailable(_)) => {}
        }
    }
}

fn existing(path: &Path, cache: u64) -> Result<open::OpenedStore, OpenError> {
    let options = DirectoryOptions {
        path: path.to_owned(),
        cache,
        create: false,
        expect_id: None,
        codec: Codec::plain(),
    };
    opened(&options)
}

fn opened(options: &DirectoryOptions) -> Result<open::OpenedStore, OpenError> {
    open::open(options, &FileSystem { dir: options.path.clone() })
}

fn damaged(path: &Path, error: &fjall::Error) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), reason: error.to_string() }
}

/// Bytes on the disk of every file under a directory; what cannot be read counts nothing.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        // Blocks of 512 bytes: a journal is longer than what it takes.
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
