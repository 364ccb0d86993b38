//! What the store asks of the disk while it runs: to make a frame of the log durable, to take a batch
//! into the table and make the table durable, and how much room is left. Behind a trait so that tests
//! can let any of it fail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode, Slice};

use super::wal::SEGMENT;
use crate::failpoint;

/// New claims stop when the file system has less room than this. What is in flight then still has
/// room to complete, and the engine to flush and compact.
pub const FREE_SPACE_MARGIN: u64 = 64 << 20;

/// How long one look at the free space is believed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the store asks of the disk.
pub(super) trait Disk: Send + Sync {
    /// Writes the bytes at this place of a file of the log and waits until they are durable.
    fn append(&self, file: &File, bytes: &[u8], at: u64) -> Result<(), String>;

    /// Puts the batch into the table; it is durable after the next [`Disk::persist`].
    fn fold(&self, batch: OwnedWriteBatch) -> Result<(), String>;

    /// Makes files of a part of the table out of entries in the order of their keys, and waits until
    /// they are durable; `None` removes.
    fn ingest(
        &self,
        keyspace: &Keyspace,
        entries: &mut dyn Iterator<Item = (&[u8], Option<Slice>)>,
    ) -> Result<(), String>;

    /// Waits until all that was put into the table is durable.
    fn persist(&self, db: &Database) -> Result<(), String>;

    /// Bytes of a file of the log when the other one takes over.
    fn segment(&self) -> u64 {
        failpoint::log_segment(SEGMENT)
    }

    /// Bytes that may still be written.
    fn free(&self) -> io::Result<u64>;
}

/// The real one.
pub(super) struct FileSystem {
    pub(super) dir: PathBuf,
}

impl Disk for FileSystem {
    fn append(&self, file: &File, bytes: &[u8], at: u64) -> Result<(), String> {
        file.write_all_at(bytes, at).map_err(|error| error.to_string())?;
        // Enough: it also writes a file's size when that has changed, which is all of the metadata
        // that reading needs.
        file.sync_data().map_err(|error| error.to_string())
    }

    fn fold(&self, batch: OwnedWriteBatch) -> Result<(), String> {
        batch.commit().map_err(|error| told(&error))
    }

    fn ingest(
        &self,
        keyspace: &Keyspace,
        entries: &mut dyn Iterator<Item = (&[u8], Option<Slice>)>,
    ) -> Result<(), String> {
        let ingest = || {
            let mut ingestion = keyspace.start_ingestion()?;
            for (key, value) in entries {
                match value {
                    Some(value) => ingestion.write(key, value)?,
                    None => ingestion.write_tombstone(key)?,
                }
            }
            ingestion.finish()
        };
        ingest().map_err(|error| told(&error))
    }

    fn persist(&self, db: &Database) -> Result<(), String> {
        db.persist(PersistMode::SyncData).map_err(|error| told(&error))
    }

    fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn told(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(error) => error.to_string(),
        fjall::Error::Poisoned => "an earlier write failed in the background".to_owned(),
        other => other.to_string(),
    }
}

/// Whether there is room for new claims.
pub(super) struct Space {
    disk: Arc<dyn Disk>,
    look_again: Duration,
    seen: Mutex<Option<(Instant, Option<u64>)>>,
}

impl Space {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, look_again: LOOK_AGAIN, seen: Mutex::new(None) }
    }

    /// Looks every time it is asked.
    #[cfg(test)]
    pub(super) fn eager(disk: Arc<dyn Disk>) -> Self {
        Self { look_again: Duration::ZERO, ..Self::new(disk) }
    }

    /// The bytes left when they are too few; looks at most once a second.
    pub(super) fn short(&self) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, short)) = *seen
            && when.elapsed() < self.look_again
        {
            return short;
        }
        // A file system that does not say is taken to have room: the write itself will tell.
        let short = self.disk.free().ok().filter(|free| *free < FREE_SPACE_MARGIN);
        *seen = Some((Instant::now(), short));
        short
    }
}
