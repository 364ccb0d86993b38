//! One request from start to finish. Every way it can end early stands in this file.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::TRAILER;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::headers::check::{HeadError, check_request_head};
use super::headers::path::{ambiguous, normalize_path};
use super::reply::{self, Told};
use super::request::existing;
use super::request::forward::{self, Call, Wanted};
use super::request::inflight::{Entry, Flight};
use super::request::read::{self, Intake};
use super::responder::Conclusion;
use super::routes::Found;
use super::server::peer::Client;
use super::{Gateway, batch, passthrough, wellknown};
use crate::body::Body;
use crate::config::{Mode, RequestMode};
use crate::idempotency::key::{KeyError, KeySource};
use crate::idempotency::{Decision, Fingerprint, decide};
use crate::problem::{Dialect, Disposition, Problem, Slug};
use crate::store::cache::Known;

/// Bytes of the longest request target; RFC 9110 section 4.1 asks for 8000 at least.
const MAX_TARGET: usize = 16 << 10;

/// How often a request looks again for the call that its key belongs to. Each time another request
/// with its key was refused meanwhile, and the store had no record of the key.
const MAX_JOINS: usize = 8;

/// How long a request waits at least for another one's claim: as long as a commit may take.
const CLAIM_WAIT: Duration = Duration::from_secs(1);

/// What came of a request: the backend's answer, or one of the gateway's own.
pub(crate) type Answer = Result<Response<Body>, Problem>;

/// A request's head and body, as the server hands them over.
pub(crate) struct Arrived<'a> {
    pub(crate) head: http::request::Parts,
    pub(crate) body: Incoming,
    /// Where it comes from.
    pub(crate) client: &'a Client,
    pub(crate) path: Path,
}

/// The path that routes and fingerprints see, where it is not the one of the address.
pub(crate) struct Path(Option<String>);

impl Path {
    /// The path of a request to this address.
    pub(crate) fn of<'a>(&'a self, address: &'a Uri) -> &'a str {
        self.0.as_deref().unwrap_or_else(|| address.path())
    }
}

/// Answers one request.
pub(crate) async fn exchange(
    gateway: &Arc<Gateway>,
    client: &Client,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut dialect = Dialect::Problem;
    let no_body = request.body().is_end_stream();
    match answer(gateway, client, request, &mut dialect).await {
        Ok(response) => response,
        Err(problem) => {
            // A request without a body was read to its end; its connection can go on.
            let reusable = no_body && problem.slug != Slug::RequestInvalid;
            let close = problem.close && !reusable;
            report(&Problem { close, ..problem }, dialect)
        }
    }
}

/// The one place where a problem becomes an answer and a line in the log.
pub(crate) fn report(problem: &Problem, dialect: Dialect) -> Response<Body> {
    let instance = crate::nonce::uuid();
    let slug = problem.slug.as_str();
    if problem.status.is_server_error() {
        tracing::warn!(http.status = problem.status.as_u16(), problem = slug, %instance, "refused");
    } else {
        tracing::info!(http.status = problem.status.as_u16(), problem = slug, %instance, "refused");
    }
    problem.respond(dialect, instance)
}

async fn answer(
    gateway: &Arc<Gateway>,
    client: &Client,
    request: Request<Incoming>,
    dialect: &mut Dialect,
) -> Answer {
    let (head, body) = request.into_parts();
    check_request_head(&head).map_err(|error| refused_head(gateway, &head, error))?;
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
        return Err(Problem::new(Slug::UriTooLong, "The address is too long.").close());
    }
    let path = path_of(&head)?;
    if path.starts_with(wellknown::PATH) {
        return wellknown::answer(gateway, &head, &path).await;
    }
    let route = match gateway.router.find(&head.method, &path) {
        Found::Route(route) => route,
        Found::NotAllowed(allow) => return Err(method_not_allowed(allow)),
        Found::Nothing => return Err(no_route()),
    };
    if !head.method.is_safe() && ambiguous(&path) {
        return Err(refused_path("The address could be read in two ways."));
    }
    let path = match path {
        Cow::Borrowed(_) => Path(None),
        Cow::Owned(path) => Path(Some(path)),
    };
    let arrived = Box::new(Arrived { head, body, client, path });
    match &gateway.config.routes[route].mode {
        Mode::Off => passthrough::through(gateway, route, arrived, None).await,
        Mode::Items(mode) => {
            *dialect = mode.dialect;
            batch::exchange(gateway, route, mode, arrived).await
        }
        Mode::Request(mode) => {
            *dialect = mode.dialect;
            keyed(gateway, route, mode, arrived).await
        }
    }
}

/// A request on a route in request mode.
async fn keyed(
    gateway: &Arc<Gateway>,
    route: usize,
    mode: &RequestMode,
    arrived: Box<Arrived<'_>>,
) -> Answer {
    if let KeySource::Header(name) = &mode.key.source
        && !mode.key.required
        && mode.key.from_headers(name, &arrived.head.headers) == Err(KeyError::Missing)
    {
        if announces(&arrived.head.headers, name) {
            return Err(read::key_in_a_trailer().close());
        }
        return passthrough::through(gateway, route, arrived, Some(Disposition::Bypassed)).await;
    }
    let client = arrived.client;
    let intake = match read::read(gateway, route, mode, arrived).await? {
        read::Read::Keyed(intake) => intake,
        read::Read::Keyless(whole) => {
            return passthrough::buffered(gateway, client, route, *whole).await;
        }
    };
    if let Some(known) = gateway.hot.get(&intake.id)
        && let Some(answer) = remembered(gateway, &known, &intake, mode)
    {
        return answer;
    }
    let identity = intake.identify(mode);
    let fingerprint = identity.compared.fingerprint(&intake.tenant);
    let until = Instant::now() + mode.duplicates.wait;
    for _ in 0..MAX_JOINS {
        match gateway.calls.enter(intake.id, &fingerprint) {
            Entry::Join(flight) => {
                if let Some(answer) =
                    join(gateway, (route, mode, until), &flight, &fingerprint).await
                {
                    return answer;
                }
                match existing::recorded(gateway, intake.id, &fingerprint).await {
                    // Whoever has it in flight is waited for, in this process or in another.
                    None | Some(Told::InProgress) => {}
                    Some(told) => return told.replay(&mode.duplicates.replayed_header),
                }
            }
            Entry::Lead(lead) => {
                let (first, answered) = oneshot::channel();
                let header = mode.duplicates.replayed_header.clone();
                let conclusion = Conclusion::new(lead, first, header);
                let subject = identity.subject;
                let wanted = Wanted { intake, fingerprint, subject, until };
                lead_call(gateway, route, wanted, conclusion);
                return first_answer(answered, mode.duplicates.answer_within).await;
            }
        }
    }
    Err(reply::in_progress(reply::RETRY_LATER))
}

/// Whether `Trailer` announces this header: what is streamed cannot be called back when it arrives.
fn announces(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(TRAILER).iter().any(|line| {
        line.as_bytes()
            .split(|byte| *byte == b',')
            .any(|announced| announced.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    })
}

/// Starts the call in a task that outlives this request, or refuses it before the claim.
fn lead_call(gateway: &Arc<Gateway>, route: usize, wanted: Wanted, conclusion: Conclusion) {
    let Some(place) = gateway.claims.take() else {
        return conclusion.refuse(too_many_claims());
    };
    let share = match &gateway.quota {
        None => None,
        Some(quota) => match quota.take(wanted.intake.tenant) {
            Some(share) => Some(share),
            None => return conclusion.refuse(quota_exceeded()),
        },
    };
    let call = Call { gateway: gateway.clone(), route, wanted, place, share };
    gateway.tasks.spawn_boxed(Box::pin(forward::run(call, conclusion)));
}

/// Waits for the call this request started. The call goes on when the wait ends.
pub(crate) async fn first_answer(
    answered: oneshot::Receiver<Answer>,
    within: Option<Duration>,
) -> Answer {
    let lost = || reply::outcome_unknown(StatusCode::BAD_GATEWAY);
    let Some(within) = within else {
        return answered.await.unwrap_or_else(|_| Err(lost()));
    };
    match timeout(within, answered).await {
        Ok(answer) => answer.unwrap_or_else(|_| Err(lost())),
        Err(_) => Err(reply::in_progress(reply::RETRY_LATER).status(StatusCode::GATEWAY_TIMEOUT)),
    }
}

/// Waits for the call in flight, as its duplicate. `None`: it was another request, and the key was
/// not its own; the store knows more.
async fn join(
    gateway: &Arc<Gateway>,
    (route, mode, until): (usize, &RequestMode, Instant),
    flight: &Flight,
    fingerprint: &Fingerprint,
) -> Option<Answer> {
    let wait = mode.duplicates.wait;
    let in_progress = || Some(Err(reply::in_progress(expected_rest(flight))));
    if flight.fingerprint.digest != fingerprint.digest {
        // Until it is claimed, either of the two may be the one that the key was used for.
        let claimed = until.max(Instant::now() + CLAIM_WAIT);
        return match timeout_at(claimed, flight.holds_its_key()).await {
            Ok(true) => Some(Err(reply::reused(flight.fingerprint.differing(fingerprint)))),
            Ok(false) => None,
            Err(_) => in_progress(),
        };
    }
    if wait.is_zero() {
        return in_progress();
    }
    let Some(_waiting) = gateway.waiters[route].take() else { return in_progress() };
    match timeout_at(until, flight.concluded()).await {
        Ok(told) => Some(told.replay(&mode.duplicates.replayed_header)),
        Err(_) => in_progress(),
    }
}

/// When a call may be expected to end, from what is known of it: one that has run for some time is
/// given as much again, between 1 s and 30 s.
fn expected_rest(flight: &Flight) -> Duration {
    flight.started.elapsed().clamp(Duration::from_secs(1), Duration::from_secs(30))
}

/// The answer a final record in memory gives; `None` when it no longer decides.
fn remembered(
    gateway: &Gateway,
    known: &Known,
    intake: &Intake,
    mode: &RequestMode,
) -> Option<Answer> {
    let record = &known.record;
    let digest = record.fingerprint.digest;
    // The digests of the members are only needed to name what differs.
    let same = || Fingerprint { digest, members: Arc::default() };
    let fingerprint = if known.verbatim.get().is_some_and(|first| intake.is_verbatim(mode, first)) {
        same()
    } else {
        let compared = intake.identify(mode).compared;
        if compared.digest == digest {
            // Another thread may have been first with the same.
            let _ = known.verbatim.set(intake.verbatim(mode));
            same()
        } else {
            compared.fingerprint(&intake.tenant)
        }
    };
    match decide(Some(record), &fingerprint, gateway.store.now()) {
        // What is here was told before.
        Decision::Replay { response, expires, recovered: _ } => {
            let header = &mode.duplicates.replayed_header;
            let made = || reply::replay_headers(response, expires, header);
            let (marker, headers) = known.replay.get_or_init(|| (header.clone(), made()));
            let headers = if marker == header { headers.clone() } else { made() };
            Some(Ok(reply::with_headers(response, headers)))
        }
        Decision::Reused { differing } => Some(Err(reply::reused(differing))),
        Decision::Expired | Decision::Forward { .. } => {
            gateway.hot.forget(&intake.id);
            None
        }
        Decision::NotRetained { .. } | Decision::InProgress | Decision::Unknown => None,
    }
}

/// The path that routes and fingerprints see. `OPTIONS *` asks about the server as a whole.
fn path_of(head: &http::request::Parts) -> Result<Cow<'_, str>, Problem> {
    let path = head.uri.path();
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    normalize_path(path).map_err(|error| refused_path(error.detail()))
}

fn refused_head(gateway: &Gateway, head: &http::request::Parts, error: HeadError) -> Problem {
    let slug = match error {
        HeadError::Method => Slug::MethodNotAllowed,
        HeadError::Version
        | HeadError::Target
        | HeadError::Host
        | HeadError::TransferEncoding
        | HeadError::ContentLength
        | HeadError::Expect
        | HeadError::Nomination => Slug::RequestInvalid,
    };
    let problem = Problem::new(slug, error.detail()).status(error.status()).close();
    if !matches!(error, HeadError::Method) {
        return problem;
    }
    let path = path_of(head).ok();
    let allow = match path.map(|path| gateway.router.find(&head.method, &path)) {
        Some(Found::NotAllowed(allow)) => allow,
        // Nothing is served there (RFC 9110 section 10.2.1).
        Some(Found::Route(_) | Found::Nothing) | None => http::HeaderValue::from_static(""),
    };
    Problem { allow: Some(allow), ..problem }
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
    Problem { allow: Some(allow), ..problem.disposition(None).close() }
}

pub(crate) fn too_many_claims() -> Problem {
    Problem::new(
        Slug::Overloaded,
        "Too many requests are being worked on. Nothing was sent; please try again shortly.",
    )
    .retry_after(reply::RETRY_LATER)
}

pub(crate) fn quota_exceeded() -> Problem {
    Problem::new(
        Slug::QuotaExceeded,
        "Too many of your requests are being worked on. Nothing was sent; please try again \
         shortly.",
    )
    .retry_after(reply::RETRY_LATER)
}
