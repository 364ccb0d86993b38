//! The memory shared by all buffered bodies (`[server.limits] buffered`).
//!
//! Bodies take their bytes before they are read, and find no room when it is used up. A copy made
//! of bytes in hand (the record of an answer on its way into the store) is counted in any case: the
//! budget may go below zero, and gives nothing until as much came back. A kept answer is counted
//! once, however many clients are receiving it.
//!
//! A part of it is kept for small bodies: uploads that do not end must not lead to the refusal of
//! other clients' small requests, nor keep their answers from being stored.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use crate::machine;

/// Memory of an idle connection, in bytes.
const CONNECTION: u64 = 32 << 10;

/// Bytes of a reservation that may use the part kept for small ones, at most.
pub(crate) const SMALL: u64 = 16 << 10;
/// The part of the memory that connections may take without being counted.
const CONNECTIONS_PART: u64 = 4;
/// Bytes of a connection that are counted beyond that; all connections together must leave room for
/// some bodies.
const COUNTED: u64 = CONNECTION / 4 * 3;
/// An answer, its record for the store, and the record in a frame of the store's log.
const WITH_COPIES: u64 = 3;
/// The part of the budget that is kept for small reservations.
const KEPT_PART: i64 = 8;

/// The bytes left for buffering.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Below zero after a reload that lowered the budget under what is taken, and while copies are
    /// held that found no room.
    free: AtomicI64,
    size: AtomicI64,
    /// An answer takes the memory of its copies for the store when it arrives. Elsewhere copies may
    /// come on top of what is held; in a container of 64 MiB that is more than there is.
    reserves_copies: bool,
    /// The memory of this process; `None`: unknown.
    memory: Option<u64>,
    /// The kept answers that clients are receiving, by the place of their bytes.
    replays: Mutex<HashMap<usize, Weak<ReplayReservation>>>,
}

/// The memory of a kept answer, shared by the clients that are receiving it.
#[derive(Debug)]
pub(crate) struct ReplayReservation {
    at: usize,
    reservation: Reservation,
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
        Self::within(bytes, machine::memory())
    }

    fn within(bytes: u64, memory: Option<u64>) -> Arc<Self> {
        let (free, size) = (AtomicI64::new(signed(bytes)), AtomicI64::new(signed(bytes)));
        let reserves_copies = machine::is_scarce();
        Arc::new(Self { free, size, reserves_copies, memory, replays: Mutex::default() })
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

    /// The memory of a connection beside `others`, which counts only beyond a quarter of the memory
    /// of this process: many clients leave less room for bodies, and large bodies alone cannot keep
    /// clients out.
    pub(crate) fn connection(self: &Arc<Self>, others: usize) -> Reservation {
        let mut reservation = self.reserve();
        let free = self.memory.map_or(u64::MAX, |memory| memory / CONNECTIONS_PART / CONNECTION);
        if others as u64 > free {
            reservation.hold(COUNTED);
        }
        reservation
    }

    /// Takes the memory of a kept answer, unless it is taken for another client already; `None`:
    /// there is no room. The returned value must not outlive the bytes.
    pub(crate) fn reserve_replay(
        self: &Arc<Self>,
        answer: &Bytes,
    ) -> Option<Arc<ReplayReservation>> {
        let (at, bytes) = (answer.as_ptr().addr(), answer.len() as u64);
        // Declared before the guard, so dropped after it: the last holder's drop takes the lock.
        let present;
        let mut replays = self.replays();
        present = replays.get(&at).and_then(Weak::upgrade);
        if present.as_ref().is_some_and(|present| present.reservation.bytes >= bytes) {
            return present;
        }
        let mut reservation = self.reserve();
        if !reservation.grow(bytes) {
            return None;
        }
        let answer = Arc::new(ReplayReservation { at, reservation });
        replays.insert(at, Arc::downgrade(&answer));
        Some(answer)
    }

    fn replays(&self) -> MutexGuard<'_, HashMap<usize, Weak<ReplayReservation>>> {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Takes the memory of `bytes` of a backend's answer, as [`Self::grow`] does. Where memory is
    /// scarce the copies that the store will make are taken as well, see [`Self::hold_copy`].
    #[must_use]
    pub(crate) fn grow_for_answer(&mut self, bytes: u64) -> bool {
        self.grow(bytes * if self.budget.reserves_copies { WITH_COPIES } else { 1 })
    }

    /// Raises the reservation to the `bytes` of the copy of an answer that the store writes, unless
    /// the answer's own reservation has them.
    pub(crate) fn hold_copy(&mut self, bytes: u64) {
        if !self.budget.reserves_copies {
            self.hold(bytes);
        }
    }

    /// Raises the reservation to `bytes` in any case: they are in memory already.
    pub(crate) fn hold(&mut self, bytes: u64) {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            self.budget.free.fetch_sub(signed(more), Ordering::AcqRel);
            self.bytes += more;
        }
    }
}

impl Drop for ReplayReservation {
    fn drop(&mut self) {
        let mut replays = self.reservation.budget.replays();
        // The place may belong to another answer by now.
        if replays.get(&self.at).is_some_and(|answer| answer.strong_count() == 0) {
            replays.remove(&self.at);
        }
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

    #[test]
    fn what_is_held_in_any_case_is_counted_and_nothing_is_given_until_as_much_came_back() {
        let budget = Budget::new(100);
        let (mut body, mut copy) = (budget.reserve(), budget.reserve());
        assert!(body.grow(80));
        copy.hold(50);
        copy.hold(30);
        assert_eq!(budget.taken(), 130);
        assert!(!budget.reserve().grow(1) && !body.grow(1));
        copy.hold(60);
        assert_eq!(budget.taken(), 140);
        drop(copy);
        assert_eq!(budget.taken(), 80);
        assert!(body.grow(20));
        drop(body);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn any_mixture_of_reservations_leaves_the_sum_that_is_held_and_nothing_at_the_end() {
        let seed = crate::nonce::number();
        println!("seed {seed}");
        let mut state = seed;
        let mut below = |most: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % most
        };
        let budget = Budget::new(1000);
        let mut held: Vec<Reservation> = Vec::new();
        for _ in 0..10_000 {
            match below(4) {
                0 => held.push(budget.reserve()),
                1 if !held.is_empty() => drop(held.swap_remove(below(held.len() as u64) as usize)),
                kind if !held.is_empty() => {
                    let (at, bytes) = (below(held.len() as u64) as usize, below(300));
                    let (before, taken) = (held[at].bytes, budget.taken());
                    match kind {
                        2 if held[at].grow(bytes) => assert!(taken + bytes <= 1000),
                        2 => assert_eq!(held[at].bytes, before),
                        _ => held[at].hold(bytes),
                    }
                }
                _ => {}
            }
            assert_eq!(budget.taken(), held.iter().map(|held| held.bytes).sum::<u64>());
        }
        drop(held);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn an_answer_is_counted_once_for_all_its_clients() {
        let budget = Budget::new(100);
        let (one, other) = (Bytes::from(vec![1; 60]), Bytes::from(vec![2; 60]));
        let clients =
            [budget.reserve_replay(&one).unwrap(), budget.reserve_replay(&one.clone()).unwrap()];
        assert_eq!(budget.taken(), 60);
        assert!(budget.reserve_replay(&other).is_none());
        drop(clients);
        assert_eq!(budget.taken(), 0);
        assert!(budget.replays().is_empty());
        // A longer answer at the same place is counted whole.
        let short = budget.reserve_replay(&one.slice(..10)).unwrap();
        let long = budget.reserve_replay(&one).unwrap();
        assert_eq!(budget.taken(), 70);
        drop(short);
        assert_eq!((budget.taken(), budget.replays().len()), (60, 1));
        drop(long);
        assert_eq!((budget.taken(), budget.replays().len()), (0, 0));
    }

    #[test]
    fn answers_of_two_lengths_at_one_place_do_not_block_each_other() {
        let (budget, long) = (Budget::new(1 << 20), Bytes::from(vec![1; 60]));
        let (done, ended) = std::sync::mpsc::channel();
        for answer in [long.slice(..10), long.slice(..30), long] {
            let (budget, done) = (budget.clone(), done.clone());
            std::thread::spawn(move || {
                (0..1_000_000).for_each(|_| drop(budget.reserve_replay(&answer)));
                done.send(()).unwrap();
            });
        }
        for _ in 0..3 {
            ended.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
        }
        assert_eq!((budget.taken(), budget.replays().len()), (0, 0));
    }

    #[test]
    fn connections_beyond_a_quarter_of_the_memory_count() {
        let budget = Budget::within(1 << 20, Some(8 * CONNECTION));
        let few: Vec<Reservation> = (1..=2).map(|others| budget.connection(others)).collect();
        assert_eq!(budget.taken(), 0);
        let more: Vec<Reservation> = (3..=5).map(|others| budget.connection(others)).collect();
        assert_eq!(budget.taken(), 3 * COUNTED);
        drop((few, more));
        assert_eq!(budget.taken(), 0);
        assert_eq!(Budget::within(1, None).connection(usize::MAX).bytes, 0);
    }
}
