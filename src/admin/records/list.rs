//! Listing records. The reads of a request are bounded, and a cursor continues a listing, so that
//! a filter with few matches gives an empty page instead of reading the whole store.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::query::Filters;
use super::view::{StateName, current, summary};
use crate::admin::error::ApiError;
use crate::admin::state::AdminState;
use crate::config::Mode;
use crate::idempotency::id::subject_digest;
use crate::idempotency::key::Scope;
use crate::idempotency::retention::ExpiryTime;
use crate::idempotency::{Record, RecordId, TenantId};
use crate::items;
use crate::store::Query;

/// Records per read from the store; each may hold an answer of `max_stored_body`.
const PAGE: usize = 32;
/// Maximum records read by a request, and its time limit.
const MOST_READ: usize = 4096;
const LONGEST: Duration = Duration::from_secs(2);

/// `GET /api/records`
pub(super) async fn list(state: &AdminState, filters: &Filters) -> Result<Value, ApiError> {
    if let (Some(tenant), Some(key), None) = (&filters.tenant, &filters.key, filters.after) {
        return by_key(state, filters, tenant, key).await;
    }
    let until = Instant::now() + LONGEST;
    let digest = |subject: &String| Some(subject_digest(subject, filters.tenant.as_ref()?));
    let subject = filters.subject.as_ref().and_then(digest);
    let open = filters.state.is_some_and(StateName::is_open);
    let mut after = filters.after.or_else(|| filters.tenant.and_then(before_all_of));
    let mut records = Vec::new();
    let mut read = 0;
    let next = 'reading: loop {
        let query = Query { subject, open, after, limit: PAGE, ..Query::default() };
        let page = state.store.list(query).await.map_err(|error| ApiError::unread(&error))?;
        if page.is_empty() {
            break None;
        }
        let time = state.store.expiry_time();
        for (id, record) in page {
            // Ids of one tenant begin with a byte of its own, and stand together.
            if filters.tenant.is_some_and(|tenant| id.shard() > tenant.as_bytes()[0]) {
                break 'reading None;
            }
            (after, read) = (Some(id), read + 1);
            records.extend(matching(filters, &id, record, time));
            if records.len() == filters.limit {
                break 'reading after;
            }
        }
        if read >= MOST_READ || Instant::now() >= until {
            break after;
        }
    };
    let next = next.map(|last| filters.cursor(&last));
    Ok(json!({ "records": records, "next": next }))
}

/// The records of a key of a tenant; the ids follow from the configured routes.
async fn by_key(
    state: &AdminState,
    filters: &Filters,
    tenant: &TenantId,
    key: &str,
) -> Result<Value, ApiError> {
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
    let mut ids: Vec<RecordId> = scopes.map(|scope| RecordId::new(tenant, &scope, key)).collect();
    ids.sort_unstable();
    ids.dedup();
    let found = state.store.get_many(&ids).await.map_err(|error| ApiError::unread(&error))?;
    let time = state.store.expiry_time();
    let records: Vec<Value> = ids
        .iter()
        .zip(found)
        .filter_map(|(id, record)| matching(filters, id, record?, time))
        .take(filters.limit)
        .collect();
    Ok(json!({ "records": records, "next": null }))
}

/// The summary of a record that matches the filters.
fn matching(filters: &Filters, id: &RecordId, record: Record, time: ExpiryTime) -> Option<Value> {
    let record = current(record, time)?;
    let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|it| it == text);
    let subject = filters.subject.as_ref().map(|text| subject_digest(text, &record.tenant));
    let fits = is(&filters.key, &record.key)
        && is(&filters.route, &record.route)
        && filters.tenant.is_none_or(|tenant| tenant == record.tenant)
        && filters.state.is_none_or(|state| state == StateName::of(&record))
        && (subject.is_none() || subject == record.subject);
    fits.then(|| summary(id, &record))
}

/// The last id before all ids of a tenant; `None`: the tenant's ids are the first.
fn before_all_of(tenant: TenantId) -> Option<RecordId> {
    let mut bytes = [0xff; 16];
    bytes[0] = tenant.as_bytes()[0].checked_sub(1)?;
    Some(RecordId::from_bytes(bytes))
}
