//! Listing records, the newest first.
//!
//! A store lists its records by the time of the first claim, and those of a business id, of a key
//! or in an open state by an index of their own. The other filters are applied here, to a bounded
//! number of records for each request: a page may be short, or empty, and still have a cursor. A
//! cursor is the position of the last record that was looked at.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::query::Filters;
use super::view::{StateName, current, summary};
use crate::admin::error::ApiError;
use crate::admin::state::AdminState;
use crate::clock::Timestamp;
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::{Record, RecordId};
use crate::store::{ListPosition, Query};

/// Records per read from the store; each may hold an answer of `max_stored_body`.
const PAGE: usize = 64;
/// Records read for a request, and the time limit for reading them.
const WINDOW: usize = 4096;
const LONGEST: Duration = Duration::from_secs(2);

/// `GET /api/records`
pub(super) async fn list(state: &AdminState, filters: &Filters) -> Result<Value, ApiError> {
    let (records, next) = page(state, filters).await?;
    let next = next.map(|position| filters.cursor(position));
    Ok(json!({ "records": records, "next": next }))
}

/// A page of records, and the position of its end; `None`: there are no more.
pub(super) async fn page(
    state: &AdminState,
    filters: &Filters,
) -> Result<(Vec<Value>, Option<ListPosition>), ApiError> {
    let until = Instant::now() + LONGEST;
    let mut query = query_of(state, filters);
    let subject = query.subject;
    let mut listed: Vec<Value> = Vec::new();
    // The end of the page: the last record that is shown.
    let mut end = None;
    let mut read = 0;
    loop {
        let page = state.store.list(query.clone()).await;
        let page = page.map_err(|error| ApiError::unread(&error))?;
        let is_last = page.len() < PAGE;
        read += page.len();
        let time = state.store.expiry_time();
        for (id, record) in page {
            let at = ListPosition::of(&id, &record);
            query.after = Some(at);
            if let Some(shown) = matching(filters, subject, &id, record, time) {
                if listed.len() == filters.limit {
                    return Ok((listed, end));
                }
                listed.push(shown);
                end = query.after;
            }
        }
        if is_last {
            return Ok((listed, None));
        }
        if read >= WINDOW || Instant::now() >= until {
            return Ok((listed, query.after));
        }
    }
}

/// The records to read from the store: as many filters as it has an index for.
fn query_of(state: &AdminState, filters: &Filters) -> Query {
    let ids = state.store.ids();
    let subject = filters.subject.as_deref().map(|text| ids.subject(text));
    // The records of a business id are fewer than those of a key that many callers use.
    let key = filters.key.as_ref().filter(|_| subject.is_none());
    let mut keys: Vec<_> = key.into_iter().map(|key| ids.key(key)).collect();
    keys.extend(key.and_then(|key| folded(key)).map(|key| ids.key(&key)));
    keys.dedup();
    let open = keys.is_empty() && filters.state.is_some_and(StateName::is_open);
    let shard = filters.tenant.as_ref().map(|tenant| ids.shard(tenant));
    let after = filters.position.or_else(|| filters.until.map(after_all_of));
    let since = filters.since;
    Query { subject, keys, open, shard, since, after, limit: PAGE, ..Query::default() }
}

/// The position before all records first claimed at `until` or earlier.
fn after_all_of(until: Timestamp) -> ListPosition {
    let first_seen = until.saturating_add(Duration::from_millis(1));
    ListPosition { first_seen, id: RecordId::from_bytes([0; 16]) }
}

/// The form in which a route with `format = "uuid"` keeps a key; `None`: the key is no UUID.
fn folded(key: &str) -> Option<String> {
    uuid::Uuid::try_parse(key).is_ok().then(|| key.to_ascii_lowercase())
}

/// A record that matches the filters, as shown.
fn matching(
    filters: &Filters,
    subject: Option<[u8; 16]>,
    id: &RecordId,
    record: Record,
    time: ExpiryTime,
) -> Option<Value> {
    let record = current(record, time)?;
    let is_key = |key: &String| **key == *record.key || folded(key).as_deref() == Some(&record.key);
    let fits = filters.key.as_ref().is_none_or(is_key)
        && filters.route.as_ref().is_none_or(|route| **route == *record.route)
        && filters.tenant.is_none_or(|tenant| tenant == record.tenant)
        && filters.caller.as_ref().is_none_or(|name| record.caller.as_deref() == Some(name))
        && filters.state.is_none_or(|state| state == StateName::of(&record))
        && filters.since.is_none_or(|since| record.first_seen >= since)
        && filters.until.is_none_or(|until| record.first_seen <= until)
        && (subject.is_none() || subject == record.subject);
    fits.then(|| summary(id, &record))
}
