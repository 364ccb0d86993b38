//! The rules: what a key, a fingerprint, a record and the ledger entry of an item are, what an existing record means for a new
//! request, and what a backend's answer means for the record.
//!
//! Everything here is pure. No I/O, no clock (time is an argument), no async, and no name from the
//! rest of the crate except the two leaves `clock` and `json`. Stores keep what these functions
//! return; the proxy acts on it.

pub mod decision;
mod digest;
pub mod fingerprint;
pub mod history;
pub mod id;
pub mod key;
pub mod ledger;
pub mod outcome;
pub(crate) mod preimage;
pub mod record;
pub mod retention;
pub mod settle;
pub mod tenant;
#[cfg(test)]
mod tests;

pub use decision::{Decision, decide};
pub use fingerprint::Fingerprint;
pub use id::RecordId;
pub use key::Key;
pub use ledger::Ledger;
pub use record::{Answer, Record, State};
pub use tenant::TenantId;
