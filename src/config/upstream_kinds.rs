//! Choices of `[[upstream]]`.

use http::HeaderValue;
use serde::{Serialize, Serializer};

/// The version of HTTP on connections to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum HttpVersion {
    /// HTTP/1.1: a call for each connection at a time.
    #[serde(rename = "1.1")]
    Http1,
    /// HTTP/2: several calls on a connection.
    #[serde(rename = "2")]
    Http2,
}

/// The `Host` of requests to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPolicy {
    /// The authority of the request's URL.
    Upstream,
    /// The client's.
    Client,
    /// The given name, with an optional port.
    Name(HeaderValue),
}

/// Treatment of answers without `Content-Length` and chunks, ended by the backend by closing the
/// connection, which looks the same as a broken connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CloseDelimited {
    /// Whole if the body delimits itself.
    Checked,
    /// Always whole.
    Trusted,
}

impl Serialize for HostPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Upstream => "upstream",
            Self::Client => "client",
            Self::Name(name) => name.to_str().unwrap_or_default(),
        })
    }
}
