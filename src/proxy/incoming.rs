//! A request as received from the server.

use http::Uri;
use hyper::body::Incoming;

use super::peer::Peer;
use super::routing::Routing;

/// A request's head and body, as received from the server.
pub(crate) struct Arrived<'a> {
    pub(crate) head: http::request::Parts,
    pub(crate) body: Incoming,
    /// The client's side of the connection.
    pub(crate) client: &'a Peer,
    pub(crate) path: Path,
    /// Routing snapshot loaded at the head of the exchange.
    pub(crate) routing: &'a Routing,
}

/// The path for routes and fingerprints, if different from the path of the URI.
pub(crate) struct Path(pub(crate) Option<String>);

impl Path {
    /// The path of a request to `address`.
    pub(crate) fn of<'a>(&'a self, address: &'a Uri) -> &'a str {
        self.0.as_deref().unwrap_or_else(|| address.path())
    }
}
