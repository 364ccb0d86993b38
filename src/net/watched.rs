//! A client's stream, and a watch over its socket.
//!
//! A server waiting for a backend reads nothing from its client, and so would not notice a reset by
//! the client. The watch reports a reset without reading: early data and an orderly half-close of
//! the client are left untouched.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{tcp, unix};

use super::stream::SocketStream;

/// A client's stream in both directions.
#[derive(Debug)]
pub(crate) struct WatchedStream {
    /// The reading half avoids a needless system call; writing uses the same socket.
    socket: ReadHalf,
    /// Bytes that were read from the socket and belong to the stream.
    ahead: Bytes,
}

#[derive(Debug)]
enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

#[derive(Debug)]
enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

/// A watch over the socket of a [`WatchedStream`].
#[derive(Debug)]
pub(crate) struct SocketWatch(Option<WriteHalf>);

/// Splits `stream` into the bytes and the watch.
pub(crate) fn watched(stream: SocketStream) -> (WatchedStream, SocketWatch) {
    let (socket, write) = match stream {
        SocketStream::Tcp(stream) => {
            let (read, write) = stream.into_split();
            (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
        }
        SocketStream::Unix(stream) => {
            let (read, write) = stream.into_split();
            (ReadHalf::Unix(read), WriteHalf::Unix(write))
        }
    };
    (WatchedStream { socket, ahead: Bytes::new() }, SocketWatch(Some(write)))
}

impl SocketWatch {
    /// Waits until the connection has failed: a reset, or a peer that no longer answers.
    pub(crate) async fn failed(&self) {
        match &self.0 {
            Some(WriteHalf::Tcp(socket)) => drop(socket.as_ref().ready(Interest::ERROR).await),
            Some(WriteHalf::Unix(socket)) => drop(socket.as_ref().ready(Interest::ERROR).await),
            None => pending().await,
        }
    }

    /// Chooses between a reset and an orderly end at the closing of the socket, even if closed by
    /// the system at the death of the process. A Unix socket knows no reset.
    pub(crate) fn reset_on_close(&self, reset: bool) {
        if let Some(WriteHalf::Tcp(socket)) = &self.0 {
            // A closed socket accepts no option and needs none.
            let _ = set_socket_linger(socket.as_ref(), reset.then_some(Duration::ZERO));
        }
    }
}

impl Drop for SocketWatch {
    /// Leaves the end of the connection to the stream: the drop of a half alone would send a FIN.
    fn drop(&mut self) {
        match self.0.take() {
            Some(WriteHalf::Tcp(socket)) => socket.forget(),
            Some(WriteHalf::Unix(socket)) => socket.forget(),
            None => {}
        }
    }
}

impl WatchedStream {
    /// Puts bytes back that were read beyond the end of what they were read for.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.ahead.is_empty(), "bytes are put back once");
        self.ahead = bytes;
    }

    fn poll_try(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&ReadHalf) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(context))?;
            match write(&self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl ReadHalf {
    fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.as_ref().poll_write_ready(context),
            Self::Unix(socket) => socket.as_ref().poll_write_ready(context),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.as_ref().try_write(bytes),
            Self::Unix(socket) => socket.as_ref().try_write(bytes),
        }
    }

    fn try_write_vectored(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.as_ref().try_write_vectored(slices),
            Self::Unix(socket) => socket.as_ref().try_write_vectored(slices),
        }
    }
}

impl AsFd for ReadHalf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_ref().as_fd(),
            Self::Unix(socket) => socket.as_ref().as_fd(),
        }
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..count]);
            self.ahead.advance(count);
            return Poll::Ready(Ok(()));
        }
        match &mut self.socket {
            ReadHalf::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            ReadHalf::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(context, |socket| socket.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(context, |socket| socket.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        Poll::Ready(ended.map_err(io::Error::from))
    }
}
