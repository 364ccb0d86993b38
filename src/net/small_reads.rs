//! Reads of a bounded size where memory is scarce.
//!
//! A connection's buffer grows with what a single read returns, up to the largest head, and stays
//! that large until the connection ends. A hundred connections that carried large bodies would hold
//! more than the bodies.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::machine;

/// Bytes of a read: fewer than the smallest buffer of a connection, 8 KiB, which grows when a read
/// fills it.
const PIECE: usize = (8 << 10) - 1;

/// Reads from `stream`, at most [`PIECE`] bytes where memory is scarce.
pub(crate) fn poll_read<S>(
    stream: Pin<&mut S>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>>
where
    S: AsyncRead + ?Sized,
{
    match machine::is_scarce() {
        true => poll_piece(stream, context, buffer),
        false => stream.poll_read(context, buffer),
    }
}

fn poll_piece<S>(
    stream: Pin<&mut S>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>>
where
    S: AsyncRead + ?Sized,
{
    let most = buffer.remaining().min(PIECE);
    let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(most));
    let polled = stream.poll_read(context, &mut piece);
    let read = piece.filled().len();
    buffer.advance(read);
    polled
}

/// A stream that is read by [`poll_read`].
#[derive(Debug)]
pub(crate) struct SmallReads<S>(pub(crate) S);

impl<S: AsyncRead + Unpin> AsyncRead for SmallReads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        poll_read(Pin::new(&mut self.0), context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SmallReads<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_piece_is_smaller_than_the_buffer_and_nothing_is_lost() {
        let bytes: Vec<u8> = (0..20_000_u32).map(|number| number as u8).collect();
        let (mut source, mut read) = (&bytes[..], Vec::new());
        loop {
            let mut space = vec![0; 16 << 10];
            let mut buffer = ReadBuf::new(&mut space);
            poll_fn(|context| poll_piece(Pin::new(&mut source), context, &mut buffer))
                .await
                .unwrap();
            let piece = buffer.filled();
            assert!(piece.len() <= PIECE);
            if piece.is_empty() {
                break;
            }
            read.extend_from_slice(piece);
        }
        assert_eq!(read, bytes);
    }
}
