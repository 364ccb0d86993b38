//! Unknown items on a client's retry: a step of the route's policy about each, as far as the
//! policy's times allow.

use std::sync::Arc;

use tokio::time::Instant;

use super::read::BatchInput;
use crate::items::{BatchPlan, ItemDecision};
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
