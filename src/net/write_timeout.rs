//! Write time limits. hyper has none: a client not reading its answer would hold its connection,
//! and through the answer memory and a backend, forever.

use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_io_timeout::TimeoutWriter;

/// A stream with a write time limit.
pub(crate) type WriteTimeout<S> = Pin<Box<TimeoutWriter<S>>>;

/// Limits every write, flush and shutdown of `stream` that cannot proceed at once. The time counts
/// from the first blocked attempt, so unblocked writes never touch a timer.
pub(crate) fn write_timeout<S>(stream: S, limit: Duration) -> WriteTimeout<S>
where
    S: AsyncRead + AsyncWrite,
{
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(limit));
    Box::pin(stream)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_write_that_waits_too_long_fails() {
        let limit = Duration::from_millis(40);
        let (sender, _receiver) = duplex(4);
        let mut sender = write_timeout(sender, limit);
        sender.write_all(b"1234").await.unwrap();
        let started = Instant::now();
        let error = sender.write_all(b"5").await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= limit);
    }

    #[tokio::test]
    async fn the_time_of_a_write_that_waited_does_not_count_for_the_next() {
        let limit = Duration::from_millis(400);
        let (sender, mut receiver) = duplex(1);
        let mut sender = write_timeout(sender, limit);
        let reading = async {
            let mut read = [0];
            for _ in 0..5 {
                tokio::time::sleep(limit / 4).await;
                receiver.read_exact(&mut read).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(sender.write_all(b"12345"), reading);
        written.unwrap();
    }
}
