//! Durable changes after a claim: completions, releases, decisions of operators, and the repetition
//! of changes that the store did not confirm.
//!
//! `transition` holds the one compare-and-swap loop; `retry` repeats unconfirmed changes. The
//! states that a record may take are decided in `idempotency`.

pub(crate) mod retry;
#[cfg(test)]
mod tests;
pub(crate) mod transition;
