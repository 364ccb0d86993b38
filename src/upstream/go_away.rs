//! Notices the announcement by which a backend ends an HTTP/2 connection.
//!
//! The library takes further requests after it and never sends them, so the pool has to know.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::http2_frames::{FrameReader, FrameStep, kind};

/// Set once the backend has announced the end of the connection.
#[derive(Debug, Clone, Default)]
pub(super) struct EndAnnounced(Arc<AtomicBool>);

impl EndAnnounced {
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A stream from a backend that is followed frame by frame.
#[derive(Debug)]
pub(super) struct FollowedStream<S> {
    stream: S,
    frames: FrameReader,
    ended: EndAnnounced,
}

impl<S> FollowedStream<S> {
    pub(super) fn new(stream: S, ended: EndAnnounced) -> Self {
        Self { stream, frames: FrameReader::default(), ended }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FollowedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let ended = &this.ended;
        this.frames.pass(&buffer.filled()[before..], |step| {
            if matches!(step, FrameStep::Head(head) if head.kind == kind::GOAWAY) {
                ended.0.store(true, Ordering::Release);
            }
        });
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FollowedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
