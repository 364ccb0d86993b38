//! One problem: which kind, in which situation.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::disposition::Disposition;
use super::slug::Slug;

/// One answer of the gateway's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which kind.
    pub slug: Slug,
    /// The status; [`Slug::status`] unless the situation says otherwise.
    pub status: StatusCode,
    /// What `Idempotency-Status` says; `None` where no key is involved.
    pub disposition: Option<Disposition>,
    /// One plain sentence a cashier could read.
    pub detail: Cow<'static, str>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The methods a path is configured for.
    pub allow: Option<HeaderValue>,
    /// Further members of the problem document.
    pub members: Vec<(&'static str, serde_json::Value)>,
    /// Whether the connection must end because the request was not read to its end.
    pub close: bool,
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
            allow: None,
            members: Vec::new(),
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

    /// With a further member of the problem document.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }
}
