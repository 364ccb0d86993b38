//! Lease of this process, and the store's time.
//!
//! The server keeps one row per process with the end of the lease, by the server's clock. The lease
//! is renewed several times before its end. The local view counts from before the heartbeat was
//! sent, on a clock that keeps running while the machine sleeps, and ends a quarter earlier: while
//! this process takes its lease for valid, so does every process.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::engine::Engine;
use crate::clock::{self, Timestamp};
use crate::idempotency::record::Nonce;
use crate::shutdown::Shutdown;

/// Heartbeats within one lease.
const HEARTBEATS: u32 = 5;

/// Milliseconds by which a clock gains between two heartbeats, at most, with the error of measuring
/// it over a slow network; more is a step.
const MOST_DRIFT: i64 = 10_000;

/// Lease of this process on a shared store.
#[derive(Debug)]
pub(super) struct ReplicaLease {
    pub(super) owner: Nonce,
    duration: Duration,
    /// End of the lease, in milliseconds of [`clock::uptime`].
    end: AtomicU64,
    /// The store's time minus [`clock::uptime`], in milliseconds.
    offset: AtomicI64,
    /// The same difference for expiry: a step forward is not followed.
    expiry_offset: AtomicI64,
    /// Number of the current epoch; a new epoch begins with the renewal of an expired lease.
    epoch: AtomicU64,
    /// Cause of failure of the last heartbeat.
    failure: Mutex<Option<String>>,
    /// Cause of failure of the last read beside a heartbeat.
    unreadable: Mutex<Option<String>>,
}

impl ReplicaLease {
    /// A lease without a heartbeat yet, so invalid.
    pub(super) fn new(owner: Nonce, duration: Duration) -> Self {
        Self {
            owner,
            duration,
            end: AtomicU64::new(0),
            offset: AtomicI64::new(0),
            // The first heartbeat is behind it.
            expiry_offset: AtomicI64::new(i64::MAX),
            epoch: AtomicU64::new(0),
            failure: Mutex::new(None),
            unreadable: Mutex::new(None),
        }
    }

    /// True if every process takes this process for alive.
    pub(super) fn is_valid(&self) -> bool {
        clock::millis(clock::uptime()) < self.end.load(Ordering::Acquire)
    }

    /// Current epoch; `None` if remote processes may take this process for dead.
    pub(super) fn epoch(&self) -> Option<u64> {
        // Validity is read first: the reverse order could pair an expired epoch with a new lease.
        self.is_valid().then(|| self.epoch.load(Ordering::Acquire))
    }

    /// The store's time.
    pub(super) fn now(&self) -> Timestamp {
        let uptime = clock::millis(clock::uptime());
        let offset = self.offset.load(Ordering::Relaxed);
        Timestamp::from_millis(uptime.saturating_add_signed(offset))
    }

    /// The store's time without the steps by which its clock was set forward since the start of
    /// this process. Records expire by it: later than they might, never earlier.
    pub(super) fn expiry_time(&self) -> Timestamp {
        let uptime = clock::millis(clock::uptime());
        let offset = self.expiry_offset.load(Ordering::Relaxed);
        let offset = offset.min(self.offset.load(Ordering::Relaxed));
        Timestamp::from_millis(uptime.saturating_add_signed(offset))
    }

    /// Follows the server's clock back, and forward as far as no step is seen.
    fn follow(&self, offset: i64) {
        let before = self.expiry_offset.load(Ordering::Relaxed);
        let ahead = offset.saturating_sub(before);
        if ahead <= MOST_DRIFT {
            self.expiry_offset.store(offset, Ordering::Relaxed);
        } else if offset.saturating_sub(self.offset.load(Ordering::Relaxed)) > MOST_DRIFT {
            tracing::warn!(
                seconds = ahead / 1000,
                "the store's clock was set forward; until this process starts again, records \
                 expire as if it had not been"
            );
        }
    }

    /// Cause of failure of the last heartbeat; `None` after a successful heartbeat.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cause why records cannot be read although the lease can be renewed: a user without the right
    /// to read. Retries are refused then.
    pub(super) fn read_failure(&self) -> Option<String> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads as retries of keys do.
    async fn check_read<E: Engine>(&self, engine: &E) {
        let read = timeout(self.duration / 2, engine.check_read()).await;
        let result = match read {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.reason().to_owned()),
            Err(_) => Some("the store did not answer a read in time".to_owned()),
        };
        *self.unreadable.lock().unwrap_or_else(PoisonError::into_inner) = result;
    }

    /// Explanation of an invalid lease.
    pub(super) fn expiry_reason(&self) -> String {
        let late = || "this replica's lease has expired: it was not renewed in time".to_owned();
        self.failure().unwrap_or_else(late)
    }

    /// Renews the lease once.
    pub(super) async fn renew<E: Engine>(&self, engine: &E) -> Result<(), String> {
        let sent = clock::uptime();
        let heartbeat = engine.heartbeat(self.owner, self.duration);
        let result = match timeout(self.duration / 2, heartbeat).await {
            Ok(Ok(time)) => {
                let middle = sent + (clock::uptime().saturating_sub(sent)) / 2;
                let offset = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
                let offset = offset.saturating_sub_unsigned(clock::millis(middle));
                self.follow(offset);
                self.offset.store(offset, Ordering::Relaxed);
                if !self.is_valid() {
                    self.epoch.fetch_add(1, Ordering::AcqRel);
                }
                let end = sent + self.duration - self.duration / 4;
                self.end.store(clock::millis(end), Ordering::Release);
                Ok(())
            }
            Ok(Err(error)) => Err(error.reason().to_owned()),
            Err(_) => Err("the store did not answer a heartbeat in time".to_owned()),
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = result.clone().err();
        result
    }

    /// Renews the lease until shutdown.
    pub(super) async fn run<E: Engine>(self: Arc<Self>, engine: Arc<E>, mut shutdown: Shutdown) {
        let mut failing = false;
        while !shutdown.started() {
            let ((), renewed) = tokio::join!(self.check_read(&*engine), self.renew(&*engine));
            match renewed {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("the store is reachable again; the lease is renewed");
                }
                Ok(()) => {}
                Err(error) => {
                    if !failing {
                        tracing::error!(
                            error,
                            "the lease cannot be renewed: no new request is forwarded once it \
                             expires"
                        );
                    }
                    failing = true;
                }
            }
            tokio::select! {
                () = sleep(self.duration / HEARTBEATS) => {}
                () = shutdown.wait() => {}
            }
        }
    }

    /// Invalidates the lease locally.
    pub(super) fn end(&self) {
        self.end.store(0, Ordering::Release);
    }
}
