//! Durable changes after a claim: completions, releases, decisions of operators, and retries of
//! unconfirmed changes.
//!
//! `transition` has the compare-and-swap loop; `retry` repeats unconfirmed changes. The possible
//! states of a record are decided in `idempotency`.

pub(crate) mod retry;
#[cfg(test)]
mod tests;
pub(crate) mod transition;
