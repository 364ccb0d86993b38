//! Health of a store, shared by its threads, and the errors of an unhealthy store.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::directory::LogPlace;
use super::disk::{FREE_SPACE_MARGIN, Space};
use super::read::PAUSE;
use crate::observe::repeated::Repeated;
use crate::store::StoreError;

/// Time after which a failure has nothing to do with files that were gone.
const LATELY: Duration = Duration::from_secs(60);

/// Free space and the first failure of a store.
pub(super) struct Health {
    space: Space,
    path: PathBuf,
    log: LogPlace,
    /// Time at which the files were last seen to be gone.
    left_at: Mutex<Option<Instant>>,
    /// Reason for the permanent end of all writing; set at most once.
    failed: OnceLock<String>,
    failure_known: Notify,
    /// Set while a file of the table cannot be opened for a lack of descriptors.
    lacks_descriptors: AtomicBool,
}

static NO_DESCRIPTORS: Repeated = Repeated::new("the store lacks file descriptors");

impl Health {
    pub(super) fn new(space: Space, path: PathBuf, log: LogPlace) -> Self {
        Self {
            space,
            path,
            log,
            left_at: Mutex::new(None),
            failed: OnceLock::new(),
            failure_known: Notify::new(),
            lacks_descriptors: AtomicBool::new(false),
        }
    }

    /// True once a write has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Error of a store after the end of all writing.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failed.get().map(|reason| StoreError::Unavailable(reason.clone()))
    }

    /// Waits for the end of all writing, and returns the error.
    pub(super) async fn failed(&self) -> StoreError {
        loop {
            let known = self.failure_known.notified();
            if let Some(error) = self.failure() {
                return error;
            }
            known.await;
        }
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
        self.failure_known.notify_waiters();
        StoreError::Unavailable(reason.clone())
    }

    /// Notes a lack of file descriptors, and waits a moment for connections to close.
    pub(super) fn wait_for_descriptors(&self, error: &io::Error) {
        self.lacks_descriptors.store(true, Ordering::Relaxed);
        if let Some(times) = NO_DESCRIPTORS.occur() {
            tracing::warn!(
                path = %self.path.display(), %error, times,
                "a file of the store could not be opened and is tried again; raise the limit of \
                 open files"
            );
        }
        std::thread::sleep(PAUSE);
    }

    /// Notes the end of a lack of file descriptors.
    pub(super) fn has_descriptors(&self) {
        self.lacks_descriptors.store(false, Ordering::Relaxed);
    }

    /// True while files cannot be opened for a lack of descriptors.
    pub(super) fn lacks_descriptors(&self) -> bool {
        self.lacks_descriptors.load(Ordering::Relaxed)
    }

    /// Error of a store whose files are not in their place any more.
    pub(super) fn left(&self) -> Option<StoreError> {
        self.log.is_left().then(|| {
            *self.left_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            StoreError::Unavailable(format!(
                "{} was removed, moved or replaced while it is open, so that nothing written now \
                 would be found again; put it back, or restart oncegate to use what is there \
                 (an empty store knows no key)",
                self.path.display()
            ))
        })
    }

    /// True if the files are not in their place, or were not a short time ago: an operation that
    /// failed may have begun then.
    pub(super) fn left_lately(&self) -> bool {
        let seen = || *self.left_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.left().is_some() || seen().is_some_and(|at| at.elapsed() < LATELY)
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
