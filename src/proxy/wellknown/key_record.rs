//! Look-up of a single key, for the client of the key.

use std::sync::Arc;

use http::{HeaderMap, request};

use crate::config::{Mode, RouteConfig};
use crate::idempotency::key::{Key, KeyError, KeyRules, Scope, any_text};
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::{Record, RecordId, State};
use crate::items;
use crate::problem::{Problem, Slug};
use crate::proxy::callers::CallerRefusal;
use crate::proxy::peer::Peer;
use crate::proxy::reply;
use crate::proxy::routing::{Route, Routing};
use crate::proxy::state::Gateway;

/// The record of a key.
pub(super) struct KeyRecord<'r> {
    /// The route that claimed the key, else one on which it is found.
    pub(super) route: &'r Arc<Route>,
    pub(super) id: RecordId,
    pub(super) record: Record,
}

/// The record of the key in the request's key header, for the caller of the request.
///
/// # Errors
/// When no key is named, the key has no record, or the store does not answer.
pub(super) async fn find<'r>(
    gateway: &Gateway,
    routing: &'r Routing,
    (client, head): (&Peer, &request::Parts),
) -> Result<KeyRecord<'r>, CallerRefusal> {
    let mut head = head.clone();
    // A caller whom only a route's own `tenant` knows is refused here, and may have a record there.
    let (common, mut unnamed) = match routing.callers.identify(Some(client), &mut head).await {
        Ok(caller) => (Some(caller), None),
        Err(refusal) => (None, Some(refusal)),
    };
    let headers = &head.headers;
    let refusal = |slug, detail| CallerRefusal::Problem(Problem::new(slug, detail));
    let (mut named, mut refused) = (false, false);
    let mut unchecked = None;
    for (configured, route) in routing.each().filter(|(configured, _)| configured.is_keyed()) {
        let found = match scoped_key(configured, headers) {
            Some(Ok(found)) => found,
            Some(Err(error)) => {
                // A key refused by a route may be valid for the next.
                refused |= error != KeyError::Missing;
                continue;
            }
            None => continue,
        };
        named = true;
        let (scope, key) = &found;
        let own = match configured.tenant {
            None => None,
            Some(_) => match route.callers.identify(Some(client), &mut head.clone()).await {
                Ok(caller) => Some(caller),
                // Another way to name callers may know this one.
                Err(refusal) => {
                    unchecked = unchecked.or(refusal.is_outage().then_some(refusal));
                    continue;
                }
            },
        };
        let Some(caller) = own.as_ref().or(common.as_ref()) else { continue };
        unnamed = None;
        let id = gateway.store.ids().record(&caller.id, scope, key);
        let record = gateway.store.get(id).await.map_err(|error| {
            tracing::error!(record = ?id, %error, "the record of a key could not be read");
            CallerRefusal::Problem(reply::store_unavailable())
        })?;
        if let Some(record) =
            record.filter(|record| !forgotten(record, gateway.store.expiry_time()))
        {
            // Routes that share their keys differ in how long a client may wait, and in names.
            let is_own = |other: &RouteConfig| {
                *other.name == *record.route
                    && scoped_key(other, headers) == Some(Ok(found.clone()))
            };
            let own = routing.each().find(|(other, _)| is_own(other));
            let route = own.map_or(route, |(_, own)| own);
            return Ok(KeyRecord { route, id, record });
        }
    }
    // Without every caller, "not known here" could be untrue.
    if let Some(refusal) = unchecked.or(unnamed) {
        return Err(refusal);
    }
    if refused && !named {
        let detail = "The idempotency key in the header is not valid.";
        return Err(refusal(Slug::KeyInvalid, detail));
    }
    if !named {
        let detail = "Name the key in the header it was sent with, such as Idempotency-Key.";
        return Err(refusal(Slug::KeyMissing, detail));
    }
    let detail = "This key is not known here: no request with it was accepted.";
    Err(CallerRefusal::Problem(Problem::new(Slug::NotFound, detail).disposition(None)))
}

/// The scope and the key of a record on the route. On a batch API the header holds the id of an
/// item.
fn scoped_key(
    route: &RouteConfig,
    headers: &HeaderMap,
) -> Option<Result<(String, String), KeyError>> {
    match &route.mode {
        Mode::Request(mode) => {
            let scope = match mode.key.scope {
                Scope::Tenant => String::new(),
                Scope::Route => route.name.to_string(),
            };
            // A composite key has no single text that a client could name.
            mode.key.places.single()?;
            Some(key_for(&mode.key, headers).map(|key| (scope, key.into_string())))
        }
        Mode::Items(mode) => {
            let id = headers.get("idempotency-key").map(|line| any_text(line.as_bytes()));
            let id = id.unwrap_or(Err(KeyError::Missing));
            Some(id.map(|id| (items::scope(&mode.ledger), id)))
        }
        Mode::Off => None,
    }
}

/// The key by the rules of the route; from the standard header for routes with keys elsewhere.
fn key_for(rules: &KeyRules, headers: &HeaderMap) -> Result<Key, KeyError> {
    let usual = http::HeaderName::from_static("idempotency-key");
    rules.from_headers(rules.places.header().unwrap_or(&usual), headers)
}

/// Returns true if a record counts as absent for clients.
fn forgotten(record: &Record, time: ExpiryTime) -> bool {
    matches!(record.state, State::Released { .. })
        || record.expired(time) == crate::idempotency::record::Expiry::Forget
}
