//! A problem: its kind and the facts of the situation.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::disposition::Disposition;
use super::slug::Slug;

/// A problem answered by the gateway itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Kind of the problem.
    pub slug: Slug,
    /// Status; [`Slug::status`] unless the situation requires another.
    pub status: StatusCode,
    /// Value of `Idempotency-Status`; `None` where no key is involved.
    pub disposition: Option<Disposition>,
    /// A plain sentence for end users.
    pub detail: Cow<'static, str>,
    /// Delay before a retry.
    pub retry_after: Option<Duration>,
    /// Further headers of the answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Further members of the problem document.
    pub members: Vec<(&'static str, serde_json::Value)>,
    /// Status and JSON body in the words of the backend, in place of the dialect's.
    pub wording: Option<Box<(Option<StatusCode>, String)>>,
    /// The connection must end because the request was not read to its end.
    pub close: bool,
}

/// A single occurrence of a problem, as named in the answer and in the log.
#[derive(Debug, Clone)]
pub struct Occurrence {
    /// Names the problem.
    pub instance: uuid::Uuid,
    /// Names the exchange; `None` for an answer that is kept for every exchange.
    pub request_id: Option<HeaderValue>,
}

impl Problem {
    /// A refusal: nothing was sent.
    pub fn new(slug: Slug, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            slug,
            status: slug.status(),
            disposition: Some(Disposition::Rejected),
            detail: detail.into(),
            retry_after: None,
            headers: Vec::new(),
            members: Vec::new(),
            wording: None,
            close: false,
        }
    }

    /// With another status.
    #[must_use]
    pub fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// With another disposition.
    #[must_use]
    pub fn disposition(self, disposition: impl Into<Option<Disposition>>) -> Self {
        Self { disposition: disposition.into(), ..self }
    }

    /// With `Retry-After`.
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// With `Connection: close`: the rest of the request was not read.
    #[must_use]
    pub fn close(self) -> Self {
        Self { close: true, ..self }
    }

    /// With this JSON body and perhaps another status, in the words of the backend.
    #[must_use]
    pub fn worded(self, status: Option<StatusCode>, body: String) -> Self {
        Self { wording: Some(Box::new((status, body))), ..self }
    }

    /// With a further header of the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With a further member of the problem document.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }
}
