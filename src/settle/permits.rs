//! Permits of the steps of a route. They outlive a reload, so that the steps of the configurations
//! before and after it together are no more than the present one allows.

use tokio::sync::OwnedSemaphorePermit;

use crate::limit::Limit;

/// Permits of the steps at once.
#[derive(Debug)]
pub(super) struct StepPermits {
    /// Of all steps.
    all: Limit,
    /// Of the schedule, as many; the schedule keeps them during its rests.
    scheduled: Limit,
}

impl StepPermits {
    pub(super) fn new(concurrency: usize) -> Self {
        Self { all: Limit::new(concurrency), scheduled: Limit::new(concurrency) }
    }

    /// Changes the number. Steps above a lowered number are not ended.
    pub(super) fn set(&self, concurrency: usize) {
        self.all.set(concurrency);
        self.scheduled.set(concurrency);
    }

    /// Waits for the permit of a step for a client's retry.
    pub(super) async fn for_retry(&self) -> OwnedSemaphorePermit {
        self.all.acquire().await
    }

    /// Permits of a step of the schedule: its place in the schedule, and the step's own.
    pub(super) fn for_schedule(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let place = self.scheduled.try_acquire()?;
        Some((place, self.all.try_acquire()?))
    }

    /// Reports a free place for a step of the schedule.
    pub(super) fn is_free(&self) -> bool {
        self.all.has_free() && self.scheduled.has_free()
    }

    /// Reports that no permit is out.
    pub(super) fn is_unused(&self) -> bool {
        self.all.taken() == 0 && self.scheduled.taken() == 0
    }
}
