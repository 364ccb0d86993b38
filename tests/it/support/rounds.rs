//! The length of trials.

/// Rounds of a trial: `ONCEGATE_TEST_ROUNDS`, else `default`.
pub(crate) fn rounds(default: usize) -> usize {
    let given = std::env::var("ONCEGATE_TEST_ROUNDS").ok();
    given.map_or(default, |text| text.parse().expect("a number of rounds"))
}
