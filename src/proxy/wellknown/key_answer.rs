//! The stored answer of a single key, for the client of the key: a replay that never calls a
//! backend, whatever the state of the key.

use std::sync::Arc;
use std::time::Duration;

use http::header::CACHE_CONTROL;
use http::{HeaderValue, request};
use tokio::time::{Instant, timeout, timeout_at};

use super::key_record::{KeyRecord, find};
use crate::config::units::parse_time;
use crate::idempotency::{Record, RecordId, State};
use crate::percent;
use crate::problem::{Problem, Slug};
use crate::proxy::answer::AnswerResult;
use crate::proxy::peer::Peer;
use crate::proxy::replay_memory;
use crate::proxy::reply::{self, Reply};
use crate::proxy::request::existing;
use crate::proxy::routing::{Route, RouteMode, Routing};
use crate::proxy::state::Gateway;

/// The answer of the key in the request's key header, for the tenant of its credentials. Waits for
/// a call in flight, and for the settlement of an unknown outcome, as long as the query asks, at
/// most the route's `wait`.
pub(super) async fn answer(
    gateway: &Gateway,
    routing: &Routing,
    (client, head): (&Peer, &request::Parts),
) -> AnswerResult {
    let wait = wanted_wait(head.uri.query())?;
    let KeyRecord { route, id, record } = match find(gateway, routing, (client, head)).await {
        Ok(found) => found,
        Err(refusal) => return refusal.into_answer(),
    };
    let RouteMode::Request(mode) = &route.mode else {
        let detail = "An item of a batch has no answer of its own; send the batch again, or ask \
                      for the item's status.";
        return Err(Problem::new(Slug::NotFound, detail).disposition(None));
    };
    let until = Instant::now() + wait.min(mode.duplicates.wait);
    let reply = stored_reply(gateway, route, (id, record), until).await?;
    let replay = reply.replay(&mode.duplicates.replayed_header);
    let mut response = replay_memory::counted(&gateway.budget, replay)?;
    // The answer to a GET; a cache in between knows nothing of keys.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The reply of the record, once its outcome is known or at `until`.
async fn stored_reply(
    gateway: &Gateway,
    route: &Arc<Route>,
    (id, mut record): (RecordId, Record),
    until: Instant,
) -> Result<Reply, Problem> {
    if is_open(&record) && Instant::now() < until {
        // One permit for each client that waits, as for duplicates. A client without one reads the
        // present state.
        if let Ok(_waiting) = route.waiters.try_acquire() {
            record = decided(gateway, id, record, until).await?;
        }
    }
    // Looking at the answer starts no step: a policy of retries does not settle it meanwhile.
    let settling = route.settle.as_deref().filter(|settle| settle.has_schedule());
    match existing::lookup(gateway, settling, (id, &record.fingerprint)).await {
        Some(Reply::InProgress) => Err(reply::in_progress()),
        Some(reply) => Ok(reply),
        None => Err(nothing_kept()),
    }
}

/// Reports a record whose answer may still come: from the call, or from its settlement.
fn is_open(record: &Record) -> bool {
    record.state == State::InFlight || record.is_unknown()
}

/// Waits until the outcome is known, at most until `until`; returns the record from then.
async fn decided(
    gateway: &Gateway,
    id: RecordId,
    mut record: Record,
    until: Instant,
) -> Result<Record, Problem> {
    while is_open(&record) {
        if timeout_at(until, changed(gateway, id, &record)).await.is_err() {
            break;
        }
        let read = gateway.store.get(id).await.map_err(|error| {
            tracing::error!(record = ?id, %error, "the answer of a key could not be read");
            reply::store_unavailable()
        })?;
        record = read.ok_or_else(nothing_kept)?;
    }
    Ok(record)
}

/// Waits until the record may have changed, by this process or by another, at most for a moment: a
/// settlement, and the call of an earlier process, are announced by nobody.
async fn changed(gateway: &Gateway, id: RecordId, record: &Record) {
    const POLL: Duration = Duration::from_millis(250);
    let change = async {
        match gateway.in_flight.flight(&id) {
            Some(flight) => drop(flight.concluded().await),
            // The record was read before the watch: a change in between is found by polling.
            None if gateway.store.is_shared() && record.state == State::InFlight => {
                gateway.store.watch(id, record.owner).changed().await;
            }
            None => std::future::pending().await,
        }
    };
    // Also without a change.
    let _ = timeout(POLL, change).await;
}

fn nothing_kept() -> Problem {
    let detail = "There is no answer for this key: no request with it is kept here.";
    Problem::new(Slug::NotFound, detail).disposition(None)
}

/// `?wait=5s`; zero when left out.
fn wanted_wait(query: Option<&str>) -> Result<Duration, Problem> {
    let parameters = query.unwrap_or_default().split('&');
    let mut values = parameters.filter_map(|parameter| parameter.strip_prefix("wait="));
    let Some(value) = values.next() else { return Ok(Duration::ZERO) };
    let wrong = || {
        let detail = "The parameter `wait` is a duration such as 5s.";
        Problem::new(Slug::RequestInvalid, detail).disposition(None)
    };
    let decoded = percent::decode(value).ok_or_else(wrong)?;
    parse_time(&decoded).ok_or_else(wrong)
}
