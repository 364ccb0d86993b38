//! The current slot map, and the renewal of a contradicted map.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::address::ServerAddress;
use super::discovery::{self, EntryPoints};
use super::node::RedisNode;
use super::shared_failure::SharedFailure;
use super::slot_map::SlotMap;

/// The servers in use.
pub(super) struct Topology {
    entry_points: EntryPoints,
    map: RwLock<Arc<SlotMap>>,
    /// A server contradicted the map or was lost: the map is made anew before the next use.
    stale: AtomicBool,
    /// Held during discovery, to have a single caller make the map.
    discovery: Mutex<SharedFailure<String>>,
}

/// Guard to mark the map stale again unless discovery succeeded, also after a cancelled discovery.
struct DiscoveryGuard<'a> {
    topology: &'a Topology,
    succeeded: bool,
}

impl Drop for DiscoveryGuard<'_> {
    fn drop(&mut self) {
        if !self.succeeded {
            self.topology.mark_stale();
        }
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.entry_points.servers.iter().map(|(address, _)| address.to_string());
        f.debug_list().entries(addresses).finish()
    }
}

impl Topology {
    pub(super) fn new(entry_points: EntryPoints) -> Self {
        Self {
            entry_points,
            map: RwLock::default(),
            stale: AtomicBool::new(true),
            discovery: Mutex::default(),
        }
    }

    /// Has the map made anew before the next use.
    pub(super) fn mark_stale(&self) {
        self.stale.store(true, Ordering::Release);
    }

    fn current(&self) -> Arc<SlotMap> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The slot map, made anew when stale. Unbounded in time.
    pub(super) async fn map(&self) -> Result<Arc<SlotMap>, String> {
        if !self.stale.load(Ordering::Acquire) {
            return Ok(self.current());
        }
        let asked = Instant::now();
        let mut failure = self.discovery.lock().await;
        if !self.stale.load(Ordering::Acquire) {
            return Ok(self.current());
        }
        failure.since(asked)?;
        // Cleared before discovery, so that a contradiction during discovery counts for the next
        // use.
        self.stale.store(false, Ordering::Release);
        let mut guard = DiscoveryGuard { topology: self, succeeded: false };
        match discovery::discover(&self.entry_points, &self.current()).await {
            Ok(map) => {
                let map = Arc::new(map);
                *self.map.write().unwrap_or_else(PoisonError::into_inner) = map.clone();
                guard.succeeded = true;
                Ok(map)
            }
            Err(reason) => {
                failure.set(&reason);
                Err(reason)
            }
        }
    }

    /// The server at the `host:port` of a redirection.
    pub(super) fn node_at(&self, address: &str) -> Option<Arc<RedisNode>> {
        let (host, port) = address.rsplit_once(':')?;
        let address = ServerAddress { host: host.to_owned(), port: port.parse().ok()? };
        let (_, settings) = self.entry_points.servers.first()?;
        Some(self.current().node_at(address, settings, self.entry_points.requirements))
    }
}
