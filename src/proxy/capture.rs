//! Copies of the bodies of a request that is passed through, taken while they stream. A copy that
//! grows too large, or finds no memory, is given up; the stream goes on.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;

use super::body_end::shows_its_end;
use super::budget::Reservation;
use super::collect::Collected;
use crate::body::{Body, BodyError};
use crate::idempotency::outcome::UnknownReason;

/// The copies of one exchange.
pub(crate) struct Capture {
    upload: UploadCapture,
    answer: AnswerCapture,
}

/// A copy of a request's body.
pub(crate) struct UploadCapture {
    copy: Copied,
    done: oneshot::Sender<CapturedUpload>,
}

/// A request's body at its end.
pub(crate) enum CapturedUpload {
    Whole(Bytes, Reservation),
    /// The body is larger than what is kept.
    TooLarge,
    /// The memory for bodies was used up.
    OutOfMemory,
}

/// A copy of a backend's answer.
pub(crate) struct AnswerCapture {
    copy: Copied,
    done: oneshot::Sender<CapturedEnd>,
}

/// The end of a call, as the client saw it.
pub(crate) enum CapturedEnd {
    /// Provably no byte of the request was written.
    NotSent,
    /// The request was written at least in part, without a complete answer.
    Lost(UnknownReason),
    /// A complete answer, without its body if that is too large to keep.
    Answered(Box<Collected>),
}

/// The bytes copied so far.
struct Copied {
    bytes: BytesMut,
    reservation: Reservation,
    most: u64,
    gave_up: Option<GaveUp>,
}

#[derive(Clone, Copy)]
enum GaveUp {
    TooLarge,
    OutOfMemory,
}

impl Copied {
    fn new(reservation: Reservation, most: u64) -> Self {
        Self { bytes: BytesMut::new(), reservation, most, gave_up: None }
    }

    fn push(&mut self, data: &[u8]) {
        if self.gave_up.is_some() {
            return;
        }
        let length = data.len() as u64;
        if self.bytes.len() as u64 + length > self.most {
            self.gave_up = Some(GaveUp::TooLarge);
        } else if !self.reservation.grow(length) {
            self.gave_up = Some(GaveUp::OutOfMemory);
        } else {
            self.bytes.extend_from_slice(data);
            return;
        }
        self.bytes = BytesMut::new();
    }
}

impl Capture {
    /// A capture of at most `most_upload` and `most_answer` bytes, and the receivers of both ends.
    /// A receiver whose sender is gone belongs to an exchange that broke off.
    pub(crate) fn new(
        (upload_memory, most_upload): (Reservation, u64),
        (answer_memory, most_answer): (Reservation, u64),
    ) -> (Self, oneshot::Receiver<CapturedUpload>, oneshot::Receiver<CapturedEnd>) {
        let (uploaded, upload_end) = oneshot::channel();
        let (answered, answer_end) = oneshot::channel();
        let upload =
            UploadCapture { copy: Copied::new(upload_memory, most_upload), done: uploaded };
        let answer =
            AnswerCapture { copy: Copied::new(answer_memory, most_answer), done: answered };
        (Self { upload, answer }, upload_end, answer_end)
    }

    pub(crate) fn split(self) -> (UploadCapture, AnswerCapture) {
        (self.upload, self.answer)
    }
}

impl UploadCapture {
    /// The body that passes the bytes of `body` on and copies them.
    pub(crate) fn copying<B>(self, body: B) -> Body
    where
        B: HttpBody<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
    {
        let Self { copy, done } = self;
        let finish = move |copy: Copied| {
            let end = match copy.gave_up {
                None => CapturedUpload::Whole(copy.bytes.freeze(), copy.reservation),
                Some(GaveUp::TooLarge) => CapturedUpload::TooLarge,
                Some(GaveUp::OutOfMemory) => CapturedUpload::OutOfMemory,
            };
            // A failed send means that nobody looks any more.
            let _ = done.send(end);
        };
        Tee::over(body, copy, Box::new(finish))
    }
}

impl AnswerCapture {
    /// Reports a call without an answer.
    pub(crate) fn ended(self, end: CapturedEnd) {
        let _ = self.done.send(end);
    }

    /// The body that passes the bytes of `body` on and copies them; `proves_end`: its framing shows
    /// that nothing is missing.
    pub(crate) fn copying<B>(self, head: response::Parts, body: B, proves_end: bool) -> Body
    where
        B: HttpBody<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
    {
        let Self { copy, done } = self;
        let finish = move |copy: Copied| {
            let bytes = copy.gave_up.is_none().then(|| copy.bytes.freeze());
            let is_whole = proves_end || bytes.as_deref().is_some_and(shows_its_end);
            let _ = done.send(match is_whole {
                true => CapturedEnd::Answered(Box::new(Collected::copied(head, bytes))),
                false => CapturedEnd::Lost(UnknownReason::Truncated),
            });
        };
        Tee::over(body, copy, Box::new(finish))
    }
}

type Finish = Box<dyn FnOnce(Copied) + Send>;

/// A body that copies what passes, and hands the copy over at its end.
struct Tee<B> {
    inner: B,
    /// Bytes left, where the length is known: the server stops reading a body there.
    left: Option<u64>,
    copy: Option<(Copied, Finish)>,
}

impl<B> Tee<B>
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    fn over(inner: B, copy: Copied, finish: Finish) -> Body {
        let left = inner.size_hint().exact();
        let mut tee = Self { inner, left, copy: Some((copy, finish)) };
        if tee.is_at_end() {
            tee.finish();
        }
        Body::streamed(tee)
    }

    fn is_at_end(&self) -> bool {
        self.left == Some(0) || self.inner.is_end_stream()
    }

    fn finish(&mut self) {
        if let Some((copy, finish)) = self.copy.take() {
            finish(copy);
        }
    }
}

impl<B> HttpBody for Tee<B>
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            None => self.finish(),
            // What broke off is no copy; dropping the sender says so.
            Some(Err(_)) => self.copy = None,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    if let Some((copy, _)) = &mut self.copy {
                        copy.push(data);
                    }
                    if self.is_at_end() {
                        self.finish();
                    }
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
