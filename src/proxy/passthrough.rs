//! Requests passed through without a key: streamed in both directions, never stored.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use tokio::time::timeout;

use super::answer::AnswerResult;
use super::buffered::BufferedRequest;
use super::capture::{AnswerCapture, Capture, CapturedEnd, UploadCapture};
use super::incoming::{Arrived, RequestBody};
use super::routing::Route;
use super::{client_head, rewrite};
use crate::body::{Body, Bounded, UploadCounter, UploadFault, empty, owning};
use crate::idempotency::outcome::UnknownReason;
use crate::observe::exchange;
use crate::problem::{Disposition, Problem, STATUS, Slug};
use crate::upstream::SendError;

/// Streams the request to the backend and its answer to the client.
pub(crate) async fn through(
    route: &Route,
    arrived: Box<Arrived<'_>>,
    disposition: Option<Disposition>,
    capture: Option<Capture>,
) -> AnswerResult {
    let Arrived { head, body, client, routing, .. } = *arrived;
    let (copied_upload, copied_answer) = capture.map(Capture::split).unzip();
    let address = client.address(&routing.trusted_proxies);
    let most = route.max_streamed;
    let body = match body {
        RequestBody::Streaming(body) => body,
        RequestBody::Read(body, _) if most.is_some_and(|most| body.len() as u64 > most) => {
            return Err(too_large());
        }
        RequestBody::Read(body, reservation) => {
            let request = BufferedRequest { head, client: address, body, reservation };
            let copies = (copied_upload, copied_answer);
            return send_buffered(route, request, disposition, copies).await;
        }
    };
    let declared = http_body::Body::size_hint(&body).lower();
    if most.is_some_and(|most| declared > most) {
        return Err(too_large());
    }
    let idle = route.body_timeout;
    if http_body::Body::is_end_stream(&body) {
        let body = match copied_upload {
            Some(copy) => copy.copying(empty()),
            None => empty(),
        };
        let request = rewrite::to_backend(route, head, address, body, false);
        return send(route, request, disposition, copied_answer, || None).await;
    }
    let (body, upload) = Bounded::new(body, idle).watched(most);
    let counter =
        exchange::current().map(|span| UploadCounter::new(move |bytes| span.receive(bytes)));
    let body = body.counted(counter).forbidding(&route.key_headers);
    let body = match copied_upload {
        Some(copy) => copy.copying(body),
        None => Body::streamed(body),
    };
    let request = rewrite::to_backend(route, head, address, body, false);
    send(route, request, disposition, copied_answer, || upload.fault()).await
}

/// Sends a request with an already buffered body to the backend and streams the answer.
pub(crate) async fn buffered(route: &Route, request: BufferedRequest) -> AnswerResult {
    send_buffered(route, request, Some(Disposition::Bypassed), (None, None)).await
}

async fn send_buffered(
    route: &Route,
    request: BufferedRequest,
    disposition: Option<Disposition>,
    (copied_upload, copied_answer): (Option<UploadCapture>, Option<AnswerCapture>),
) -> AnswerResult {
    let (request, reservation) = request.into_request(route, false);
    let request = request.map(|bytes: Bytes| {
        let body = owning(bytes, reservation);
        match copied_upload {
            Some(copy) => copy.copying(body),
            None => body,
        }
    });
    send(route, request, disposition, copied_answer, || None).await
}

/// Sends a request; `fault` says what is wrong with the client's upload, which then is the reason
/// for any failure. `copy` gets the end of the call as well.
async fn send(
    route: &Route,
    request: Request<Body>,
    disposition: Option<Disposition>,
    copy: Option<AnswerCapture>,
    fault: impl Fn() -> Option<UploadFault>,
) -> AnswerResult {
    let method = request.method().clone();
    let not_executed = disposition.map(|_| Disposition::NotExecuted);
    let unknown = disposition.map(|_| Disposition::Unknown);
    let answered = timeout(route.timeout, route.upstream.send(request)).await;
    if !matches!(answered, Ok(Ok(_)))
        && let Some(problem) = fault().and_then(|fault| upload_failed(fault, answered.is_err()))
    {
        return Err(problem);
    }
    let (problem, end) = match answered {
        Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => (
            failed("the backend answered 101").disposition(unknown),
            CapturedEnd::Lost(UnknownReason::Upgraded),
        ),
        Ok(Ok(response)) => {
            let (mut head, body) = response.into_parts();
            client_head::to_client(&mut head, &method, None);
            let proves_end = body.framing().proves_end();
            let body = Bounded::new(body, route.timeout);
            let body = match copy {
                Some(copy) => copy.copying(head.clone(), body, proves_end),
                None => Body::streamed(body),
            };
            if let Some(disposition) = disposition {
                head.headers.insert(STATUS, disposition.header());
            }
            return Ok(Response::from_parts(head, body));
        }
        Ok(Err(SendError::NotSent { reason })) => {
            tracing::warn!(reason, "the backend could not be reached");
            (unreachable().disposition(not_executed), CapturedEnd::NotSent)
        }
        Ok(Err(SendError::Unknown { detail, .. })) => {
            (failed(&detail).disposition(unknown), CapturedEnd::Lost(UnknownReason::ConnectionLost))
        }
        Err(_) => {
            let problem = failed("the upstream timeout ran out");
            let problem = problem.status(StatusCode::GATEWAY_TIMEOUT).disposition(unknown);
            (problem, CapturedEnd::Lost(UnknownReason::Timeout))
        }
    };
    if let Some(copy) = copy {
        copy.ended(end);
    }
    Err(problem)
}

fn unreachable() -> Problem {
    Problem::new(
        Slug::UpstreamUnreachable,
        "The service could not be reached and the request was not carried out. Please try again.",
    )
    .retry_after(Duration::from_secs(1))
}

fn failed(reason: &str) -> Problem {
    tracing::warn!(reason, "the backend did not answer");
    Problem::new(
        Slug::UpstreamFailed,
        "The service did not answer. It may have acted all the same.",
    )
}

/// The problem of a client whose upload broke off. The part that has arrived was passed on, and a
/// backend does not act on a part. `is_late`: the time for the backend's answer has run out.
fn upload_failed(fault: UploadFault, is_late: bool) -> Option<Problem> {
    let (slug, detail) = match fault {
        UploadFault::TooLarge => return Some(too_large()),
        UploadFault::ForbiddenTrailer => {
            let detail = "The idempotency key stands in a trailer, where it cannot be accepted, so \
                          that the request was broken off. Please send the key in a header.";
            return Some(Problem::new(Slug::KeyInvalid, detail).close());
        }
        UploadFault::Waiting if !is_late => return None,
        UploadFault::Stalled | UploadFault::Waiting => {
            (Slug::RequestTimeout, "The request's body did not arrive in time. Please try again.")
        }
        UploadFault::Broken => {
            (Slug::RequestInvalid, "The request's body broke off before its end. Please try again.")
        }
    };
    Some(Problem::new(slug, detail).disposition(None).close())
}

fn too_large() -> Problem {
    Problem::new(Slug::BodyTooLarge, "The request's body is larger than what is accepted here.")
        .disposition(None)
        .close()
}
