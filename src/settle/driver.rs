//! The driver of settlement: finds unknown records, and takes the steps of their routes' policies.
//!
//! Records that become unknown in this process are queued with the time of their next step. All
//! others (from before a restart, of other processes, beyond a queue's limit) are found by a `scan`
//! of the store's index of open records. A record's step is claimed in the record itself, so that
//! of all processes one takes the step, and after a crash another process takes over when the
//! step's lease has ended.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::route::{SettleRoute, SettleRoutes};
use super::rules::Occasion;
use super::scan::{OpenScan, SCAN};
use super::state::Settler;
use super::step::{self, StepEnd};
use crate::idempotency::{Record, RecordId};
use crate::observe::repeated::Repeated;
use crate::shutdown::Shutdown;

/// Time between two parts of a scan that found a queue full.
const NEXT_PART: Duration = Duration::from_millis(200);
/// The longest sleep, so that new routes and a changed clock are noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// The pause before another look at a record that somebody else changed.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The pause between two looks at a step of another process.
const LOOK: Duration = Duration::from_millis(100);

/// The result of a client's retry for an unknown record.
#[derive(Debug)]
pub(crate) enum Retried {
    /// The record may have changed: look again.
    Changed,
    /// No step before this time has passed.
    Later(Duration),
    /// No retry settles the record.
    Held,
    /// The request may be sent again under this record, once that is durable and has replaced this
    /// version.
    Resend(Box<Record>, u64),
}

static FAILED: Repeated = Repeated::new("unknown outcomes cannot be listed");

impl Settler {
    /// Takes the steps that are due until the shutdown starts.
    pub(crate) async fn run(
        self: Arc<Self>,
        routes: Arc<dyn SettleRoutes>,
        mut shutdown: Shutdown,
    ) {
        let mut scan = OpenScan::default();
        let mut next_scan = Instant::now();
        while !shutdown.started() {
            if self.learn(&*routes) {
                (scan, next_scan) = (OpenScan::default(), Instant::now());
            }
            if scan.cursor.is_none() && Instant::now() >= next_scan {
                scan.unused = self.unused_routes(&*routes);
            }
            let scheduled = self.scheduled_routes();
            // A scan that found no room goes on where it stopped once there is room again.
            let later = Instant::now() + SCAN;
            let has_room = |it: &Arc<SettleRoute>| it.has_much_room(later) || it.breaker.is_open();
            let room = scan.cursor.is_none() || scheduled.iter().all(has_room);
            let is_due = room && Instant::now() >= next_scan;
            if is_due && (!scheduled.is_empty() || scan.ownerless.is_some()) {
                let pause = match self.scan((&*routes, Instant::now()), &mut scan, &shutdown).await
                {
                    Ok(()) if scan.cursor.is_some() => NEXT_PART,
                    Ok(()) => SCAN,
                    Err(error) => {
                        if let Some(times) = FAILED.occur() {
                            let what = "unknown outcomes cannot be listed for now";
                            tracing::warn!(%error, times, "{what}");
                        }
                        SCAN
                    }
                };
                next_scan = Instant::now() + pause;
            }
            for route in &scheduled {
                self.take_due(route).await;
            }
            let sleep = self.until_next(&scheduled);
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.changed.notified() => {}
                () = shutdown.wait() => {}
            }
        }
    }

    /// Waits for the steps under way, at most for `limit`. The lease of a step that is left ends by
    /// itself, and another process, or the next start, takes over.
    pub(crate) async fn ended(&self, limit: Duration) -> bool {
        crate::shutdown::ended(&self.tasks, limit).await
    }

    /// Time until a queued record is due on a route with a free permit.
    fn until_next(&self, routes: &[Arc<SettleRoute>]) -> Duration {
        let free = routes.iter().filter(|route| self.permits(route).is_free());
        let next = free.filter_map(|route| route.first()).min();
        next.map_or(LONGEST_SLEEP, |at| {
            at.saturating_duration_since(Instant::now()).min(LONGEST_SLEEP)
        })
    }

    /// Starts the due steps of a route, as far as there are permits. While the backend is down its
    /// records are left as they are, and looked at later.
    async fn take_due(self: &Arc<Self>, route: &Arc<SettleRoute>) {
        let permits = self.permits(route);
        while let Some(permits) = permits.for_schedule() {
            let Some(id) = route.dequeue(Instant::now()) else { return };
            if let Err(until) = route.breaker.admit(Instant::now()) {
                let pause = until.saturating_duration_since(Instant::now());
                self.enqueue(route, pause, id);
                return;
            }
            // A retry takes a step at this moment.
            if !self.running.insert(id) {
                self.enqueue(route, LOOK_AGAIN, id);
                continue;
            }
            let (settler, route) = (self.clone(), route.clone());
            self.tasks.spawn(async move { settler.scheduled(id, &route, permits).await });
        }
    }

    async fn scheduled(
        self: &Arc<Self>,
        id: RecordId,
        route: &SettleRoute,
        (place, permit): (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) {
        let begun = Instant::now();
        let end = step::take(self, (id, route), Occasion::Schedule, None).await;
        self.running.remove(&id);
        match end {
            StepEnd::Taken(Some(record)) => self.plan(id, &record, route),
            StepEnd::Wait(delay) | StepEnd::Running(delay) => self.enqueue(route, delay, id),
            // Another process was faster, or the store did not confirm: look again soon.
            StepEnd::Taken(None) => self.enqueue(route, LOOK_AGAIN, id),
            StepEnd::Decided | StepEnd::Held | StepEnd::Resend(..) => {}
        }
        drop(permit);
        let now = Instant::now();
        let rest = self.pace.rest(now - begun, now, || self.metrics.totals().requests);
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        drop(place);
        self.changed.notify_one();
    }

    /// Settles a record for a client's retry as far as the policy's times allow, at most until
    /// `until`. `headers`: the head of the retry, for probes that take over headers.
    pub(crate) async fn retry(
        self: &Arc<Self>,
        (id, route): (RecordId, Arc<SettleRoute>),
        headers: &HeaderMap,
        until: Instant,
    ) -> Retried {
        loop {
            // Steps of retries count as well; a permit that is given back goes to a waiting retry
            // before the schedule takes it.
            let permits = self.permits(&route);
            let Ok(permit) = timeout_at(until, permits.for_retry()).await else {
                return Retried::Later(Duration::ZERO);
            };
            let (settler, route, headers) = (self.clone(), route.clone(), headers.clone());
            // A task of its own: a step goes on when the client leaves.
            let task = self.tasks.spawn(async move {
                if !settler.running.insert(id) {
                    return StepEnd::Running(Duration::ZERO);
                }
                let asked = (id, &*route);
                let end = step::take(&settler, asked, Occasion::Retry, Some(&headers)).await;
                settler.running.remove(&id);
                drop(permit);
                settler.changed.notify_one();
                match &end {
                    StepEnd::Taken(Some(record)) => settler.plan(id, record, &route),
                    StepEnd::Taken(None) if route.has_schedule() => {
                        settler.enqueue(&route, LOOK_AGAIN, id);
                    }
                    _ => {}
                }
                end
            });
            match timeout_at(until, task).await {
                Ok(Ok(StepEnd::Taken(_) | StepEnd::Decided)) => return Retried::Changed,
                Ok(Ok(StepEnd::Running(delay))) => {
                    // Another step is under way, perhaps in another process.
                    if timeout_at(until, tokio::time::sleep(LOOK)).await.is_err() {
                        return Retried::Later(delay);
                    }
                }
                Ok(Ok(StepEnd::Wait(delay))) => return Retried::Later(delay),
                Ok(Ok(StepEnd::Held) | Err(_)) => return Retried::Held,
                Ok(Ok(StepEnd::Resend(record, version))) => {
                    return Retried::Resend(record, version);
                }
                Err(_) => return Retried::Later(Duration::ZERO),
            }
        }
    }

    /// Ends the policy of a record whose request can never be sent again, for this reason.
    pub(crate) async fn not_repeatable(
        &self,
        (id, route): (RecordId, &SettleRoute),
        record: &Record,
        why: &'static str,
    ) {
        step::not_sent(self, (id, route), record, &why).await;
    }
}
