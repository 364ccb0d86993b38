//! The memory shared by all buffered bodies (`[server.limits] buffered`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes left for buffering.
#[derive(Debug)]
pub(crate) struct Budget {
    all: u64,
    free: AtomicU64,
}

/// Bytes taken from the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of `bytes` bytes.
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self { all: bytes, free: AtomicU64::new(bytes) })
    }

    /// Number of bytes taken at this moment.
    pub(crate) fn taken(&self) -> u64 {
        self.all.saturating_sub(self.free.load(Ordering::Acquire))
    }

    /// An empty reservation, to grow.
    pub(crate) fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }
}

impl Reservation {
    /// Takes `bytes` more and returns true, or takes nothing and returns false.
    #[must_use]
    pub(crate) fn grow(&mut self, bytes: u64) -> bool {
        let taken = self
            .budget
            .free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(bytes));
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.free.fetch_add(self.bytes, Ordering::AcqRel);
        }
    }
}
