//! Batches: requests whose elements each have an id and a quantity that may be fulfilled over
//! several tries. A retry sends the backend only the missing units.
//!
//! A call passes these files in order: [`batch`] reads the request, [`split`] decides from each
//! item's [`Ledger`] what is still to send and writes the upstream body, [`join()`] reads each
//! item's outcome from the backend's answer, [`answer`] writes the client's answer. [`rules`]
//! describes the bodies; no file knows a particular backend.
//!
//! The module is pure: no I/O, no clock, no async. The proxy makes claims and outcomes durable,
//! waits for calls in flight and sends; `problem` writes the gateway's own errors.

pub mod answer;
pub mod batch;
mod batch_error;
mod digest;
mod edit;
mod find_rows;
mod issued;
mod item_row;
pub mod join;
pub mod list_path;
mod lists;
mod refused;
mod request;
mod response;
mod rows;
pub mod rules;
mod shown_rows;
pub mod split;
#[cfg(test)]
pub(crate) mod tests;

pub use crate::idempotency::ledger::{Doubt, Envelope, Ledger, LedgerError, OutcomeList};
pub use answer::{BatchAnswer, envelope, refusal, render};
pub use batch::{Batch, BatchError};
pub use digest::ItemDigests;
pub(crate) use edit::with_members;
pub use join::{BatchOutcome, ItemOutcome, ResponseShape, join};
pub use request::BatchRequest;
pub use response::BackendResponse;
pub use rules::ItemRules;
pub use split::{BatchDecision, BatchPlan, ExistingItem, ItemDecision};

/// The scope of a ledger's record ids, for [`crate::idempotency::RecordId::new`]. Names of routes
/// have no colon, so an item never collides with a key of request mode.
pub fn scope(ledger: &str) -> String {
    format!("items:{ledger}")
}
