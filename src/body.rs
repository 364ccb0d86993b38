//! The one body type of responses and upstream requests.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};

/// Why a body broke off. Its text goes to the log, never to a client.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body of any origin.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(impossible).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(impossible).boxed_unsync()
}

/// A body that arrives from a connection.
pub fn streamed(incoming: hyper::body::Incoming) -> Body {
    incoming.map_err(BodyError::from).boxed_unsync()
}

fn impossible(never: Infallible) -> BodyError {
    match never {}
}
