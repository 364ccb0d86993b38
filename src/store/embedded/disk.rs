//! The disk as the store uses it while it runs: making a frame of the log durable, adding a run to
//! the table, and the free space. Behind a trait so that tests can let any of it fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lsm_tree::AnyTree;

use crate::failpoint::{self, Point};

/// New claims stop when the file system has less room than this. Calls in flight then still have
/// room to complete, and the table to take checkpoints and merge its files.
pub const FREE_SPACE_MARGIN: u64 = 64 << 20;

/// Bytes of a file of the log when the other one takes over. A larger frame makes the file longer
/// for that time. The changes of one file become one run of the table, and the larger those are,
/// the more seldom the table is merged; but the changes of both files are in memory, and a start
/// after a crash reads them.
pub(super) const SEGMENT: u64 = 24 << 20;

/// Time for which a measurement of the free space is used.
const SPACE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Entry of a run for the table; without a value it removes the key.
pub(super) struct RunEntry<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Option<&'a [u8]>,
}

/// Operations of the disk.
pub(super) trait Disk: Send + Sync {
    /// Writes bytes at an offset of a file of the log and waits until they are durable.
    fn append(&self, file: &File, bytes: &[u8], at: u64) -> Result<(), String>;

    /// Adds entries, sorted by key, to the table, all or none, and waits until they are durable.
    fn ingest(
        &self,
        tree: &AnyTree,
        entries: &mut dyn Iterator<Item = RunEntry<'_>>,
    ) -> Result<(), String>;

    /// Bytes of a file of the log when the other one takes over.
    fn segment(&self) -> u64 {
        failpoint::log_segment(SEGMENT)
    }

    /// Free bytes of the file system.
    fn free(&self) -> io::Result<u64>;
}

/// The file system that holds the store's directory.
pub(super) struct FileSystem {
    pub(super) dir: PathBuf,
}

impl Disk for FileSystem {
    fn append(&self, file: &File, bytes: &[u8], at: u64) -> Result<(), String> {
        file.write_all_at(bytes, at).map_err(|error| error.to_string())?;
        // Also writes the file's size when that has changed, which is all of the metadata that
        // reading needs.
        file.sync_data().map_err(|error| error.to_string())
    }

    fn ingest(
        &self,
        tree: &AnyTree,
        entries: &mut dyn Iterator<Item = RunEntry<'_>>,
    ) -> Result<(), String> {
        let ingest = || {
            let mut ingestion = tree.ingestion()?;
            for RunEntry { key, value } in entries {
                match value {
                    Some(value) => ingestion.write(key, value)?,
                    None => ingestion.write_tombstone(key)?,
                }
                failpoint::point(Point::DuringCheckpoint);
            }
            // Syncs the new files and their directory, then the version of the tree that names
            // them, and returns when both are durable.
            ingestion.finish()
        };
        ingest().map_err(|error| match error {
            lsm_tree::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        })
    }

    fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Room for new claims.
pub(super) struct Space {
    disk: Arc<dyn Disk>,
    check_interval: Duration,
    /// Last measurement: its time, and the free bytes if they were too few.
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

    /// Free bytes when they are too few; measures at most once a second.
    pub(super) fn short(&self) -> Option<u64> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, short)) = *checked
            && when.elapsed() < self.check_interval
        {
            return short;
        }
        // An unknown amount counts as room: a write that fails is noticed anyway.
        let short = self.disk.free().ok().filter(|free| *free < FREE_SPACE_MARGIN);
        *checked = Some((Instant::now(), short));
        short
    }
}
