//! Random ids of attempts and requests, and random initial versions.
//!
//! The random bits come from a generator per thread, seeded by the system: no system call per id,
//! and no id can be guessed from an earlier id.

use uuid::Uuid;

/// A random number of 64 bits.
pub fn number() -> u64 {
    // Six bits of a version 4 UUID are fixed, at different positions of its two halves.
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high ^ low
}

/// Sixteen bytes with 122 random bits.
pub fn bytes() -> [u8; 16] {
    uuid().into_bytes()
}

/// A random UUID of version 4 (RFC 9562 section 5.4).
pub fn uuid() -> Uuid {
    Uuid::new_v4()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_of_a_number_is_fixed() {
        let numbers: Vec<u64> = (0..200).map(|_| number()).collect();
        assert_eq!(numbers.iter().fold(0, |bits, number| bits | number), u64::MAX);
        assert_eq!(numbers.iter().fold(u64::MAX, |bits, number| bits & number), 0);
    }
}
