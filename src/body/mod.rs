//! The body type of responses and upstream requests, the kinds of bodies behind the type, and
//! bounded reading of whole bodies ([`read`]).

mod read;

pub(crate) use self::read::{ReadError, ReadLimits, read};

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::{Instant, Sleep};

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
    /// A body arriving in pieces, or owning more than its bytes.
    pub fn streamed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        Self(BodyKind::Streamed(body.boxed_unsync()))
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

/// A complete body that owns a resource (a reservation of memory) until the body was sent.
#[derive(Debug)]
pub struct OwningBody<T> {
    bytes: Option<Bytes>,
    _owned: T,
}

impl<T> OwningBody<T> {
    /// A body of `bytes`; dropping the body drops `owned`.
    pub fn new(bytes: Bytes, owned: T) -> Self {
        Self { bytes: (!bytes.is_empty()).then_some(bytes), _owned: owned }
    }
}

impl<T: Unpin> HttpBody for OwningBody<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, length))
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

/// A streamed body that breaks off when no frame arrived for `idle`, or beyond a size limit.
/// Trailers are dropped.
#[derive(Debug)]
pub struct Bounded<B> {
    inner: B,
    idle: Duration,
    limit: Option<SizeLimit>,
    stalled: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct SizeLimit {
    /// Bytes left until the limit.
    left: u64,
    over: SizeExceeded,
}

/// A flag for a body that broke off because of its size.
#[derive(Debug, Clone, Default)]
pub struct SizeExceeded(Option<Arc<AtomicBool>>);

impl SizeExceeded {
    /// True after the body broke off because of its size.
    pub fn is_set(&self) -> bool {
        self.0.as_ref().is_some_and(|over| over.load(Ordering::Acquire))
    }

    fn set(&self) {
        if let Some(over) = &self.0 {
            over.store(true, Ordering::Release);
        }
    }
}

impl<B> Bounded<B> {
    /// A body that breaks off after `idle` without a frame.
    pub fn new(inner: B, idle: Duration) -> Self {
        Self { inner, idle, limit: None, stalled: None }
    }

    /// Adds a size limit of `most` bytes, if any.
    pub fn at_most(mut self, most: Option<u64>) -> (Self, SizeExceeded) {
        let Some(left) = most else { return (self, SizeExceeded(None)) };
        let over = SizeExceeded(Some(Arc::default()));
        self.limit = Some(SizeLimit { left, over: over.clone() });
        (self, over)
    }
}

impl<B> HttpBody for Bounded<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            self.stalled = None;
            return Poll::Ready(match frame {
                None => None,
                Some(Err(error)) => Some(Err(error.into())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(self.count(data)),
                    Err(_trailers) => None,
                },
            });
        }
        let idle = self.idle;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + idle)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Some(Err("the body stalled for too long".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Bounded<B> {
    fn count(&mut self, data: Bytes) -> Result<Frame<Bytes>, BodyError> {
        if let Some(limit) = &mut self.limit {
            match limit.left.checked_sub(data.len() as u64) {
                Some(less) => limit.left = less,
                None => {
                    limit.over.set();
                    return Err("the body is over the route's limit".into());
                }
            }
        }
        Ok(Frame::data(data))
    }
}
