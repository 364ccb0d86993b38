//! Framing of messages to and from a backend: reading the response's, writing the request's.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body::Body as _;

use crate::body::Body;

/// Bytes of the longest response head.
pub(super) const MAX_RESPONSE_HEAD: usize = 64 << 10;

/// The way a response's body ends (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body: HEAD, 1xx, 204, 304.
    None,
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The end of an HTTP/2 stream.
    Stream,
    /// The backend closes the connection.
    UntilClose {
        /// True for TLS, which proves the backend's intent to close: without its closing alert the
        /// body ends with an error. Also true for a backend configured as trusted.
        trusted: bool,
    },
}

impl Framing {
    /// Returns true if a body without an error is proven complete. A body delimited by a plain
    /// connection is not: a backend dying midway looks the same. RFC 9112 section 8 lets a
    /// recipient take such a body as complete; for an answer kept forever, its outcome must count
    /// as unknown.
    pub(crate) fn proves_end(self) -> bool {
        match self {
            Self::None | Self::Length | Self::Chunked | Self::Stream => true,
            Self::UntilClose { trusted } => trusted,
        }
    }
}

/// Headers of a response relevant to the end of its body and of its connection. A single pass finds
/// all of them: looking up each name costs more.
#[derive(Default)]
pub(super) struct FramingHeaders {
    /// `Transfer-Encoding: chunked`.
    chunked: usize,
    /// `Transfer-Encoding` with any other value.
    otherwise_coded: usize,
    /// `Content-Length`.
    pub(super) length: bool,
    /// A `Content-Length` above zero, or not a number.
    content: bool,
    /// `Connection: close`.
    pub(super) closes: bool,
    /// The shortest time in a `Keep-Alive` line for which the backend keeps the connection.
    pub(super) kept_for: Option<Duration>,
}

/// Unused part of the backend's `Keep-Alive: timeout=N`: an answer and the next request need time
/// in transit, and the backend's clock started earlier.
const KEEP_ALIVE_MARGIN: u32 = 4;

/// Longest margin.
const MAX_KEEP_ALIVE_MARGIN: Duration = Duration::from_secs(1);

/// Time for which a connection may be reused after a `Keep-Alive` line; `None`: the line has no
/// timeout.
fn kept_for(value: &[u8]) -> Option<Duration> {
    let parameters = value.split(|byte| *byte == b',');
    let limits = parameters.filter_map(|parameter| {
        let equals = parameter.iter().position(|byte| *byte == b'=')?;
        let (name, value) =
            (parameter[..equals].trim_ascii(), parameter[equals + 1..].trim_ascii());
        let value =
            value.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\"")).unwrap_or(value);
        let number: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
        if name.eq_ignore_ascii_case(b"timeout") {
            let announced = Duration::from_secs(number);
            Some(announced - (announced / KEEP_ALIVE_MARGIN).min(MAX_KEEP_ALIVE_MARGIN))
        } else {
            // `max=0`: the backend takes no further request.
            (name.eq_ignore_ascii_case(b"max") && number == 0).then_some(Duration::ZERO)
        }
    });
    limits.min()
}

impl FramingHeaders {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut lines = Self::default();
        for (name, value) in headers {
            let value = value.as_bytes();
            if *name == TRANSFER_ENCODING {
                let chunked = value.eq_ignore_ascii_case(b"chunked");
                lines.chunked += usize::from(chunked);
                lines.otherwise_coded += usize::from(!chunked);
            } else if *name == CONTENT_LENGTH {
                lines.length = true;
                lines.content |= value.is_empty() || value.iter().any(|digit| *digit != b'0');
            } else if *name == CONNECTION {
                let mut options = value.split(|byte| *byte == b',');
                lines.closes |= options.any(|it| it.trim_ascii().eq_ignore_ascii_case(b"close"));
            } else if name.as_str() == "keep-alive"
                && let Some(time) = kept_for(value)
            {
                lines.kept_for = Some(lines.kept_for.map_or(time, |other| other.min(time)));
            }
        }
        lines
    }

    pub(super) fn coded(&self) -> bool {
        self.chunked + self.otherwise_coded > 0
    }

    /// True when the lines announce content.
    pub(super) fn announce_content(&self) -> bool {
        self.coded() || self.content
    }
}

/// The framing of a body, by the rules that hyper has already applied (RFC 9112 section 6.3).
/// Transfer codings besides `chunked` are refused: the gateway does not decode them and must not
/// forward such a body under a different name.
pub(super) fn framing(
    status: StatusCode,
    lines: &FramingHeaders,
    bodiless: bool,
    close_is_trusted: bool,
) -> Result<Framing, &'static str> {
    if bodiless || status.is_informational() || matches!(status.as_u16(), 204 | 304) {
        return Ok(Framing::None);
    }
    match (lines.chunked, lines.otherwise_coded) {
        (1, 0) => Ok(Framing::Chunked),
        (0, 0) if lines.length => Ok(Framing::Length),
        (0, 0) => Ok(Framing::UntilClose { trusted: close_is_trusted }),
        (_, _) => Err("the response's Transfer-Encoding is not `chunked`"),
    }
}

/// Sets the framing headers of a request. hyper adds the `Content-Length` of a body with a known
/// size, but trusts framing headers in the map and omits a length considered needless.
pub(super) fn frame(request: &mut Request<Body>) {
    let ended = request.body().is_end_stream();
    let sized = request.body().size_hint().exact().is_some();
    let expects_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let usually_empty = matches!(*request.method(), Method::GET | Method::HEAD);
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    // Rarely present: the builder of the request has most likely removed the framing headers.
    if headers.keys().any(|name| *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH) {
        headers.remove(TRANSFER_ENCODING);
        headers.remove(CONTENT_LENGTH);
    }
    if ended && expects_body {
        // RFC 9110 section 8.6: a method with a meaning for content says 0.
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    } else if !ended && !sized && usually_empty {
        // hyper would drop the body.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
