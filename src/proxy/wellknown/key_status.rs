//! The status of a single key, for the client of the key.

use http::request;
use serde_json::{Value, json};

use super::key_record::find;
use crate::clock::{Timestamp, rfc3339};
use crate::idempotency::ledger::Fulfillment;
use crate::idempotency::{Ledger, Record, State};
use crate::proxy::callers::CallerRefusal;
use crate::proxy::peer::Peer;
use crate::proxy::routing::Routing;
use crate::proxy::state::Gateway;

/// The status of the key in the request's key header, for the tenant of its credentials.
pub(super) async fn status(
    gateway: &Gateway,
    routing: &Routing,
    (client, head): (&Peer, &request::Parts),
) -> Result<Value, CallerRefusal> {
    let found = find(gateway, routing, (client, head)).await?;
    Ok(status_document(&found.record, gateway.store.expiry_time().at))
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
