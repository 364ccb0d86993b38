//! The claim of a batch's unsent items, made in a single write.

use std::collections::HashMap;
use std::sync::Arc;

use super::claims::{ClaimedItem, ClaimedItems};
use super::draft::ItemDraft;
use super::ledger::{self, Records, forgotten, unavailable};
use super::read::BatchInput;
use super::serialize::SerializeRecords;
use super::unsettled;
use crate::config::ItemsMode;
use crate::idempotency::record::Nonce;
use crate::idempotency::settling::Settling;
use crate::idempotency::{Record, RecordId};
use crate::items::BatchPlan;
use crate::nonce;
use crate::problem::Problem;
use crate::proxy::answer::too_many_keys;
use crate::proxy::key_room::key_room;
use crate::proxy::reply;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;
use crate::store::{Change, ListPosition, Swap};

/// Result of a claim.
pub(crate) enum ClaimResult {
    Made(ClaimedItems),
    /// A record changed since the read: read and plan from the start.
    Lost,
    /// A batch of another process holds the lock of a `serialize_by` value.
    Locked {
        /// Record id of the lock.
        id: RecordId,
        /// Process holding the lock.
        owner: Nonce,
    },
}

/// Makes the claim of the plan's unsent items durable, in a single write.
///
/// # Errors
/// When the store does not confirm the claim; no item may be sent.
pub(crate) async fn claim(
    gateway: &Arc<Gateway>,
    input: &mut BatchInput,
    route: &Route,
    mode: &ItemsMode,
    (plan, records): (&BatchPlan, &Records),
) -> Result<ClaimResult, Problem> {
    let retention = mode.record.retention;
    let (now, expiry) = (gateway.store.now(), gateway.store.expiry_time());
    let draft = ItemDraft {
        now,
        expiry,
        retention,
        attempt: nonce::bytes(),
        owner: gateway.store.owner(),
        route: &route.name,
    };
    let mut values = match &route.settle {
        Some(_) => input.kept_values(&route.kept, plan),
        None => HashMap::new(),
    };
    let mut items = Vec::with_capacity(records.len());
    let mut changes = Vec::with_capacity(records.len());
    for (at, units) in plan.sent() {
        let existing = records[at].as_deref();
        if plan.is_repeated(at) {
            // The time for a repetition may be over meanwhile: plan from the start.
            let Some((before, next)) = unsettled::repetition(gateway, route, existing) else {
                return Ok(ClaimResult::Lost);
            };
            let (id, record) = (input.ids[at], Arc::new(next));
            changes.push(Change { id, expect: Some(before), put: Some(record.clone()) });
            items.push(ClaimedItem::new(at, id, record));
            continue;
        }
        let is_other = |existing: &Record| {
            forgotten(existing, expiry) || !ledger::is_same(&input.batch, at, existing)
        };
        let fresh = existing.is_none_or(is_other);
        let fingerprint = if fresh { input.fingerprint(mode, at) } else { None };
        let settling = route
            .settle
            .is_some()
            .then(|| Box::new(Settling::new(now, values.remove(&at).unwrap_or_default())));
        let record = draft.record(input, at, units, existing, fingerprint, settling);
        let record = record.map_err(|error| {
            tracing::error!(
                record = ?input.ids[at], %error,
                "the claim does not fit the item's ledger; the batch was not sent"
            );
            reply::store_unavailable()
        })?;
        let (id, expect) = (input.ids[at], existing.map(|record| record.version));
        let record = Arc::new(record);
        changes.push(Change { id, expect, put: Some(record.clone()) });
        items.push(ClaimedItem::new(at, id, record));
    }
    let absent = changes.iter().filter(|change| change.expect.is_none());
    let new: Vec<ListPosition> = match gateway.key_counts.is_on() {
        true => absent.filter_map(position).collect(),
        false => Vec::new(),
    };
    let ids: Vec<RecordId> = new.iter().map(|at| at.id).collect();
    let room = key_room(gateway, &input.tenant, &ids).await;
    let room = room.map_err(|error| unavailable(&error))?.ok_or_else(too_many_keys)?;
    let locks =
        SerializeRecords::of(gateway, &input.batch, items.first().map(|entry| &*entry.record));
    changes.extend(locks.take());
    let swapped = gateway.store.swap(changes).await;
    let settled = swapped.is_ok();
    let (gateway, attempt) = (gateway.clone(), draft.attempt);
    let mut claimed = ClaimedItems {
        gateway,
        retention,
        attempt,
        items,
        locks,
        keeps_locks: false,
        settled,
        settle: route.settle.clone(),
    };
    match swapped {
        Ok(Swap::Done) => {
            room.keep(&new);
            claimed.settled = false;
            Ok(ClaimResult::Made(claimed))
        }
        Ok(Swap::Lost { index, winner }) => {
            let lock = index.checked_sub(claimed.items.len()).and_then(|at| claimed.locks.id(at));
            Ok(match lock.zip(winner) {
                Some((id, winner)) => ClaimResult::Locked { id, owner: winner.owner },
                None => ClaimResult::Lost,
            })
        }
        Err(error) => {
            room.doubt();
            claimed.withdraw();
            Err(unavailable(&error))
        }
    }
}

/// The position of the record that a change puts.
fn position(change: &Change) -> Option<ListPosition> {
    change.put.as_ref().map(|record| ListPosition::of(&change.id, record))
}
