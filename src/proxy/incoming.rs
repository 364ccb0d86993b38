//! A request as the server hands it over.

use http::Uri;
use hyper::body::Incoming;

use super::peer::Peer;
use super::routing::Routing;

/// A request's head and body, as the server hands them over.
pub(crate) struct Arrived<'a> {
    pub(crate) head: http::request::Parts,
    pub(crate) body: Incoming,
    /// The client's side of the connection.
    pub(crate) client: &'a Peer,
    pub(crate) path: Path,
    /// The routing that the exchange began with.
    pub(crate) routing: &'a Routing,
}

/// The path that routes and fingerprints see, where it is not the one of the address.
pub(crate) struct Path(pub(crate) Option<String>);

impl Path {
    /// The path of a request to this address.
    pub(crate) fn of<'a>(&'a self, address: &'a Uri) -> &'a str {
        self.0.as_deref().unwrap_or_else(|| address.path())
    }
}
