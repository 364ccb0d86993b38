//! A failure shared by the callers waiting for the same attempt.

use tokio::time::Instant;

/// The last failure of an operation under a lock. Callers queued for the lock during the operation
/// share the failure; otherwise the queued callers would run into the time limit in turn, and the
/// last caller would wait for the sum.
pub(super) struct SharedFailure<E>(Option<(Instant, E)>);

impl<E> Default for SharedFailure<E> {
    fn default() -> Self {
        Self(None)
    }
}

impl<E: Clone> SharedFailure<E> {
    /// Gives the failure to a caller waiting since `asked`, before the failure.
    pub(super) fn since(&self, asked: Instant) -> Result<(), E> {
        match &self.0 {
            Some((at, failure)) if *at >= asked => Err(failure.clone()),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn set(&mut self, failure: &E) {
        self.0 = Some((Instant::now(), failure.clone()));
    }
}
