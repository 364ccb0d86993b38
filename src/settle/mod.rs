//! Durable changes after a claim: completions, releases, decisions of operators, retries of
//! unconfirmed changes, and the settlement of unknown outcomes.
//!
//! `transition` has the compare-and-swap loop; `retry` repeats unconfirmed changes. `rules` and
//! `schedule` are the pure rules of a policy (`tick`), `conclude` those of evidence. `evidence`
//! reads the answers of probes, `step` takes one step under its durable claim, with `probe` and
//! `reverse` talking to the backend through `ask`. `driver` takes the steps that are due, `queue`
//! holds the next ones, and `scan` finds those of other processes and passes over what is `idle`.
//! `contradiction` keeps results that came too late. The possible states of a record are decided in
//! `idempotency`.

mod ask;
mod breaker;
mod conclude;
pub(crate) mod contradiction;
mod driver;
mod evidence;
#[cfg(test)]
mod evidence_tests;
mod idle;
#[cfg(test)]
mod interleaving_tests;
mod pace;
mod permits;
mod probe;
mod queue;
mod response;
pub(crate) mod retry;
mod reverse;
mod route;
mod row_time;
pub(crate) mod rules;
mod scan;
#[cfg(test)]
mod scan_tests;
mod schedule;
mod state;
mod step;
#[cfg(test)]
mod tests;
pub(crate) mod transition;
pub(crate) mod values;

pub(crate) use self::driver::Retried;
pub(crate) use self::response::settled as settled_response;
pub(crate) use self::route::{SettleRoute, SettleRoutes};
pub(crate) use self::state::{LEAST_DELAY, Settler, whole_seconds};
