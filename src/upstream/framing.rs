//! Where messages to and from a backend end: what a response's head says of it, and what a request's
//! has to say.

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body::Body as _;

use crate::body::Body;

/// How the end of a response's body is told (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none: HEAD, 1xx, 204, 304.
    None,
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// It ends when the backend closes the connection.
    UntilClose {
        /// Whether TLS proves that the backend meant to close: without its closing alert the body
        /// ends with an error.
        authenticated: bool,
    },
}

impl Framing {
    /// Whether a body that ended without an error is proven to be whole. Of a body that ends with
    /// a plain connection it is not: a backend that dies in the middle looks the same. RFC 9112
    /// section 8 lets a recipient take it as complete; where an answer is kept for ever it must
    /// count as unknown.
    pub fn proves_end(self) -> bool {
        match self {
            Self::None | Self::Length | Self::Chunked => true,
            Self::UntilClose { authenticated } => authenticated,
        }
    }
}

/// What a response's head says of its end and of its connection's, found in one walk: to look up
/// each name costs more.
#[derive(Default)]
pub(super) struct Lines {
    /// `Transfer-Encoding: chunked`.
    chunked: usize,
    /// `Transfer-Encoding` with anything else.
    otherwise_coded: usize,
    /// `Content-Length`.
    pub(super) length: bool,
    /// The backend says that it will close the connection.
    pub(super) closes: bool,
}

impl Lines {
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
            } else if *name == CONNECTION {
                let mut options = value.split(|byte| *byte == b',');
                lines.closes |= options.any(|it| it.trim_ascii().eq_ignore_ascii_case(b"close"));
            }
        }
        lines
    }

    pub(super) fn coded(&self) -> bool {
        self.chunked + self.otherwise_coded > 0
    }
}

/// How the body ends, by the rules hyper has already applied (RFC 9112 section 6.3). Transfer
/// codings other than `chunked` are refused: the gateway does not decode them and must not pass
/// them on under another name.
pub(super) fn framing(
    status: StatusCode,
    lines: &Lines,
    bodiless: bool,
    secure: bool,
) -> Result<Framing, &'static str> {
    if bodiless || status.is_informational() || matches!(status.as_u16(), 204 | 304) {
        return Ok(Framing::None);
    }
    match (lines.chunked, lines.otherwise_coded) {
        (1, 0) => Ok(Framing::Chunked),
        (0, 0) if lines.length => Ok(Framing::Length),
        (0, 0) => Ok(Framing::UntilClose { authenticated: secure }),
        (_, _) => Err("the response's Transfer-Encoding is not `chunked`"),
    }
}

/// Sets what only the framing of this message may decide. hyper adds the `Content-Length` of a body
/// whose size is known, but trusts what is in the map, and leaves out what it deems needless.
pub(super) fn frame(request: &mut Request<Body>) {
    let ended = request.body().is_end_stream();
    let sized = request.body().size_hint().exact().is_some();
    let expects_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let usually_empty = matches!(*request.method(), Method::GET | Method::HEAD);
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    // Seldom there: whoever made the request has most likely left them out.
    if headers.keys().any(|name| *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH) {
        headers.remove(TRANSFER_ENCODING);
        headers.remove(CONTENT_LENGTH);
    }
    if ended && expects_body {
        // RFC 9110 section 8.6: a method that gives content a meaning says 0.
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    } else if !ended && !sized && usually_empty {
        // hyper would drop the body.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
