//! Calls on HTTP/2 connections.

use std::sync::Arc;

use http::header::HOST;
use http::{Method, Request};

use super::http2::{self, Http2Pool};
use super::pool::{CallLease, Endpoint, ResponseBody};
use super::{MAX_STALE, SendError, SendPermission, Sent, Upstream, unknown};
use crate::body::Body;

impl Upstream {
    /// Sends to a URL with HTTP/2: on a free stream of a connection, else on a new connection.
    pub(super) async fn send_http2(
        &self,
        endpoint: &Arc<Endpoint>,
        pool: &Arc<Http2Pool>,
        mut request: Request<Body>,
        may: SendPermission<'_>,
    ) -> Result<Sent, SendError> {
        let not_sent = |reason| SendError::NotSent { reason };
        let bodiless = *request.method() == Method::HEAD;
        let host = request.headers().get(HOST).cloned();
        let call = endpoint.enter();
        http2::address(&mut request, endpoint.target.scheme()).map_err(not_sent)?;
        for _ in 0..=MAX_STALE {
            let stream = match pool.lease() {
                Some(stream) => stream,
                None => match endpoint.target.connect_http2(self.connect_timeout).await {
                    Ok(sender) => {
                        endpoint.reached();
                        pool.add(sender)
                    }
                    Err(reason) => {
                        http2::restore(&mut request, host);
                        return Ok(Err((request, reason)));
                    }
                },
            };
            may().map_err(not_sent)?;
            let mut error = match stream.send(request).await {
                Ok(response) => {
                    let framing = http2::framing(response.status(), bodiless);
                    let lease = CallLease::Http2 { _call: call, _stream: stream };
                    let body = |incoming| ResponseBody::new(incoming, lease, true, framing);
                    return Ok(Ok(response.map(body)));
                }
                Err(error) => error,
            };
            match error.take_message() {
                // The connection has ended, and this request was not taken from its queue.
                Some(unsent) => request = unsent,
                None => {
                    let error = error.into_error();
                    let refusal = http2::refusal(&error).map(not_sent);
                    return Err(refusal.unwrap_or_else(|| unknown(&error, &endpoint.target.name)));
                }
            }
        }
        http2::restore(&mut request, host);
        let reason = format!("{}: connections end before they take a call", endpoint.target.name);
        Ok(Err((request, reason)))
    }
}
