//! The directory of an open store: its locks, and the look at whether its files are still in place.
//!
//! A process goes on writing to files that somebody has removed or moved, and a sync of them
//! succeeds. Such a claim is not durable: whoever opens the directory next does not find it, and
//! its key runs again. Before each batch the files of the log are therefore looked for under their
//! names.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::OpenError;
use super::wal;

const LOCK: &str = "lock";

/// The locks of a directory, held until they are dropped.
pub(super) struct DirectoryLock {
    _file: File,
    /// The directory itself is locked as well, because the lock file can be removed and made anew.
    /// `None`: the file system has no locks of directories.
    _directory: Option<File>,
}

impl DirectoryLock {
    /// Name of the lock file.
    pub(super) const NAME: &str = LOCK;

    /// Locks a directory.
    ///
    /// # Errors
    /// Another process has it locked, or the lock file cannot be opened.
    pub(super) fn take(path: &Path) -> Result<Arc<Self>, OpenError> {
        let name = path.join(LOCK);
        let unwritable = |error| OpenError::Unwritable { path: name.clone(), error };
        let file = File::options().create(true).truncate(false).write(true).open(&name);
        let file = file.map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        let directory = File::open(path).map_err(unwritable)?;
        let directory = match directory.try_lock() {
            Ok(()) => Some(directory),
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
            Err(TryLockError::Error(_)) => None,
        };
        Ok(Arc::new(Self { _file: file, _directory: directory }))
    }
}

/// The files of the log as they were found at the start.
pub(super) struct LogPlace {
    files: Vec<(PathBuf, (u64, u64))>,
}

impl LogPlace {
    /// Looks for the files of the log in `dir`.
    ///
    /// # Errors
    /// They cannot be found.
    pub(super) fn find(dir: &Path) -> io::Result<Self> {
        let find = |name| {
            let path = dir.join(name);
            let found = place(&path)?;
            Ok((path, found))
        };
        Ok(Self { files: wal::NAMES.into_iter().map(find).collect::<io::Result<_>>()? })
    }

    /// True if a file of the log is certainly not in its place any more.
    pub(super) fn is_left(&self) -> bool {
        self.files.iter().any(|(path, at)| match place(path) {
            Ok(found) => found != *at,
            Err(error) => {
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
        })
    }
}

/// Device and number of a file.
fn place(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}
