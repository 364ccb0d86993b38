//! Streamed bodies within limits of time and size.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::BodyError;

/// A streamed body that breaks off when no frame arrived for `idle`, or beyond a size limit.
/// Trailers are dropped.
#[derive(Debug)]
pub(crate) struct Bounded<B> {
    inner: B,
    idle: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    upload: Option<Upload>,
}

#[derive(Debug)]
struct Upload {
    /// Bytes left until the size limit, if there is one.
    left: Option<u64>,
    /// Headers that must not arrive as trailers.
    forbidden_trailers: Vec<HeaderName>,
    watch: UploadWatch,
    /// Told the number of bytes of each frame.
    counter: Option<UploadCounter>,
}

/// Counts the bytes of an upload.
#[derive(Clone)]
pub(crate) struct UploadCounter(Arc<dyn Fn(u64) + Send + Sync>);

impl UploadCounter {
    pub(crate) fn new(count: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(count))
    }
}

impl std::fmt::Debug for UploadCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UploadCounter")
    }
}

/// Shows what has become of a client's body while it is being streamed. A backend's error that
/// follows from a broken upload can then be told from the backend's own.
#[derive(Debug, Clone, Default)]
pub(crate) struct UploadWatch(Arc<AtomicU8>);

/// Reason for a client's body that did not reach its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadFault {
    /// The size limit is exceeded.
    TooLarge,
    /// The connection or the framing broke off.
    Broken,
    /// No byte arrived for too long.
    Stalled,
    /// The next bytes are still waited for.
    Waiting,
    /// A forbidden trailer arrived.
    ForbiddenTrailer,
}

const FLOWING: u8 = 0;
const TOO_LARGE: u8 = 1;
const BROKEN: u8 = 2;
const STALLED: u8 = 3;
const WAITING: u8 = 4;
const FORBIDDEN_TRAILER: u8 = 5;

impl UploadWatch {
    /// The state in which the body was last seen; `None`: nothing is wrong with it.
    pub(crate) fn fault(&self) -> Option<UploadFault> {
        match self.0.load(Ordering::Acquire) {
            TOO_LARGE => Some(UploadFault::TooLarge),
            BROKEN => Some(UploadFault::Broken),
            STALLED => Some(UploadFault::Stalled),
            WAITING => Some(UploadFault::Waiting),
            FORBIDDEN_TRAILER => Some(UploadFault::ForbiddenTrailer),
            _ => None,
        }
    }

    fn set(&self, state: u8) {
        self.0.store(state, Ordering::Release);
    }
}

impl<B> Bounded<B> {
    /// A body that breaks off after `idle` without a frame.
    pub(crate) fn new(inner: B, idle: Duration) -> Self {
        Self { inner, idle, stalled: None, upload: None }
    }

    /// Adds a watch, and a size limit of `most` bytes, if any.
    pub(crate) fn watched(mut self, most: Option<u64>) -> (Self, UploadWatch) {
        let watch = UploadWatch::default();
        self.upload = Some(Upload {
            left: most,
            forbidden_trailers: Vec::new(),
            watch: watch.clone(),
            counter: None,
        });
        (self, watch)
    }

    /// Breaks a watched body off when one of these headers arrives as a trailer.
    pub(crate) fn forbidding(mut self, trailers: &[HeaderName]) -> Self {
        if let Some(upload) = &mut self.upload {
            upload.forbidden_trailers = trailers.to_vec();
        }
        self
    }

    /// Counts the bytes of a watched body.
    pub(crate) fn counted(mut self, counter: Option<UploadCounter>) -> Self {
        if let Some(upload) = &mut self.upload {
            upload.counter = counter;
        }
        self
    }

    fn note(&self, state: u8) {
        if let Some(upload) = &self.upload {
            upload.watch.set(state);
        }
    }

    fn refused(&self, trailers: &HeaderMap) -> Option<BodyError> {
        let forbidden = self.upload.as_ref().map(|upload| &upload.forbidden_trailers);
        let is_there =
            forbidden.is_some_and(|names| names.iter().any(|it| trailers.contains_key(it)));
        is_there.then(|| {
            self.note(FORBIDDEN_TRAILER);
            "a header that may not be a trailer arrived as one".into()
        })
    }

    fn count(&mut self, data: Bytes) -> Result<Frame<Bytes>, BodyError> {
        if let Some(Upload { counter: Some(counter), .. }) = &self.upload {
            counter.0(data.len() as u64);
        }
        if let Some(Upload { left: Some(left), .. }) = &mut self.upload {
            match left.checked_sub(data.len() as u64) {
                Some(less) => *left = less,
                None => {
                    self.note(TOO_LARGE);
                    return Err("the body is over the route's limit".into());
                }
            }
        }
        Ok(Frame::data(data))
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
            self.note(if matches!(frame, Some(Err(_))) { BROKEN } else { FLOWING });
            return Poll::Ready(match frame {
                None => None,
                Some(Err(error)) => Some(Err(error.into())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(self.count(data)),
                    Err(other) => other.trailers_ref().and_then(|it| self.refused(it)).map(Err),
                },
            });
        }
        self.note(WAITING);
        let idle = self.idle;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + idle)));
        ready!(stalled.as_mut().poll(context));
        self.note(STALLED);
        Poll::Ready(Some(Err("the body stalled for too long".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
