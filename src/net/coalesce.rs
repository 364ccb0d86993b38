//! Head and body of a small message in one write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Largest message, in bytes, to be copied into a single buffer. Copying costs less than handing
/// the kernel a list (9.6 → 9.3 and 19.0 → 18.4 µs for an exchange), and most messages are smaller.
const SMALL: usize = 2048;

/// Writes the pieces in their order, as far as the stream accepts them.
pub(crate) fn poll_write<S: AsyncWrite>(
    stream: Pin<&mut S>,
    context: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let [first, rest @ ..] = pieces else { return Poll::Ready(Ok(0)) };
    if rest.is_empty() {
        return stream.poll_write(context, first);
    }
    let mut whole = [0; SMALL];
    let mut length = 0;
    for piece in pieces {
        match whole.get_mut(length..length + piece.len()) {
            Some(place) => place.copy_from_slice(piece),
            None => return stream.poll_write_vectored(context, pieces),
        }
        length += piece.len();
    }
    stream.poll_write(context, &whole[..length])
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Writes all pieces; returns the expected and the received bytes.
    async fn arrived(lengths: &[usize]) -> (Vec<u8>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sender, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut sender, mut receiver) = (sender.unwrap(), accepted.unwrap().0);
        let mut next = 0_u8;
        let mut piece = |length: &usize| -> Vec<u8> {
            let bytes = std::iter::repeat_with(|| {
                next = next.wrapping_add(7);
                next
            });
            bytes.take(*length).collect()
        };
        let pieces: Vec<Vec<u8>> = lengths.iter().map(&mut piece).collect();
        let expected = pieces.concat();
        let writing = async {
            let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|it| IoSlice::new(it)).collect();
            let mut left = &mut slices[..];
            IoSlice::advance_slices(&mut left, 0);
            while !left.is_empty() {
                let written =
                    poll_fn(|context| poll_write(Pin::new(&mut sender), context, left)).await;
                let written = written.unwrap();
                assert!(written > 0);
                IoSlice::advance_slices(&mut left, written);
            }
            drop(sender);
        };
        let mut found = Vec::new();
        let reading = async { receiver.read_to_end(&mut found).await.unwrap() };
        tokio::join!(writing, reading);
        (expected, found)
    }

    #[tokio::test]
    async fn all_of_it_arrives_in_its_order_whatever_its_size() {
        let edge = [SMALL - 100, 99, 1];
        let cases: [&[usize]; 8] = [
            &[],
            &[1],
            &[200, 100],
            &[200, 0, 100],
            &edge,
            &[SMALL, 1],
            &[300, 5 << 20],
            &[3 << 20, 10, 2 << 20],
        ];
        for lengths in cases {
            let (expected, found) = arrived(lengths).await;
            assert!(expected == found, "{lengths:?}: {} of {}", found.len(), expected.len());
        }
    }
}
