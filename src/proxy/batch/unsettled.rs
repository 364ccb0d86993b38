//! Unknown items on a client's retry: a step of the route's policy about each, as far as the
//! policy's times allow. Items whose backend deduplicates are sent again with the batch.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ledger::Records;
use super::read::BatchInput;
use crate::idempotency::Record;
use crate::items::{BatchPlan, ItemDecision};
use crate::nonce;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;
use crate::settle::Retried;

/// Settles the unknown items of a plan, at most until `until`; true when a record may have changed.
pub(super) async fn settle(
    gateway: &Arc<Gateway>,
    route: &Route,
    input: &BatchInput,
    plan: &BatchPlan,
    until: Instant,
) -> bool {
    let Some(policy) = &route.settle else { return false };
    let headers = &input.buffered.head.headers;
    let mut has_changed = false;
    for (id, decision) in input.ids.iter().zip(&plan.items) {
        if *decision != ItemDecision::Unknown || Instant::now() >= until {
            continue;
        }
        let retried = gateway.settler.retry((*id, policy.clone()), headers, until).await;
        has_changed |= matches!(retried, Retried::Changed);
    }
    has_changed
}

/// Plans to send again each unknown item that the policy lets be repeated now.
pub(super) fn plan_repeats(
    gateway: &Gateway,
    route: &Route,
    (plan, records): (&mut BatchPlan, &Records),
) {
    let Some(policy) = route.settle.as_ref().filter(|policy| policy.repeats()) else { return };
    for (at, record) in records.iter().enumerate() {
        let Some((record, ledger)) = record.as_deref().and_then(|it| Some((it, it.ledger()?)))
        else {
            continue;
        };
        if gateway.settler.repetition(record, policy).is_some() {
            plan.repeat(at, ledger.unknown);
        }
    }
}

/// The version of a record, and the claim of a repetition that takes its place.
pub(super) fn repetition(
    gateway: &Gateway,
    route: &Route,
    record: Option<&Record>,
) -> Option<(u64, Record)> {
    let record = record?;
    let mut next = gateway.settler.repetition(record, route.settle.as_ref()?)?;
    // A random increment, so that no other claim of the record has the same version.
    next.version = next.version.wrapping_add(nonce::number() >> 40);
    Some((record.version, *next))
}

/// Time until a retry may settle one of the unknown items of these records.
pub(super) fn retry_after(gateway: &Gateway, route: &Route, records: &Records) -> Option<Duration> {
    let policy = route.settle.as_ref()?;
    let unknown = records.iter().flatten().filter(|record| record.is_unknown());
    unknown.filter_map(|record| gateway.settler.retry_after(record, policy)).min()
}
