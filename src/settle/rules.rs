//! The rules of settlement, pure: the next step of a policy about a record. Time is an argument,
//! and every effect is a returned record; the consequence of a step's evidence is in `conclude`.
//!
//! ```text
//! tick(record, now) ─▶ Hold | Wait(until) | GiveUp(record) | Begin(step, record)
//!                                                    the record is durable ─▶ the step runs
//! conclude(record, evidence, now) ─▶ the record after the step: settled, or due again
//! ```
//! A step begins only after its record is durable, and the version fences: of several processes, an
//! operator and a late answer, the first swap wins. No rule turns time into an outcome.

use std::sync::Arc;
use std::time::Duration;

pub(crate) use super::schedule::Occasion;
use super::schedule::{begun, earliest};
use crate::clock::Timestamp;
use crate::config::{ProbeRules, ResendRules, ReverseRules, UnknownPolicy};
use crate::idempotency::Record;
use crate::idempotency::history::{HistoryEvent, Note};
use crate::idempotency::retention::Retention;
use crate::idempotency::settling::Schedule;
use crate::problem::Dialect;

/// The rules and times of a route for its unknown records.
#[derive(Debug, Clone)]
pub(crate) struct SettlePlan {
    pub(crate) policy: Arc<UnknownPolicy>,
    /// The upstream's `timeout`: the call itself may act until then.
    pub(crate) timeout: Duration,
    /// Time that a step takes at most. Afterwards another process takes over.
    pub(crate) lease: Duration,
    pub(crate) retention: Retention,
    /// The form of the gateway's own errors.
    pub(crate) dialect: Dialect,
}

/// A step that talks to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// A question without side effect.
    Probe,
    /// The request itself, again.
    Resend,
    /// The request that undoes the call.
    Reverse,
}

/// The next action about a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing on this occasion; only an operator, a late answer or a retry can settle the record.
    Hold,
    /// Nothing before this time.
    Wait(Timestamp),
    /// The policy ends here. The record notes it, and operators are alarmed.
    GiveUp(Box<Record>),
    /// Take the step once this record is durable.
    Begin(StepKind, Box<Record>),
}

/// The next action about `record` at `now`.
pub(crate) fn tick(
    record: &Record,
    plan: &SettlePlan,
    now: Timestamp,
    occasion: Occasion,
) -> Action {
    let schedule = record.schedule();
    if !record.is_unknown() || schedule.gave_up {
        return Action::Hold;
    }
    if let Some(end) = schedule.next.filter(|end| schedule.running && *end > now) {
        return Action::Wait(end);
    }
    match &*plan.policy {
        UnknownPolicy::Hold => Action::Hold,
        // Another configuration began to undo the call: nothing else may be concluded or sent.
        UnknownPolicy::Probe(_) | UnknownPolicy::Resend(_) if schedule.reversing => Action::Hold,
        UnknownPolicy::Probe(rules) => probe(record, rules, plan, now, occasion),
        UnknownPolicy::Resend(rules) => resend(record, rules, now, occasion),
        UnknownPolicy::Reverse(rules) => reverse(record, rules, plan, now, occasion),
    }
}

fn probe(
    record: &Record,
    rules: &ProbeRules,
    plan: &SettlePlan,
    now: Timestamp,
    occasion: Occasion,
) -> Action {
    let schedule = record.schedule();
    if record.unknown_since().saturating_add(rules.give_up_after) <= now {
        return give_up(record, schedule, now);
    }
    if occasion == Occasion::Schedule && !rules.forward.is_empty() {
        return Action::Wait(record.unknown_since().saturating_add(rules.give_up_after));
    }
    let first = record.dispatched().saturating_add(rules.min_age);
    let due = earliest(&schedule, first, rules.every, occasion);
    if due > now {
        return Action::Wait(due);
    }
    let next = record.with_schedule(begun(schedule, now, plan.lease), now);
    Action::Begin(StepKind::Probe, Box::new(next))
}

fn resend(record: &Record, rules: &ResendRules, now: Timestamp, occasion: Occasion) -> Action {
    if occasion == Occasion::Schedule {
        return Action::Hold;
    }
    let schedule = record.schedule();
    let forgotten = record.dispatched().saturating_add(rules.within) <= now;
    if forgotten || schedule.resent >= rules.attempts {
        return give_up(record, schedule, now);
    }
    let last = schedule.last.unwrap_or_else(|| record.dispatched());
    let due = last.saturating_add(rules.min_age);
    if due > now {
        return Action::Wait(due);
    }
    let why = format!("repetition {} of at most {}", schedule.resent + 1, rules.attempts);
    let next = record.resent(author("resend", &why), now);
    Action::Begin(StepKind::Resend, Box::new(next))
}

fn reverse(
    record: &Record,
    rules: &ReverseRules,
    plan: &SettlePlan,
    now: Timestamp,
    occasion: Occasion,
) -> Action {
    if record.is_pending() {
        // The backend is still deciding: there is nothing yet that could be undone.
        return Action::Hold;
    }
    let schedule = record.schedule();
    if record.is_partly_issued() {
        let why = "a part was issued before, and a reversal could undo that part too";
        let mut noted = record.clone();
        noted.step(HistoryEvent::Reversal, author("reversal", why), now);
        return give_up(&noted, schedule, now);
    }
    let first = last_dispatch(record).saturating_add(rules.min_age.max(plan.timeout));
    let due = earliest(&schedule, first, rules.every, occasion);
    if due > now {
        return Action::Wait(due);
    }
    let schedule = Schedule { reversing: true, ..begun(schedule, now, plan.lease) };
    let mut next = record.with_schedule(schedule, now);
    next.step(HistoryEvent::Reversal, author("reversal", "the reversal is sent"), now);
    Action::Begin(StepKind::Reverse, Box::new(next))
}

/// Time of the last dispatch: of a call that was sent again, by this policy or an earlier one, at
/// the latest the last step.
pub(super) fn last_dispatch(record: &Record) -> Timestamp {
    let schedule = record.schedule();
    let resent = schedule.last.filter(|_| schedule.resent > 0);
    resent.map_or(record.dispatched(), |at| at.max(record.dispatched()))
}

fn give_up(record: &Record, schedule: Schedule, now: Timestamp) -> Action {
    let schedule = Schedule { gave_up: true, running: false, next: None, ..schedule };
    Action::GiveUp(Box::new(record.with_schedule(schedule, now)))
}

/// Characters of a reason that comes from outside.
const LONGEST_REASON: usize = 200;

/// The note of a step by the gateway. Texts from outside are cut and cleaned.
pub(crate) fn author(by: &str, why: &str) -> Note {
    let clean: String =
        why.chars().map(|at| if at.is_control() { ' ' } else { at }).take(LONGEST_REASON).collect();
    Note::gateway(by, clean)
}
