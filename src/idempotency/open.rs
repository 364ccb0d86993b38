//! Open records: the results they still wait for, and the answer shown meanwhile.

use std::sync::Arc;

use super::history::HistoryEvent;
use super::ledger::Doubt;
use super::outcome::UnknownReason;
use super::record::{Nonce, Record, State, StoredResponse};
use super::settling::Settling;
use crate::clock::Timestamp;

impl Record {
    /// The successor with an unknown outcome and the answer that arrived, for retries while the
    /// outcome is pending and for templates that use the answer.
    pub fn lost_with(
        &self,
        reason: UnknownReason,
        answer: Option<Arc<StoredResponse>>,
        now: Timestamp,
    ) -> Self {
        let mut next = self.lost(reason, now);
        let pending = matches!(reason, UnknownReason::Pending(_));
        if next.settling.is_none() && pending && answer.is_some() {
            next.settling = Some(Box::new(Settling::new(self.updated, Vec::new())));
        }
        if let (Some(settling), Some(answer)) = (&mut next.settling, answer) {
            settling.answer = Some(answer);
        }
        next
    }

    /// The successor with the meaning of an answer that came after the call was given up and that
    /// decides nothing. The uncertainty is as old as before, and the policy goes on where it is. A
    /// policy that gave up before any answer arrived tries again, because its templates may have
    /// lacked this one.
    pub fn answered_late(
        &self,
        reason: UnknownReason,
        answer: Option<Arc<StoredResponse>>,
        now: Timestamp,
    ) -> Self {
        if !self.is_unknown() {
            // A later try is under way, and its end counts.
            return Self { version: self.version.wrapping_add(1), ..self.clone() };
        }
        let before = self.settling.as_ref();
        let lacked = before.is_some_and(|it| it.answer.is_none() && it.schedule.resent == 0);
        let mut next = self.lost_with(reason, answer, now);
        if let Some(settling) = &mut next.settling
            && lacked
            && settling.answer.is_some()
        {
            settling.schedule.gave_up = false;
        }
        if let (State::Unknown { since, .. }, State::Unknown { since: before, .. }) =
            (&mut next.state, &self.state)
        {
            *since = *before;
        }
        next
    }

    /// Reports an unknown outcome of which the backend says that an earlier attempt was executed.
    pub fn is_already_done(&self) -> bool {
        matches!(self.state, State::Unknown { reason: UnknownReason::AlreadyDone(_), .. })
    }

    /// Reports a key that was freed after a call with a lost answer.
    pub fn was_freed(&self) -> bool {
        self.history.iter().any(|entry| entry.what == HistoryEvent::NotExecuted)
    }

    /// Reports whether the record still waits for the outcome of `attempt`: the record is open,
    /// and no decision was made since. A call under reversal is decided, and a call that was sent
    /// again waits for the first true answer to any of its tries.
    pub fn awaits(&self, attempt: &Nonce) -> bool {
        let open = match &self.state {
            State::Unknown { .. } => true,
            State::Item { ledger, .. } => ledger.is_open(),
            State::InFlight => self.is_resent(),
            State::SerializeLock
            | State::Final { .. }
            | State::Released { .. }
            | State::Tombstone { .. } => false,
        };
        open && self.attempt == *attempt && !self.is_reversing()
    }

    /// Reports whether proof that a try of `attempt` was not executed frees the key: a repetition
    /// says nothing of earlier tries, and an earlier try nothing of a repetition.
    pub fn awaits_release(&self, attempt: &Nonce) -> bool {
        self.awaits(attempt) && !self.is_resent()
    }

    /// Reports that the try of `own` is still under way, whatever was noted in between.
    pub fn is_under_way_like(&self, own: &Self) -> bool {
        let same_try = self.attempt == own.attempt && self.attempts == own.attempts;
        self.is_in_flight() && same_try && self.owner == own.owner
    }

    /// Reports an outcome that the backend has accepted and not decided.
    pub fn is_pending(&self) -> bool {
        match &self.state {
            State::Unknown { reason, .. } => matches!(reason, UnknownReason::Pending(_)),
            State::Item { ledger, .. } if ledger.unknown > 0 => {
                matches!(ledger.doubt, Some(Doubt::Lost(UnknownReason::Pending(_))))
            }
            State::Item { .. }
            | State::InFlight
            | State::SerializeLock
            | State::Final { .. }
            | State::Released { .. }
            | State::Tombstone { .. } => false,
        }
    }

    /// Reports a call that was sent again.
    pub fn is_resent(&self) -> bool {
        self.settling.as_ref().is_some_and(|settling| settling.schedule.resent > 0)
    }

    /// Reports a call whose reversal has begun.
    pub fn is_reversing(&self) -> bool {
        self.settling.as_ref().is_some_and(|settling| settling.schedule.reversing)
    }

    /// The answer shown to retries of an accepted and undecided request; `None`: the outcome is not
    /// pending, or the answer was too large to keep.
    pub fn pending_answer(&self) -> Option<&Arc<StoredResponse>> {
        match &self.state {
            State::Unknown { reason: UnknownReason::Pending(_), .. } => {
                self.settling.as_ref()?.answer.as_ref()
            }
            State::Unknown { .. }
            | State::InFlight
            | State::SerializeLock
            | State::Final { .. }
            | State::Released { .. }
            | State::Tombstone { .. }
            | State::Item { .. } => None,
        }
    }
}
