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
//! removal by the expiry task, or of a claim that was not executed ── done ──▶ one less
//! ```
//! Until the first count ends, a caller's keys are those that this process has added: fewer than it
//! has, never more. Keys that other processes add or remove are seen by the next count. Claims and
//! removals of this process that happen while their page is read are counted once (`tally`).

pub(crate) mod shard_count;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tokio::sync::Notify;

use self::tally::Tally;
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
    /// The running count of a shard, and the claims under way. Taken before the lock of a caller.
    tally: Mutex<Tally>,
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

/// A caller that may store no further key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuotaFull;

/// Room for new keys of a caller, given back unless the keys were stored.
#[derive(Debug)]
pub(crate) struct KeyRoom<'a> {
    counts: &'a KeyCounts,
    /// `None`: nothing is counted.
    caller: Option<(TenantId, Arc<CallerCount>)>,
    /// The keys whose claim is under way.
    ids: Vec<RecordId>,
    reserved: u64,
}

impl KeyCounts {
    /// Counts for a limit; `None`: there is none.
    pub(crate) fn new(limit: Option<usize>) -> Arc<Self> {
        let counts = Self {
            limit: AtomicU64::new(0),
            callers: Cache::builder().max_capacity(MAX_CALLERS).build(),
            tally: Mutex::default(),
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

    /// Takes room for new keys of a caller, before they are claimed.
    ///
    /// # Errors
    /// The limit: the caller would have more keys.
    pub(crate) fn reserve(
        &self,
        tenant: &TenantId,
        ids: &[RecordId],
    ) -> Result<KeyRoom<'_>, QuotaFull> {
        let limit = self.limit.load(Ordering::Relaxed);
        let (Some(first), true) = (ids.first(), limit > 0) else {
            return Ok(KeyRoom { counts: self, caller: None, ids: Vec::new(), reserved: 0 });
        };
        let caller = match self.callers.get(tenant) {
            Some(caller) => caller,
            None => self.callers.get_with(*tenant, || {
                Arc::new(CallerCount { shard: first.shard(), keys: Mutex::default() })
            }),
        };
        let reserved = ids.len() as u64;
        let mut tally = lock(&self.tally);
        let mut keys = lock(&caller.keys);
        if keys.good_until.is_none_or(|until| until <= Instant::now()) {
            self.want(caller.shard);
        }
        if keys.stored + keys.reserved + reserved > limit {
            return Err(QuotaFull);
        }
        keys.reserved += reserved;
        tally.begin_claims(ids);
        drop((keys, tally));
        Ok(KeyRoom { counts: self, caller: Some((*tenant, caller)), ids: ids.to_vec(), reserved })
    }

    /// Follows the removal of a caller's record.
    pub(crate) fn removed(&self, tenant: &TenantId, at: &ListPosition) {
        if !self.is_on() {
            return;
        }
        let mut tally = lock(&self.tally);
        tally.removed(tenant, at);
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
        lock(&self.tally).begin(shard, found);
    }

    /// Adds a page of the shard: its keys with their callers, and its last position.
    fn page(&self, page: &[(RecordId, TenantId)], last: ListPosition) {
        lock(&self.tally).page(page, last);
    }

    /// Ends the count, which took this long: its figures are the callers' from now on.
    fn finish(&self, took: Duration) {
        let good_until = Instant::now().checked_add(RENEWAL.max(took * RENEWAL_FACTOR));
        let mut tally = lock(&self.tally);
        for (tenant, found) in tally.finish() {
            let Some(caller) = self.callers.get(&tenant) else { continue };
            let mut keys = lock(&caller.keys);
            keys.stored = found;
            keys.good_until = good_until;
        }
    }

    /// Ends the count without a result.
    fn abandon(&self) {
        lock(&self.tally).abandon();
    }
}

impl KeyRoom<'_> {
    /// Counts the keys as stored, at these positions.
    pub(crate) fn keep(mut self, stored: &[ListPosition]) {
        self.give_back();
        let Some((tenant, caller)) = self.caller.take() else { return };
        let mut tally = lock(&self.counts.tally);
        let added = tally.kept(&tenant, stored);
        lock(&caller.keys).stored += added;
        tally.end_claims(&self.ids);
    }

    /// Gives the room back for now: one of the keys is stored already, and its claim goes on.
    pub(crate) fn give_back(&mut self) {
        if let Some((_, caller)) = &self.caller {
            let mut keys = lock(&caller.keys);
            keys.reserved = keys.reserved.saturating_sub(std::mem::take(&mut self.reserved));
        }
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
        self.give_back();
        if self.caller.is_some() {
            lock(&self.counts.tally).end_claims(&self.ids);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
