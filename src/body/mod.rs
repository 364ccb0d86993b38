//! The body type of responses and upstream requests, the kinds of bodies behind the type, and
//! bounded reading of whole bodies (`read`).

mod bounded;
mod read;

pub(crate) use self::bounded::{Bounded, UploadCounter, UploadFault};
pub(crate) use self::read::{ReadError, ReadLimits, read};

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

/// Reason for a body that broke off. The text goes to the log, never to a client.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body of any origin. A complete body, the most common kind, is not boxed.
#[derive(Debug)]
pub struct Body(BodyKind);

#[derive(Debug)]
enum BodyKind {
    /// The unread bytes; empty at the end. An `Option` would make a body larger than its bytes,
    /// and a message is moved often.
    Whole(Bytes),
    Streamed(UnsyncBoxBody<Bytes, BodyError>),
}

/// A complete body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Body(BodyKind::Whole(bytes.into()))
}

/// An empty body.
pub fn empty() -> Body {
    Body(BodyKind::Whole(Bytes::new()))
}

impl Body {
    /// A body arriving in pieces.
    pub fn streamed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Self(BodyKind::Streamed(body.boxed_unsync()))
    }

    /// The bytes of a complete body.
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        match &self.0 {
            BodyKind::Whole(bytes) => Some(bytes),
            BodyKind::Streamed(_) => None,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            BodyKind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            BodyKind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            BodyKind::Streamed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodyKind::Whole(bytes) => bytes.is_empty(),
            BodyKind::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodyKind::Whole(bytes) => SizeHint::with_exact(length(bytes)),
            BodyKind::Streamed(body) => body.size_hint(),
        }
    }
}

fn length(bytes: &Bytes) -> u64 {
    bytes.len() as u64
}

/// A complete body that owns a resource (a reservation of memory) until its bytes were sent. The
/// bytes themselves are the owner: a connection takes them from the body long before a slow client
/// has read them.
pub fn owning<T: Send + 'static>(bytes: Bytes, owned: T) -> Body {
    full(Bytes::from_owner(OwningBytes { bytes, _owned: owned }))
}

struct OwningBytes<T> {
    bytes: Bytes,
    _owned: T,
}

impl<T> AsRef<[u8]> for OwningBytes<T> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body with its start read before.
#[derive(Debug)]
pub struct Resumed<B> {
    read: Option<Bytes>,
    rest: B,
}

impl<B> Resumed<B> {
    /// The bytes `read` so far, then the `rest`.
    pub fn new(read: Bytes, rest: B) -> Self {
        Self { read: Some(read), rest }
    }
}

impl<B> HttpBody for Resumed<B>
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.read.take() {
            Some(read) => Poll::Ready(Some(Ok(Frame::data(read)))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.as_ref().map_or(0, length);
        let rest = self.rest.size_hint();
        let mut whole = SizeHint::new();
        whole.set_lower(rest.lower().saturating_add(read));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
            whole.set_upper(upper);
        }
        whole
    }
}
