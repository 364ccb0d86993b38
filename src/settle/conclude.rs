//! The consequences of a step's evidence, pure: the record after the step, and the alarm.

use std::sync::Arc;

use super::rules::{SettlePlan, author, last_dispatch};
use super::schedule::{failed, paused};
use crate::clock::Timestamp;
use crate::config::{AfterReversal, ProbeRules, ReverseRules, UnknownPolicy};
use crate::idempotency::history::{HistoryEntry, HistoryEvent};
use crate::idempotency::record::StoredResponse;
use crate::idempotency::settle::Settlement;
use crate::idempotency::settling::{Schedule, Sightings};
use crate::idempotency::{Record, State};

/// A step's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// No usable answer, for the named reason: proves nothing, and resets nothing.
    Nothing(String),
    /// A usable answer that decides nothing.
    Undecided(String),
    /// The backend has the request and has not decided.
    Pending,
    /// So many rows match.
    Several(usize),
    /// A complete look at the backend, shown to work, without the request.
    Absent,
    /// The request was executed; the response to replay.
    Executed(Arc<StoredResponse>),
    /// So many of an item's unknown units were executed, and all others were not.
    Units(u64),
    /// A complete look at the backend, shown to work, with so many of an item's unknown units.
    PartlyAbsent(u64),
    /// The backend says that the request was not executed.
    NotExecuted,
    /// The reversal is acknowledged; the response to replay with `then = "fail"`.
    Reversed {
        /// The backend found nothing to reverse.
        nothing: bool,
        /// The response of the failed request.
        response: Option<Arc<StoredResponse>>,
    },
}

/// The reason for an alarm, a label value of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// Several rows match.
    Several,
    /// The policy ended without a decision.
    GaveUp,
    /// A result contradicts an earlier decision.
    Contradiction,
}

impl Alarm {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Several => "several",
            Self::GaveUp => "gave_up",
            Self::Contradiction => "contradiction",
        }
    }
}

/// The consequence of a step's evidence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Conclusion {
    /// The record after the step; `None`: unchanged.
    pub(crate) next: Option<Box<Record>>,
    /// The alarm, if any.
    pub(crate) alarm: Option<Alarm>,
    /// The decision, if any: executed or not.
    pub(crate) settled: Option<HistoryEvent>,
}

/// The consequence of the evidence of the step that began at `started`.
///
/// A record that is no longer unknown was decided by somebody else: decisive evidence is kept with
/// it as a contradiction.
pub(crate) fn conclude(
    record: &Record,
    plan: &SettlePlan,
    (started, now): (Timestamp, Timestamp),
    evidence: &Evidence,
) -> Conclusion {
    if !record.is_unknown() {
        return too_late(record, evidence, now);
    }
    match &*plan.policy {
        // A replica with another configuration began to undo the call meanwhile.
        UnknownPolicy::Probe(_) if record.is_reversing() => too_late(record, evidence, now),
        UnknownPolicy::Probe(rules) => probed(record, rules, plan, (started, now), evidence),
        UnknownPolicy::Reverse(rules) => reversal_answered(record, rules, plan, now, evidence),
        UnknownPolicy::Hold | UnknownPolicy::Resend(_) => Conclusion::default(),
    }
}

fn probed(
    record: &Record,
    rules: &ProbeRules,
    plan: &SettlePlan,
    (started, now): (Timestamp, Timestamp),
    evidence: &Evidence,
) -> Conclusion {
    let schedule = record.schedule();
    let again = |schedule: Schedule, text: &str, alarm| {
        let schedule = paused(schedule, record, rules.every, now);
        let mut next = record.with_schedule(schedule, now);
        next.step(HistoryEvent::Probe, author("probe", text), now);
        Conclusion { next: Some(Box::new(next)), alarm, settled: None }
    };
    match evidence {
        Evidence::Nothing(why) => {
            let mut next = record.with_schedule(failed(schedule, record, rules.every, now), now);
            next.step(HistoryEvent::Probe, author("probe", why), now);
            Conclusion { next: Some(Box::new(next)), ..Conclusion::default() }
        }
        Evidence::Undecided(why) => again(schedule, why, None),
        Evidence::Pending => again(schedule, "the backend has not decided yet", None),
        Evidence::Several(_) => {
            let alarm = (!schedule.several).then_some(Alarm::Several);
            let schedule = Schedule { several: true, ..schedule };
            again(schedule, "several rows match, so none of them proves anything", alarm)
        }
        Evidence::Absent | Evidence::PartlyAbsent(_) => {
            match sighted(record, rules, plan, started, &schedule) {
                Sighting::TooEarly(why) => again(schedule, why, None),
                Sighting::Counted(absent, needed) if absent.count < needed => {
                    let text = format!("absent, sighting {} of {needed}", absent.count);
                    again(Schedule { absent: Some(absent), ..schedule }, &text, None)
                }
                Sighting::Counted(absent, _) => {
                    let text = format!("absent in {} complete looks at the backend", absent.count);
                    let how = match evidence {
                        Evidence::PartlyAbsent(units) => Settlement::Issued(Some(*units)),
                        _ => Settlement::NotExecuted,
                    };
                    settled(record, plan, now, &how, ("probe", &text))
                }
            }
        }
        Evidence::Executed(response) => {
            let how = match record.ledger().map(|ledger| ledger.unknown) {
                None => Settlement::Executed(response.clone()),
                Some(1) => Settlement::Issued(Some(1)),
                Some(_) => {
                    return again(schedule, "one object does not tell of several units", None);
                }
            };
            settled(record, plan, now, &how, ("probe", "the backend has executed the request"))
        }
        Evidence::Units(units) => {
            let how = match units {
                0 => Settlement::NotExecuted,
                units => Settlement::Issued(Some(*units)),
            };
            settled(record, plan, now, &how, ("probe", "each executed row is a unit"))
        }
        Evidence::NotExecuted => {
            let text = "the backend says that it did not execute the request";
            settled(record, plan, now, &Settlement::NotExecuted, ("probe", text))
        }
        Evidence::Reversed { .. } => Conclusion::default(),
    }
}

/// A look without the request.
enum Sighting {
    /// Proves nothing, for this reason.
    TooEarly(&'static str),
    /// The sightings with this one, and the number needed.
    Counted(Sightings, u32),
}

fn sighted(
    record: &Record,
    rules: &ProbeRules,
    plan: &SettlePlan,
    started: Timestamp,
    schedule: &Schedule,
) -> Sighting {
    let Some(absent) = &rules.absent else {
        return Sighting::TooEarly("no row matches, which proves nothing on this route");
    };
    if record.is_already_done() {
        return Sighting::TooEarly("no row matches, and the backend says that it was executed");
    }
    let from = last_dispatch(record).saturating_add(plan.timeout).saturating_add(absent.after);
    if started <= from {
        return Sighting::TooEarly("no row matches, too early to prove anything");
    }
    if record.dispatched().saturating_add(absent.look_back) <= started {
        return Sighting::TooEarly("no row matches, too late for the backend to list the request");
    }
    let before = schedule.absent;
    if before.is_some_and(|before| started < before.last.saturating_add(rules.every)) {
        return Sighting::TooEarly("no row matches, too soon after the last look");
    }
    let count = before.map_or(0, |before| before.count).saturating_add(1);
    Sighting::Counted(Sightings { count, last: started }, absent.sightings)
}

fn reversal_answered(
    record: &Record,
    rules: &ReverseRules,
    plan: &SettlePlan,
    now: Timestamp,
    evidence: &Evidence,
) -> Conclusion {
    let (nothing, response) = match evidence {
        Evidence::Reversed { nothing, response } => (*nothing, response),
        Evidence::Nothing(why) | Evidence::Undecided(why) => {
            let schedule = paused(record.schedule(), record, rules.every, now);
            let mut next = record.with_schedule(schedule, now);
            next.step(HistoryEvent::Reversal, author("reversal", why), now);
            return Conclusion { next: Some(Box::new(next)), ..Conclusion::default() };
        }
        Evidence::Pending
        | Evidence::Several(_)
        | Evidence::Absent
        | Evidence::Executed(_)
        | Evidence::Units(_)
        | Evidence::PartlyAbsent(_)
        | Evidence::NotExecuted => return Conclusion::default(),
    };
    let text = match nothing {
        true => "the backend had nothing to reverse",
        false => "the backend acknowledged the reversal",
    };
    let response = match rules.then {
        AfterReversal::Release => None,
        AfterReversal::Fail => response.clone(),
    };
    let note = author("reversal", text);
    let next = match record.ledger() {
        None => record.reversed(response, note, plan.retention, now),
        Some(_) => {
            let closed = rules.then == AfterReversal::Fail;
            match record.units_reversed(closed, note, plan.retention, now) {
                Ok(next) => next,
                // The units do not add up: an operator has to look.
                Err(_) => return Conclusion::default(),
            }
        }
    };
    let settled = Some(HistoryEvent::NotExecuted);
    Conclusion { next: Some(Box::new(next)), alarm: None, settled }
}

fn settled(
    record: &Record,
    plan: &SettlePlan,
    now: Timestamp,
    how: &Settlement,
    (by, why): (&str, &str),
) -> Conclusion {
    let mut asked = record.clone();
    asked.step(HistoryEvent::Probe, author(by, why), now);
    match asked.settled(how, author(by, why), plan.retention, now) {
        Ok(next) => {
            let what = match how {
                Settlement::Executed(_) | Settlement::Issued(_) => HistoryEvent::Executed,
                Settlement::NotExecuted => HistoryEvent::NotExecuted,
            };
            Conclusion { next: Some(Box::new(next)), alarm: None, settled: Some(what) }
        }
        // Not an unknown request: items have evidence of their own.
        Err(_) => Conclusion::default(),
    }
}

/// The record that keeps evidence which lost against an earlier decision.
fn too_late(record: &Record, evidence: &Evidence, now: Timestamp) -> Conclusion {
    let is_item = record.ledger().is_some();
    let of_kind = |executed: bool| match is_item {
        true => CallResult::Units(u64::from(executed)),
        false => CallResult::Executed(executed),
    };
    let (what, result) = match evidence {
        Evidence::Executed(_) => ("a probe found the request executed", of_kind(true)),
        Evidence::NotExecuted => ("a probe found the request not executed", of_kind(false)),
        Evidence::Reversed { nothing: false, .. } => {
            ("a reversal was acknowledged", of_kind(false))
        }
        Evidence::Reversed { nothing: true, .. } => {
            ("a reversal found nothing to reverse", of_kind(false))
        }
        Evidence::Units(units) => ("a probe found executed units", CallResult::Units(*units)),
        Evidence::Nothing(_)
        | Evidence::Undecided(_)
        | Evidence::Pending
        | Evidence::Several(_)
        | Evidence::PartlyAbsent(_)
        | Evidence::Absent => return Conclusion::default(),
    };
    contradiction(record, what, result, now)
}

/// A result that came too late to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallResult {
    /// The request was executed, or was not.
    Executed(bool),
    /// So many of the units of an item were issued.
    Units(u64),
    /// The reversal of an earlier attempt was acknowledged, and may have undone the present one.
    Undone,
}

/// The record with a contradiction: a result that lost against an earlier decision. A result that
/// agrees with the decision is kept without an alarm.
pub(crate) fn contradiction(
    record: &Record,
    what: &str,
    result: CallResult,
    now: Timestamp,
) -> Conclusion {
    let agrees = match (&record.state, result) {
        (_, CallResult::Undone) => has_no_execution(record),
        // A reversal is under way: any result of the call contradicts it.
        (State::Unknown { .. }, _) => Some(false),
        (State::Item { .. }, _) if record.is_unknown() => record.is_reversing().then_some(false),
        (_, CallResult::Executed(executed)) => decided(record).map(|decided| decided == executed),
        (_, CallResult::Units(units)) => decided_units(record).map(|decided| decided == units),
    };
    let Some(agrees) = agrees else { return Conclusion::default() };
    let alarm = (!agrees).then_some(Alarm::Contradiction);
    let next = record.contradicted(author("gateway", what), now);
    Conclusion { next: Some(Box::new(next)), alarm, settled: None }
}

/// The decision about a request: executed or not; `None`: another attempt holds the record, or
/// nobody decided.
fn decided(record: &Record) -> Option<bool> {
    match &record.state {
        State::Final { .. } | State::Tombstone { .. } => {
            // A failed reversal is final as well, with the decision "not executed".
            let last = record.history.iter().rev().find(|entry| is_decision(entry.what));
            Some(last.is_none_or(|entry| entry.what != HistoryEvent::NotExecuted))
        }
        State::Released { .. } => Some(false),
        State::Unknown { .. } | State::InFlight | State::SerializeLock | State::Item { .. } => None,
    }
}

/// The number of units that a decision about an item found issued; `None`: another attempt holds
/// the record, or nobody decided.
fn decided_units(record: &Record) -> Option<u64> {
    record.ledger().filter(|ledger| !ledger.is_open())?;
    let last = record.history.iter().rev().find(|entry| is_decision(entry.what))?;
    Some(if last.what == HistoryEvent::Executed { last.units.unwrap_or(1) } else { 0 })
}

/// Reports a record of which nothing is executed that a reversal could have undone; `None`: a call
/// is in flight.
fn has_no_execution(record: &Record) -> Option<bool> {
    match &record.state {
        State::Final { .. } | State::Tombstone { .. } => {
            let last = record.history.iter().rev().find(|entry| is_decision(entry.what));
            let is_undone = |entry: &HistoryEntry| {
                entry.attempt == record.attempts && entry.what == HistoryEvent::NotExecuted
            };
            Some(last.is_some_and(is_undone))
        }
        State::Released { .. } => Some(true),
        State::Unknown { .. } => Some(false),
        State::Item { ledger, .. } if ledger.in_flight == 0 => {
            Some(ledger.unknown == 0 && ledger.fulfilled == 0)
        }
        State::InFlight | State::SerializeLock | State::Item { .. } => None,
    }
}

pub(super) const fn is_decision(what: HistoryEvent) -> bool {
    match what {
        HistoryEvent::Executed | HistoryEvent::NotExecuted | HistoryEvent::Reopened => true,
        HistoryEvent::Probe
        | HistoryEvent::Resend
        | HistoryEvent::Reversal
        | HistoryEvent::Contradiction
        | HistoryEvent::Purged => false,
    }
}
