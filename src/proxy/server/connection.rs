//! The stream of a client's HTTP/1.1 connection.
//!
//! Every answer of the gateway carries `Idempotency-Error`, so this stream replaces the answer that
//! hyper generates for a head it cannot parse, and writes one for a head that does not arrive in
//! time. Which bytes are hyper's own answer follows from the position within the requests
//! ([`tracker`](super::tracker)), never from the bytes: a body may contain anything.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tracker::RequestTracker;
use crate::net::coalesce;
use crate::net::small_reads;
use crate::net::write_timeout::{WriteTimeout, write_timeout};
use crate::observe::request_id::RequestId;
use crate::problem::{Dialect, Occurrence, Problem, Slug};
use crate::proxy::routing::Routing;

/// A stream from a client, with a write time limit.
#[derive(Debug)]
pub(super) struct ClientStream<S> {
    stream: WriteTimeout<S>,
    tracker: SharedTracker,
    /// Bytes that arrived after the end of a head or a body: hyper gets them when it has dealt
    /// with that.
    ahead: BytesMut,
    /// hyper may have bytes of an answer that are not written yet.
    is_writing: bool,
    /// The read that waits until the answer before it is written.
    held: Option<Waker>,
    /// Unwritten rest of the answer that replaces hyper's.
    replacement: Bytes,
    /// Routing of the time at which the connection was accepted, for its metrics.
    routing: Arc<Routing>,
}

/// The tracker of a connection, for its stream and its exchanges. Both run in the connection's
/// task, so the lock never waits.
#[derive(Debug, Clone)]
pub(super) struct SharedTracker(Arc<Mutex<RequestTracker>>);

impl SharedTracker {
    pub(super) fn new(tracker: RequestTracker) -> Self {
        Self(Arc::new(Mutex::new(tracker)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, RequestTracker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> ClientStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(stream: S, tracker: SharedTracker, routing: Arc<Routing>) -> Self {
        let write_limit = routing.limits.body_timeout;
        Self {
            stream: write_timeout(stream, write_limit),
            tracker,
            ahead: BytesMut::new(),
            is_writing: false,
            held: None,
            replacement: Bytes::new(),
            routing,
        }
    }

    /// Answers a request whose head did not arrive in time, as far as the send buffer takes the
    /// answer at once. An idle connection ends silently.
    pub(super) async fn answer_late_head(mut self) {
        if !self.tracker.lock().is_in_head() {
            return;
        }
        let problem = Problem::new(
            Slug::RequestTimeout,
            "The request did not arrive in time. Nothing was sent; please try again.",
        );
        self.routing.unmatched.refused(problem.slug.as_str());
        let answer = message(&problem.retry_after(Duration::from_secs(1)).close());
        poll_fn(|context| {
            // One attempt: a client that did not send its head is not waited for a second time.
            if self.stream.as_mut().poll_write(context, &answer).is_ready() {
                let _ = self.stream.as_mut().poll_flush(context);
            }
            Poll::Ready(())
        })
        .await;
    }

    /// True when `head` is hyper's own answer; its replacement is then written at the next flush.
    fn is_replaced(&mut self, head: &[u8]) -> bool {
        let tracker = self.tracker.lock();
        let is_own = self.replacement.is_empty() && tracker.is_in_head();
        let in_request_line = tracker.is_in_request_line();
        drop(tracker);
        if is_own {
            let problem = replacement(head, in_request_line);
            self.routing.unmatched.refused(problem.slug.as_str());
            self.replacement = message(&problem);
        }
        is_own
    }

    /// Holds a read that would begin a request while the answer before it is not written: hyper
    /// could otherwise put its own answer right behind that one, in a single write.
    fn hold(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        self.held = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_replacement(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.replacement.is_empty() {
            let written = ready!(self.stream.as_mut().poll_write(context, &self.replacement))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.replacement.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> AsyncRead for ClientStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut tracker = this.tracker.lock();
        if tracker.is_between() {
            if this.is_writing {
                drop(tracker);
                return this.hold(context);
            }
            tracker.wait();
        }
        let before = buffer.filled().len();
        if this.ahead.is_empty() {
            ready!(small_reads::poll_read(this.stream.as_mut(), context, buffer))?;
            let read = &buffer.filled()[before..];
            let passed = tracker.pass(read);
            if passed == read.len() {
                return Poll::Ready(Ok(()));
            }
            this.ahead = tracker.escaped(&read[passed..]).unwrap_or_else(|| read[passed..].into());
            buffer.set_filled(before + passed);
        }
        // Nothing passes where the very first byte had to be escaped; no byte at all would mean the
        // end of the stream to hyper.
        if buffer.filled().len() == before {
            let most = this.ahead.len().min(buffer.remaining());
            let passed = tracker.pass(&this.ahead[..most]);
            buffer.put_slice(&this.ahead.split_to(passed));
            if let Some(escaped) = tracker.escaped(&this.ahead) {
                this.ahead = escaped;
            } else if this.ahead.is_empty() {
                // The memory of the largest read would stay with an idle connection.
                this.ahead = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> AsyncWrite for ClientStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_replacement(context))?;
        self.is_writing = true;
        if self.is_replaced(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.stream.as_mut().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_replacement(context))?;
        self.is_writing = true;
        if slices.first().is_some_and(|head| self.is_replaced(head)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        coalesce::poll_write(self.stream.as_mut(), context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(context))?;
        ready!(self.stream.as_mut().poll_flush(context))?;
        self.is_writing = false;
        if let Some(held) = self.held.take() {
            held.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(context))?;
        self.stream.as_mut().poll_shutdown(context)
    }
}

/// The problem in place of hyper's own answer to a head that it cannot parse. `in_request_line`: a
/// head that is too large is so because of its target (RFC 9112 section 3).
fn replacement(bytes: &[u8], in_request_line: bool) -> Problem {
    let (slug, detail) = match (bytes.get(9..12), in_request_line) {
        (Some(b"414"), _) | (Some(b"431"), true) => {
            (Slug::UriTooLong, "The address is longer than what is accepted. Nothing was sent.")
        }
        (Some(b"431"), false) => (
            Slug::HeadTooLarge,
            "The request's headers are larger than what is accepted. Nothing was sent.",
        ),
        _ => (Slug::RequestInvalid, "The request is not well-formed HTTP. Nothing was sent."),
    };
    Problem::new(slug, detail).close()
}

/// A problem as an HTTP/1.1 message, for connections without an exchange that could send it.
pub(super) fn message(problem: &Problem) -> Bytes {
    let instance = crate::nonce::uuid();
    let occurrence = Occurrence { instance, request_id: Some(RequestId::new(None).header()) };
    let (head, body) = problem.render(Dialect::Problem, &occurrence);
    let (status, reason) = (head.status.as_u16(), problem.slug.title());
    let mut text = format!("HTTP/1.1 {status} {reason}\r\n").into_bytes();
    for (name, value) in &head.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    let date = crate::clock::now().to_http_date();
    text.extend_from_slice(
        format!("content-length: {}\r\ndate: {date}\r\n\r\n", body.len()).as_bytes(),
    );
    text.extend_from_slice(&body);
    Bytes::from(text)
}
