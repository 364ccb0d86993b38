//! Recovery: what the log holds and the table does not is folded before anybody sees the store.
//!
//! A frame that is torn was never answered and is the last one. Anything else that is not whole is
//! damage, and the store is not opened: frames that are missing are claims that were durable.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;

use super::checkpoint::{ENTRIES, MARK, mark};
use super::disk::Disk;
use super::table::{EncodedRecord, Table, restage};
use super::wal::{self, Frame, Wal, WalContents};
use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;
use crate::store::codec::Head;

/// Bytes put into the table at once.
const AT_ONCE: usize = 1 << 20;

/// Why a log could not be replayed.
pub(super) enum RecoveryError {
    Io(std::io::Error),
    Damaged(String),
}

/// The row of frames, as far as the table does not have it.
struct FrameSequence {
    frames: Vec<Frame>,
    /// The number of the newest frame of all.
    last: u64,
    /// The file in which it stands.
    holds_last: usize,
}

/// Folds what the table does not have and gives the log, ready for the next frame.
pub(super) fn replay(
    engine: &Table,
    disk: &dyn Disk,
    dir: &Path,
    salt: [u8; 16],
) -> Result<Wal, RecoveryError> {
    let found = wal::read(dir, salt).map_err(RecoveryError::Io)?;
    let row = row(found, folded(engine)?).map_err(RecoveryError::Damaged)?;
    let (last, holds_last) = (row.last, row.holds_last);
    if !row.frames.is_empty() {
        let frames = row.frames.len();
        let mut newest: HashMap<RecordId, Option<Bytes>, BuildIdHasher> = HashMap::default();
        newest.extend(row.frames.into_iter().flat_map(|frame| frame.changes));
        tracing::info!(frames, records = newest.len(), "replayed the log");
        fold(engine, disk, newest)?;
        mark(engine, disk, last).map_err(unwritable)?;
    }
    Wal::open(dir, salt, last, holds_last).map_err(RecoveryError::Io)
}

/// The frame up to which the table reaches.
fn folded(engine: &Table) -> Result<u64, RecoveryError> {
    let damaged = |reason: &str| RecoveryError::Damaged(reason.to_owned());
    let mark = engine.meta.get(MARK).map_err(|error| damaged(&error.to_string()))?;
    let mark = mark.as_deref().and_then(|bytes| bytes.first_chunk().copied());
    mark.map(u64::from_le_bytes).ok_or_else(|| damaged("the mark in its table is missing"))
}

/// Puts the frames in order and finds out whether any are missing.
fn row(found: WalContents, folded: u64) -> Result<FrameSequence, String> {
    let seen = |sequence: u64| {
        let mut frames = found.runs.iter().flatten();
        frames.any(|frame| frame.sequence == sequence)
    };
    // The file that holds the newest folded frame is not written over before another has a newer one.
    if folded > 0 && !seen(folded) && !seen(folded + 1) {
        return Err(format!("its log ends before frame {folded}, which its table has"));
    }
    let newest = |run: &Vec<Frame>| run.last().map_or(0, |frame| frame.sequence);
    let holds_last = usize::from(newest(&found.runs[0]) <= newest(&found.runs[1]));
    let last = newest(&found.runs[holds_last]).max(folded);
    if let Some(stray) = found.stray.filter(|stray| *stray > last) {
        return Err(format!("its log has a bad frame before frame {stray}, which is sound"));
    }
    let mut frames: Vec<Frame> = found.runs.into_iter().flatten().collect();
    frames.retain(|frame| frame.sequence > folded);
    frames.sort_unstable_by_key(|frame| frame.sequence);
    for (expected, frame) in (folded + 1..).zip(&frames) {
        if frame.sequence != expected {
            return Err(format!("frame {expected} of its log is missing"));
        }
    }
    Ok(FrameSequence { frames, last, holds_last })
}

fn fold(
    engine: &Table,
    disk: &dyn Disk,
    records: HashMap<RecordId, Option<Bytes>, BuildIdHasher>,
) -> Result<(), RecoveryError> {
    let mut batch = engine.db.batch();
    let mut bytes = 0;
    for (id, record) in records {
        bytes += ENTRIES;
        let after = match record {
            None => None,
            Some(record) => {
                let head = Head::decode(&id, &record).map_err(|error| {
                    RecoveryError::Damaged(format!("record {id} in its log: {error}"))
                })?;
                bytes += record.len();
                Some(EncodedRecord { bytes: record, head })
            }
        };
        let before = engine.raw(&id).map_err(|error| RecoveryError::Damaged(error.to_string()))?;
        // One that cannot be read back any more is replaced by what is known to be true.
        let before = before.and_then(|bytes| Head::decode(&id, &bytes).ok());
        restage(engine, &mut batch, &id, before, after);
        if bytes >= AT_ONCE {
            bytes = 0;
            let full = std::mem::replace(&mut batch, engine.db.batch());
            disk.fold(full).map_err(unwritable)?;
        }
    }
    disk.fold(batch).map_err(unwritable)
}

fn unwritable(reason: String) -> RecoveryError {
    RecoveryError::Io(std::io::Error::other(reason))
}
