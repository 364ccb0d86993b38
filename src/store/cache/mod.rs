//! Memory cache of final answers, so that a replay reads neither disk nor network.
//!
//! Only final records whose answer was kept are cached. Nothing but an operator's purge changes
//! such a record before its expiry, and a purge drops the record here and, by a message, in every
//! other process. Callers decide on a cached record with their own time, so an entry is never
//! wrong, only absent. The cache is bounded by bytes, and the least recently used entries leave
//! first: a retry comes late, and a policy that prefers frequent entries would drop the answer
//! before the retry.
//!
//! The embedded store caches a record at the first replay: most answers are never asked for again,
//! and an entry costs about a microsecond. Records of a store on a server are cached on completion,
//! encoded until somebody asks, because the server may be unreachable by then.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::broadcast;

use crate::idempotency::fingerprint::{MAX_VERBATIM, Verbatim};
use crate::idempotency::id::BuildIdHasher;
use crate::idempotency::record::StoredResponse;
use crate::idempotency::{Answer, Record, RecordId, State};
use crate::store::codec::Codec;

/// Largest entry in bytes, so that one answer cannot evict hundreds.
const MAX_ENTRY: u64 = 256 << 10;

/// Entries of at least so many bytes evict at once. Smaller ones do so in batches of 64, which lets
/// the cache exceed its capacity by less than 64 such entries.
const EVICT_AT_ONCE: u32 = 32 << 10;

/// Cost of an entry beside its contents: bookkeeping of the cache, allocations, the header lines
/// that the gateway adds to a replay, and the verbatim request.
const OVERHEAD: usize = 1024 + MAX_VERBATIM;

/// Cost of a header line beside name and value, in the record and in the headers of the replay.
const HEADER: usize = 80 + 120;

/// Cache of final records with their answers.
pub struct RecordCache {
    entries: Cache<RecordId, CacheEntry, BuildIdHasher>,
    codec: Codec,
    max_entry: u64,
    /// Longest stay of an entry; `None`: without such a limit.
    time_to_live: Option<Duration>,
    /// Number of drops so far. An insertion compares the value from before its record was read, so
    /// that no record enters the cache that was dropped in between.
    generation: AtomicU64,
}

impl fmt::Debug for RecordCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordCache").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// A cached value with its approximate size and its longest stay.
#[derive(Clone)]
struct CacheEntry {
    form: Form,
    weight: u32,
    lifetime: Option<Duration>,
}

#[derive(Clone)]
enum Form {
    Decoded(Arc<CachedRecord>),
    Encoded(Arc<CompletedRecord>),
}

/// A record before its first replay: one allocation instead of a dozen, most of which would be
/// freed unused. The first reader decodes in place, so that decoding never re-inserts a record
/// that was dropped meanwhile.
struct CompletedRecord {
    bytes: Box<[u8]>,
    decoded: OnceLock<Arc<CachedRecord>>,
}

/// Per-entry expiry, as the entry says.
struct EntryLifetime;

impl Expiry<RecordId, CacheEntry> for EntryLifetime {
    fn expire_after_create(
        &self,
        _: &RecordId,
        entry: &CacheEntry,
        _: Instant,
    ) -> Option<Duration> {
        entry.lifetime
    }

    fn expire_after_update(
        &self,
        _: &RecordId,
        entry: &CacheEntry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        entry.lifetime
    }
}

/// A final record in memory.
#[derive(Debug)]
pub struct CachedRecord {
    /// The record.
    pub record: Arc<Record>,
    /// Bytes of a request that matched the record's fingerprint. The same bytes need no comparison
    /// member by member.
    pub verbatim: OnceLock<Verbatim>,
    /// Headers of the first replay, under the name of the header that marks replays.
    pub replay: OnceLock<(HeaderName, HeaderMap)>,
}

impl From<Arc<Record>> for CachedRecord {
    fn from(record: Arc<Record>) -> Self {
        Self { record, verbatim: OnceLock::new(), replay: OnceLock::new() }
    }
}

impl RecordCache {
    /// A cache of at most about `capacity` bytes; zero caches nothing.
    pub fn new(capacity: u64) -> Self {
        Self::build(capacity, None)
    }

    /// A cache for a store that other processes use too. No entry stays longer than `time_to_live`,
    /// because the message about a purge may be lost.
    pub fn with_time_to_live(capacity: u64, time_to_live: Duration) -> Self {
        Self::build(capacity, Some(time_to_live))
    }

    fn build(capacity: u64, time_to_live: Option<Duration>) -> Self {
        let entries = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_: &RecordId, entry: &CacheEntry| entry.weight)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(EntryLifetime)
            .build_with_hasher(BuildIdHasher::default());
        Self {
            entries,
            codec: Codec::plain(),
            max_entry: MAX_ENTRY.min(capacity),
            time_to_live,
            generation: AtomicU64::new(0),
        }
    }

    /// The cached record with this id. The record may have expired: callers decide with their time.
    pub fn get(&self, id: &RecordId) -> Option<Arc<CachedRecord>> {
        match self.entries.get(id)?.form {
            Form::Decoded(record) => Some(record),
            Form::Encoded(entry) => {
                if let Some(record) = entry.decoded.get() {
                    return Some(record.clone());
                }
                let Ok(record) = self.codec.decode(id, &entry.bytes) else {
                    self.entries.invalidate(id);
                    return None;
                };
                let decoded = || Arc::new(CachedRecord::from(Arc::new(record)));
                Some(entry.decoded.get_or_init(decoded).clone())
            }
        }
    }

    /// Caches a final record whose answer was kept; ignores all other records.
    pub fn put(&self, id: RecordId, record: impl Into<Arc<Record>>) {
        let record = record.into();
        if is_replayable(&record) {
            let (weight, lifetime) = (weight(&record), self.lifetime(&record));
            self.insert(id, Form::Decoded(Arc::new(record.into())), weight, lifetime);
        }
    }

    /// Caches a record that was read when [`RecordCache::generation`] gave `generation`, unless any
    /// record was dropped since: the record may be the dropped one, as it was before.
    pub fn put_read(&self, id: RecordId, record: impl Into<Arc<Record>>, generation: u64) {
        self.insert_unless_dropped(&id, generation, || self.put(id, record));
    }

    /// Caches a record that was just completed, in encoded form, under the condition of
    /// [`RecordCache::put_read`].
    pub fn put_completed(&self, id: RecordId, record: &Arc<Record>, generation: u64) {
        let weight = weight(record) + self.codec.size_hint(record);
        if !is_replayable(record) || weight as u64 > self.max_entry {
            // A record that fits only once is not kept in two forms.
            return self.put_read(id, record.clone(), generation);
        }
        let bytes = self.codec.encode(&id, record).into_boxed_slice();
        let form = Form::Encoded(Arc::new(CompletedRecord { bytes, decoded: OnceLock::new() }));
        let lifetime = self.lifetime(record);
        self.insert_unless_dropped(&id, generation, || self.insert(id, form, weight, lifetime));
    }

    fn insert_unless_dropped(&self, id: &RecordId, generation: u64, insert: impl FnOnce()) {
        insert();
        // Compared after the insertion: a drop from now on removes the new entry as well.
        if self.generation() != generation {
            self.entries.invalidate(id);
        }
    }

    fn insert(&self, id: RecordId, form: Form, weight: usize, lifetime: Option<Duration>) {
        // No larger entry fits here.
        let Ok(weight) = u32::try_from(weight) else { return };
        if u64::from(weight) <= self.max_entry {
            self.entries.insert(id, CacheEntry { form, weight, lifetime });
            if weight >= EVICT_AT_ONCE {
                self.entries.run_pending_tasks();
            }
        }
    }

    /// Longest stay of a record. Retention counts in the store's time, so the period since the last
    /// update bounds the memory only; the reader's own time decides.
    fn lifetime(&self, record: &Record) -> Option<Duration> {
        let retention = record.expires().map(|expires| record.updated.until(expires));
        self.time_to_live.into_iter().chain(retention).min()
    }

    /// Number of drops so far, to be asked before a record is read.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Drops the record with this id.
    pub fn forget(&self, id: &RecordId) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.entries.invalidate(id);
    }

    /// Outdates what was derived from records read before, and keeps the records.
    pub fn outdate_derived(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Drops all records: some may have changed without a message.
    pub fn forget_all(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.entries.invalidate_all();
    }

    /// Bytes of all entries, after pending evictions.
    pub fn bytes(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.weighted_size()
    }
}

/// Drops the records that other processes announce as changed. Runs for as long as the store
/// exists, also while the gateway drains.
pub async fn follow(cache: Arc<RecordCache>, mut announced: broadcast::Receiver<RecordId>) {
    loop {
        match announced.recv().await {
            Ok(id) => cache.forget(&id),
            // Some announcements were lost, so any entry may be outdated.
            Err(broadcast::error::RecvError::Lagged(_)) => cache.forget_all(),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// True for a record whose answer can be replayed without asking the store.
fn is_replayable(record: &Record) -> bool {
    // The first client after a settlement is told of it, which the store has to record.
    kept(record).is_some() && !record.settlement_unreported
}

fn kept(record: &Record) -> Option<&StoredResponse> {
    match &record.state {
        State::Final { answer: Answer::Kept(response), .. } => Some(response),
        State::Final { answer: Answer::NotRetained { .. }, .. }
        | State::InFlight
        | State::SerializeLock
        | State::Unknown { .. }
        | State::Tombstone { .. }
        | State::Released { .. }
        | State::Item { .. } => None,
    }
}

/// Approximate bytes of a decoded record in memory.
fn weight(record: &Record) -> usize {
    let members = record.fingerprint.members.iter().map(|member| member.name.len() + 56);
    let answer = kept(record).map_or(0, |response| {
        let headers = response.headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER);
        response.body.len() + headers.sum::<usize>()
    });
    OVERHEAD + record.route.len() + record.key.len() + members.sum::<usize>() + answer
}
