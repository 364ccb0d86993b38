//! Disk operations of a running store: making a frame of the log durable, adding a run to the
//! table, and measuring free space. A trait, so that tests can inject failures.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lsm_tree::AnyTree;

use crate::failpoint::{self, Point};
use crate::machine;

/// Free space below which the store refuses new claims. Calls in flight can still complete, and the
/// table can still take checkpoints and merge its files.
pub const FREE_SPACE_MARGIN: u64 = 64 << 20;

/// Size of a log file at which the writer switches to the second file. A larger frame extends the
/// file temporarily. The changes of a file become a run of the table. Larger runs mean fewer merges
/// of the table, but the changes of both files are held in memory, and a start after a crash reads
/// them.
pub(super) const SEGMENT: u64 = 24 << 20;

/// The size at least.
const LEAST_SEGMENT: u64 = 1 << 20;

/// Validity of a measurement of the free space.
const SPACE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Entry of a run for the table; an entry without a value removes its key.
pub(super) struct RunEntry<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Option<&'a [u8]>,
}

/// Operations of the disk.
pub(super) trait Disk: Send + Sync {
    /// Writes bytes at an offset of a log file and waits for durability.
    fn append(&self, file: &File, bytes: &[u8], at: u64) -> Result<(), String>;

    /// Adds entries, sorted by key, to the table, all or none, and waits for durability.
    fn ingest(
        &self,
        tree: &AnyTree,
        entries: &mut dyn Iterator<Item = RunEntry<'_>>,
    ) -> io::Result<()>;

    /// Size of a log file at which the writer switches to the second file.
    fn segment(&self) -> u64 {
        // Where memory is limited, the changes of both files take a sixteenth of the limit.
        failpoint::log_segment(machine::part_of_memory(32, SEGMENT).max(LEAST_SEGMENT))
    }

    /// Free bytes of the file system.
    fn free(&self) -> io::Result<u64>;
}

/// The file system of the store's directory.
pub(super) struct FileSystem {
    pub(super) dir: PathBuf,
}

impl Disk for FileSystem {
    fn append(&self, file: &File, bytes: &[u8], at: u64) -> Result<(), String> {
        file.write_all_at(bytes, at).map_err(|error| error.to_string())?;
        // Also writes a changed file size: the only metadata required for reading.
        file.sync_data().map_err(|error| error.to_string())
    }

    fn ingest(
        &self,
        tree: &AnyTree,
        entries: &mut dyn Iterator<Item = RunEntry<'_>>,
    ) -> io::Result<()> {
        let ingest = || {
            let mut ingestion = tree.ingestion()?;
            for RunEntry { key, value } in entries {
                match value {
                    Some(value) => ingestion.write(key, value)?,
                    None => ingestion.write_tombstone(key)?,
                }
                failpoint::point(Point::DuringCheckpoint);
            }
            // Syncs the new files and their directory, then the version of the tree with the new
            // files, and returns after both are durable.
            ingestion.finish()
        };
        ingest().map_err(io_error)
    }

    fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// An error of the tree, with the system's error if there is one.
pub(super) fn io_error(error: lsm_tree::Error) -> io::Error {
    match error {
        lsm_tree::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

/// True for an error that says nothing about the disk: this process, or the machine, has too many
/// files open for the moment.
pub(super) fn lacks_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;

    let lacking = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    match error.raw_os_error() {
        Some(code) => lacking.contains(&code),
        // The library that creates files with generated names adds the path to the message of the
        // system's error, and gives no access to that error.
        None => {
            let message = error.to_string();
            lacking.iter().any(|code| message.contains(&format!("(os error {code})")))
        }
    }
}

/// Room for new claims.
pub(super) struct Space {
    disk: Arc<dyn Disk>,
    check_interval: Duration,
    /// Last measurement: its time, and the free bytes if below the margin.
    checked: Mutex<Option<(Instant, Option<u64>)>>,
}

impl Space {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, check_interval: SPACE_CHECK_INTERVAL, checked: Mutex::new(None) }
    }

    /// Measures every time.
    #[cfg(test)]
    pub(super) fn eager(disk: Arc<dyn Disk>) -> Self {
        Self { check_interval: Duration::ZERO, ..Self::new(disk) }
    }

    /// Free bytes if below the margin; measures at most once per second.
    pub(super) fn short(&self) -> Option<u64> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, short)) = *checked
            && when.elapsed() < self.check_interval
        {
            return short;
        }
        // An unknown amount counts as room: a failed write is noticed in any case.
        let short = self.disk.free().ok().filter(|free| *free < FREE_SPACE_MARGIN);
        *checked = Some((Instant::now(), short));
        short
    }
}
