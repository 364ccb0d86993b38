//! Envelopes of answers: the part of an answer beside its rows kept by the ledger, and the headers
//! rebuilt from the envelope.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::response;

use crate::clock::Timestamp;
use crate::idempotency::ledger::Envelope;
use crate::items::{BatchOutcome, BatchPlan, Ledger};
use crate::proxy::headers;
use crate::proxy::rewrite::forget_bytes;

/// Bytes of the largest envelope kept with every item of its answer, so that a batch of other items
/// has the envelope too.
const SMALL: usize = 1 << 10;

/// Bytes of the largest body of an envelope; of a larger one the headers are kept alone.
const LARGE: usize = 64 << 10;

/// An answer's envelope and its items.
pub(super) struct KeptEnvelope {
    envelope: Option<Arc<Envelope>>,
    /// The only item with a large envelope.
    only: Option<usize>,
}

impl KeptEnvelope {
    /// The envelope of an answer with the given outcomes; none for an answer that was not read.
    pub(super) fn of(
        head: &response::Parts,
        body: &[u8],
        (joined, plan): (&BatchOutcome, &BatchPlan),
        at: Timestamp,
    ) -> Self {
        let Some(body) = joined.envelope(body, LARGE) else {
            return Self { envelope: None, only: None };
        };
        let mut lines = head.headers.clone();
        forget_bytes(&mut lines);
        lines.remove(CONTENT_LENGTH);
        let lines = headers::stored_headers(&lines).into_iter();
        let headers = lines
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect();
        let envelope = Envelope { at, status: head.status.as_u16(), body, headers };
        let only = if envelope.bytes() <= SMALL { None } else { plan.sent().next() };
        Self { envelope: Some(Arc::new(envelope)), only: only.map(|(at, _)| at) }
    }

    /// The entry of the item at position `at`, with the envelope.
    pub(super) fn keep(&self, at: usize, ledger: Ledger) -> Ledger {
        match &self.envelope {
            Some(envelope) if self.only.is_none_or(|only| only == at) => {
                Ledger { envelope: Some(envelope.clone()), ..ledger }
            }
            Some(_) | None => ledger,
        }
    }
}

/// The header lines of an envelope.
pub(super) fn header_lines(envelope: &Envelope) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(envelope.headers.len() + 4);
    for (name, value) in &envelope.headers {
        // Both were valid on arrival.
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            headers.append(name, value);
        }
    }
    headers
}
