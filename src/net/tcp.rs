//! A client's TCP stream, and a watch over its socket.
//!
//! A server waiting for a backend reads nothing from its client, and so would not notice a reset by
//! the client. The watch reports a reset without reading: early data and an orderly half-close of
//! the client are left untouched.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A TCP stream in both directions.
#[derive(Debug)]
pub(crate) struct WatchedStream(
    /// The reading half avoids a needless system call; writing uses the same socket.
    OwnedReadHalf,
);

/// A watch over the socket of a [`WatchedStream`].
#[derive(Debug)]
pub(crate) struct SocketWatch(Option<OwnedWriteHalf>);

/// Splits `stream` into the bytes and the watch.
pub(crate) fn watched(stream: TcpStream) -> (WatchedStream, SocketWatch) {
    let (read, write) = stream.into_split();
    (WatchedStream(read), SocketWatch(Some(write)))
}

impl SocketWatch {
    /// Waits until the connection has failed: a reset, or a peer that no longer answers.
    pub(crate) async fn failed(&self) {
        match &self.0 {
            Some(socket) => drop(socket.as_ref().ready(Interest::ERROR).await),
            None => pending().await,
        }
    }

    /// Chooses between a reset and an orderly end at the closing of the socket, even if closed by
    /// the system at the death of the process.
    pub(crate) fn reset_on_close(&self, reset: bool) {
        if let Some(socket) = &self.0 {
            // A closed socket accepts no option and needs none.
            let _ = set_socket_linger(socket.as_ref(), reset.then_some(Duration::ZERO));
        }
    }
}

impl Drop for SocketWatch {
    /// Leaves the end of the connection to the stream: the drop of a half alone would send a FIN.
    fn drop(&mut self) {
        if let Some(socket) = self.0.take() {
            socket.forget();
        }
    }
}

impl WatchedStream {
    fn poll_try(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let socket = self.0.as_ref();
        loop {
            ready!(socket.poll_write_ready(context))?;
            match write(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
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
        let ended = rustix::net::shutdown(self.0.as_ref(), rustix::net::Shutdown::Write);
        Poll::Ready(ended.map_err(io::Error::from))
    }
}
