//! Names that nobody else uses: of attempts, of requests, of first versions.
//!
//! Asking the system for random bytes costs a system call each time. These ask once for a process
//! and count from there, through a mixing step, so that they look random and never repeat within
//! the process. They are no secrets: who has seen one may guess the next.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// What tells this process from all others, and where it starts to count.
static PROCESS: LazyLock<(u64, u64)> = LazyLock::new(|| {
    // A version 4 UUID has fixed bits; over two of them all bits of both numbers are random.
    let (one, two) = (Uuid::new_v4().as_u64_pair(), Uuid::new_v4().as_u64_pair());
    (one.0 ^ two.1, one.1 ^ two.0)
});
static COUNT: AtomicU64 = AtomicU64::new(0);

/// A number that this process gives once, and another one gives with the chance of a random one.
pub fn number() -> u64 {
    mix(PROCESS.1.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// Sixteen such bytes.
pub fn bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number().to_le_bytes());
    bytes[8..].copy_from_slice(&PROCESS.0.to_le_bytes());
    bytes
}

/// Such a UUID, in the form of version 4 (RFC 9562 section 5.4).
pub fn uuid() -> Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}

/// The finalizer of SplitMix64: one to one, so that different counts stay different.
fn mix(count: u64) -> u64 {
    let mut mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_do_not_repeat() {
        let names: HashSet<Uuid> = (0..100_000).map(|_| uuid()).collect();
        assert_eq!(names.len(), 100_000);
        let numbers: HashSet<u64> = (0..100_000).map(|_| number()).collect();
        assert_eq!(numbers.len(), 100_000);
    }
}
