//! The gateway's own answers: the catalog of problems and their rendering, as RFC 9457 problem
//! details or in a backend's own envelope (`dialect`).

mod dialect;
mod disposition;
mod document;
mod redeemsg;
mod render;
pub(crate) mod rfc9457;
mod slug;
mod stripe;

pub use dialect::Dialect;
pub use disposition::{DISPOSITIONS, Disposition, ERROR_HEADER, STATUS, STATUS_HEADER};
pub use document::{Occurrence, Problem};
pub use slug::{SLUGS, Slug};
