//! Exchange: a single request from start to finish. Every early exit is in this file.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use http::header::{ALLOW, MAX_FORWARDS};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::answer::{AnswerResult, is_duplicate, is_replay, report};
use super::choice::choose;
use super::error_format::ShownRequest;
use super::headers::check::{HeadError, check_request_head};
use super::headers::path::{ambiguous, complete_target, hides_another, normalize_path};
use super::incoming::{Arrived, Path, RequestBody};
use super::peer::Peer;
use super::request_id::X_REQUEST_ID;
use super::routes::is_safe;
use super::routing::{Found, Route, RouteMode, Routing};
use super::state::Gateway;
use super::{batch, cors, observe_mode, passthrough, request, request_id, wellknown};
use crate::body::{Body, empty};
use crate::caller::Caller;
use crate::observe::exchange as span;
use crate::observe::repeated::Repeated;
use crate::observe::request_id::RequestId;
use crate::problem::{Disposition, Problem, Slug};

/// Bytes of the longest request target; RFC 9110 section 4.1 asks for 8000 at least.
const MAX_TARGET: usize = 16 << 10;

/// Answers a single request by the snapshot of the routing that its connection has loaded for it.
pub(crate) async fn exchange(
    gateway: &Arc<Gateway>,
    routing: &Routing,
    client: &Peer,
    request: Request<Incoming>,
) -> Response<Body> {
    let started = Instant::now();
    let mut matched = MatchedRequest { route: None, shown: None };
    // Behind a refused CONNECT stand bytes of the tunnel, which are no request.
    let no_body = request.body().is_end_stream() && request.method() != Method::CONNECT;
    identify(routing, request.headers());
    let traced = gateway.tracer.as_ref().and_then(|tracer| {
        let trace = tracer.begin(request.headers())?;
        span::note(|span| span.set_trace(trace));
        Some(request.method().clone())
    });
    let origin = routing.cors.as_ref().and_then(|cors| cors.allowed(request.headers()));
    let context = ExchangeContext { gateway, routing, client };
    let answered = answer(&context, request, &mut matched).await;
    let MatchedRequest { route, shown } = matched;
    let metrics = route.map_or(&routing.unmatched, |route| &route.metrics);
    let is_duplicate = answered.as_ref().is_err_and(is_duplicate);
    let mut response = match answered {
        Ok(response) => response,
        Err(problem) => {
            // A request without a body was read to its end, so the connection stays usable.
            let reusable = no_body && problem.slug != Slug::RequestInvalid;
            let close = problem.close && !reusable;
            report(&Problem { close, ..problem }, route.map(|route| &route.errors), shown.as_ref())
        }
    };
    let status = response.status();
    if let Some(route) = route {
        route.errors.dialect.mark(status, response.headers_mut());
    }
    if let Some(cors) = &routing.cors {
        cors.complete(response.headers_mut(), origin);
    }
    let outcome = metrics.answered(response.headers(), started.elapsed());
    if (is_duplicate || is_replay(outcome))
        && route.is_some_and(|route| matches!(route.mode, RouteMode::Request(_)))
    {
        metrics.prevented(1);
    }
    span::note(|span| span.set_outcome(outcome));
    if let Some(method) = traced {
        span::note(|span| span.end_trace(method.as_str(), response.status()));
    }
    response
}

/// Sets the id of the exchange whose request has these headers.
pub(crate) fn identify(routing: &Routing, headers: &HeaderMap) {
    let id = request_id::of(headers, &routing.possible_key_headers);
    span::note(|span| span.set_request_id(id));
}

/// Facts about a request that its answer depends on, found on the way.
struct MatchedRequest<'r> {
    route: Option<&'r Arc<Route>>,
    /// The parts of the request that an answer of the gateway may show.
    shown: Option<ShownRequest>,
}

/// The surroundings of an exchange.
struct ExchangeContext<'r> {
    gateway: &'r Arc<Gateway>,
    routing: &'r Routing,
    client: &'r Peer,
}

/// An answer of the gateway that is no problem, with the id of the exchange.
fn own(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(X_REQUEST_ID, span::with_request_id(RequestId::header));
    response
}

async fn answer<'r>(
    context: &ExchangeContext<'r>,
    request: Request<Incoming>,
    matched: &mut MatchedRequest<'r>,
) -> AnswerResult {
    let ExchangeContext { gateway, routing, client } = *context;
    let (mut head, body) = request.into_parts();
    let mut body = RequestBody::Streaming(body);
    check_request_head(&head).map_err(|error| refused_head(routing, &head, error))?;
    complete_target(&mut head.uri);
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
        return Err(Problem::new(Slug::UriTooLong, "The address is too long.").close());
    }
    let path = path_of(&head)?;
    if let Some(response) = preflight(routing, &head, &path) {
        return Ok(own(response));
    }
    if wellknown::is_own(&path) {
        let answer = wellknown::answer(gateway, routing, (client, &head), &path).await;
        return answer.map(own);
    }
    let route = match routing.find(&head.method, &path) {
        Found::Route(route) => route,
        Found::Choice(choice) => {
            let (route, read) = Box::pin(choose(gateway, routing, choice, &head, body)).await?;
            body = read;
            route.ok_or_else(no_route)?
        }
        Found::NotAllowed(allow) => return Err(method_not_allowed(allow)),
        Found::NoRoute => return Err(no_route()),
    };
    matched.route = Some(route);
    matched.shown = route.errors.shown(&head, || routing.parameters(&head.method, &path));
    span::note(|span| span.set_route(&route.log_fields));
    if !is_safe(&head.method) && is_doubtful(route, &path) {
        return Err(refused_path("The address could be read in two ways."));
    }
    let hops = if head.method == Method::OPTIONS { max_forwards(&head.headers) } else { None };
    if hops == Some(0) {
        return Ok(own(own_options(routing.allowed(&path))));
    }
    let path = match path {
        Cow::Borrowed(_) => Path(None),
        Cow::Owned(path) => Path(Some(path)),
    };
    if let Some(hops) = hops {
        head.headers.insert(MAX_FORWARDS, HeaderValue::from(hops - 1));
    }
    let caller = match &route.mode {
        RouteMode::Off => {
            route.callers.strip(&mut head.headers);
            Caller::default()
        }
        RouteMode::Observe(_) => route.callers.observe(client, &mut head).await,
        RouteMode::Items(_) | RouteMode::Request(_) => {
            let caller = match route.callers.identify(Some(client), &mut head).await {
                Ok(caller) => caller,
                Err(refusal) => return refusal.into_answer().map(own),
            };
            if let Some(rate) = &routing.rate {
                rate.take(&caller.id)?;
            }
            caller
        }
    };
    let arrived = Box::new(Arrived { head, body, client, path, caller, routing });
    match &route.mode {
        RouteMode::Off => {
            let bypassed = bypassed(routing, route, &arrived.head.headers);
            passthrough::through(route, arrived, bypassed, None).await
        }
        RouteMode::Observe(mode) => {
            // Another route's key protects nothing here either.
            let bypassed = routing.has_key(&arrived.head.headers).then_some(Disposition::Bypassed);
            observe_mode::through(gateway, route, mode, arrived, bypassed).await
        }
        RouteMode::Items(mode) => batch::exchange(gateway, route, mode, arrived).await,
        RouteMode::Request(mode) => request::keyed(gateway, route, mode, arrived).await,
    }
}

static KEY_WITHOUT_ROUTE: Repeated = Repeated::new("a key arrived on a route without keys");

/// The disposition of a request on a route without keys: a key header of another route protects
/// nothing there, and its sender should know.
fn bypassed(routing: &Routing, route: &Route, headers: &HeaderMap) -> Option<Disposition> {
    if !routing.has_key(headers) {
        return None;
    }
    if let Some(times) = KEY_WITHOUT_ROUTE.occur() {
        tracing::warn!(
            route = &*route.name,
            times,
            "a key arrived on a route without keys; it was passed on and protects nothing: give \
             the address a route with keys"
        );
    }
    Some(Disposition::Bypassed)
}

/// The answer to the preflight of a browser for a keyed route or an own page: no backend has to
/// know the key header. `None`: anything else, which the routes decide.
fn preflight(routing: &Routing, head: &http::request::Parts, path: &str) -> Option<Response<Body>> {
    let cors = routing.cors.as_ref()?;
    let method = cors::preflighted(&head.method, &head.headers)?;
    cors.allowed(&head.headers)?;
    let allow = match routing.find(&method, path) {
        _ if wellknown::is_own(path) => Some(HeaderValue::from_static("GET, HEAD")),
        Found::Route(route) if !matches!(route.mode, RouteMode::Off | RouteMode::Observe(_)) => {
            routing.allowed(path)
        }
        // Of routes that are told apart by what a request holds, one has keys.
        Found::Choice(_) => routing.allowed(path),
        Found::Route(_) | Found::NotAllowed(_) | Found::NoRoute => None,
    };
    Some(cors.preflight(&head.headers, allow?))
}

/// True when the backend could see another path than the route's. A keyed route protects its own
/// paths in any reading; on an off route, another reading may be a keyed route's.
fn is_doubtful(route: &Route, path: &str) -> bool {
    match &route.mode {
        RouteMode::Off | RouteMode::Observe(_) => ambiguous(path),
        RouteMode::Items(_) | RouteMode::Request(_) => hides_another(path),
    }
}

/// The number of further hops that a client allows (RFC 9110 section 7.6.2). A value that is no
/// number, or stands twice, is left to the backend.
fn max_forwards(headers: &HeaderMap) -> Option<u64> {
    let mut lines = headers.get_all(MAX_FORWARDS).iter();
    let (first, second) = (lines.next()?, lines.next());
    let digits = first.as_bytes();
    if second.is_some() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // A number that is too large is as good as the largest.
    let digits = first.to_str().ok().filter(|digits| !digits.is_empty())?;
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// The answer to an OPTIONS request that may not be forwarded.
fn own_options(allow: Option<HeaderValue>) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Some(allow) = allow {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// The path for routes and fingerprints. `OPTIONS *` addresses the server as a whole.
fn path_of(head: &http::request::Parts) -> Result<Cow<'_, str>, Problem> {
    let path = head.uri.path();
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    normalize_path(path).map_err(|error| refused_path(error.detail()))
}

fn refused_head(routing: &Routing, head: &http::request::Parts, error: HeadError) -> Problem {
    let slug = match error {
        HeadError::Method => Slug::MethodNotAllowed,
        HeadError::Version
        | HeadError::Target
        | HeadError::Host
        | HeadError::TransferEncoding
        | HeadError::ContentLength
        | HeadError::Expect
        | HeadError::Loop
        | HeadError::Nomination => Slug::RequestInvalid,
    };
    let problem = Problem::new(slug, error.detail()).status(error.status()).close();
    if !matches!(error, HeadError::Method) {
        return problem;
    }
    let path = path_of(head).ok();
    let allow = match path.map(|path| routing.find(&head.method, &path)) {
        Some(Found::NotAllowed(allow)) => allow,
        // No route has the path; the answer covers the server as a whole (RFC 9110 section 10.2.1).
        Some(Found::Route(_) | Found::Choice(_) | Found::NoRoute) | None => {
            http::HeaderValue::from_static("")
        }
    };
    problem.header(ALLOW, allow)
}

fn refused_path(detail: &'static str) -> Problem {
    Problem::new(Slug::RequestInvalid, detail).close()
}

fn no_route() -> Problem {
    Problem::new(Slug::NoRoute, "Nothing is served at this address.").disposition(None).close()
}

fn method_not_allowed(allow: http::HeaderValue) -> Problem {
    let problem = Problem::new(
        Slug::MethodNotAllowed,
        "This address does not take this kind of request; see the Allow header.",
    );
    problem.header(ALLOW, allow).disposition(None).close()
}
