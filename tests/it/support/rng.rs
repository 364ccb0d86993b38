//! Seeded randomness: a test that draws from it prints its seed and takes one from the environment.

/// SplitMix64.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Seeded from `ONCEGATE_TEST_SEED`, else from the time; prints the seed.
    pub(crate) fn seeded(test: &str) -> Self {
        let given = std::env::var("ONCEGATE_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            // The hasher's keys are random for each process: enough for a seed.
            use std::hash::{BuildHasher as _, RandomState};
            RandomState::new().hash_one(test)
        });
        println!("{test}: ONCEGATE_TEST_SEED={seed}");
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Another source, seeded from this one.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
