//! The address of a backend.

use std::fmt;
use std::path::PathBuf;

use http::Uri;
use http::uri::Scheme;

use crate::listen_address::{UNIX, socket_path};

/// The address of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendUrl {
    /// Scheme `http` or `https`, an authority, and an optional path prefix.
    Http(Uri),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl BackendUrl {
    /// True for encrypted connections.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Http(url) if url.scheme() == Some(&Scheme::HTTPS))
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => url.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// The URL of a backend. An error continues the words "the URL" and does not repeat the URL, where
/// a password may stand.
pub(super) fn parse_url(text: &str) -> Result<BackendUrl, String> {
    if let Some(path) = text.strip_prefix(UNIX) {
        return socket_path(path)
            .map(BackendUrl::Unix)
            .map_err(|error| format!("is wrong: {error}"));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(String::from("must start with http://, https:// or unix:"));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("must start with http://, https:// or unix:, not {scheme}://"));
    }
    if rest.contains(['?', '#']) {
        return Err(String::from("may not have a query or a fragment"));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(String::from("may not hold a user name or password, which would not be sent"));
    }
    let no_host = || String::from("has no host, or a port that is not one");
    if authority.is_empty() {
        return Err(no_host());
    }
    let url: Uri = text.parse().map_err(|error| format!("is not one: {error}"))?;
    let port_is_wrong = url.port_u16().is_none() && has_port(authority);
    if url.host().is_none_or(str::is_empty) || port_is_wrong || url.port_u16() == Some(0) {
        return Err(no_host());
    }
    if url.path().split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(String::from("may not hold the segments \".\" and \"..\""));
    }
    Ok(BackendUrl::Http(url))
}

/// True if a port stands in `authority`.
pub(super) fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'))
}
