//! The state that requests to the records API share.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Config, Mode, defaults};
use crate::shutdown::Tasks;
use crate::store::Store;
use crate::store::cache::Hot;

/// Requests to the records API that are worked on at once; the next ones wait. Each may hold as much
/// as a page of records takes.
const AT_ONCE: usize = 4;
/// Bytes of a resolve's body beside its response.
const BESIDES: u64 = 64 << 10;

/// What the records API works with.
#[derive(Debug)]
pub struct AdminState {
    pub(super) store: Arc<dyn Store>,
    pub(super) hot: Arc<Hot>,
    pub(super) config: Config,
    /// The digest of the token.
    pub(super) token: Option<[u8; 32]>,
    pub(super) turns: Arc<Semaphore>,
    /// What a drain waits for: a decision that has begun is carried to its end.
    pub(super) tasks: Tasks,
    /// Bytes of the largest answer that any route keeps.
    pub(super) most_stored: u64,
    /// Bytes of the largest body that is read.
    pub(super) most_body: u64,
}

impl AdminState {
    /// For the gateway with this configuration, store, memory and work to drain.
    pub fn new(config: Config, store: Arc<dyn Store>, hot: Arc<Hot>, tasks: Tasks) -> Self {
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

    /// Waits for a turn.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.turns.clone().acquire_owned().await.ok()
    }
}
