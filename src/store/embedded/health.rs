//! Health of a store, shared by its threads, and the errors of an unhealthy store.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::disk::{FREE_SPACE_MARGIN, Space};
use crate::store::StoreError;

/// Free space and the first failure of a store.
pub(super) struct Health {
    space: Space,
    path: PathBuf,
    /// Reason for the permanent end of all writing; set at most once.
    failed: OnceLock<String>,
}

impl Health {
    pub(super) fn new(space: Space, path: PathBuf) -> Self {
        Self { space, path, failed: OnceLock::new() }
    }

    /// True once a write has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Error of a store after the end of all writing.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failed.get().map(|reason| StoreError::Unavailable(reason.clone()))
    }

    /// Ends all writing, permanently.
    pub(super) fn fail(&self, error: &str) -> StoreError {
        let path = self.path.display();
        let reason = self.failed.get_or_init(|| {
            tracing::error!(path = %path, error, "the store failed and takes no more writes");
            format!(
                "writing to {path} failed ({error}); nothing more is written until a restart: \
                 check the disk and its free space, then restart oncegate"
            )
        });
        StoreError::Unavailable(reason.clone())
    }

    /// Error of a file system without room for new claims.
    pub(super) fn no_room(&self) -> Option<StoreError> {
        self.space.short().map(|free| {
            StoreError::Unavailable(format!(
                "only {} MiB are free on the store's file system and new claims need {} MiB; \
                 free some space, claims resume by themselves",
                free >> 20,
                FREE_SPACE_MARGIN >> 20
            ))
        })
    }
}
