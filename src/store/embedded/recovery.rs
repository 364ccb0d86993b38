//! Recovery: frames of the log missing in the table are checkpointed before any read.
//!
//! A torn frame was never confirmed and is always the last frame. Any other incomplete frame is
//! damage, and the store is not opened: a missing frame means a lost durable claim.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;

use super::disk::Disk;
use super::ingest::ingest;
use super::layout::{ClockState, DirtyRecord, IndexedRecord, decode};
use super::table::Table;
use super::wal::{self, CutOff, Frame, Wal, WalContents};
use crate::clock::{self, Timestamp};
use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;
use crate::store::codec::Head;

/// Reason why a log could not be recovered.
pub(super) enum RecoveryError {
    Io(std::io::Error),
    Damaged(String),
}

/// Frames missing in the table, in order.
struct FrameSequence {
    frames: Vec<Frame>,
    /// Number of the newest frame of both files.
    last: u64,
    /// File with the newest frame.
    holds_last: usize,
}

/// Checkpoints the frames missing in the table, and opens the log for the next frame.
pub(super) fn recover(
    table: &Table,
    disk: &dyn Disk,
    dir: &Path,
    salt: [u8; 16],
) -> Result<Wal, RecoveryError> {
    let contents = wal::read(dir, salt).map_err(RecoveryError::Io)?;
    let marker = table.marker().map_err(RecoveryError::Damaged)?;
    let missing = missing(contents, marker.frame).map_err(RecoveryError::Damaged)?;
    let (last, holds_last) = (missing.last, missing.holds_last);
    if !missing.frames.is_empty() {
        let frames = missing.frames.len();
        let mut newest: HashMap<RecordId, Option<Bytes>, BuildIdHasher> = HashMap::default();
        newest.extend(missing.frames.into_iter().flat_map(|frame| frame.changes));
        tracing::info!(frames, records = newest.len(), "recovered changes from the log");
        let mut dirty = dirty(table, newest)?;
        let clock = clock_after(table, marker.clock, &dirty);
        ingest(table, disk, &mut dirty, (last, clock)).map_err(RecoveryError::Io)?;
    }
    Wal::open(dir, salt, last, holds_last).map_err(RecoveryError::Io)
}

/// Puts the frames in order and detects missing frames.
fn missing(contents: WalContents, marker: u64) -> Result<FrameSequence, String> {
    let seen = |sequence: u64| {
        let mut frames = contents.runs.iter().flatten();
        frames.any(|frame| frame.sequence == sequence)
    };
    // The file with the newest checkpointed frame is not overwritten before the second file has a
    // newer frame.
    if marker > 0 && !seen(marker) && !seen(marker + 1) {
        return Err(format!("its log ends before frame {marker}, which its table has"));
    }
    let newest = |run: &Vec<Frame>| run.last().map_or(0, |frame| frame.sequence);
    let holds_last = usize::from(newest(&contents.runs[0]) <= newest(&contents.runs[1]));
    let last = newest(&contents.runs[holds_last]).max(marker);
    if let Some(CutOff { name, length, needed }) = contents.cut_off {
        return Err(format!(
            "the file {name} of its log is cut off: it has {length} bytes and had {needed} or more"
        ));
    }
    if let Some(stray) = contents.stray.filter(|stray| *stray > last) {
        return Err(format!("its log has a bad frame before frame {stray}, which is sound"));
    }
    let mut frames: Vec<Frame> = contents.runs.into_iter().flatten().collect();
    frames.retain(|frame| frame.sequence > marker);
    frames.sort_unstable_by_key(|frame| frame.sequence);
    for (expected, frame) in (marker + 1..).zip(&frames) {
        if frame.sequence != expected {
            return Err(format!("frame {expected} of its log is missing"));
        }
    }
    Ok(FrameSequence { frames, last, holds_last })
}

/// The state of the store's clock after these records. The process that wrote them ended without a
/// checkpoint.
fn clock_after(table: &Table, mut clock: ClockState, dirty: &[DirtyRecord]) -> ClockState {
    for record in dirty {
        let Some(current) = &record.current else { continue };
        // A record that cannot be decoded says nothing; its key is refused.
        let Ok(read) = decode(&table.codec, &record.id, &current.bytes) else { continue };
        clock.newest = clock.newest.max(read.updated);
        let period = read.end().map_or(0, |end| clock::millis(read.updated.until(end)));
        clock.longest = clock.longest.max(period);
    }
    clock
}

/// The records of the log beside their state in the table.
fn dirty(
    table: &Table,
    records: HashMap<RecordId, Option<Bytes>, BuildIdHasher>,
) -> Result<Vec<DirtyRecord>, RecoveryError> {
    let mut dirty = Vec::with_capacity(records.len());
    for (id, record) in records {
        let current = record.map(|bytes| encoded(&id, bytes)).transpose()?;
        let stored = table.raw(&id);
        let stored = stored.map_err(|error| RecoveryError::Damaged(error.to_string()))?;
        // A corrupt record of the table is replaced by the log's.
        let stored = stored.map(|bytes| {
            Head::decode(&id, &bytes).unwrap_or_else(|_| unreadable(current.as_ref()))
        });
        dirty.push(DirtyRecord { id, stored, current });
    }
    Ok(dirty)
}

/// Stand-in for the head of a corrupt stored record, chosen so that the index entry for open
/// records is set or removed, whatever its former state. The time of the first claim does not
/// change with a record's state.
fn unreadable(current: Option<&IndexedRecord>) -> Head {
    let open = !current.is_some_and(|encoded| encoded.head.open);
    let first_seen = current.map_or(Timestamp::from_millis(0), |encoded| encoded.head.first_seen);
    Head { version: 0, open, in_flight: false, first_seen, expires: None, subject: None }
}

fn encoded(id: &RecordId, bytes: Bytes) -> Result<IndexedRecord, RecoveryError> {
    let head = Head::decode(id, &bytes)
        .map_err(|error| RecoveryError::Damaged(format!("record {id} in its log: {error}")))?;
    Ok(IndexedRecord { bytes, head })
}
