//! Errors of opening a directory as a store, worded as sentences for the operator.

use std::fmt;
use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use crate::store::codec::SCHEMA;

/// Reason why a directory could not be opened as a store.
#[derive(Debug)]
pub enum OpenError {
    /// The path is not a directory.
    NotADirectory(PathBuf),
    /// The store is missing, and must not be created.
    Missing(PathBuf),
    /// The store exists already; an error only for `init`.
    Exists(PathBuf),
    /// The directory contains foreign files.
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// Name of a thing in the directory.
        found: String,
    },
    /// The directory cannot be written, or read.
    Unwritable {
        /// The unwritable path.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The store is open in a different process.
    Locked(PathBuf),
    /// The store was written by a later version.
    NewerSchema {
        /// The directory.
        path: PathBuf,
        /// Schema of the store.
        found: u32,
    },
    /// The store was written by a version before the first release.
    OlderSchema {
        /// The directory.
        path: PathBuf,
        /// Schema of the store.
        found: u32,
    },
    /// The directory has a layout from before the first release.
    EarlierLayout(PathBuf),
    /// The store has a different id than expected.
    WrongId {
        /// The directory.
        path: PathBuf,
        /// Identity of the store.
        found: Uuid,
        /// Value of `expect_id`.
        expected: Uuid,
    },
    /// The store is encrypted, and the keys are missing or wrong.
    Sealed {
        /// The directory.
        path: PathBuf,
        /// The obstacle and the remedy.
        reason: String,
    },
    /// The store's files are damaged.
    Damaged {
        /// The directory.
        path: PathBuf,
        /// Description of the damage.
        reason: String,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotADirectory(path) => {
                write!(f, "the store path {} is not a directory; name a directory", path.display())
            }
            Self::Missing(path) => write!(
                f,
                "there is no store in {}, and none is made here, because an emptied store does not \
                 know which keys were used; check that its disk is mounted. `oncegate store init` \
                 makes a store, and so does a start without `create = false`",
                path.display()
            ),
            Self::Exists(path) => {
                write!(f, "there is a store in {} already; it was left as it is", path.display())
            }
            Self::NotAStore { path, found } => write!(
                f,
                "{} is not a store: it holds `{found}`; name an empty directory or a store",
                path.display()
            ),
            Self::Unwritable { path, error } => write!(
                f,
                "cannot write the store at {}: {error}; check the path, its owner and permissions, \
                 and the free space",
                path.display()
            ),
            Self::Locked(path) => write!(
                f,
                "the store in {} is in use by another process; stop that one first, two gateways \
                 cannot share a directory",
                path.display()
            ),
            Self::NewerSchema { path, found } => write!(
                f,
                "the store in {} has schema {found}, this oncegate knows {SCHEMA}: upgrade \
                 oncegate",
                path.display()
            ),
            Self::OlderSchema { path, found } => write!(
                f,
                "the store in {} has schema {found}, written before the first release, and this \
                 oncegate knows {SCHEMA} only; settle every key in it with the version that wrote \
                 it, then start with an empty directory",
                path.display()
            ),
            Self::EarlierLayout(path) => write!(
                f,
                "the store in {} has an earlier layout, written before the first release, which \
                 this oncegate cannot read; settle every key in it with the version that wrote \
                 it, then start with an empty directory",
                path.display()
            ),
            Self::WrongId { path, found, expected } => write!(
                f,
                "the store in {} is {found}, but `expect_id` is {expected}; check that the right \
                 disk is mounted, or change `expect_id` if the store was replaced on purpose",
                path.display()
            ),
            Self::Sealed { path, reason } => {
                write!(f, "the store in {} cannot be read: {reason}", path.display())
            }
            Self::Damaged { path, reason } => write!(
                f,
                "the store in {} is damaged: {reason}; restore it from a backup, and treat keys \
                 used since then as unknown",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unwritable { error, .. } => Some(error),
            Self::NotADirectory(_)
            | Self::Missing(_)
            | Self::Exists(_)
            | Self::NotAStore { .. }
            | Self::Locked(_)
            | Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::EarlierLayout(_)
            | Self::WrongId { .. }
            | Self::Sealed { .. }
            | Self::Damaged { .. } => None,
        }
    }
}
