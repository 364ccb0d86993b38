//! A request whose body was read to its end, and its form towards the backend.

use bytes::Bytes;
use http::Request;

use super::budget::Reservation;
use super::rewrite;
use super::routing::Route;

/// A request whose body was read to its end.
pub(crate) struct BufferedRequest {
    pub(crate) head: http::request::Parts,
    pub(crate) peer: std::net::IpAddr,
    pub(crate) body: Bytes,
    pub(crate) reservation: Reservation,
}

impl BufferedRequest {
    /// The request as it goes upstream, and the memory it holds.
    pub(crate) fn into_request(self, route: &Route, keyed: bool) -> (Request<Bytes>, Reservation) {
        let request = rewrite::to_backend(route, self.head, self.peer, self.body, keyed);
        (request, self.reservation)
    }
}
