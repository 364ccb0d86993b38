//! The rules: what a key, a fingerprint, a record and the ledger entry of an item are, what an existing record means for a new
//! request, and what a backend's answer means for the record.
//!
//! Everything here is pure. No I/O, no clock (time is an argument), no async, and no name from the
//! rest of the crate except the two leaves `clock` and `json`. Stores keep what these functions
//! return; the proxy acts on it.

pub mod claim;
pub mod fingerprint;
mod id;
pub mod key;
pub mod ledger;
pub mod outcome;
pub mod record;
pub mod settle;
#[cfg(test)]
mod settle_tests;
pub mod tenant;
#[cfg(test)]
mod tests;
pub(crate) mod text;

pub use claim::{Decision, decide};
pub use fingerprint::Fingerprint;
pub use key::Key;
pub use ledger::Ledger;
pub use record::{Answer, Record, RecordId, State};
pub use tenant::TenantId;
