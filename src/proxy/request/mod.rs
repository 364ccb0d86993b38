//! Routes in request mode.

pub(super) mod claim;
pub(super) mod existing;
pub(super) mod forward;
pub(crate) mod inflight;
pub(super) mod read;
