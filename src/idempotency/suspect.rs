//! Suspected duplicates: another key of the same caller for the same subject, a short while ago.

use std::time::Duration;

use super::record::{Record, State};
use super::tenant::TenantId;
use crate::clock::{Timestamp, rfc3339};

/// True for a record that a new request of `tenant` may repeat under another key. An attempt that
/// changed nothing is none: a released key, or a request that the backend refused.
pub(crate) fn may_be_repeated(record: &Record, tenant: &TenantId, since: Timestamp) -> bool {
    record.tenant == *tenant && record.first_seen >= since && may_have_acted(&record.state)
}

/// The start of the time that is looked at.
pub(crate) fn since(now: Timestamp, within: Duration) -> Timestamp {
    let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(within))
}

fn may_have_acted(state: &State) -> bool {
    match state {
        State::InFlight | State::Unknown { .. } => true,
        State::Final { answer, .. } => answer.status() < 400,
        State::Tombstone { status, .. } => *status < 400,
        State::Released { .. } | State::SerializeLock | State::Item { .. } => false,
    }
}

/// The value of `Idempotency-Earlier`: a dictionary (RFC 9651 section 3.2).
pub(crate) fn header_text(record: &Record) -> String {
    let (state, status) = match &record.state {
        State::Final { answer, .. } => ("final", Some(answer.status())),
        State::Tombstone { status, .. } => ("tombstone", Some(*status)),
        State::InFlight => ("in_flight", None),
        State::Unknown { .. }
        | State::Released { .. }
        | State::SerializeLock
        | State::Item { .. } => ("unknown", None),
    };
    let mut text = String::from("key=\"");
    // Keys are visible ASCII; a string escapes these two (section 3.3.3).
    for character in record.key.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push_str("\", state=");
    text.push_str(state);
    if let Some(status) = status {
        text.push_str(&format!(", status={status}"));
    }
    text.push_str(&format!(", at=\"{}\"", rfc3339(record.first_seen)));
    text
}
