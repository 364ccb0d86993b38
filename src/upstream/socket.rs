//! A connection with a check for the peer's end before the next write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::coalesce;
use crate::net::stream::SocketStream;

/// A connection. Between the announcement of a request and its first byte, an empty read asks
/// the kernel instead of the runtime's cached readiness.
///
/// The reason: hyper reads an idle connection once more before taking the next request from its
/// queue. The runtime learns of a FIN or RST only at its next poll of the system, late on a busy
/// worker; without the check a request would be written to a connection with its end already
/// received, and its outcome would be unknown. With the check, hyper closes the connection and
/// hands the request back, for the price of a system call per request. An end still in transit
/// while the request leaves cannot be seen: the outcome of such a request stays unknown.
#[derive(Debug)]
pub(super) struct Socket {
    stream: SocketStream,
    announced: Announcement,
}

/// The announcement of a request with its first byte still unwritten. Shared by the sender, for the
/// announcement before the request enters the connection's queue, and the socket.
#[derive(Debug, Clone)]
pub(super) struct Announcement(Arc<AtomicBool>);

impl Announcement {
    /// Marks a request as entering the queue.
    pub(super) fn announce(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Marks the request as being written.
    fn written(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_due(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Socket {
    pub(super) fn new(stream: SocketStream) -> (Self, Announcement) {
        let announced = Announcement(Arc::new(AtomicBool::new(false)));
        (Self { stream, announced: announced.clone() }, announced)
    }

    /// Reads from the kernel, past the runtime's cached readiness.
    fn ask(&self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut byte = [0u8; 1];
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&self.stream, &mut byte[..], peek) {
            Ok((0, _)) => Poll::Ready(Ok(())),
            Ok(_) => {
                let unfilled = buf.initialize_unfilled();
                match rustix::net::recv(&self.stream, unfilled, RecvFlags::DONTWAIT) {
                    Ok((read, _)) => {
                        buf.advance(read);
                        Poll::Ready(Ok(()))
                    }
                    Err(error) => nothing_yet(error),
                }
            }
            Err(error) => nothing_yet(error),
        }
    }
}

/// Pending without data to read; the runtime's own read has already registered for a wakeup.
fn nothing_yet(error: Errno) -> Poll<io::Result<()>> {
    match error {
        Errno::AGAIN | Errno::INTR => Poll::Pending,
        error => Poll::Ready(Err(error.into())),
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if read.is_pending() && this.announced.is_due() { this.ask(buf) } else { read }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.announced.written();
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.announced.written();
        coalesce::poll_write(Pin::new(&mut this.stream), cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
