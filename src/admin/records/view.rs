//! Records in the form shown to operators. Keys are shown, because operators need them; request
//! content is not stored, so no credentials are shown.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::hex;
use crate::idempotency::history::HistoryEntry;
use crate::idempotency::ledger::Fulfillment;
use crate::idempotency::record::{Expiry, StoredResponse};
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::settling::{REQUEST, Settling};
use crate::idempotency::{Answer, Ledger, Record, RecordId, State};

/// The state of a record, as named in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum StateName {
    InFlight,
    Unknown,
    Final,
    Tombstone,
    Released,
    Complete,
    Partial,
    None,
}

impl StateName {
    pub(in crate::admin) const ALL: [Self; 8] = [
        Self::InFlight,
        Self::Unknown,
        Self::Final,
        Self::Tombstone,
        Self::Released,
        Self::Complete,
        Self::Partial,
        Self::None,
    ];

    pub(in crate::admin) const fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Unknown => "unknown",
            Self::Final => "final",
            Self::Tombstone => "tombstone",
            Self::Released => "released",
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::None => "none",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text)
    }

    /// All names, for an error message.
    pub(super) fn all() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }

    /// Reports states listed in the store's index of open records.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::InFlight | Self::Unknown)
    }

    pub(super) fn of(record: &Record) -> Self {
        match &record.state {
            State::InFlight | State::SerializeLock => Self::InFlight,
            State::Unknown { .. } => Self::Unknown,
            State::Final { .. } => Self::Final,
            State::Tombstone { .. } => Self::Tombstone,
            State::Released { .. } => Self::Released,
            State::Item { ledger, .. } if ledger.in_flight > 0 => Self::InFlight,
            State::Item { ledger, .. } => match ledger.fulfillment() {
                Fulfillment::Complete => Self::Complete,
                Fulfillment::Partial => Self::Partial,
                Fulfillment::None => Self::None,
                Fulfillment::Unknown => Self::Unknown,
            },
        }
    }
}

/// The record as stored, unless absent at `time`.
pub(super) fn current_as_it_is(record: Record, time: ExpiryTime) -> Option<Record> {
    let there = record.state != State::SerializeLock && record.expired(time) != Expiry::Forget;
    there.then_some(record)
}

/// The record in effect at `time`; `None`: absent. Locks of `serialize_by` describe no request and
/// are never shown.
pub(super) fn current(record: Record, time: ExpiryTime) -> Option<Record> {
    if record.state == State::SerializeLock {
        return None;
    }
    match record.expired(time) {
        Expiry::Keep => Some(record),
        Expiry::Bury(buried) => Some(*buried),
        Expiry::Forget => None,
    }
}

/// A record in a listing.
pub(super) fn summary(id: &RecordId, record: &Record) -> Value {
    let status = match &record.state {
        State::Final { answer, .. } => Some(answer.status()),
        State::Tombstone { status, .. } => Some(*status),
        State::InFlight
        | State::SerializeLock
        | State::Unknown { .. }
        | State::Released { .. }
        | State::Item { .. } => None,
    };
    let reason = match &record.state {
        State::Unknown { reason, .. } => Some(reason.to_string()),
        State::Item { ledger, .. } => ledger.doubt.map(|doubt| doubt.to_string()),
        State::InFlight
        | State::SerializeLock
        | State::Final { .. }
        | State::Tombstone { .. }
        | State::Released { .. } => None,
    };
    let mut shown = json!({
        "id": id.to_string(),
        "tenant": record.caller.as_deref().map_or_else(|| record.tenant.to_string(), str::to_owned),
        "tenant_id": record.tenant.to_string(),
        "route": record.route,
        "key": record.key,
        "state": StateName::of(record).as_str(),
        "status": status,
        "attempts": record.attempts,
        "first_seen": rfc3339(record.first_seen),
        "updated": rfc3339(record.updated),
        "expires": record.expires().map(rfc3339),
        "reason": reason,
    });
    if let Some(ledger) = record.ledger() {
        shown["item"] = quantities(ledger);
    }
    shown
}

/// A record with its history and the stored answers of the backend.
pub(super) fn detail(id: &RecordId, record: &Record) -> Value {
    let mut shown = summary(id, record);
    shown["history"] = record.history.iter().map(entry).collect();
    shown["fingerprint"] = hex::encode(&record.fingerprint.digest).into();
    match &record.state {
        State::Unknown { since, .. } => shown["unknown_since"] = rfc3339(*since).into(),
        State::Final { answer, completed, .. } => {
            shown["completed"] = rfc3339(*completed).into();
            if let Answer::Kept(response) = answer {
                shown["response"] = answered(response);
            }
        }
        State::Tombstone { completed, .. } => shown["completed"] = rfc3339(*completed).into(),
        State::Item { ledger, .. } => {
            let lists = ledger.outcomes.iter();
            let lists = lists.map(|list| (list.at.clone(), list.elements.clone().into()));
            shown["item"]["outcomes"] = Value::Object(lists.collect());
            shown["item"]["row"] = ledger.row.as_ref().map(|row| row.text.as_str()).into();
            shown["item"]["evidence"] = ledger.evidence.clone().into();
        }
        State::InFlight | State::SerializeLock | State::Released { .. } => {}
    }
    if let Some(settling) = &record.settling {
        shown["settlement"] = settlement(settling);
    }
    shown
}

/// Progress of the policy about an open record.
fn settlement(settling: &Settling) -> Value {
    let schedule = &settling.schedule;
    let mut shown = json!({
        "dispatched": rfc3339(settling.dispatched),
        "steps": schedule.tries,
        "sightings": schedule.absent.map_or(0, |absent| absent.count),
        "resent": schedule.resent,
        "reversing": schedule.reversing,
        "gave_up": schedule.gave_up,
        "next": schedule.next.map(rfc3339),
    });
    if let Some(answer) = &settling.answer {
        shown["answer"] = answered(answer);
    }
    if let Some(request) = settling.value(REQUEST) {
        shown["request"] = request.into();
    }
    shown
}

fn quantities(ledger: &Ledger) -> Value {
    json!({
        "requested": ledger.requested,
        "fulfilled": ledger.fulfilled,
        "in_flight": ledger.in_flight,
        "unknown": ledger.unknown,
        "closed": ledger.closed,
    })
}

fn entry(entry: &HistoryEntry) -> Value {
    let mut shown = json!({
        "at": rfc3339(entry.at),
        "what": entry.what.as_str(),
        "attempt": entry.attempt,
        "by": entry.note.by(),
        "reason": entry.note.why(),
    });
    if entry.times > 1 {
        shown["times"] = entry.times.into();
    }
    if let Some(units) = entry.units {
        shown["units"] = units.into();
    }
    shown
}

/// A stored response; header lines in their order as pairs, because names may repeat.
fn answered(response: &StoredResponse) -> Value {
    let line = |(name, value): &(http::HeaderName, http::HeaderValue)| {
        json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
    };
    let mut shown = json!({
        "status": response.status,
        "headers": response.headers.iter().map(line).collect::<Vec<_>>(),
    });
    match std::str::from_utf8(&response.body) {
        Ok(text) => shown["body"] = text.into(),
        Err(_) => shown["body_base64"] = BASE64_STANDARD.encode(&response.body).into(),
    }
    shown
}
