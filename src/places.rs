//! Counting what may exist only so many times at once: connections, claims, waiters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts up to a limit; each place is given back when its guard drops.
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    limit: usize,
}

/// One taken place.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// A counter with this limit.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), limit })
    }

    /// Takes a place if one is left.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let free = |taken| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok()?;
        Some(Place(self.clone()))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}
