//! Changes that have to become durable after a claim.

pub(crate) mod retry;
