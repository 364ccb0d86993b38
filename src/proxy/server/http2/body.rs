//! The body of an answer, which counts itself while it waits for the backend.
//!
//! A client that takes nothing and a backend that sends nothing look the same on the wire; the
//! count tells them apart.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, BodyError};

/// A body that is counted in `waiting` while its next piece is not there.
#[derive(Debug)]
pub(super) struct CountedBody {
    body: Body,
    waiting: Arc<AtomicUsize>,
    is_counted: bool,
}

impl CountedBody {
    pub(super) fn new(body: Body, waiting: Arc<AtomicUsize>) -> Self {
        Self { body, waiting, is_counted: false }
    }

    fn count(&mut self, waits: bool) {
        match (std::mem::replace(&mut self.is_counted, waits), waits) {
            (false, true) => drop(self.waiting.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.waiting.fetch_sub(1, Ordering::Relaxed)),
            (false, false) | (true, true) => {}
        }
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        self.count(false);
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.count(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
