//! Reading a backend's answer: complete, or up to the limit for buffering.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, response};
use http_body_util::BodyExt as _;

use super::body_end::shows_its_end;
use super::budget::Reservation;
use super::headers;
use super::reply;
use crate::body::{Body, BodyError, Bounded, Resumed, full, owning};
use crate::idempotency::outcome::{Judgement, OutcomeRules};
use crate::idempotency::record::StoredResponse;
use crate::matcher::{HeaderView, MatchBody, MatchInput, Matcher, ParsedBody, any};
use crate::problem::{Disposition, STATUS};
use crate::upstream::ResponseBody;

/// Limits of a held answer.
pub(crate) struct CollectLimits {
    /// Bytes of the largest body to keep.
    pub(crate) most: u64,
    /// Idle timeout for each piece of a body too large to keep.
    pub(crate) idle: Duration,
}

/// A backend's answer.
pub(crate) struct Collected {
    head: response::Parts,
    body: Content,
}

enum Content {
    /// The complete body, and its share of the buffer budget.
    Whole(Bytes, Option<Reservation>),
    /// A body too large to buffer: the start, followed by the stream of the rest.
    Streaming(Body),
}

/// Reason to refuse an answer delimited by the end of its connection.
const NO_END: &str = "nothing but the connection's end could say that the answer was whole";

/// Reads the answer to its end. Beyond `most` bytes, or when the shared memory runs out, the answer
/// is streamed instead of buffered, so an answer of any size still reaches the first client.
///
/// # Errors
/// When the body breaks off: the answer is truncated.
pub(crate) async fn collect(
    head: response::Parts,
    mut body: ResponseBody,
    limits: &CollectLimits,
    reservation: &mut Reservation,
) -> Result<Collected, BodyError> {
    let mut read = BytesMut::new();
    let mut only: Option<Bytes> = None;
    let announced = http_body::Body::size_hint(&body).exact().unwrap_or(0).min(limits.most);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let length = data.len() as u64;
        let held = (read.len() + only.as_ref().map_or(0, Bytes::len)) as u64;
        let fits = held + length <= limits.most && reservation.grow_for_answer(length);
        if fits && held == 0 {
            // Most answers arrive in a single piece.
            only = Some(data);
            continue;
        }
        if let Some(first) = only.take() {
            // All at once: a buffer that grows step by step takes up to twice the memory.
            read.reserve(usize::try_from(announced).unwrap_or(0));
            read.extend_from_slice(&first);
        }
        let before = read.capacity();
        read.extend_from_slice(&data);
        let grown = read.capacity().saturating_sub(before.max(read.len()));
        let fits = fits && reservation.grow_for_answer(grown as u64);
        if !fits {
            if !body.framing().proves_end() {
                // A streamed body cannot be inspected, so a truncated body would pass for a
                // complete one.
                return Err(NO_END.into());
            }
            let rest = Bounded::new(body, limits.idle);
            let body = Body::streamed(Resumed::new(read.freeze(), rest));
            return Ok(Collected { head, body: Content::Streaming(body) });
        }
    }
    // Copied: the piece is a slice of the connection's read buffer, and a small cached answer must
    // not keep the whole buffer alive.
    let bytes = only.map_or_else(|| read.freeze(), |piece| Bytes::copy_from_slice(&piece));
    if !body.framing().proves_end() && !shows_its_end(&bytes) {
        return Err(NO_END.into());
    }
    Ok(Collected { head, body: Content::Whole(bytes, None) })
}

impl Collected {
    /// An answer that was streamed to its client, with a copy of its body; `None`: the body was too
    /// large to keep.
    pub(crate) fn copied(head: response::Parts, body: Option<Bytes>) -> Self {
        let body = match body {
            Some(bytes) => Content::Whole(bytes, None),
            None => Content::Streaming(full(Bytes::new())),
        };
        Self { head, body }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The judgement of the answer by the rules of a route. An answer too large to keep is judged
    /// by its head.
    pub(crate) fn judge<'r>(&self, rules: &'r OutcomeRules) -> Judgement<'r> {
        self.seen(|input| rules.judge(input))
    }

    /// Reports whether any of the matchers holds. An answer too large to keep is seen by its head.
    pub(crate) fn matches(&self, matchers: &[Matcher]) -> bool {
        self.seen(|input| any(matchers, input))
    }

    fn seen<T>(&self, look: impl FnOnce(&MatchInput<'_, '_>) -> T) -> T {
        let (status, headers) = (self.head.status.as_u16(), HeaderView::Map(&self.head.headers));
        match &self.body {
            Content::Whole(bytes, _) => {
                let body = ParsedBody::new(bytes);
                look(&MatchInput::answer(status, headers, MatchBody::Whole(&body)))
            }
            Content::Streaming(_) => look(&MatchInput::answer(status, headers, MatchBody::Unseen)),
        }
    }

    /// Keeps the memory reserved until the first client has the answer.
    pub(crate) fn holding(mut self, reservation: Reservation) -> Self {
        if let Content::Whole(_, held) = &mut self.body {
            *held = Some(reservation);
        }
        self
    }

    /// Head, body and buffer reservation of a complete answer; the streaming answer if too large to
    /// buffer.
    pub(crate) fn into_whole(
        self,
    ) -> Result<(response::Parts, Bytes, Option<Reservation>), Box<Self>> {
        match self.body {
            Content::Whole(body, held) => Ok((self.head, body, held)),
            Content::Streaming(_) => Err(Box::new(self)),
        }
    }

    /// The answer in its stored form; `None` if too large to keep.
    pub(crate) fn stored(&self) -> Option<Arc<StoredResponse>> {
        match &self.body {
            Content::Streaming(_) => None,
            Content::Whole(body, _) => Some(Arc::new(StoredResponse {
                status: self.head.status.as_u16(),
                headers: headers::stored_headers(&self.head.headers),
                body: body.clone(),
            })),
        }
    }

    /// The answer for the first client.
    pub(crate) fn respond(
        self,
        disposition: Disposition,
        expires: Option<String>,
    ) -> Response<Body> {
        let Self { mut head, body } = self;
        head.headers.insert(STATUS, disposition.header());
        reply::insert_expires(&mut head.headers, expires);
        let body = match body {
            Content::Whole(bytes, None) => full(bytes),
            Content::Whole(bytes, held) => owning(bytes, held),
            Content::Streaming(body) => body,
        };
        Response::from_parts(head, body)
    }
}
