//! The status of a single key, for the client of the key.

use http::HeaderMap;
use serde_json::{Value, json};

use crate::clock::{Timestamp, rfc3339};
use crate::config::{Mode, RouteConfig};
use crate::idempotency::key::{Key, KeyError, KeyRules, Scope, any_text};
use crate::idempotency::ledger::Fulfillment;
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::{Ledger, Record, RecordId, State, TenantId};
use crate::items;
use crate::problem::{Problem, Slug};
use crate::proxy::reply;
use crate::proxy::routing::Routing;
use crate::proxy::state::Gateway;

/// The status of the key in the request's key header, for the tenant of its credentials.
pub(crate) async fn status(
    gateway: &Gateway,
    routing: &Routing,
    headers: &HeaderMap,
) -> Result<Value, Problem> {
    let tenant = TenantId::of(&routing.tenant_headers, headers);
    let (mut named, mut refused) = (false, false);
    for route in &*routing.configured {
        let (scope, key) = match scoped_key(route, headers) {
            Some(Ok(found)) => found,
            Some(Err(error)) => {
                // A key refused by a route may be valid for the next.
                refused |= error != KeyError::Missing;
                continue;
            }
            None => continue,
        };
        named = true;
        let id = RecordId::new(&tenant, &scope, &key);
        let record = gateway.store.get(id).await.map_err(|error| {
            tracing::error!(%error, "the status of a key could not be read from the store");
            reply::store_unavailable()
        })?;
        if let Some(record) =
            record.filter(|record| !forgotten(record, gateway.store.expiry_time()))
        {
            return Ok(status_document(&record, gateway.store.expiry_time().at));
        }
    }
    if refused && !named {
        let detail = "The idempotency key in the header is not valid.";
        return Err(Problem::new(Slug::KeyInvalid, detail));
    }
    if !named {
        let detail = "Name the key in the header it was sent with, such as Idempotency-Key.";
        return Err(Problem::new(Slug::KeyMissing, detail));
    }
    let detail = "This key is not known here: no request with it was accepted.";
    Err(Problem::new(Slug::NotFound, detail).disposition(None))
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

fn status_document(record: &Record, now: Timestamp) -> Value {
    if let Some(ledger) = record.ledger() {
        return item_document(record, ledger);
    }
    let expired = record.expires().is_some_and(|at| at <= now);
    let (state, status, completed, expires) = match &record.state {
        State::InFlight => ("in_flight", None, None, None),
        State::Unknown { .. } | State::SerializeLock | State::Item { .. } => {
            ("unknown", None, None, None)
        }
        State::Released { .. } => ("absent", None, None, None),
        State::Final { answer, completed, expires, .. } => {
            let state = if expired { "tombstone" } else { "final" };
            (state, Some(answer.status()), Some(*completed), *expires)
        }
        State::Tombstone { status, completed, expires } => {
            ("tombstone", Some(*status), Some(*completed), *expires)
        }
    };
    json!({
        "state": state,
        "status": status,
        "first_seen": rfc3339(record.first_seen),
        "completed_at": completed.map(rfc3339),
        "expires_at": expires.map(rfc3339),
        "attempts": record.attempts,
    })
}

/// The status of a single item of a batch API.
fn item_document(record: &Record, ledger: &Ledger) -> Value {
    let state = match ledger.fulfillment() {
        _ if ledger.in_flight > 0 => "in_flight",
        Fulfillment::Complete => "complete",
        Fulfillment::Partial => "partial",
        Fulfillment::None => "none",
        Fulfillment::Unknown => "unknown",
    };
    // An item may be fulfilled by several batches, so no single status exists.
    let completed = ledger.is_done().then(|| rfc3339(record.updated));
    json!({
        "state": state,
        "status": null,
        "completed_at": completed,
        "requested": ledger.requested,
        "fulfilled": ledger.fulfilled,
        "in_flight": ledger.in_flight,
        "unknown": ledger.unknown,
        "reason": ledger.doubt.map(|doubt| doubt.to_string()),
        "closed": ledger.closed,
        "first_seen": rfc3339(record.first_seen),
        "updated_at": rfc3339(record.updated),
        "expires_at": record.expires().map(rfc3339),
        "attempts": record.attempts,
    })
}
