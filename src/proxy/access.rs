//! Lines of the access log: each is written when the last byte of its answer was handed over, or
//! the client is gone.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::body::{Body, BodyError};
use crate::observe::access::{self, AccessFacts};
use crate::observe::exchange::ExchangeSpan;
use crate::observe::line::LogFormat;

/// An exchange that will have a line in the access log.
pub(crate) struct AccessEntry {
    pub(crate) format: LogFormat,
    pub(crate) span: Arc<ExchangeSpan>,
    pub(crate) method: Method,
    /// `None`: a client on a Unix socket.
    pub(crate) client: Option<IpAddr>,
    pub(crate) started: Instant,
}

impl AccessEntry {
    /// The answer, with a body that writes the line at its end.
    pub(crate) fn attach(self, response: Response<Body>) -> Response<Body> {
        let status = response.status().as_u16();
        if response.body().is_end_stream() || self.method == Method::HEAD {
            self.write(status, 0);
            return response;
        }
        response.map(|body| Body::streamed(LoggedBody { body, entry: self, status, sent: 0 }))
    }

    fn write(&self, status: u16, sent: u64) {
        let facts = AccessFacts {
            span: &self.span,
            method: self.method.as_str(),
            status,
            took: self.started.elapsed(),
            sent,
            client: self.client,
        };
        access::log(&facts, self.format);
    }
}

/// A body whose drop is the end of its exchange.
struct LoggedBody {
    body: Body,
    entry: AccessEntry,
    status: u16,
    sent: u64,
}

impl HttpBody for LoggedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.sent += data.len() as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for LoggedBody {
    fn drop(&mut self) {
        self.entry.write(self.status, self.sent);
    }
}
