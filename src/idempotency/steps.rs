//! Transitions of the steps that a policy takes about an unknown outcome: the claim of a step and
//! its end, a repetition, a reversal, and a result that came too late.

use std::sync::Arc;

use super::history::{HistoryEntry, HistoryEvent, Note};
use super::record::{Answer, Record, State, StoredResponse};
use super::retention::Retention;
use super::settling::{Schedule, Settling};
use crate::clock::Timestamp;

impl Record {
    /// Time of the dispatch, as late as it can have been: of a record without a kept time, the
    /// first claim of the first attempt, else the start of the uncertainty.
    pub fn dispatched(&self) -> Timestamp {
        match &self.settling {
            Some(settling) => settling.dispatched,
            None if self.attempts == 1 => self.first_seen,
            None => self.unknown_since(),
        }
    }

    /// Sets the time of a claim that is not durable yet.
    pub fn dispatched_at(&mut self, now: Timestamp) {
        self.updated = now;
        if let Some(settling) = &mut self.settling {
            settling.dispatched = now;
        }
    }

    /// Start of the uncertainty.
    pub fn unknown_since(&self) -> Timestamp {
        match &self.state {
            State::Unknown { since, .. } => *since,
            State::InFlight
            | State::SerializeLock
            | State::Final { .. }
            | State::Tombstone { .. }
            | State::Released { .. }
            | State::Item { .. } => match &self.settling {
                Some(settling) => settling.dispatched,
                None => self.updated,
            },
        }
    }

    /// Reports an unknown outcome with no call in flight.
    pub fn is_unknown(&self) -> bool {
        match &self.state {
            State::Unknown { .. } => true,
            State::Item { ledger, .. } => ledger.unknown > 0 && ledger.in_flight == 0,
            State::InFlight
            | State::SerializeLock
            | State::Final { .. }
            | State::Tombstone { .. }
            | State::Released { .. } => false,
        }
    }

    /// The progress of the policy.
    pub fn schedule(&self) -> Schedule {
        self.settling.as_ref().map(|settling| settling.schedule.clone()).unwrap_or_default()
    }

    /// The successor with this progress of the policy, in the same state.
    pub fn with_schedule(&self, schedule: Schedule, now: Timestamp) -> Self {
        let mut next = self.next(self.state.clone(), now);
        let settling = next
            .settling
            .get_or_insert_with(|| Box::new(Settling::new(self.dispatched(), Vec::new())));
        settling.schedule = schedule;
        next
    }

    /// The successor in flight again: the request is about to be repeated. The process that claims
    /// the repetition becomes the owner.
    pub fn resent(&self, note: Note, now: Timestamp) -> Self {
        let schedule = self.schedule();
        let resent = schedule.resent.saturating_add(1);
        let schedule = Schedule { resent, last: Some(now), ..schedule };
        let mut next = self.with_schedule(schedule, now);
        next.state = self.state_resent();
        next.attempts = self.attempts.saturating_add(1);
        next.step(HistoryEvent::Resend, note, now);
        next
    }

    /// The successor after an acknowledged reversal, without an answer of the call: with a response
    /// the key is answered with it, without one the key is free.
    pub fn reversed(
        &self,
        response: Option<Arc<StoredResponse>>,
        note: Note,
        retention: Retention,
        now: Timestamp,
    ) -> Self {
        let mut next = match response {
            Some(response) => Self {
                settlement_unreported: true,
                ..self.completed(Answer::Kept(response), retention, now)
            },
            None => self.released(retention, now),
        };
        next.step(HistoryEvent::NotExecuted, note, now);
        next
    }

    /// The successor that keeps a result which came too late to count. Nothing else changes.
    pub fn contradicted(&self, note: Note, now: Timestamp) -> Self {
        let mut next = Self { version: self.version.wrapping_add(1), ..self.clone() };
        next.step(HistoryEvent::Contradiction, note, now);
        next
    }

    /// Adds a step or decision to the history.
    pub fn step(&mut self, what: HistoryEvent, note: Note, now: Timestamp) {
        let attempt = self.attempts;
        self.note(HistoryEntry { at: now, what, times: 1, attempt, units: None, note });
    }
}
