//! The compare-and-swap loop of every durable change after a claim.
//!
//! A [`Transition`] computes the changes from its last known records. After a conflicting change by
//! another process or an operator, the transition is rebased on the present records, or ends. The
//! loop never repeats a swap with an unknown result: the caller either reports the failure or hands
//! the changes to [`super::retry`].

use std::sync::Arc;

use crate::idempotency::{Record, RecordId};
use crate::store::{Change, Store, StoreError, Swap};

/// Maximum number of swaps of a transition. A lost swap means a conflicting change by another
/// process, so the limit is only reached under a fault.
pub(crate) const MAX_TRIES: usize = 8;

/// Records on the way to their next state, changed together in a single durable write.
pub(crate) trait Transition {
    /// The changes of the records, as last known to the transition. Empty if nothing is to change.
    fn changes(&mut self) -> Vec<Change>;

    /// Takes over the present records after a lost swap, in the order of the last changes. Returns
    /// `true` when the transition still applies and has new changes to offer.
    fn rebase(&mut self, present: Vec<Option<Record>>) -> bool;
}

/// End of a transition.
#[derive(Debug)]
pub(crate) enum Advance {
    /// The changes are durable, or there were none.
    Done,
    /// The present records leave nothing to change; the transition changed nothing.
    Lost,
    /// The store did not confirm the changes, which may be durable or become so.
    Indeterminate(StoreError),
    /// Records kept changing for [`MAX_TRIES`] swaps; the transition changed nothing.
    Contended,
}

/// Swaps until the changes are durable or no longer apply.
pub(crate) async fn advance<T: Transition + Send>(
    store: &dyn Store,
    transition: &mut T,
) -> Advance {
    for _ in 0..MAX_TRIES {
        let changes = transition.changes();
        if changes.is_empty() {
            return Advance::Done;
        }
        let ids: Vec<RecordId> = changes.iter().map(|change| change.id).collect();
        let present = match store.swap(changes).await {
            Ok(Swap::Done) => return Advance::Done,
            // The winner of a single change is the present record already.
            Ok(Swap::Lost { winner, .. }) if ids.len() == 1 => vec![winner.map(|winner| *winner)],
            Ok(Swap::Lost { .. }) => match store.get_many(&ids).await {
                Ok(present) => present,
                Err(error) => return Advance::Indeterminate(error),
            },
            Err(error) => return Advance::Indeterminate(error),
        };
        if !transition.rebase(present) {
            return Advance::Lost;
        }
    }
    Advance::Contended
}

/// The kind of result with which an attempt settles its own record after the record was changed:
/// it became unknown, or the late end of an earlier try was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rebase {
    /// A true answer.
    Answer,
    /// Proof that the attempt was not executed.
    Release,
    /// The end of the attempt's latest try without a decision; the record is still in flight.
    Loss,
}

impl Rebase {
    fn fits(self, record: &Record, own: &Record) -> bool {
        match self {
            Self::Answer => record.awaits(&own.attempt),
            Self::Release => record.awaits_release(&own.attempt),
            Self::Loss => record.is_under_way_like(own),
        }
    }
}

/// The transition of a single record by the attempt with its claim.
pub(crate) struct ClaimTransition<S> {
    id: RecordId,
    /// The record as last known to the attempt; after [`Advance::Done`] the record put into the
    /// store.
    pub(crate) record: Arc<Record>,
    /// The record at the end of the transition, after [`Advance::Lost`].
    pub(crate) winner: Option<Box<Record>>,
    step: S,
    rebases: Option<Rebase>,
    next: Option<Arc<Record>>,
}

impl<S: FnMut(&Record) -> Option<Arc<Record>>> ClaimTransition<S> {
    /// The transition from `record` by `step`, which returns the next record, or `None` to remove
    /// the record.
    pub(crate) fn new(id: RecordId, record: Arc<Record>, step: S) -> Self {
        Self { id, record, winner: None, step, rebases: None, next: None }
    }

    /// Settles the record even after another process declared this process dead and the record is
    /// therefore unknown. Without a decision by an operator, the attempt's own outcome is
    /// authoritative.
    pub(crate) fn with_rebase(self, rebase: Rebase) -> Self {
        Self { rebases: Some(rebase), ..self }
    }

    /// Reports, after [`Advance::Done`], that the record was removed.
    pub(crate) fn has_removed(&self) -> bool {
        self.next.is_none()
    }

    /// The record put by the transition, if any.
    pub(crate) fn into_record(self) -> Arc<Record> {
        self.next.unwrap_or(self.record)
    }
}

impl<S: FnMut(&Record) -> Option<Arc<Record>>> Transition for ClaimTransition<S> {
    fn changes(&mut self) -> Vec<Change> {
        self.next = (self.step)(&self.record);
        let expect = Some(self.record.version);
        vec![Change { id: self.id, expect, put: self.next.clone() }]
    }

    fn rebase(&mut self, present: Vec<Option<Record>>) -> bool {
        self.next = None;
        match present.into_iter().next().flatten() {
            Some(record)
                if self.rebases.is_some_and(|rebase| rebase.fits(&record, &self.record)) =>
            {
                self.record = Arc::new(record);
                true
            }
            other => {
                self.winner = other.map(Box::new);
                false
            }
        }
    }
}
