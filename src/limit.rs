//! A limit on things at once, such as connections, that a reload can change.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A number of permits. Permits above a lowered limit are not taken away; new ones are given again
/// when enough have come back.
#[derive(Debug)]
pub(crate) struct Limit {
    permits: Arc<Semaphore>,
    limit: Mutex<usize>,
    /// Permits to remove as soon as they come back; changed under the lock only.
    excess: AtomicUsize,
}

impl Limit {
    /// A limit of `limit` permits.
    pub(crate) fn new(limit: usize) -> Self {
        let permits = Arc::new(Semaphore::new(limit));
        Self { permits, limit: Mutex::new(limit), excess: AtomicUsize::new(0) }
    }

    /// A permit, if there is one.
    pub(crate) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        // The permit is taken first: where there is an excess, it is one that came back.
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        if self.excess.load(Ordering::Relaxed) == 0 {
            return Some(permit);
        }
        self.repay(permit).then(|| self.permits.clone().try_acquire_owned().ok()).flatten()
    }

    /// Waits for a permit.
    pub(crate) async fn acquire(&self) -> OwnedSemaphorePermit {
        loop {
            match self.permits.clone().acquire_owned().await {
                Ok(permit) if self.excess.load(Ordering::Relaxed) == 0 => return permit,
                Ok(permit) => {
                    self.repay(permit);
                }
                // Nobody closes the semaphore.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Reports a permit that can be taken.
    pub(crate) fn has_free(&self) -> bool {
        self.permits.available_permits() > self.excess.load(Ordering::Relaxed)
    }

    /// Removes `permit` and as many others as are too many; true if none is any more.
    fn repay(&self, permit: OwnedSemaphorePermit) -> bool {
        let _limit = self.lock();
        let mut excess = self.excess.load(Ordering::Relaxed);
        if excess > 0 {
            permit.forget();
            excess -= 1;
            excess -= self.permits.forget_permits(excess);
            self.excess.store(excess, Ordering::Relaxed);
        }
        excess == 0
    }

    /// Changes the limit.
    pub(crate) fn set(&self, wanted: usize) {
        let mut limit = self.lock();
        let mut excess = self.excess.load(Ordering::Relaxed);
        if let Some(more) = wanted.checked_sub(*limit) {
            let kept = more.min(excess);
            excess -= kept;
            self.permits.add_permits(more - kept);
        } else {
            let less = *limit - wanted;
            excess += less - self.permits.forget_permits(less);
        }
        self.excess.store(excess, Ordering::Relaxed);
        *limit = wanted;
    }

    /// Permits that are out.
    pub(crate) fn taken(&self) -> usize {
        let limit = self.lock();
        let all = *limit + self.excess.load(Ordering::Relaxed);
        all.saturating_sub(self.permits.available_permits())
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lowered_limit_takes_nothing_away_and_gives_nothing_until_enough_came_back() {
        let limit = Limit::new(3);
        let mut out: Vec<_> = (0..3).map(|_| limit.try_acquire().unwrap()).collect();
        assert!(limit.try_acquire().is_none());
        limit.set(1);
        assert_eq!(limit.taken(), 3);
        out.pop();
        assert!(limit.try_acquire().is_none());
        assert_eq!(limit.taken(), 2);
        out.pop();
        assert!(limit.try_acquire().is_none());
        out.pop();
        assert_eq!(limit.taken(), 0);
        let one = limit.try_acquire().unwrap();
        assert!(limit.try_acquire().is_none());
        limit.set(2);
        let two = limit.try_acquire().unwrap();
        assert!(limit.try_acquire().is_none());
        drop((one, two));
        assert_eq!(limit.taken(), 0);
    }

    #[tokio::test]
    async fn whoever_waits_gets_a_permit_when_enough_came_back() {
        let limit = Arc::new(Limit::new(3));
        let mut out: Vec<_> = (0..3).map(|_| limit.try_acquire().unwrap()).collect();
        limit.set(1);
        let mut waiting = std::pin::pin!(limit.acquire());
        for _ in 0..2 {
            out.pop();
            tokio::select! {
                biased;
                _ = &mut waiting => panic!("a permit above the limit"),
                () = std::future::ready(()) => {}
            }
            assert!(!limit.has_free());
        }
        out.pop();
        let permit = waiting.await;
        assert_eq!(limit.taken(), 1);
        drop(permit);
        assert!(limit.has_free());
    }

    #[test]
    fn a_limit_that_goes_down_and_up_again_is_the_same_as_before() {
        let limit = Limit::new(4);
        let out: Vec<_> = (0..4).map(|_| limit.try_acquire().unwrap()).collect();
        limit.set(1);
        limit.set(4);
        assert!(limit.try_acquire().is_none());
        drop(out);
        let out: Vec<_> = (0..4).map_while(|_| limit.try_acquire()).collect();
        assert_eq!((out.len(), limit.taken()), (4, 4));
    }
}
