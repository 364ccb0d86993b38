//! The state of settlement in this process, shared by the driver and by the requests that wait.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashSet;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::conclude::Alarm;
use super::pace::Pace;
use super::permits::StepPermits;
use super::route::{SettleRoute, SettleRoutes};
use super::rules::{Action, Occasion, StepKind, last_dispatch, tick};
use crate::clock::Timestamp;
use crate::idempotency::{Record, RecordId};
use crate::observe::metrics::Metrics;
use crate::store::Store;
use crate::store::cache::RecordCache;

/// Least `Retry-After`, in the resolution of the header.
pub(crate) const LEAST_DELAY: Duration = Duration::from_secs(1);

/// A delay in whole seconds, at least one.
pub(crate) fn whole_seconds(delay: Duration) -> Duration {
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    Duration::from_secs(seconds).max(LEAST_DELAY)
}

/// The settlement of unknown outcomes in this process.
#[derive(Debug)]
pub(crate) struct Settler {
    pub(super) store: Arc<dyn Store>,
    pub(super) cache: Arc<RecordCache>,
    pub(super) metrics: Arc<Metrics>,
    /// The routes with a policy: the present ones, and those that a reload removed.
    routes: Mutex<HashMap<Arc<str>, Arc<SettleRoute>>>,
    /// Permits of the steps, by route.
    permits: Mutex<HashMap<Arc<str>, Arc<StepPermits>>>,
    /// Records whose step runs in this process.
    pub(super) running: DashSet<RecordId>,
    /// The rests of the schedule while requests are served.
    pub(super) pace: Pace,
    /// The earliest step of a record that did not fit in a queue since the last whole scan.
    unqueued: Mutex<Option<Instant>>,
    /// Signals an earlier step, or a free permit.
    pub(super) changed: Notify,
    /// The steps under way.
    pub(super) tasks: TaskTracker,
}

impl Settler {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        cache: Arc<RecordCache>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            store,
            cache,
            metrics,
            routes: Mutex::default(),
            permits: Mutex::default(),
            running: DashSet::new(),
            pace: Pace::default(),
            unqueued: Mutex::default(),
            changed: Notify::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// The time of a record's schedule. A step of the clock forward is taken off for a record from
    /// before the step, as for its expiry: an absence must not count early. A record that is newer
    /// than that time is from after the step, and goes by the clock.
    pub(crate) fn now_for(&self, record: &Record) -> Timestamp {
        let (clock, kept) = (self.store.now(), self.store.expiry_time().at);
        if last_dispatch(record) > kept { clock } else { clock.min(kept) }
    }

    /// The record without a step that an earlier process left: on a store of its own, this process
    /// knows all steps that run.
    pub(super) fn without_abandoned_step(&self, mut record: Record) -> Record {
        if let Some(settling) = &mut record.settling
            && settling.schedule.running
            && !self.store.is_shared()
        {
            (settling.schedule.running, settling.schedule.next) = (false, None);
        }
        record
    }

    /// Time until a client's retry may settle the record, in whole seconds; `None`: no retry does.
    pub(crate) fn retry_after(&self, record: &Record, route: &SettleRoute) -> Option<Duration> {
        let now = self.now_for(record);
        match tick(record, &route.plan, now, Occasion::Retry) {
            Action::Hold | Action::GiveUp(_) => None,
            Action::Begin(..) => Some(LEAST_DELAY),
            Action::Wait(at) => Some(whole_seconds(now.until(at))),
        }
    }

    /// The claim under which an unknown item may be sent again now, in place of `record`; `None`:
    /// not now, or not by this policy.
    pub(crate) fn repetition(&self, record: &Record, route: &SettleRoute) -> Option<Box<Record>> {
        match tick(record, &route.plan, self.now_for(record), Occasion::Retry) {
            Action::Begin(StepKind::Resend, mut next) => {
                next.owner = self.store.owner();
                Some(next)
            }
            Action::Begin(StepKind::Probe | StepKind::Reverse, _)
            | Action::Hold
            | Action::Wait(_)
            | Action::GiveUp(_) => None,
        }
    }

    /// Plans the next step of a record that became unknown in this process, by the present policy
    /// of its route.
    pub(crate) fn plan(&self, id: RecordId, record: &Record, route: &SettleRoute) {
        let present = self.route(&route.name);
        let route = present.as_deref().unwrap_or(route);
        if !route.has_schedule() {
            return;
        }
        if let Some(delay) = self.delay(record, route) {
            self.enqueue(route, delay, id);
        }
    }

    /// Time until the schedule's next step about a record; `None`: there is none.
    pub(super) fn delay(&self, record: &Record, route: &SettleRoute) -> Option<Duration> {
        let now = self.now_for(record);
        match tick(record, &route.plan, now, Occasion::Schedule) {
            Action::Hold => None,
            Action::Wait(at) => Some(now.until(at)),
            Action::GiveUp(_) | Action::Begin(..) => Some(Duration::ZERO),
        }
    }

    /// Writes the line of an alarm and counts it.
    pub(super) fn alarm(&self, id: RecordId, record: &Record, what: Alarm) {
        let reason = what.as_str();
        let consequence = match what {
            Alarm::Several => {
                "several rows match an unknown outcome; it stays unknown, and a person has to look"
            }
            Alarm::GaveUp => {
                "an unknown outcome is not settled by its policy; an operator has to decide"
            }
            Alarm::Contradiction => {
                "a result contradicts an earlier decision; the decision stands, and a person has \
                 to look"
            }
        };
        tracing::warn!(record = %id, route = %record.route, reason, "{consequence}");
        self.metrics.alarm(&record.route, reason);
    }

    /// Logs and counts a decision.
    pub(crate) fn report(&self, id: RecordId, route: &str, by: &'static str, how: &'static str) {
        tracing::info!(
            record = %id, route, by, r#as = how,
            "an unknown outcome was settled"
        );
        self.metrics.settled(route, by, how);
    }

    /// Queues a record for a step after `delay`. Of more records than fit in a queue, a scan finds
    /// the latest again when they are due.
    pub(super) fn enqueue(&self, route: &SettleRoute, delay: Duration, id: RecordId) {
        let at = Instant::now() + delay;
        let is_first = route.first().is_none_or(|first| at < first);
        if let Some(at) = route.enqueue(at, id) {
            let mut unqueued = self.unqueued();
            *unqueued = Some(unqueued.map_or(at, |before| before.min(at)));
        }
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Reports a record with a step before `until` that no queue has any more, so that a scan has
    /// to read all records again. Reported once.
    pub(super) fn forgets(&self, until: Instant) -> bool {
        let mut unqueued = self.unqueued();
        unqueued.take_if(|at| *at <= until).is_some()
    }

    /// Lets the next scan read all records again: another process has changed some.
    pub(crate) fn look_at_all(&self) {
        *self.unqueued() = Some(Instant::now());
    }

    fn unqueued(&self) -> MutexGuard<'_, Option<Instant>> {
        // A time is replaced as a whole.
        self.unqueued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the present routes; true when they have changed. The present policy of a route
    /// decides about its records. A route that goes keeps its open records, which are settled as
    /// before until none is left.
    pub(super) fn learn(&self, routes: &dyn SettleRoutes) -> bool {
        let present = routes.settle_routes().into_iter().map(|route| (route.name.clone(), route));
        let mut present: HashMap<_, _> = present.collect();
        let mut known = self.known();
        for (name, gone) in known.iter().filter(|(name, _)| !routes.is_configured(name)) {
            present.insert(name.clone(), gone.clone());
        }
        let is_same = |(name, route): (&Arc<str>, &Arc<SettleRoute>)| {
            known.get(name).is_some_and(|before| Arc::ptr_eq(before, route))
        };
        let are_same = known.len() == present.len() && present.iter().all(is_same);
        if !are_same {
            self.allot(&present);
        }
        *known = present;
        !are_same
    }

    /// Gives each route as many permits as its present policy says. Those of other routes stay
    /// while they are out.
    fn allot(&self, present: &HashMap<Arc<str>, Arc<SettleRoute>>) {
        let mut permits = self.step_permits();
        permits.retain(|name, permits| present.contains_key(name) || !permits.is_unused());
        for (name, permits) in permits.iter() {
            if let Some(route) = present.get(name) {
                permits.set(route.concurrency);
            }
        }
    }

    /// The permits of a route's steps, the same before and after a reload.
    pub(super) fn permits(&self, route: &SettleRoute) -> Arc<StepPermits> {
        let mut permits = self.step_permits();
        if let Some(permits) = permits.get(&route.name) {
            return permits.clone();
        }
        let new = Arc::new(StepPermits::new(route.concurrency));
        permits.insert(route.name.clone(), new.clone());
        new
    }

    fn step_permits(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<StepPermits>>> {
        // No change of the map can panic halfway.
        self.permits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The removed routes that nobody else holds: no request of theirs can become unknown any more.
    pub(super) fn unused_routes(&self, routes: &dyn SettleRoutes) -> HashSet<Arc<str>> {
        let known = self.known();
        let unused = known
            .iter()
            .filter(|(name, route)| Arc::strong_count(route) == 1 && !routes.is_configured(name));
        unused.map(|(name, _)| name.clone()).collect()
    }

    /// Forgets removed routes without an open record.
    pub(super) fn forget_routes(&self, names: &HashSet<Arc<str>>) {
        self.known().retain(|name, _| !names.contains(name));
    }

    /// The routes with steps of their own.
    pub(super) fn scheduled_routes(&self) -> Vec<Arc<SettleRoute>> {
        self.known().values().filter(|route| route.has_schedule()).cloned().collect()
    }

    /// The route of a record.
    pub(super) fn route(&self, name: &str) -> Option<Arc<SettleRoute>> {
        self.known().get(name).cloned()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<SettleRoute>>> {
        // The map is replaced as a whole.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
