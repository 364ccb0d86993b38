//! Every interleaving of answers, timeouts, steps, operators and crashes up to depth 8, against the
//! pure rules. The model holds a store that compares versions and a backend that counts calls.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::conclude::{
    Alarm, CallResult, Conclusion, Evidence, conclude, contradiction, is_decision,
};
use super::rules::{Action, Occasion, SettlePlan, StepKind, author, tick};
use crate::clock::Timestamp;
use crate::config::{self, Mode, UnknownPolicy};
use crate::idempotency::history::{HistoryEntry, HistoryEvent};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::StoredResponse;
use crate::idempotency::retention::{Keep, Retention};
use crate::idempotency::settle::Settlement;
use crate::idempotency::settling::Settling;
use crate::idempotency::{Answer, Decision, Record, State, decide};
use crate::problem::Dialect;
use crate::store::samples;

const DEPTH: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(60);
const KEPT: Retention = Retention { answer: Keep::Forever, tombstone: Keep::Forever };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Event {
    /// The call's answer arrives in time.
    Answer,
    /// The call's time runs out.
    Timeout,
    /// The call's answer arrives after the timeout.
    LateAnswer,
    /// The background takes the step that is due, at its time.
    Step,
    /// The running probe finds the row.
    Found,
    /// The running probe finds no row, and the control look-up succeeds.
    Absent,
    /// The running probe finds two rows.
    Ambiguous,
    /// The running step gets no usable answer.
    Failure,
    /// The running reversal is acknowledged.
    Acknowledged,
    /// The running reversal finds nothing to reverse.
    NothingThere,
    /// The client repeats the request.
    Retry,
    /// The operator decides "executed".
    Executed,
    /// The operator decides "not executed".
    NotExecuted,
    /// The operator takes back a final answer.
    Reopened,
    /// The process ends: its call and its step are lost.
    Crash,
}

const EVENTS: [Event; 15] = [
    Event::Answer,
    Event::Timeout,
    Event::LateAnswer,
    Event::Step,
    Event::Found,
    Event::Absent,
    Event::Ambiguous,
    Event::Failure,
    Event::Acknowledged,
    Event::NothingThere,
    Event::Retry,
    Event::Executed,
    Event::NotExecuted,
    Event::Reopened,
    Event::Crash,
];

/// A call that the process waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OpenCall {
    attempt: [u8; 16],
    version: u64,
    timed_out: bool,
}

/// A step under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OpenStep {
    is_probe: bool,
    started: Timestamp,
    attempt: [u8; 16],
}

#[derive(Debug, Clone)]
struct World {
    record: Option<Record>,
    now: Timestamp,
    call: Option<OpenCall>,
    step: Option<OpenStep>,
    /// Calls that were sent, and reasons that allowed a call beyond the first.
    sent: u32,
    allowed: u32,
    reversals: u32,
}

pub(super) fn plan(toml: &str) -> SettlePlan {
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store.embedded]\npath = \"x\"\n[[upstream]]\nname = \"b\"\nurl = \"http://127.0.0.1:1\"\n\
         timeout = \"60s\"\n\
         [[route]]\nname = \"r\"\nmethods = [\"POST\"]\npath = \"/r\"\nupstream = \"b\"\n{toml}"
    );
    let config = config::parse(&text, "test.toml", &|_| None).expect("a configuration");
    let Mode::Request(mode) = &config.routes[0].mode else { panic!("request mode") };
    SettlePlan {
        policy: Arc::new(mode.on_unknown.clone()),
        timeout: TIMEOUT,
        lease: Duration::from_secs(70),
        retention: KEPT,
        dialect: Dialect::default(),
    }
}

fn response() -> Arc<StoredResponse> {
    Arc::new(StoredResponse { status: 200, headers: Vec::new(), body: Bytes::from_static(b"{}") })
}

pub(super) fn claimed(now: Timestamp, number: u32) -> Record {
    Record {
        first_seen: now,
        updated: now,
        attempt: [number as u8; 16],
        settling: Some(Box::new(Settling::new(now, Vec::new()))),
        ..samples::claim(1)
    }
}

impl World {
    fn new() -> Self {
        let record = claimed(samples::T0, 1);
        let call = OpenCall { attempt: record.attempt, version: record.version, timed_out: false };
        Self {
            record: Some(record),
            now: samples::T0,
            call: Some(call),
            step: None,
            sent: 1,
            allowed: 1,
            reversals: 0,
        }
    }

    /// The compare-and-swap of the store: false when the record has another version.
    fn swap(&mut self, expect: u64, next: Record) -> bool {
        let fits = self.record.as_ref().is_some_and(|record| record.version == expect);
        if fits {
            self.record = Some(next);
        }
        fits
    }

    /// Applies an event; `None`: the event cannot happen here.
    fn after(&self, event: Event, plan: &SettlePlan) -> Option<Self> {
        let mut next = self.clone();
        match event {
            Event::Answer | Event::LateAnswer => next.answered(event == Event::LateAnswer)?,
            Event::Timeout => {
                let call = next.call.as_mut().filter(|call| !call.timed_out)?;
                call.timed_out = true;
                let expect = call.version;
                next.now = next.now.saturating_add(TIMEOUT);
                let lost = next.record.as_ref()?.lost(UnknownReason::Timeout, next.now);
                let version = lost.version;
                if next.swap(expect, lost) {
                    next.call.as_mut()?.version = version;
                }
            }
            Event::Step => next.begin(plan)?,
            Event::Found => next.concluded(plan, true, &Evidence::Executed(response()))?,
            Event::Absent => next.concluded(plan, true, &Evidence::Absent)?,
            Event::Ambiguous => next.concluded(plan, true, &Evidence::Several(2))?,
            Event::Failure => {
                let is_probe = next.step.as_ref()?.is_probe;
                next.concluded(plan, is_probe, &Evidence::Nothing("down".to_owned()))?;
            }
            Event::Acknowledged | Event::NothingThere => {
                let nothing = event == Event::NothingThere;
                let evidence = Evidence::Reversed { nothing, response: Some(response()) };
                next.concluded(plan, false, &evidence)?;
            }
            Event::Retry => next.retried(plan)?,
            Event::Executed | Event::NotExecuted => next.decided(event == Event::Executed)?,
            Event::Reopened => {
                let record = next.record.clone()?;
                let reopened = record.reopened(author("ann", "books"), KEPT, next.now).ok()?;
                next.allowed += 1;
                assert!(next.swap(record.version, reopened));
            }
            Event::Crash => {
                if next.call.is_none() && next.step.is_none() {
                    return None;
                }
                (next.call, next.step) = (None, None);
                next.now = next.now.saturating_add(Duration::from_secs(1));
                if let Some(record) = next.record.as_ref().filter(|record| record.is_in_flight()) {
                    let (expect, lost) = (record.version, record.abandoned(next.now)?);
                    next.swap(expect, lost);
                }
            }
        }
        Some(next)
    }

    fn answered(&mut self, late: bool) -> Option<()> {
        let call = self.call.clone().filter(|call| call.timed_out == late)?;
        self.call = None;
        self.now = self.now.saturating_add(Duration::from_secs(1));
        let record = self.record.clone()?;
        let owns = record.version == call.version;
        if owns || record.awaits(&call.attempt) {
            let done = record.completed(Answer::Kept(response()), KEPT, self.now);
            assert!(self.swap(record.version, done));
        } else {
            let kept =
                contradiction(&record, "a late answer", CallResult::Executed(true), self.now);
            if let Some(next) = kept.next {
                assert!(same_outcome(&record, &next), "a late answer changed a decision");
                assert!(next.history.iter().any(|it| it.what == HistoryEvent::Contradiction));
                if record.is_reversing() || matches!(record.state, State::Released { .. }) {
                    assert_eq!(kept.alarm, Some(Alarm::Contradiction));
                }
                self.swap(record.version, *next);
            }
        }
        Some(())
    }

    fn begin(&mut self, plan: &SettlePlan) -> Option<()> {
        let record = self.record.clone()?;
        if self.step.is_some() {
            return None;
        }
        let action = match tick(&record, plan, self.now, Occasion::Schedule) {
            Action::Wait(at) => {
                self.now = self.now.max(at);
                tick(&record, plan, self.now, Occasion::Schedule)
            }
            other => other,
        };
        match action {
            Action::Begin(kind, next) => {
                assert!(record.is_unknown(), "a step about a known outcome");
                let is_probe = kind == StepKind::Probe;
                if kind == StepKind::Reverse {
                    let earliest = record.dispatched().saturating_add(TIMEOUT);
                    assert!(self.now >= earliest, "a reversal before the call's own time");
                    self.reversals += 1;
                }
                let attempt = next.attempt;
                assert!(self.swap(record.version, *next));
                self.step = Some(OpenStep { is_probe, started: self.now, attempt });
            }
            Action::GiveUp(next) => {
                assert!(same_outcome(&record, &next));
                self.swap(record.version, *next);
            }
            Action::Hold | Action::Wait(_) => return None,
        }
        Some(())
    }

    fn concluded(&mut self, plan: &SettlePlan, probe: bool, evidence: &Evidence) -> Option<()> {
        let step = self.step.clone().filter(|step| step.is_probe == probe)?;
        self.step = None;
        self.now = self.now.saturating_add(Duration::from_secs(1));
        let record = self.record.clone()?;
        if record.attempt != step.attempt {
            return self.undone(&record, evidence);
        }
        let Conclusion { next, settled, alarm } =
            conclude(&record, plan, (step.started, self.now), evidence);
        let Some(next) = next else { return Some(()) };
        let decision = record.history.iter().rev().find(|entry| is_decision(entry.what));
        let is_executed = decision.is_some_and(|entry| entry.what == HistoryEvent::Executed);
        if is_executed && matches!(evidence, Evidence::Reversed { .. }) {
            assert_eq!(alarm, Some(Alarm::Contradiction), "{evidence:?} after {record:?}");
        }
        let decisive = matches!(evidence, Evidence::Executed(_) | Evidence::Reversed { .. });
        if !decisive && settled.is_some() {
            let absent = matches!(evidence, Evidence::Absent);
            let sightings = record.schedule().absent.map_or(0, |absent| absent.count);
            assert!(absent && sightings >= 1, "{evidence:?} settled {record:?}");
        }
        if settled.is_none() {
            assert!(same_outcome(&record, &next), "{evidence:?} changed {record:?}");
        }
        if settled == Some(HistoryEvent::NotExecuted) {
            self.allowed += 1;
        }
        assert!(self.swap(record.version, *next));
        Some(())
    }

    /// The acknowledgement of a reversal after the next attempt has begun.
    fn undone(&mut self, record: &Record, evidence: &Evidence) -> Option<()> {
        let Evidence::Reversed { nothing: false, .. } = evidence else { return None };
        let kept = contradiction(record, "a reversal", CallResult::Undone, self.now);
        assert_eq!(kept.next.is_none(), record.is_in_flight(), "{record:?}");
        let next = kept.next?;
        assert!(same_outcome(record, &next));
        let is_decided = |entry: &HistoryEntry| {
            entry.attempt == record.attempts && entry.what == HistoryEvent::NotExecuted
        };
        if matches!(record.state, State::Final { .. }) && !record.history.iter().any(is_decided) {
            assert_eq!(kept.alarm, Some(Alarm::Contradiction), "{record:?}");
        }
        assert!(self.swap(record.version, *next));
        Some(())
    }

    fn retried(&mut self, plan: &SettlePlan) -> Option<()> {
        let record = self.record.clone()?;
        self.now = self.now.saturating_add(Duration::from_secs(1));
        match decide(Some(&record), &record.fingerprint, self.now) {
            Decision::Forward { replacing } => {
                self.sent += 1;
                let mut claim = claimed(self.now, self.sent);
                claim.renew(Some(&record), 5);
                self.call = Some(OpenCall {
                    attempt: claim.attempt,
                    version: claim.version,
                    timed_out: false,
                });
                assert!(self.swap(replacing?, claim));
            }
            Decision::Unknown => {
                let Action::Begin(StepKind::Resend, next) =
                    tick(&record, plan, self.now, Occasion::Retry)
                else {
                    return None;
                };
                assert!(record.is_unknown());
                (self.sent, self.allowed) = (self.sent + 1, self.allowed + 1);
                self.call = Some(OpenCall {
                    attempt: next.attempt,
                    version: next.version,
                    timed_out: false,
                });
                assert!(self.swap(record.version, *next));
            }
            _ => return None,
        }
        Some(())
    }

    fn decided(&mut self, executed: bool) -> Option<()> {
        let record = self.record.clone()?;
        let how = match executed {
            true => Settlement::Executed(response()),
            false => Settlement::NotExecuted,
        };
        let settled = record.settled(&how, author("ann", "books"), KEPT, self.now).ok()?;
        if !executed {
            self.allowed += 1;
        }
        assert!(self.swap(record.version, settled));
        Some(())
    }

    fn signature(&self) -> String {
        format!("{:?} {:?} {:?} {:?} {}", self.record, self.now, self.call, self.step, self.sent)
    }
}

/// Equal outcomes: the same kind of state, and of a final record the same answer.
fn same_outcome(before: &Record, after: &Record) -> bool {
    match (&before.state, &after.state) {
        (State::Final { answer: one, .. }, State::Final { answer: other, .. }) => one == other,
        (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

/// The promises that hold after every event.
fn check(before: &World, event: Event, after: &World) {
    let received = || format!("{event:?}\nbefore {before:?}\nafter {after:?}");
    assert!(after.sent <= after.allowed, "a call that nobody allowed: {}", received());
    let (Some(was), Some(is)) = (&before.record, &after.record) else { return };
    assert!(is.version == was.version || is.version != 0, "{}", received());
    let undecided = [Event::Timeout, Event::Step, Event::Ambiguous, Event::Failure, Event::Crash];
    if undecided.contains(&event) && was.is_unknown() {
        assert!(is.is_unknown(), "unknown is sticky: {}", received());
    }
    if let State::Final { .. } = was.state
        && event != Event::Reopened
    {
        assert!(same_outcome(was, is), "a final answer changed: {}", received());
    }
    if let State::Released { .. } = was.state
        && event != Event::Retry
    {
        assert!(same_outcome(was, is), "a released key changed: {}", received());
    }
    if was.is_reversing() && event == Event::LateAnswer {
        assert!(!matches!(is.state, State::Final { .. }), "{}", received());
    }
}

fn explore(toml: &str) -> usize {
    let plan = plan(toml);
    let mut seen = HashSet::new();
    let mut layer = vec![World::new()];
    for _ in 0..DEPTH {
        let mut next_layer = Vec::new();
        for world in &layer {
            for event in EVENTS {
                let Some(after) = world.after(event, &plan) else { continue };
                check(world, event, &after);
                if seen.insert(after.signature()) {
                    next_layer.push(after);
                }
            }
        }
        layer = next_layer;
    }
    assert!(seen.len() > 100, "only {} states seen", seen.len());
    seen.len()
}

#[test]
fn probes_keep_the_promises_in_every_interleaving() {
    explore(
        "outcome = { on_unknown = \"probe\" }\n[route.probe]\npath = \"/s/{key}\"\n\
         executed = { pointer = \"/ok\", equals = true }\ngive_up_after = \"1h\"\n\
         absent = { after = \"1s\", sightings = 2, look_back = \"24h\", control = \"/h\" }\n",
    );
}

#[test]
fn reversals_keep_the_promises_in_every_interleaving() {
    for then in ["release", "fail"] {
        explore(&format!(
            "outcome = {{ on_unknown = \"reverse\" }}\n[route.reverse]\nmethod = \"POST\"\n\
             path = \"/v/{{key}}\"\ndone = {{ status = \"2xx\" }}\nthen = \"{then}\"\n"
        ));
    }
}

#[test]
fn repetitions_keep_the_promises_in_every_interleaving() {
    explore(
        "outcome = { on_unknown = \"resend\" }\n[route.resend]\nwithin = \"24h\"\nattempts = 3\n",
    );
}

#[test]
fn without_a_policy_only_answers_and_operators_settle() {
    assert_eq!(*plan("").policy, UnknownPolicy::Hold);
    explore("");
}
