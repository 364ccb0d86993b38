//! Counts of the keys stored for each caller, behind `stored_keys_per_tenant`.
//!
//! No store has an index by caller, but all ids of a caller begin with one byte, its shard. So a
//! caller's keys are counted once, by reading its shard page by page in the background
//! (`shard_count`), and from then on this process adds and subtracts its own changes:
//!
//! ```text
//! claim of a new key ▶ reserve ── full, and the key is new ──▶ 429
//!                         │ first of its caller, or the count is old ──▶ the shard is counted
//!                         ▼
//!                   swap ── done ──▶ keep (one more) · lost ──▶ dropped (nothing)
//! removal by the expiry task ── done ──▶ one less
//! ```
//! Until the first count ends, a caller's keys are those that this process has added: fewer than it
//! has, never more. Keys that other processes add or remove are seen by the next count. A count
//! reads the newest records first, so that new claims are behind its position. It may miss, or take
//! twice, claims that are made while its first page is read.

pub(crate) mod shard_count;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tokio::sync::Notify;

use crate::idempotency::{RecordId, TenantId};
use crate::store::ListPosition;

/// Callers with a count in memory. Beyond, the least recent is forgotten, and counted anew when it
/// returns.
const MAX_CALLERS: u64 = 100_000;

/// Time for which a count is good, at least; other processes may add keys meanwhile.
const RENEWAL: Duration = Duration::from_secs(60);

/// Time for which a count is good, as a multiple of the time that counting took.
const RENEWAL_FACTOR: u32 = 20;

/// The numbers of keys that the store holds for the callers of this process.
#[derive(Debug)]
pub(crate) struct KeyCounts {
    /// Keys of a caller at most; 0: no limit, and nothing is counted.
    limit: AtomicU64,
    callers: Cache<TenantId, Arc<CallerCount>>,
    /// The running count of a shard. Taken before the lock of a caller.
    pass: Mutex<Option<Pass>>,
    wanted: Mutex<[bool; 256]>,
    wake: Notify,
}

/// The keys of a caller.
#[derive(Debug)]
struct CallerCount {
    shard: u8,
    keys: Mutex<KeyNumbers>,
}

#[derive(Debug, Default, Clone, Copy)]
struct KeyNumbers {
    stored: u64,
    /// New keys whose claims are under way.
    reserved: u64,
    /// Time until which the count is good; `None`: never counted.
    good_until: Option<Instant>,
}

/// A count of a shard, down to a position: the newest records come first.
#[derive(Debug)]
struct Pass {
    shard: u8,
    position: Option<ListPosition>,
    /// Keys found for each caller that was known when the pass began.
    found: HashMap<TenantId, u64>,
}

impl Pass {
    /// Reports whether the pass has gone by this position, so that a change has to be added to it.
    fn has_passed(&self, at: &ListPosition) -> bool {
        self.shard == at.id.shard() && self.position.is_some_and(|position| *at >= position)
    }

    /// Reports the same for a claim that was made just now: newer than all that is counted.
    fn has_passed_claim(&self, id: &RecordId) -> bool {
        self.shard == id.shard() && self.position.is_some()
    }
}

/// A caller that may store no further key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuotaFull;

/// Room for new keys of a caller, given back unless the keys were stored.
#[derive(Debug)]
pub(crate) struct KeyRoom<'a> {
    counts: &'a KeyCounts,
    /// `None`: nothing is counted.
    caller: Option<(TenantId, Arc<CallerCount>)>,
    reserved: u64,
}

impl KeyCounts {
    /// Counts for a limit; `None`: there is none.
    pub(crate) fn new(limit: Option<usize>) -> Arc<Self> {
        let counts = Self {
            limit: AtomicU64::new(0),
            callers: Cache::builder().max_capacity(MAX_CALLERS).build(),
            pass: Mutex::new(None),
            wanted: Mutex::new([false; 256]),
            wake: Notify::new(),
        };
        counts.set(limit);
        Arc::new(counts)
    }

    /// Changes the limit. Keys above a lowered limit stay.
    pub(crate) fn set(&self, limit: Option<usize>) {
        let limit = limit.map_or(0, |limit| limit as u64);
        if self.limit.swap(limit, Ordering::Relaxed) != 0 && limit == 0 {
            // Changes are not followed from now on.
            self.callers.invalidate_all();
        }
    }

    /// Reports whether keys are counted.
    pub(crate) fn is_on(&self) -> bool {
        self.limit.load(Ordering::Relaxed) != 0
    }

    /// Takes room for new keys of a caller.
    ///
    /// # Errors
    /// When the caller would have more keys than the limit.
    pub(crate) fn reserve(
        &self,
        tenant: &TenantId,
        ids: &[RecordId],
    ) -> Result<KeyRoom<'_>, QuotaFull> {
        let limit = self.limit.load(Ordering::Relaxed);
        let (Some(first), true) = (ids.first(), limit > 0) else {
            return Ok(KeyRoom { counts: self, caller: None, reserved: 0 });
        };
        let caller = match self.callers.get(tenant) {
            Some(caller) => caller,
            None => self.callers.get_with(*tenant, || {
                Arc::new(CallerCount { shard: first.shard(), keys: Mutex::default() })
            }),
        };
        let new = ids.len() as u64;
        let mut keys = lock(&caller.keys);
        if keys.good_until.is_none_or(|until| until <= Instant::now()) {
            self.want(caller.shard);
        }
        if keys.stored + keys.reserved + new > limit {
            return Err(QuotaFull);
        }
        keys.reserved += new;
        drop(keys);
        Ok(KeyRoom { counts: self, caller: Some((*tenant, caller)), reserved: new })
    }

    /// Follows the addition of keys that may be there already: no room is taken.
    pub(crate) fn unreserved(&self, tenant: &TenantId) -> KeyRoom<'_> {
        let caller = self.callers.get(tenant).map(|caller| (*tenant, caller));
        KeyRoom { counts: self, caller, reserved: 0 }
    }

    /// Follows the removal of a caller's record.
    pub(crate) fn removed(&self, tenant: &TenantId, at: &ListPosition) {
        if !self.is_on() {
            return;
        }
        let mut pass = lock(&self.pass);
        if let Some(pass) = pass.as_mut().filter(|pass| pass.has_passed(at))
            && let Some(found) = pass.found.get_mut(tenant)
        {
            *found = found.saturating_sub(1);
        }
        if let Some(caller) = self.callers.get(tenant) {
            let mut keys = lock(&caller.keys);
            keys.stored = keys.stored.saturating_sub(1);
        }
    }

    /// Asks for a count of a shard.
    fn want(&self, shard: u8) {
        let asked = std::mem::replace(&mut lock(&self.wanted)[usize::from(shard)], true);
        if !asked {
            self.wake.notify_one();
        }
    }

    /// A shard to count, if there is one.
    fn next_wanted(&self) -> Option<u8> {
        let mut wanted = lock(&self.wanted);
        let at = wanted.iter().position(|wanted| *wanted)?;
        wanted[at] = false;
        u8::try_from(at).ok()
    }

    /// Begins the count of a shard, for the callers that are known now.
    fn begin(&self, shard: u8) {
        let known = self.callers.iter().filter(|(_, caller)| caller.shard == shard);
        let found = known.map(|(tenant, _)| (*tenant, 0)).collect();
        *lock(&self.pass) = Some(Pass { shard, position: None, found });
    }

    /// Adds a page of the shard, given by the callers of its keys and its last position.
    fn page(&self, page: impl Iterator<Item = TenantId>, last: ListPosition) {
        let mut pass = lock(&self.pass);
        let Some(pass) = pass.as_mut() else { return };
        for tenant in page {
            if let Some(found) = pass.found.get_mut(&tenant) {
                *found += 1;
            }
        }
        pass.position = Some(last);
    }

    /// Ends the count, which took this long: its figures are the callers' from now on.
    fn finish(&self, took: Duration) {
        let mut pass = lock(&self.pass);
        let Some(pass) = pass.take() else { return };
        let good_until = Instant::now().checked_add(RENEWAL.max(took * RENEWAL_FACTOR));
        for (tenant, found) in pass.found {
            let Some(caller) = self.callers.get(&tenant) else { continue };
            let mut keys = lock(&caller.keys);
            // The first count may have missed a claim that was made meanwhile.
            let added = keys.good_until.map_or(keys.stored, |_| 0);
            keys.stored = found.max(added);
            keys.good_until = good_until;
        }
    }

    /// Ends the count without a result.
    fn abandon(&self) {
        *lock(&self.pass) = None;
    }
}

impl KeyRoom<'_> {
    /// Counts the reserved keys as stored.
    pub(crate) fn keep(mut self, ids: &[RecordId]) {
        let Some((tenant, caller)) = self.caller.take() else { return };
        let mut pass = lock(&self.counts.pass);
        if let Some(pass) = pass.as_mut() {
            let passed = ids.iter().filter(|id| pass.has_passed_claim(id)).count() as u64;
            if let Some(found) = pass.found.get_mut(&tenant) {
                *found += passed;
            }
        }
        let mut keys = lock(&caller.keys);
        keys.reserved = keys.reserved.saturating_sub(self.reserved);
        keys.stored += ids.len() as u64;
    }

    /// Gives the room back although the keys may be stored: the next count comes sooner.
    pub(crate) fn doubt(self) {
        if let Some((_, caller)) = &self.caller {
            let mut keys = lock(&caller.keys);
            let soon = Instant::now().checked_add(RENEWAL);
            keys.good_until = keys.good_until.and_then(|until| soon.map(|soon| soon.min(until)));
        }
    }
}

impl Drop for KeyRoom<'_> {
    fn drop(&mut self) {
        if let Some((_, caller)) = &self.caller {
            let mut keys = lock(&caller.keys);
            keys.reserved = keys.reserved.saturating_sub(self.reserved);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
