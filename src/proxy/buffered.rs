//! A request with its complete body, and its form towards the backend.

use bytes::Bytes;
use http::Request;

use super::budget::Reservation;
use super::peer::ClientAddress;
use super::rewrite;
use super::routing::Route;

/// A request with its complete body.
pub(crate) struct BufferedRequest {
    pub(crate) head: http::request::Parts,
    pub(crate) client: ClientAddress,
    pub(crate) body: Bytes,
    pub(crate) reservation: Reservation,
}

impl BufferedRequest {
    /// The request for the upstream, and its buffer reservation.
    pub(crate) fn into_request(self, route: &Route, keyed: bool) -> (Request<Bytes>, Reservation) {
        let request = rewrite::to_backend(route, self.head, self.client, self.body, keyed);
        (request, self.reservation)
    }
}
