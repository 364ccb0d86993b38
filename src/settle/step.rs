//! One step about a record: its durable claim, the talk with the backend, and its durable end.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::conclude::{Alarm, CallResult, Conclusion, Evidence, conclude};
use super::contradiction;
use super::probe::{self, Probed};
use super::reverse;
use super::route::SettleRoute;
use super::rules::{self, Action, Occasion, StepKind, tick};
use super::state::Settler;
use super::transition::{Advance, Transition, advance};
use crate::clock::Timestamp;
use crate::config::UnknownPolicy;
use crate::failpoint::{self, Point};
use crate::idempotency::history::HistoryEvent;
use crate::idempotency::{Record, RecordId};
use crate::observe::repeated::Repeated;
use crate::store::Change;
use crate::template::RenderError;

/// The end of a step.
#[derive(Debug)]
pub(super) enum StepEnd {
    /// A step was taken, by this process or another; the record afterwards, if it is known.
    Taken(Option<Box<Record>>),
    /// The outcome is not unknown any more.
    Decided,
    /// Nothing before this time has passed.
    Wait(Duration),
    /// Another step is under way, at most for this time.
    Running(Duration),
    /// Nothing on this occasion.
    Held,
    /// The record under which the request may be sent again, once that is durable, and the version
    /// it replaces.
    Resend(Box<Record>, u64),
}

/// Takes the next step about a record.
pub(super) async fn take(
    settler: &Arc<Settler>,
    (id, route): (RecordId, &SettleRoute),
    occasion: Occasion,
    client: Option<&HeaderMap>,
) -> StepEnd {
    let record = match settler.store.get(id).await {
        Ok(Some(record)) => settler.without_abandoned_step(record),
        Ok(None) => return StepEnd::Decided,
        Err(error) => {
            tracing::debug!(record = %id, %error, "a record cannot be read for its settlement");
            return StepEnd::Wait(UNREAD);
        }
    };
    let now = settler.now_for(&record);
    match tick(&record, &route.plan, now, occasion) {
        Action::Hold if record.is_unknown() => StepEnd::Held,
        Action::Hold => StepEnd::Decided,
        Action::Wait(at) if record.schedule().running => StepEnd::Running(now.until(at)),
        Action::Wait(at) => StepEnd::Wait(now.until(at)),
        Action::GiveUp(next) => {
            if !replaced(settler, id, &record, &next).await {
                return StepEnd::Taken(None);
            }
            settler.alarm(id, &next, Alarm::GaveUp);
            StepEnd::Held
        }
        Action::Begin(StepKind::Resend, mut next) => {
            next.owner = settler.store.owner();
            StepEnd::Resend(next, record.version)
        }
        Action::Begin(kind, next) => {
            if let Some(name) = lacking(route, client) {
                // Another retry may have the header: this one must not delay that.
                if let Some(times) = LACKING.occur() {
                    tracing::warn!(
                        route = %route.name, header = %name, times,
                        "a retry lacks a header that the probe takes over, so nothing was asked"
                    );
                }
                return StepEnd::Wait(Duration::ZERO);
            }
            if let Some(error) = unsendable(route, &record, kind, now) {
                return not_sent(settler, (id, route), &record, &error).await;
            }
            if !replaced(settler, id, &record, &next).await {
                // Another process, an operator or a late answer was faster.
                return StepEnd::Taken(None);
            }
            run(settler, (id, route), &next, (kind, now), client).await
        }
    }
}

/// The pause before another look at a record that could not be read.
const UNREAD: Duration = Duration::from_secs(15);

static LACKING: Repeated = Repeated::new("retries lack a header that the probe takes over");

/// The first header of `forward` that the retry has not.
fn lacking<'r>(route: &'r SettleRoute, client: Option<&HeaderMap>) -> Option<&'r HeaderName> {
    let UnknownPolicy::Probe(rules) = &*route.plan.policy else { return None };
    let lacks = |name: &&HeaderName| client.is_none_or(|headers| !headers.contains_key(*name));
    rules.forward.iter().find(lacks)
}

/// Talks to the backend under the step's claim, and makes the result durable.
async fn run(
    settler: &Arc<Settler>,
    (id, route): (RecordId, &SettleRoute),
    begun: &Record,
    (kind, started): (StepKind, Timestamp),
    client: Option<&HeaderMap>,
) -> StepEnd {
    failpoint::point(Point::SettleClaimed);
    let probed = match (&*route.plan.policy, kind) {
        (UnknownPolicy::Probe(rules), StepKind::Probe) => {
            probe::probe(route, rules, begun, started, client).await
        }
        (UnknownPolicy::Reverse(rules), StepKind::Reverse) => {
            reverse::reverse(route, rules, begun, started).await
        }
        _ => return StepEnd::Held,
    };
    failpoint::point(Point::SettleAnswered);
    let evidence = match probed {
        Probed::Evidence(evidence) => evidence,
        Probed::Unrendered(error) => {
            return not_sent(settler, (id, route), begun, &error).await;
        }
    };
    let mut end = StepConclusion {
        settler,
        route,
        id,
        record: begun.clone(),
        started,
        evidence: &evidence,
        conclusion: Conclusion::default(),
    };
    let ended = advance(&*settler.store, &mut end).await;
    let StepConclusion { conclusion, .. } = end;
    failpoint::point(Point::SettleRecorded);
    match ended {
        Advance::Done => {
            let Some(next) = conclusion.next else { return StepEnd::Taken(None) };
            if let Some(what) = conclusion.alarm {
                settler.alarm(id, &next, what);
            }
            if let Some(what) = conclusion.settled {
                tell(settler, id, &next, kind, what).await;
            }
            StepEnd::Taken(Some(next))
        }
        Advance::Lost => {
            if let Evidence::Reversed { nothing: false, .. } = evidence {
                let what = "a reversal of an earlier attempt was acknowledged".to_owned();
                let kept = contradiction::keep(settler.clone(), id, what, CallResult::Undone);
                settler.tasks.spawn(kept);
            }
            StepEnd::Taken(None)
        }
        // The lease of the step ends by itself.
        Advance::Contended | Advance::Indeterminate(_) => StepEnd::Taken(None),
    }
}

/// The end of a step, against whatever the record has become.
struct StepConclusion<'s> {
    settler: &'s Settler,
    route: &'s SettleRoute,
    id: RecordId,
    record: Record,
    started: Timestamp,
    evidence: &'s Evidence,
    conclusion: Conclusion,
}

impl Transition for StepConclusion<'_> {
    fn changes(&mut self) -> Vec<Change> {
        let times = (self.started, self.settler.now_for(&self.record));
        self.conclusion = conclude(&self.record, &self.route.plan, times, self.evidence);
        let expect = Some(self.record.version);
        let put = self.conclusion.next.as_deref().cloned().map(Arc::new);
        let change = |put| Change { id: self.id, expect, put: Some(put) };
        put.map(change).into_iter().collect()
    }

    fn rebase(&mut self, present: Vec<Option<Record>>) -> bool {
        self.conclusion = Conclusion::default();
        match present.into_iter().next().flatten() {
            // The evidence is about this attempt, whatever has been decided about it.
            Some(record) if record.attempt == self.record.attempt => {
                self.record = record;
                true
            }
            Some(_) | None => false,
        }
    }
}

/// The reason why a reversal cannot be sent. A probe finds out when it renders its request: it has
/// no effect that a claim would have to precede.
fn unsendable(
    route: &SettleRoute,
    record: &Record,
    kind: StepKind,
    now: Timestamp,
) -> Option<RenderError> {
    match (&*route.plan.policy, kind) {
        (UnknownPolicy::Reverse(rules), StepKind::Reverse) => {
            reverse::is_sendable(rules, record, now).err()
        }
        _ => None,
    }
}

/// Ends the policy of a record for which nothing can ever be sent: a template has no value, or the
/// request takes no mark. That is told.
pub(super) async fn not_sent(
    settler: &Settler,
    (id, route): (RecordId, &SettleRoute),
    record: &Record,
    error: &(dyn std::fmt::Display + Sync),
) -> StepEnd {
    tracing::warn!(
        record = %id, route = %route.name, %error,
        "nothing was sent to settle this outcome; an operator has to decide"
    );
    let now = settler.now_for(record);
    let mut schedule = record.schedule();
    (schedule.gave_up, schedule.running, schedule.next) = (true, false, None);
    let mut next = record.with_schedule(schedule, now);
    let (what, by) = match &*route.plan.policy {
        UnknownPolicy::Reverse(_) => (HistoryEvent::Reversal, "reversal"),
        UnknownPolicy::Resend(_) => (HistoryEvent::Resend, "resend"),
        UnknownPolicy::Hold | UnknownPolicy::Probe(_) => (HistoryEvent::Probe, "probe"),
    };
    next.step(what, rules::author(by, &format!("nothing was sent: {error}")), now);
    if !replaced(settler, id, record, &next).await {
        return StepEnd::Taken(None);
    }
    settler.alarm(id, &next, Alarm::GaveUp);
    StepEnd::Held
}

/// Replaces a record; false when the record has changed, or the store did not confirm.
async fn replaced(settler: &Settler, id: RecordId, record: &Record, next: &Record) -> bool {
    let (expect, put) = (Some(record.version), Some(Arc::new(next.clone())));
    match settler.store.swap(vec![Change { id, expect, put }]).await {
        Ok(crate::store::Swap::Done) => true,
        Ok(crate::store::Swap::Lost { .. }) => false,
        Err(error) => {
            tracing::debug!(record = %id, %error, "a step of a settlement was not confirmed");
            false
        }
    }
}

/// Logs a decision and drops cached copies in all processes.
async fn tell(
    settler: &Settler,
    id: RecordId,
    record: &Record,
    kind: StepKind,
    what: HistoryEvent,
) {
    let by = match kind {
        StepKind::Probe => "probe",
        StepKind::Resend => "resend",
        StepKind::Reverse => "reversal",
    };
    settler.report(id, &record.route, by, what.as_str());
    settler.cache.forget(&id);
    if let Err(error) = settler.store.announce(id).await {
        tracing::debug!(record = %id, %error, "other replicas were not notified of a settlement");
    }
}
