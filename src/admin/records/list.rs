//! Listing records, the newest first.
//!
//! Stores list records by their ids, which are digests. A listing reads a bounded window of the
//! store, sorts it by the time of the first claim, and shows it page by page; a cursor names the
//! window and the last record shown. Filters that a store has an index for (the subject, an open
//! state, key and tenant) make the window small. In a store with more records than a window, the
//! windows follow one another in the order of the ids.

use std::cmp::Reverse;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::cursor::ListPosition;
use super::query::Filters;
use super::view::{StateName, current, summary};
use crate::admin::error::ApiError;
use crate::admin::state::AdminState;
use crate::clock::Timestamp;
use crate::config::Mode;
use crate::idempotency::key::Scope;
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::{Record, RecordId, TenantId};
use crate::items;
use crate::store::Query;

/// Records per read from the store; each may hold an answer of `max_stored_body`.
const PAGE: usize = 64;
/// Records of a window, and the time limit for reading a window.
const WINDOW: usize = 4096;
const LONGEST: Duration = Duration::from_secs(2);

/// A record that fits the filters, with its place in the order.
struct Listed {
    place: (Timestamp, RecordId),
    shown: Value,
}

/// `GET /api/records`
pub(super) async fn list(state: &AdminState, filters: &Filters) -> Result<Value, ApiError> {
    let (records, next) = page(state, filters).await?;
    let next = next.map(|position| filters.cursor(&position));
    Ok(json!({ "records": records, "next": next }))
}

/// A page of records, and the position behind the page; `None`: there are no more.
pub(super) async fn page(
    state: &AdminState,
    filters: &Filters,
) -> Result<(Vec<Value>, Option<ListPosition>), ApiError> {
    if let (Some(tenant), Some(key)) = (&filters.tenant, &filters.key) {
        let listed = by_key(state, filters, tenant, key).await?;
        return Ok(paged(listed, None, filters, ListPosition::default()));
    }
    let (listed, end) = window(state, filters).await?;
    let position = filters.position.unwrap_or_default();
    Ok(paged(listed, end, filters, position))
}

/// The page of a window that follows the position. `end`: the last id of the window, if further
/// records may follow the window.
fn paged(
    mut listed: Vec<Listed>,
    end: Option<RecordId>,
    filters: &Filters,
    position: ListPosition,
) -> (Vec<Value>, Option<ListPosition>) {
    listed.sort_unstable_by_key(|record| Reverse(record.place));
    listed.retain(|record| position.shown.is_none_or(|shown| record.place < shown));
    let has_more = listed.len() > filters.limit;
    listed.truncate(filters.limit);
    let next = match listed.last() {
        Some(last) if has_more => Some(ListPosition { end, shown: Some(last.place), ..position }),
        Some(_) | None => {
            end.map(|end| ListPosition { start: Some(end), ..ListPosition::default() })
        }
    };
    (listed.into_iter().map(|record| record.shown).collect(), next)
}

/// Reads the window of the position, or a new one.
async fn window(
    state: &AdminState,
    filters: &Filters,
) -> Result<(Vec<Listed>, Option<RecordId>), ApiError> {
    let until = Instant::now() + LONGEST;
    let ids = state.store.ids();
    let position = filters.position.unwrap_or_default();
    let subject = filters.subject.as_deref().map(|text| ids.subject(text));
    let open = filters.state.is_some_and(StateName::is_open);
    let shard = filters.tenant.as_ref().map(|tenant| ids.shard(tenant));
    let mut after = position.start.or_else(|| shard.and_then(before_all_of));
    let mut listed = Vec::new();
    let mut read = 0;
    loop {
        let query = Query { subject, open, after, limit: PAGE, ..Query::default() };
        let page = state.store.list(query).await.map_err(|error| ApiError::unread(&error))?;
        let is_last = page.len() < PAGE;
        let time = state.store.expiry_time();
        for (id, record) in page {
            // Ids of one tenant begin with a byte of its own, and stand together.
            if shard.is_some_and(|shard| id.shard() > shard) {
                return Ok((listed, None));
            }
            if position.end.is_some_and(|end| id > end) {
                return Ok((listed, position.end));
            }
            (after, read) = (Some(id), read + 1);
            listed.extend(matching(filters, subject, &id, record, time));
        }
        if is_last {
            return Ok((listed, None));
        }
        // A window that was read before ends where it ended then.
        if position.end.is_none() && (read >= WINDOW || Instant::now() >= until) {
            return Ok((listed, after));
        }
    }
}

/// The records of a key of a tenant; the ids follow from the configured routes.
async fn by_key(
    state: &AdminState,
    filters: &Filters,
    tenant: &TenantId,
    key: &str,
) -> Result<Vec<Listed>, ApiError> {
    let scope = |mode: &Mode, route: &str| match mode {
        Mode::Request(mode) => Some(match mode.key.scope {
            Scope::Tenant => String::new(),
            Scope::Route => route.to_owned(),
        }),
        Mode::Items(mode) => Some(items::scope(&mode.ledger)),
        Mode::Off => None,
    };
    let routes = state.gateway.routes();
    let scopes = routes.iter().filter_map(|route| scope(&route.mode, &route.name));
    let scheme = state.store.ids();
    let mut ids = Vec::new();
    for scope in scopes {
        ids.push(scheme.record(tenant, &scope, key));
        ids.extend(folded(key).map(|key| scheme.record(tenant, &scope, &key)));
    }
    ids.sort_unstable();
    ids.dedup();
    let found = state.store.get_many(&ids).await.map_err(|error| ApiError::unread(&error))?;
    let time = state.store.expiry_time();
    let subject = filters.subject.as_deref().map(|text| scheme.subject(text));
    let listed = ids
        .iter()
        .zip(found)
        .filter_map(|(id, record)| matching(filters, subject, id, record?, time));
    Ok(listed.collect())
}

/// The form in which a route with `format = "uuid"` keeps a key; `None`: the key is no UUID.
fn folded(key: &str) -> Option<String> {
    uuid::Uuid::try_parse(key).is_ok().then(|| key.to_ascii_lowercase())
}

/// A record that matches the filters.
fn matching(
    filters: &Filters,
    subject: Option<[u8; 16]>,
    id: &RecordId,
    record: Record,
    time: ExpiryTime,
) -> Option<Listed> {
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
    fits.then(|| Listed { place: (record.first_seen, *id), shown: summary(id, &record) })
}

/// The last id before all ids of a shard; `None`: the shard is the first.
fn before_all_of(shard: u8) -> Option<RecordId> {
    let mut bytes = [0xff; 16];
    bytes[0] = shard.checked_sub(1)?;
    Some(RecordId::from_bytes(bytes))
}
