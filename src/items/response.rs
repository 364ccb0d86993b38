//! The answer of a backend to a batch.

use crate::matcher::HeaderView;

/// A complete answer of the backend.
#[derive(Debug, Clone, Copy)]
pub struct BackendResponse<'a> {
    /// Status of the answer.
    pub status: u16,
    /// Header lines of the answer.
    pub headers: HeaderView<'a>,
    /// Body of the answer.
    pub body: &'a [u8],
}
