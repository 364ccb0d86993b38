//! Routes in request mode.

mod already_done;
pub(super) mod claim;
pub(super) mod draft;
mod echo;
pub(super) mod existing;
pub(super) mod forward;
mod late;
pub(super) mod read;
pub(super) mod refusals;
mod repeat;
pub(super) mod send;
pub(crate) mod suspect;
mod unsettled;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use self::echo::OwnHeaders;
use self::forward::{Call, CallInput};
use self::read::KeyedRequest;
use super::answer::{AnswerResult, first_answer, quota_exceeded, too_many_claims};
use super::incoming::Arrived;
use super::passthrough;
use super::replay_memory;
use super::reply::{self, Reply};
use super::responder::Responder;
use super::routing::{Route, Routing};
use super::state::Gateway;
use crate::config::RequestMode;
use crate::idempotency::key::KeyError;
use crate::idempotency::{Decision, Fingerprint, decide};
use crate::observe::exchange;
use crate::problem::Disposition;
use crate::proxy::inflight::{Admission, Flight};
use crate::store::cache::CachedRecord;

/// Maximum number of lookups of the flight for a key. Every further lookup means a different
/// request under the key was refused in the meantime, without a record in the store.
const MAX_JOINS: usize = 8;

/// Minimum wait for the claim of a different request: the time a commit may take.
const CLAIM_WAIT: Duration = Duration::from_secs(1);

/// A request on a route in request mode.
pub(crate) async fn keyed(
    gateway: &Arc<Gateway>,
    route: &Arc<Route>,
    mode: &Arc<RequestMode>,
    arrived: Box<Arrived<'_>>,
) -> AnswerResult {
    if !mode.key.required
        && !mode.key.places.in_body()
        && read::key_in_head(mode, &arrived) == Err(KeyError::Missing)
    {
        if read::announces(&arrived.head.headers, &route.key_headers) {
            return Err(refusals::key_in_a_trailer().close());
        }
        return passthrough::through(route, arrived, Some(Disposition::Bypassed), None).await;
    }
    let routing = arrived.routing;
    let request = match read::read(gateway, route, mode, arrived).await? {
        read::KeyedRead::Keyed(request) => request,
        read::KeyedRead::Keyless(buffered) => {
            return passthrough::buffered(route, *buffered).await;
        }
    };
    let own = OwnHeaders::of(&mode.duplicates.echo_headers, &request.buffered.head.headers);
    let answer = answered(gateway, routing, (route, mode), request).await;
    own.into_replay(replay_memory::counted(&gateway.budget, answer))
}

/// The answer to a request with a key.
async fn answered(
    gateway: &Arc<Gateway>,
    routing: &Routing,
    (route, mode): (&Arc<Route>, &Arc<RequestMode>),
    request: Box<KeyedRequest>,
) -> AnswerResult {
    exchange::note(|span| span.set_record(request.id.as_bytes()));
    if let Some(cached) = gateway.cache.get(&request.id)
        && let Some(answer) = remembered(gateway, &cached, &request, mode)
    {
        return answer;
    }
    // The preimage is as large as the body, and not held while the call is in flight.
    let (fingerprint, subject) = {
        let identity = request.identify(mode)?;
        (identity.compared.fingerprint(&request.tenant), identity.subject)
    };
    let until = Instant::now() + mode.duplicates.wait;
    for _ in 0..MAX_JOINS {
        match gateway.in_flight.enter(request.id, &fingerprint) {
            Admission::Join(flight) => {
                if let Some(answer) = join((route, mode, until), &flight, &fingerprint).await {
                    return answer;
                }
                match existing::lookup(gateway, route.settle.as_deref(), (request.id, &fingerprint))
                    .await
                {
                    // A flight in this process or another is joined in the next iteration.
                    None | Some(Reply::InProgress) => {}
                    Some(reply) => return reply.replay(&mode.duplicates.replayed_header),
                }
            }
            Admission::Lead(lead) => {
                let earlier =
                    match suspect::search(gateway, mode, &request, (&fingerprint, subject)).await {
                        Ok(earlier) => earlier,
                        Err(problem) => {
                            lead.conclude(Reply::Refused(problem.clone()));
                            return Err(problem);
                        }
                    };
                let (first, answered) = oneshot::channel();
                let header = mode.duplicates.replayed_header.clone();
                let responder = Responder::new(lead, first, header);
                let values = request.kept_values(route, mode);
                let input = CallInput { request, fingerprint, subject, values, until };
                start_request(gateway, routing, (route, mode), input, responder);
                let answer = first_answer(answered, mode.duplicates.answer_within).await;
                return suspect::tell(answer, earlier);
            }
        }
    }
    Err(reply::in_progress())
}

/// Starts the request in a task independent of the client's connection, or refuses the request
/// before its claim.
fn start_request(
    gateway: &Arc<Gateway>,
    routing: &Routing,
    (route, mode): (&Arc<Route>, &Arc<RequestMode>),
    input: CallInput,
    responder: Responder,
) {
    let Some(permit) = gateway.claims.try_acquire() else {
        return responder.refuse(too_many_claims());
    };
    let share = match &routing.quota {
        None => None,
        Some(quota) => match quota.take(input.request.tenant) {
            Some(share) => Some(share),
            None => return responder.refuse(quota_exceeded()),
        },
    };
    let call = Call {
        gateway: gateway.clone(),
        route: route.clone(),
        mode: mode.clone(),
        input,
        permit,
        share,
    };
    gateway.tasks.spawn(exchange::carried(Box::pin(forward::run(call, responder))));
}

/// Waits for the flight as a duplicate. `None`: the key did not belong to the flight's request; the
/// store has the answer.
async fn join(
    (route, mode, until): (&Route, &RequestMode, Instant),
    flight: &Flight,
    fingerprint: &Fingerprint,
) -> Option<AnswerResult> {
    let wait = mode.duplicates.wait;
    let in_progress = || Some(Err(reply::in_progress()));
    if !flight.fingerprint.is_same_request(fingerprint) {
        // Before the claim, the key may still belong to either request.
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
    let Ok(_waiting) = route.waiters.try_acquire() else { return in_progress() };
    match timeout_at(until, flight.concluded()).await {
        Ok(reply) => Some(reply.replay(&mode.duplicates.replayed_header)),
        Err(_) => in_progress(),
    }
}

/// The answer of a cached final record; `None` when the record is no longer valid.
fn remembered(
    gateway: &Gateway,
    cached: &CachedRecord,
    request: &KeyedRequest,
    mode: &RequestMode,
) -> Option<AnswerResult> {
    let record = &cached.record;
    // Member digests are only needed to name the differing members.
    let same = || Fingerprint { members: Arc::default(), ..record.fingerprint.clone() };
    let fingerprint = if cached.verbatim.get().is_some_and(|first| request.is_verbatim(mode, first))
    {
        same()
    } else {
        let compared = match request.identify(mode) {
            Ok(identity) => identity.compared,
            Err(problem) => return Some(Err(problem)),
        };
        if compared.digest == record.fingerprint.digest {
            // Another thread may have stored the same value first.
            let _ = cached.verbatim.set(request.verbatim(mode));
            same()
        } else {
            compared.fingerprint(&request.tenant)
        }
    };
    match decide(Some(record), &fingerprint, gateway.store.expiry_time()) {
        // A cached record was already delivered before.
        Decision::Replay { response, expires, recovered: _ } => {
            let header = &mode.duplicates.replayed_header;
            let made = || reply::replay_headers(response, expires, header);
            let (marker, headers) = cached.replay.get_or_init(|| (header.clone(), made()));
            let headers = if marker == header { headers.clone() } else { made() };
            Some(Ok(reply::with_headers(response, headers)))
        }
        Decision::Reused { differing } => Some(Err(reply::reused(differing))),
        Decision::Expired | Decision::Forward { .. } => {
            gateway.cache.forget(&request.id);
            None
        }
        Decision::NotRetained { .. } | Decision::InProgress | Decision::Unknown => None,
    }
}
