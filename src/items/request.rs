//! The parts of a request that a batch is read from.

use crate::idempotency::TenantId;

/// The parts of a request that a batch is read from.
#[derive(Debug, Clone, Copy)]
pub struct BatchRequest<'a> {
    /// The caller.
    pub tenant: &'a TenantId,
    /// Names and values of the path's parameters, which may name what the body does not (a
    /// customer); they count as shared members.
    pub parameters: &'a [(&'a str, &'a str)],
    /// The batch's own key, where it is a part of every id.
    pub batch: Option<&'a str>,
    /// The body as received.
    pub body: &'a [u8],
}
