//! The stream of a client's HTTP/1.1 connection. Every answer of the gateway carries
//! `Idempotency-Error`, so this stream replaces the answer that hyper generates for a head it cannot
//! parse, and writes one for a head that does not arrive in time, where hyper writes nothing.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::coalesce;
use crate::net::write_timeout::{WriteTimeout, write_timeout};
use crate::problem::{Dialect, Problem, Slug};

/// A stream from a client, with a write time limit.
#[derive(Debug)]
pub(super) struct ClientStream<S> {
    stream: WriteTimeout<S>,
    /// Bytes arrived since the last write: a request has begun.
    begun: bool,
    /// Unwritten rest of the answer that replaces hyper's.
    replacement: Bytes,
}

impl<S> ClientStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(stream: S, write_limit: Duration) -> Self {
        let stream = write_timeout(stream, write_limit);
        Self { stream, begun: false, replacement: Bytes::new() }
    }

    /// Answers a request whose head did not arrive in time, as far as the send buffer takes the
    /// answer at once. An idle connection ends silently.
    pub(super) async fn answer_late_head(mut self) {
        if !self.begun {
            return;
        }
        let problem = Problem::new(
            Slug::RequestTimeout,
            "The request did not arrive in time. Nothing was sent; please try again.",
        );
        let answer = message(&problem.close());
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
        let problem = replacement(head);
        if let Some(problem) = &problem {
            self.replacement = message(problem);
        }
        problem.is_some()
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
        let before = buffer.filled().len();
        let result = self.stream.as_mut().poll_read(context, buffer);
        self.begun |= buffer.filled().len() > before;
        result
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
        self.begun = false;
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
        self.begun = false;
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
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(context))?;
        self.stream.as_mut().poll_shutdown(context)
    }
}

/// The problem in place of an answer that hyper generates when a head cannot be parsed: an empty
/// answer with status 400, 414 or 431.
fn replacement(bytes: &[u8]) -> Option<Problem> {
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

/// True for a head with the three headers of hyper's own answers and nothing else. Answers of the
/// gateway and of a backend have more, and bytes that look like a head may be a piece of a body.
fn is_bare(bytes: &[u8]) -> bool {
    const LINES: [&str; 3] = ["connection: close", "content-length: 0", "date: "];
    let head = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix("\r\n\r\n"));
    head.is_some_and(|head| {
        head.split("\r\n").skip(1).all(|line| LINES.iter().any(|known| line.starts_with(known)))
    })
}

/// A problem as an HTTP/1.1 message, for connections without an exchange that could send it.
pub(super) fn message(problem: &Problem) -> Bytes {
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
