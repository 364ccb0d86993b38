//! Reading a whole request body within limits of size, memory and time.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

/// Memory, in bytes, below which a buffer may be larger than its contents without being counted.
const SLACK: u64 = 4 << 10;

/// Limits of one read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadLimits<'a> {
    /// Size of the largest accepted body, in bytes.
    pub(crate) size: u64,
    /// Time for the whole body.
    pub(crate) time: Duration,
    /// Headers that must not arrive as trailers.
    pub(crate) forbidden_trailers: &'a [HeaderName],
}

/// Reason for a body that was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The size limit is exceeded, by the body or by its `Content-Length`.
    TooLarge,
    /// The reservation of memory was refused.
    OutOfMemory,
    /// The body broke off before its end.
    CutShort,
    /// The time limit ran out.
    TooSlow,
    /// A forbidden trailer arrived.
    ForbiddenTrailer,
}

/// Reads `body` to its end. `reserve` is asked for memory before bytes are kept, at once for a
/// declared length, and for all the memory that is held, not only for its bytes in use.
///
/// # Errors
/// The limit that was exceeded, or the body's own failure.
pub(crate) async fn read<B>(
    mut body: B,
    limits: ReadLimits<'_>,
    mut reserve: impl FnMut(u64) -> bool,
) -> Result<Bytes, ReadError>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let declared = body.size_hint().lower();
    if declared > limits.size {
        return Err(ReadError::TooLarge);
    }
    if !reserve(declared) {
        return Err(ReadError::OutOfMemory);
    }
    let mut reading = pin!(collect(&mut body, limits, declared, &mut reserve));
    // Most bodies arrive with their head and need no timer.
    match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
        Poll::Ready(bytes) => bytes,
        Poll::Pending => timeout(limits.time, reading).await.map_err(|_| ReadError::TooSlow)?,
    }
}

async fn collect<B>(
    body: &mut B,
    limits: ReadLimits<'_>,
    mut reserved: u64,
    reserve: &mut impl FnMut(u64) -> bool,
) -> Result<Bytes, ReadError>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut only = Bytes::new();
    let mut read = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let data = match frame.map_err(|_| ReadError::CutShort)?.into_data() {
            Ok(data) => data,
            Err(other) => {
                let is_there = |trailers: &HeaderMap| {
                    limits.forbidden_trailers.iter().any(|name| trailers.contains_key(name))
                };
                if other.trailers_ref().is_some_and(is_there) {
                    return Err(ReadError::ForbiddenTrailer);
                }
                continue;
            }
        };
        length += data.len() as u64;
        if length > limits.size {
            return Err(ReadError::TooLarge);
        }
        if length > reserved {
            if !reserve(length - reserved) {
                return Err(ReadError::OutOfMemory);
            }
            reserved = length;
        }
        if only.is_empty() && read.is_empty() {
            // Most bodies arrive in a single piece, without a copy.
            only = data;
            continue;
        }
        let kept = usize::try_from(reserved).unwrap_or(0);
        read.reserve(kept.saturating_sub(read.len()));
        read.extend_from_slice(&std::mem::take(&mut only));
        read.extend_from_slice(&data);
        let held = read.capacity() as u64;
        if held > reserved.max(SLACK) {
            if !reserve(held - reserved) {
                return Err(ReadError::OutOfMemory);
            }
            reserved = held;
        }
    }
    Ok(if read.is_empty() { only } else { read.freeze() })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use http_body::Frame;

    use super::*;

    const KEY: HeaderName = HeaderName::from_static("idempotency-key");

    /// A body of these frames; with `open`, its end never comes.
    fn body(
        frames: Vec<Frame<Bytes>>,
        open: bool,
    ) -> impl HttpBody<Data = Bytes, Error = &'static str> + Unpin {
        struct Frames(std::vec::IntoIter<Frame<Bytes>>, bool);
        impl HttpBody for Frames {
            type Data = Bytes;
            type Error = &'static str;
            fn poll_frame(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
                match self.0.next() {
                    Some(frame) => Poll::Ready(Some(Ok(frame))),
                    None if self.1 => Poll::Pending,
                    None => Poll::Ready(None),
                }
            }
        }
        Frames(frames.into_iter(), open)
    }

    fn data(text: &'static str) -> Frame<Bytes> {
        Frame::data(Bytes::from_static(text.as_bytes()))
    }

    async fn check(
        frames: Vec<Frame<Bytes>>,
        memory: u64,
        expected: Result<&'static str, ReadError>,
    ) {
        let limits =
            ReadLimits { size: 6, time: Duration::from_secs(60), forbidden_trailers: &[KEY] };
        let mut left = memory;
        let reserve = |bytes| left.checked_sub(bytes).map(|rest| left = rest).is_some();
        let found = read(body(frames, false), limits, reserve).await;
        assert_eq!(found, expected.map(|text| Bytes::from_static(text.as_bytes())));
    }

    #[tokio::test]
    async fn a_body_is_read_whole_or_the_exceeded_limit_is_named() {
        let trailers = |name: &'static str| {
            Frame::trailers(HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_static("1"),
            )]))
        };
        check(vec![], 9, Ok("")).await;
        check(vec![data("abc")], 9, Ok("abc")).await;
        check(vec![data("abc"), data(""), data("def")], 6, Ok("abcdef")).await;
        check(vec![data("abc"), data("defg")], 9, Err(ReadError::TooLarge)).await;
        check(vec![data("abc"), data("def")], 5, Err(ReadError::OutOfMemory)).await;
        check(vec![data("abc"), trailers("digest")], 9, Ok("abc")).await;
        let key = trailers("idempotency-key");
        check(vec![data("abc"), key], 9, Err(ReadError::ForbiddenTrailer)).await;
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_given_up() {
        let time = Duration::from_millis(20);
        let limits = ReadLimits { size: 6, time, forbidden_trailers: &[] };
        let found = read(body(vec![data("abc")], true), limits, |_| true).await;
        assert_eq!(found, Err(ReadError::TooSlow));
    }
}
