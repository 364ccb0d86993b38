//! Whether this process lives, as the others see it, and what time the store has.
//!
//! One row for each process says until when it lives, by the server's clock. It is renewed several
//! times within its lease. This side counts from before the question was sent, on a clock that also
//! runs while the machine sleeps, and ends a quarter early: when it thinks that it lives, so do all
//! others.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::engine::Engine;
use crate::clock::{self, Timestamp};
use crate::idempotency::record::Nonce;
use crate::shutdown::Shutdown;

/// Renewals within one lease.
const BEATS: u32 = 5;

/// The life of this process.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) owner: Nonce,
    lease: Duration,
    /// Until when, in milliseconds of [`clock::uptime`].
    until: AtomicU64,
    /// The store's time less [`clock::uptime`], in milliseconds.
    offset: AtomicI64,
    /// Counts the lives: a new one begins when a lease that had ended is renewed.
    lives: AtomicU64,
    /// Why the last renewal failed.
    trouble: Mutex<Option<String>>,
}

impl Life {
    pub(super) fn new(owner: Nonce, lease: Duration) -> Self {
        let trouble = Mutex::new(None);
        Self {
            owner,
            lease,
            until: AtomicU64::new(0),
            offset: AtomicI64::new(0),
            lives: AtomicU64::new(0),
            trouble,
        }
    }

    /// Whether all others take this process for alive.
    pub(super) fn alive(&self) -> bool {
        clock::millis(clock::uptime()) < self.until.load(Ordering::Acquire)
    }

    /// Which life this is; `None`: others may take this process for dead.
    pub(super) fn current(&self) -> Option<u64> {
        // In this order: a life that began since is not taken for the one before.
        self.alive().then(|| self.lives.load(Ordering::Acquire))
    }

    /// The store's time.
    pub(super) fn now(&self) -> Timestamp {
        let uptime = clock::millis(clock::uptime());
        let offset = self.offset.load(Ordering::Relaxed);
        Timestamp::from_millis(uptime.saturating_add_signed(offset))
    }

    /// Why the last renewal failed.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why this process is not taken for alive.
    pub(super) fn why_not(&self) -> String {
        let asleep = || "this process was not heard of for too long".to_owned();
        self.trouble().unwrap_or_else(asleep)
    }

    /// Renews the lease once.
    pub(super) async fn heartbeat<E: Engine>(&self, engine: &E) -> Result<(), String> {
        let sent = clock::uptime();
        let beat = timeout(self.lease / 2, engine.heartbeat(self.owner, self.lease)).await;
        let result = match beat {
            Ok(Ok(time)) => {
                let middle = sent + (clock::uptime().saturating_sub(sent)) / 2;
                let offset = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
                let offset = offset.saturating_sub_unsigned(clock::millis(middle));
                self.offset.store(offset, Ordering::Relaxed);
                if !self.alive() {
                    self.lives.fetch_add(1, Ordering::AcqRel);
                }
                let until = sent + self.lease - self.lease / 4;
                self.until.store(clock::millis(until), Ordering::Release);
                Ok(())
            }
            Ok(Err(trouble)) => Err(trouble.reason().to_owned()),
            Err(_) => Err("it does not answer".to_owned()),
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = result.clone().err();
        result
    }

    /// Renews the lease until the end starts.
    pub(super) async fn run<E: Engine>(self: Arc<Self>, engine: Arc<E>, mut end: Shutdown) {
        let mut failing = false;
        while !end.started() {
            match self.heartbeat(&*engine).await {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("the store is there again");
                }
                Ok(()) => {}
                Err(reason) => {
                    if !failing {
                        tracing::error!(reason, "the store cannot be reached");
                    }
                    failing = true;
                }
            }
            tokio::select! {
                () = sleep(self.lease / BEATS) => {}
                () = end.wait() => {}
            }
        }
    }

    /// From now on this process is not alive.
    pub(super) fn end(&self) {
        self.until.store(0, Ordering::Release);
    }
}
