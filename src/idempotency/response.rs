//! A response in the form that records keep.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// A response in stored form: end-to-end headers in their order, the body as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResponse {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Name and value of each header line.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

impl StoredResponse {
    /// Approximate bytes of headers and body.
    pub fn bytes(&self) -> usize {
        let line =
            |(name, value): &(HeaderName, HeaderValue)| name.as_str().len() + value.len() + 8;
        self.body.len() + self.headers.iter().map(line).sum::<usize>()
    }
}
