//! A client's connection as hyper sees it, with the two answers hyper would give without our
//! headers, or not at all: a head it cannot parse, and a head that does not arrive in time. And with
//! patience for a client that takes nothing of its answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::net::coalesce;
use crate::net::write_timeout::Patience;
use crate::problem::{Dialect, Problem, Slug};

/// A connection from a client.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: TcpStream,
    /// Set when hyper gave up waiting for a head.
    timed_out: Arc<AtomicBool>,
    /// Bytes came in since the last ones went out: a request has begun.
    begun: bool,
    /// Our answer in place of hyper's, as far as it is not written yet.
    ours: Bytes,
    patience: Patience,
}

impl ClientIo {
    pub(super) fn new(stream: TcpStream, timed_out: Arc<AtomicBool>, patience: Duration) -> Self {
        let patience = Patience::new(patience);
        Self { stream, timed_out, begun: false, ours: Bytes::new(), patience }
    }

    /// What a write came to, or an error when the client has taken nothing for too long.
    fn patiently<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(&mut Self, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(self, context);
        self.patience.poll(context, written)
    }

    /// Whether `head` is hyper's own answer; ours is then written at the next flush.
    fn replaced(&mut self, head: &[u8]) -> bool {
        let problem = hypers_own(head);
        if let Some(problem) = &problem {
            self.ours = written_out(problem);
        }
        problem.is_some()
    }

    fn poll_ours(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ours.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.ours))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ours.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.begun |= buffer.filled().len() > before;
        result
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.patiently(context, |io, context| {
            ready!(io.poll_ours(context))?;
            io.begun = false;
            if io.replaced(bytes) {
                return Poll::Ready(Ok(bytes.len()));
            }
            Pin::new(&mut io.stream).poll_write(context, bytes)
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.patiently(context, |io, context| {
            ready!(io.poll_ours(context))?;
            io.begun = false;
            if slices.first().is_some_and(|head| io.replaced(head)) {
                return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
            }
            coalesce::poll_write(&mut io.stream, context, slices)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.patiently(context, |io, context| {
            ready!(io.poll_ours(context))?;
            Pin::new(&mut io.stream).poll_flush(context)
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.patiently(context, |io, context| {
            ready!(io.poll_ours(context))?;
            Pin::new(&mut io.stream).poll_shutdown(context)
        })
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        // An idle connection ends in silence; one whose head stalled is told why, as far as its
        // buffer takes it at once.
        if self.begun && self.timed_out.load(Ordering::Acquire) {
            let problem = Problem::new(
                Slug::RequestTimeout,
                "The request did not arrive in time. Nothing was sent; please try again.",
            );
            let _ = self.stream.try_write(&written_out(&problem.close()));
        }
    }
}

/// The problem for an answer that hyper makes by itself when it cannot parse a head: an empty one
/// with status 400, 414 or 431.
fn hypers_own(bytes: &[u8]) -> Option<Problem> {
    let slug = match bytes.get(..12)? {
        b"HTTP/1.1 400" | b"HTTP/1.0 400" => Slug::RequestInvalid,
        b"HTTP/1.1 414" | b"HTTP/1.0 414" => Slug::UriTooLong,
        b"HTTP/1.1 431" | b"HTTP/1.0 431" => Slug::HeadTooLarge,
        _ => return None,
    };
    if !is_bare(bytes) {
        return None;
    }
    let detail = match slug {
        Slug::UriTooLong => "The address is longer than what is accepted. Nothing was sent.",
        Slug::HeadTooLarge => {
            "The request's headers are larger than what is accepted. Nothing was sent."
        }
        _ => "The request is not well-formed HTTP. Nothing was sent.",
    };
    Some(Problem::new(slug, detail).close())
}

/// Whether these bytes are a head with the three headers of hyper's own answers and nothing else.
/// Answers of ours and of a backend have more, and what looks like a head may be a piece of a body.
fn is_bare(bytes: &[u8]) -> bool {
    const LINES: [&str; 3] = ["connection: close", "content-length: 0", "date: "];
    let head = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix("\r\n\r\n"));
    head.is_some_and(|head| {
        head.split("\r\n").skip(1).all(|line| LINES.iter().any(|known| line.starts_with(known)))
    })
}

/// A problem as bytes for the wire, where no exchange can send it.
pub(super) fn written_out(problem: &Problem) -> Bytes {
    let (head, body) = problem.render(Dialect::Problem, uuid::Uuid::new_v4());
    let mut text = format!(
        "HTTP/1.1 {} {}\r\n",
        head.status.as_u16(),
        head.status.canonical_reason().unwrap_or_default()
    )
    .into_bytes();
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
