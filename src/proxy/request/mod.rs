//! Routes in request mode.

pub(super) mod claim;
pub(super) mod existing;
pub(super) mod forward;
pub(super) mod read;

use std::sync::Arc;
use std::time::Duration;

use http::header::TRAILER;
use http::{HeaderMap, HeaderName};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use self::forward::{Call, CallInput};
use self::read::KeyedRequest;
use super::answer::{AnswerResult, first_answer, quota_exceeded, too_many_claims};
use super::incoming::Arrived;
use super::passthrough;
use super::reply::{self, Reply};
use super::responder::Responder;
use super::routing::{Route, Routing};
use super::state::Gateway;
use crate::config::RequestMode;
use crate::idempotency::key::{KeyError, KeySource};
use crate::idempotency::{Decision, Fingerprint, decide};
use crate::problem::Disposition;
use crate::proxy::inflight::{Admission, Flight};
use crate::store::cache::CachedRecord;

/// How often a request looks again for the call that its key belongs to. Each time another request
/// with its key was refused meanwhile, and the store had no record of the key.
const MAX_JOINS: usize = 8;

/// How long a request waits at least for another one's claim: as long as a commit may take.
const CLAIM_WAIT: Duration = Duration::from_secs(1);

/// A request on a route in request mode.
pub(crate) async fn keyed(
    gateway: &Arc<Gateway>,
    route: &Arc<Route>,
    mode: &Arc<RequestMode>,
    arrived: Box<Arrived<'_>>,
) -> AnswerResult {
    if let KeySource::Header(name) = &mode.key.source
        && !mode.key.required
        && mode.key.from_headers(name, &arrived.head.headers) == Err(KeyError::Missing)
    {
        if announces(&arrived.head.headers, name) {
            return Err(read::key_in_a_trailer().close());
        }
        return passthrough::through(route, arrived, Some(Disposition::Bypassed)).await;
    }
    let routing = arrived.routing;
    let intake = match read::read(gateway, route, mode, arrived).await? {
        read::KeyedRead::Keyed(intake) => intake,
        read::KeyedRead::Keyless(whole) => {
            return passthrough::buffered(route, *whole).await;
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
            Admission::Join(flight) => {
                if let Some(answer) = join((route, mode, until), &flight, &fingerprint).await {
                    return answer;
                }
                match existing::recorded(gateway, intake.id, &fingerprint).await {
                    // Whoever has it in flight is waited for, in this process or in another.
                    None | Some(Reply::InProgress) => {}
                    Some(told) => return told.replay(&mode.duplicates.replayed_header),
                }
            }
            Admission::Lead(lead) => {
                let (first, answered) = oneshot::channel();
                let header = mode.duplicates.replayed_header.clone();
                let conclusion = Responder::new(lead, first, header);
                let subject = identity.subject;
                let wanted = CallInput { intake, fingerprint, subject, until };
                lead_call(gateway, routing, (route, mode), wanted, conclusion);
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
fn lead_call(
    gateway: &Arc<Gateway>,
    routing: &Routing,
    (route, mode): (&Arc<Route>, &Arc<RequestMode>),
    wanted: CallInput,
    conclusion: Responder,
) {
    let Ok(permit) = gateway.claims.clone().try_acquire_owned() else {
        return conclusion.refuse(too_many_claims());
    };
    let share = match &routing.quota {
        None => None,
        Some(quota) => match quota.take(wanted.intake.tenant) {
            Some(share) => Some(share),
            None => return conclusion.refuse(quota_exceeded()),
        },
    };
    let call = Call {
        gateway: gateway.clone(),
        route: route.clone(),
        mode: mode.clone(),
        wanted,
        permit,
        share,
    };
    gateway.tasks.spawn(Box::pin(forward::run(call, conclusion)));
}

/// Waits for the call in flight, as its duplicate. `None`: it was another request, and the key was
/// not its own; the store knows more.
async fn join(
    (route, mode, until): (&Route, &RequestMode, Instant),
    flight: &Flight,
    fingerprint: &Fingerprint,
) -> Option<AnswerResult> {
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
    let Ok(_waiting) = route.waiters.try_acquire() else { return in_progress() };
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
    known: &CachedRecord,
    intake: &KeyedRequest,
    mode: &RequestMode,
) -> Option<AnswerResult> {
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
