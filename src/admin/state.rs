//! The state that requests to the records API share.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Config, Mode, defaults};
use crate::shutdown::Tasks;
use crate::store::Store;
use crate::store::cache::RecordCache;

/// Concurrent requests to the records API; further requests wait. Each may hold a page of
/// records.
const AT_ONCE: usize = 4;
/// Bytes of a resolve's body without its response.
const BESIDES: u64 = 64 << 10;

/// The state shared by requests to the records API.
#[derive(Debug)]
pub struct AdminState {
    pub(super) store: Arc<dyn Store>,
    pub(super) hot: Arc<RecordCache>,
    pub(super) config: Config,
    /// Digest of the token.
    pub(super) token: Option<[u8; 32]>,
    pub(super) turns: Arc<Semaphore>,
    /// Tasks awaited by a drain, so that a started decision is completed.
    pub(super) tasks: Tasks,
    /// Bytes of the largest answer kept by any route.
    pub(super) most_stored: u64,
    /// Bytes of the largest accepted body.
    pub(super) most_body: u64,
}

impl AdminState {
    /// Creates the state for a gateway's configuration, store, cache and tasks.
    pub fn new(config: Config, store: Arc<dyn Store>, hot: Arc<RecordCache>, tasks: Tasks) -> Self {
        let most = config.routes.iter().filter_map(|route| match &route.mode {
            Mode::Request(mode) => Some(mode.record.max_stored_body),
            Mode::Items(_) | Mode::Off => None,
        });
        let most_stored = most.max().unwrap_or(defaults::MAX_STORED_BODY);
        let token = config.admin.token.as_ref();
        let token = token.map(|token| Sha256::digest(token.expose().as_bytes()).into());
        // Twice: Base64 is a third larger, and text has its escapes.
        let most_body = most_stored.saturating_mul(2).saturating_add(BESIDES);
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { store, hot, config, token, turns, tasks, most_stored, most_body }
    }

    /// Waits for a permit.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.turns.clone().acquire_owned().await.ok()
    }
}
