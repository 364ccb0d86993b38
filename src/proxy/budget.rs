//! The memory shared by all buffered bodies (`[server.limits] buffered`).
//!
//! A part of it is kept for small bodies: uploads that do not end must not lead to the refusal of
//! other clients' small requests, nor keep their answers from being stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Bytes of a reservation that may use the part kept for small ones, at most.
const SMALL: u64 = 16 << 10;
/// The part of the budget that is kept for small reservations.
const KEPT_PART: i64 = 8;

/// The bytes left for buffering.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Below zero after a reload that lowered the budget under what is taken.
    free: AtomicI64,
    size: AtomicI64,
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
        let size = signed(bytes);
        Arc::new(Self { free: AtomicI64::new(size), size: AtomicI64::new(size) })
    }

    /// Number of bytes taken at this moment.
    pub(crate) fn taken(&self) -> u64 {
        let taken = self.size.load(Ordering::Acquire) - self.free.load(Ordering::Acquire);
        u64::try_from(taken).unwrap_or_default()
    }

    /// Changes the budget. What is taken beyond a lowered one stays.
    pub(crate) fn set(&self, bytes: u64) {
        let bytes = signed(bytes);
        let before = self.size.swap(bytes, Ordering::AcqRel);
        self.free.fetch_add(bytes - before, Ordering::AcqRel);
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
        let size = self.budget.size.load(Ordering::Acquire);
        let is_small = self.bytes + bytes <= SMALL;
        let taken = self.budget.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
            // A reservation without others beside it may take all.
            let is_alone = free + signed(self.bytes) >= size;
            let kept = if is_small || is_alone { 0 } else { size / KEPT_PART };
            (free - kept >= signed(bytes)).then(|| free - signed(bytes))
        });
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.free.fetch_add(signed(self.bytes), Ordering::AcqRel);
        }
    }
}

/// No sum of bytes in memory comes near the largest number.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eighth_is_kept_for_small_reservations() {
        let size = 64 * SMALL;
        let budget = Budget::new(size);
        let mut alone = budget.reserve();
        assert!(alone.grow(size) && !alone.grow(1));
        drop(alone);
        let (mut small, mut large, mut other) =
            (budget.reserve(), budget.reserve(), budget.reserve());
        assert!(small.grow(SMALL) && large.grow(55 * SMALL));
        assert!(!large.grow(1) && !other.grow(SMALL + 1));
        assert!(other.grow(SMALL) && !other.grow(1));
        let mut rest: Vec<Reservation> = (0..7).map(|_| budget.reserve()).collect();
        assert!(rest.iter_mut().all(|small| small.grow(SMALL)));
        assert!(!budget.reserve().grow(1));
    }

    #[test]
    fn a_lowered_budget_takes_nothing_away_and_gives_nothing_until_enough_came_back() {
        let budget = Budget::new(10);
        let mut taken = budget.reserve();
        assert!(taken.grow(8) && !taken.grow(3));
        budget.set(5);
        let mut other = budget.reserve();
        assert!(!other.grow(1));
        drop(taken);
        assert!(other.grow(5) && !other.grow(1));
        budget.set(20);
        assert!(other.grow(15) && !other.grow(1));
    }
}
