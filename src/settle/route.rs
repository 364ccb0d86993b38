//! A route as the settlement of its unknown outcomes sees it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::Breaker;
use super::queue::StepQueue;
use super::rules::SettlePlan;
use crate::config::UnknownPolicy;
use crate::idempotency::RecordId;
use crate::idempotency::retention::Retention;
use crate::json::Pointer;
use crate::problem::Dialect;
use crate::upstream::Upstream;

/// Steps of a route at once where the policy has no `concurrency`.
const AT_ONCE: usize = 4;

/// Time of a step beside the requests to the backend: the store's part.
const MARGIN: Duration = Duration::from_secs(5);

/// Time of a step at most, in timeouts of the upstream: pages usually arrive fast, and the lease of
/// a process that died must end.
const LONGEST_STEP: u32 = 3;

/// A route with a policy for unknown outcomes.
#[derive(Debug)]
pub(crate) struct SettleRoute {
    pub(crate) name: Arc<str>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) plan: SettlePlan,
    /// Steps at once.
    pub(super) concurrency: usize,
    /// Pauses the steps while the backend is down.
    pub(crate) breaker: Breaker,
    /// Records with the time of their next step.
    queue: Mutex<StepQueue>,
}

/// The routes with a policy. A reload replaces them, so they are asked for each time.
pub(crate) trait SettleRoutes: fmt::Debug + Send + Sync {
    /// The present routes with a policy.
    fn settle_routes(&self) -> Vec<Arc<SettleRoute>>;

    /// Reports a route that the present configuration has, with a policy or without.
    fn is_configured(&self, name: &str) -> bool;
}

impl SettleRoute {
    /// The route `name` with its policy; `None`: nothing but an operator settles its outcomes.
    pub(crate) fn new(
        name: Arc<str>,
        upstream: Arc<Upstream>,
        policy: &Arc<UnknownPolicy>,
        (timeout, retention, dialect): (Duration, Retention, Dialect),
    ) -> Option<Arc<Self>> {
        let (requests, concurrency) = match &**policy {
            UnknownPolicy::Hold => return None,
            UnknownPolicy::Probe(rules) => {
                let pages = rules.list.as_ref().map_or(1, |list| list.max_pages);
                (pages + usize::from(rules.absent.is_some()), rules.concurrency)
            }
            UnknownPolicy::Resend(_) | UnknownPolicy::Reverse(_) => (1, AT_ONCE),
        };
        let requests = u32::try_from(requests).unwrap_or(u32::MAX).min(LONGEST_STEP);
        let lease = timeout.saturating_mul(requests).saturating_add(MARGIN);
        let policy = policy.clone();
        Some(Arc::new(Self {
            name,
            upstream,
            plan: SettlePlan { policy, timeout, lease, retention, dialect },
            concurrency,
            breaker: Breaker::default(),
            queue: Mutex::default(),
        }))
    }

    /// Time for the requests of a step; the rest of the lease is the store's.
    pub(super) fn step_time(&self) -> Duration {
        self.plan.lease.saturating_sub(MARGIN)
    }

    /// Reports a policy that takes steps without a client's retry.
    pub(crate) fn has_schedule(&self) -> bool {
        match &*self.plan.policy {
            UnknownPolicy::Probe(_) | UnknownPolicy::Reverse(_) => true,
            UnknownPolicy::Hold | UnknownPolicy::Resend(_) => false,
        }
    }

    /// Reports a policy that sends requests again.
    pub(crate) fn repeats(&self) -> bool {
        matches!(&*self.plan.policy, UnknownPolicy::Resend(_))
    }

    /// The members that mark a repeated item.
    pub(crate) fn item_mark(&self) -> &[(Pointer, String)] {
        match &*self.plan.policy {
            UnknownPolicy::Resend(rules) => &rules.mark.body,
            UnknownPolicy::Hold | UnknownPolicy::Probe(_) | UnknownPolicy::Reverse(_) => &[],
        }
    }

    /// Queues a record. The time of the record that did not fit, if any: this one or a later one.
    pub(super) fn enqueue(&self, at: Instant, id: RecordId) -> Option<Instant> {
        self.queue().add(at, id).map(|(at, _)| at)
    }

    /// Reports room for a record with a step before `until`.
    pub(super) fn has_room(&self, until: Instant) -> bool {
        self.queue().has_room(until)
    }

    /// Reports room for many records with a step before `until`.
    pub(super) fn has_much_room(&self, until: Instant) -> bool {
        self.queue().has_much_room(until)
    }

    /// Reports a queue that is at most half full.
    pub(super) fn is_half_empty(&self) -> bool {
        self.queue().is_half_empty()
    }

    /// Takes a record that is due.
    pub(super) fn dequeue(&self, now: Instant) -> Option<RecordId> {
        self.queue().take_due(now)
    }

    /// The time of the first record in the queue.
    pub(super) fn first(&self) -> Option<Instant> {
        self.queue().first()
    }

    fn queue(&self) -> MutexGuard<'_, StepQueue> {
        // No change of the queue can panic halfway.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
