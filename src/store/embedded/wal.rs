//! The write-ahead log: makes changes durable before the reply, and is the
//! source of recovery after a crash.
//!
//! Two files alternate. Each batch of changes is a *frame*, written at the end of the active file
//! and synced once. When the active file is full, the writer switches to the second file. By then
//! the table contains all changes of the second file, which may be overwritten from its start.
//!
//! A frame begins on a block of its own, so a torn write never touches confirmed frames. Frames are
//! numbered without a gap, and their checksum covers the number and the store's id: leftover frames
//! of an overwritten file, and frames of a different store, do not belong to the sequence.
//!
//! ```text
//!  0        8          16        20        24       32
//! ┌────────┬──────────┬─────────┬─────────┬────────┬─────────┬───────┐
//! │oncelog1│ sequence │ payload │ changes │ xxh3   │ payload │ zeros │ next block
//! │ magic  │ u64      │ len u32 │ u32     │ u64    │         │       │ of 4 KiB
//! └────────┴──────────┴─────────┴─────────┴────────┴─────────┴───────┘
//! change: id [16] · length u32 (all ones: the record is removed) · record
//! ```
//!
//! A file has a length in whole steps from its creation on, and grows before a frame needs it. A
//! file that is shorter than its confirmed frames needed was cut off; a crash leaves none.
//!
//! Integers are little endian. `recovery` finds the frames missing in the table.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use super::disk::Disk;
use crate::idempotency::RecordId;

/// Growth step of a file. A step is filled with zeros before use, so that most syncs have no
/// metadata to write: metadata costs two further disk writes.
const STEP: u64 = 1 << 20;
/// Unit written atomically by a disk, at best; also the page of the page cache.
pub(super) const BLOCK: usize = 4096;
/// Largest scratch buffer kept after a frame.
const SCRATCH: usize = 1 << 20;

/// Names of the files.
pub(super) const NAMES: [&str; 2] = ["0", "1"];
const MAGIC: [u8; 8] = *b"oncelog1";
const HEADER: usize = 32;
/// The part of the header covered by the checksum.
const COVERED: usize = 24;
const CHANGE: usize = 20;
const REMOVED: u32 = u32::MAX;

/// A change in the log's format: a record's bytes, or `None` for a removal.
pub(super) type WalChange = (RecordId, Option<Bytes>);

/// The log of an open store.
pub(super) struct Wal {
    files: [File; 2],
    salt: [u8; 16],
    active: usize,
    /// Bytes of the active file already allocated, if only with zeros.
    written: u64,
    /// Offset of the next frame in the active file.
    end: u64,
    /// Number of the next frame.
    next: u64,
    scratch: Vec<u8>,
}

/// A frame, read back.
pub(super) struct Frame {
    pub(super) sequence: u64,
    pub(super) changes: Vec<WalChange>,
}

/// Frames of the two files.
pub(super) struct WalContents {
    /// Frames from the start of each file up to the first gap or damage.
    pub(super) runs: [Vec<Frame>; 2],
    /// Highest number of a sound frame behind a bad frame.
    pub(super) stray: Option<u64>,
    /// A file that is shorter than it was.
    pub(super) cut_off: Option<CutOff>,
}

/// A file of the log that lost its end.
pub(super) struct CutOff {
    pub(super) name: &'static str,
    /// Bytes that the file has.
    pub(super) length: u64,
    /// Bytes that it had at least.
    pub(super) needed: u64,
}

/// Creates the log's directory and both files, durably.
pub(super) fn create(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    for name in NAMES {
        let file = File::options().create_new(true).write(true).open(dir.join(name))?;
        file.write_all_at(&vec![0; STEP as usize], 0)?;
        file.sync_all()?;
    }
    File::open(dir)?.sync_all()
}

/// Reads both files; `salt` is the id of the store of the frames.
pub(super) fn read(dir: &Path, salt: [u8; 16]) -> io::Result<WalContents> {
    let mut found = WalContents { runs: [Vec::new(), Vec::new()], stray: None, cut_off: None };
    for (name, run) in NAMES.into_iter().zip(&mut found.runs) {
        let bytes = fs::read(dir.join(name))?;
        let (mut at, mut confirmed) = (0, 0);
        while let Some((frame, length)) = frame_at(&bytes, at, &salt) {
            if run.last().is_some_and(|last: &Frame| frame.sequence != last.sequence + 1) {
                break;
            }
            run.push(frame);
            // A frame is written once the one before it is durable.
            confirmed = at;
            at += length;
        }
        let (length, needed) = (bytes.len() as u64, (confirmed as u64).next_multiple_of(STEP));
        let needed = needed.max(STEP);
        if length < needed {
            found.cut_off = Some(CutOff { name, length, needed });
        }
        for at in (at..bytes.len()).step_by(BLOCK) {
            let sequence = frame_at(&bytes, at, &salt).map(|(frame, _)| frame.sequence);
            found.stray = found.stray.max(sequence);
        }
    }
    Ok(found)
}

/// The length of a file without the beginning of a step that a crash interrupted.
fn whole_steps(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len() / STEP * STEP)
}

/// Valid frame at offset `at`, and the number of bytes up to the next frame.
fn frame_at(bytes: &[u8], at: usize, salt: &[u8; 16]) -> Option<(Frame, usize)> {
    let bytes = bytes.get(at..)?;
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    if header[..MAGIC.len()] != MAGIC {
        return None;
    }
    let sequence = u64::from_le_bytes(*header[8..].first_chunk()?);
    let length = u32::from_le_bytes(*header[16..].first_chunk()?) as usize;
    let count = u32::from_le_bytes(*header[20..].first_chunk()?);
    let sum = u64::from_le_bytes(*header[24..].first_chunk()?);
    let payload = bytes.get(HEADER..HEADER.checked_add(length)?)?;
    if sum != checksum(salt, &header[..COVERED], payload) {
        return None;
    }
    let changes = changes_in(payload, count)?;
    Some((Frame { sequence, changes }, (HEADER + length).next_multiple_of(BLOCK)))
}

fn changes_in(mut payload: &[u8], count: u32) -> Option<Vec<WalChange>> {
    let mut changes = Vec::new();
    for _ in 0..count {
        let (head, rest) = payload.split_first_chunk::<CHANGE>()?;
        let id = RecordId::from_bytes(*head.first_chunk()?);
        let length = u32::from_le_bytes(*head.last_chunk()?);
        if length == REMOVED {
            changes.push((id, None));
            payload = rest;
            continue;
        }
        let (record, rest) = rest.split_at_checked(length as usize)?;
        changes.push((id, Some(Bytes::copy_from_slice(record))));
        payload = rest;
    }
    payload.is_empty().then_some(changes)
}

fn checksum(salt: &[u8; 16], header: &[u8], payload: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(salt);
    hash.update(header);
    hash.update(payload);
    hash.digest()
}

impl Wal {
    /// Opens the files for writing. The table contains all their frames; the next frame follows
    /// number `last`, in the file `holds_last`.
    pub(super) fn open(
        dir: &Path,
        salt: [u8; 16],
        last: u64,
        holds_last: usize,
    ) -> io::Result<Self> {
        let open = |name| File::options().write(true).open(dir.join(name));
        let files = [open(NAMES[0])?, open(NAMES[1])?];
        // The last frame stays until the next is durable, as proof of a complete log.
        let active = 1 - holds_last;
        let written = whole_steps(&files[active])?;
        let (next, scratch) = (last + 1, Vec::new());
        Ok(Self { files, salt, active, written, end: 0, next, scratch })
    }

    /// Number of the newest frame.
    pub(super) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Begins a frame, for [`Wal::add`].
    pub(super) fn begin(&mut self) {
        self.scratch.clear();
        self.scratch.resize(HEADER, 0);
    }

    /// Adds a change to the begun frame; `None` removes the record.
    pub(super) fn add(&mut self, id: &RecordId, record: Option<&[u8]>) {
        self.scratch.extend_from_slice(id.as_bytes());
        // A record is far below 4 GiB: the contents of a batch are bounded.
        let length = record.map_or(REMOVED, |record| u32::try_from(record.len()).unwrap_or(0));
        self.scratch.extend_from_slice(&length.to_le_bytes());
        self.scratch.extend_from_slice(record.unwrap_or_default());
    }

    /// Returns true if the current frame fits into the active file. A frame larger than a whole
    /// file fits at the start.
    pub(super) fn fits(&self, disk: &dyn Disk) -> bool {
        self.end == 0 || self.end + self.scratch.len() as u64 <= disk.segment()
    }

    /// Switches to the second file. The table must contain its frames.
    pub(super) fn rotate(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.active = 1 - self.active;
        self.end = 0;
        let file = &self.files[self.active];
        self.written = whole_steps(file)?;
        let usual = disk.segment().next_multiple_of(STEP);
        if self.written > usual {
            // A frame larger than a file had extended the file.
            file.set_len(usual)?;
            self.written = usual;
        }
        Ok(())
    }

    /// Extends the active file, in whole steps, up to `end`.
    fn grow(&mut self, end: u64) -> io::Result<()> {
        let zeros = vec![0; STEP as usize];
        while self.written < end {
            self.files[self.active].write_all_at(&zeros, self.written)?;
            self.written += STEP;
        }
        Ok(())
    }

    /// Makes the begun frame durable.
    pub(super) fn write(&mut self, changes: u32, disk: &dyn Disk) -> Result<(), String> {
        let length = u32::try_from(self.scratch.len() - HEADER)
            .map_err(|_| "a batch of changes is larger than a log can take".to_owned())?;
        let header = &mut self.scratch[..HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&self.next.to_le_bytes());
        header[16..20].copy_from_slice(&length.to_le_bytes());
        header[20..24].copy_from_slice(&changes.to_le_bytes());
        let (header, payload) = self.scratch.split_at(HEADER);
        let sum = checksum(&self.salt, &header[..COVERED], payload);
        self.scratch[COVERED..HEADER].copy_from_slice(&sum.to_le_bytes());
        self.scratch.resize(self.scratch.len().next_multiple_of(BLOCK), 0);
        let end = self.end + self.scratch.len() as u64;
        if end > self.written {
            self.grow(end).map_err(|error| error.to_string())?;
        }
        disk.append(&self.files[self.active], &self.scratch, self.end)?;
        self.end = end;
        self.next += 1;
        if self.scratch.capacity() > SCRATCH {
            self.scratch = Vec::new();
        }
        Ok(())
    }
}
