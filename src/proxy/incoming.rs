//! A request as received from the server.

use bytes::Bytes;
use http::Uri;
use hyper::body::Incoming;

use super::budget::Reservation;
use super::peer::Peer;
use super::routing::Routing;
use crate::caller::Caller;

/// A request's head and body, as received from the server.
pub(crate) struct Arrived<'a> {
    pub(crate) head: http::request::Parts,
    pub(crate) body: RequestBody,
    /// The client's side of the connection.
    pub(crate) client: &'a Peer,
    pub(crate) path: Path,
    /// Caller of the request; the anonymous one on routes without keys.
    pub(crate) caller: Caller,
    /// Routing snapshot loaded at the head of the exchange.
    pub(crate) routing: &'a Routing,
}

/// The body of a request.
pub(crate) enum RequestBody {
    /// A body on its way.
    Streaming(Incoming),
    /// The whole body with its memory: the choice of the route had to look at the body.
    Read(Bytes, Reservation),
}

/// The path for routes and fingerprints, if different from the path of the URI.
#[derive(Clone)]
pub(crate) struct Path(pub(crate) Option<String>);

impl Path {
    /// The path of a request to `address`.
    pub(crate) fn of<'a>(&'a self, address: &'a Uri) -> &'a str {
        self.0.as_deref().unwrap_or_else(|| address.path())
    }
}
