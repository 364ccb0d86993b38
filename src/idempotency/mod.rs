//! The rules of idempotency: keys, fingerprints, records, ledger entries of items, the decision
//! about a new request with an existing record, and the verdict on a backend's answer.
//!
//! The module is pure: no I/O, no clock (time is an argument), no async, and no name from the
//! rest of the crate except the leaves that read time, bodies and answers (`clock`, `json`, `form`,
//! `xml`, `place`, `matcher`). Stores keep the returned records; the proxy acts on the decisions.

mod compared_body;
pub mod decision;
mod digest;
pub mod fingerprint;
pub mod history;
pub mod id;
mod kept_answer;
pub mod key;
pub mod ledger;
pub(crate) mod names;
mod open;
pub mod outcome;
pub(crate) mod preimage;
pub mod record;
mod reopen;
mod response;
pub mod retention;
mod select;
pub mod settle;
pub mod settling;
mod steps;
mod structured_field;
pub(crate) mod suspect;
pub mod tenant;
#[cfg(test)]
mod tests;
mod units;

pub use decision::{Decision, decide};
pub use fingerprint::Fingerprint;
pub use id::RecordId;
pub use key::Key;
pub use ledger::Ledger;
pub use record::{Answer, Record, State};
pub use tenant::TenantId;
