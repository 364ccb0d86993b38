//! Final answers kept in memory, so that a replay reads no disk.
//!
//! Only final records whose answer was kept go in, and the answers of batches whose items are all
//! done: nothing but an operator's purge can change them before they expire, and that drops them here
//! and, by a message, in every other process. Whoever uses one decides on it with its own time, so an
//! entry is never wrong, only absent. Bounded by bytes; the least useful entries leave
//! first. Work in flight is never here.
//!
//! What goes in was asked for again: a record when it was first replayed, a batch when it came back
//! done. Most never are, and an entry costs as much as a tenth of a request. Of a store on a server a
//! record goes in when it is completed, written down until somebody asks for it: the server may be
//! away then.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use tokio::sync::broadcast;

use crate::clock::Timestamp;
use crate::idempotency::fingerprint::{MAX_VERBATIM, Verbatim};
use crate::idempotency::id::BuildIdHasher;
use crate::idempotency::record::StoredResponse;
use crate::idempotency::{Answer, Record, RecordId, State};
use crate::store::codec::Codec;

/// Bytes of answers kept in memory, unless the caller says otherwise.
pub const CAPACITY: u64 = 32 << 20;

/// An answer larger than this is not kept here: one must not push out hundreds.
const MAX_ENTRY: u64 = 256 << 10;

/// What an entry costs beside its contents: the cache's own books, the allocations, the lines that
/// the gateway adds to a replay, and the request that it is remembered by.
const OVERHEAD: usize = 1024 + MAX_VERBATIM;

/// What a header line costs: in the record beside name and value, and in the map of its replay.
const HEADER: usize = 80 + 120;

/// Bytes of a part of the cache, about: each has its own lock, and gives room only to itself.
const SHARD: u64 = 4 << 20;
/// Entries of a usual size; the tables are made for so many.
const USUAL_ENTRY: u64 = 4 << 10;

/// The cache of final answers.
pub struct Hot {
    entries: Cache<RecordId, Held, Weight, BuildIdHasher, DefaultLifecycle<RecordId, Held>>,
    max_entry: u64,
    /// How long an entry counts; `None`: as long as it stays.
    longest: Option<Duration>,
    /// Counts the records that were dropped because they changed. A batch's answer is made of
    /// records that it does not name, so that it holds only while none was.
    dropped: AtomicU64,
}

impl fmt::Debug for Hot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hot").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// An entry, about how many bytes it takes, and until when it counts.
#[derive(Debug, Clone)]
struct Held {
    entry: Entry,
    weight: u32,
    until: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Weight;

impl Weighter<RecordId, Held> for Weight {
    fn weight(&self, _: &RecordId, held: &Held) -> u64 {
        u64::from(held.weight)
    }
}

#[derive(Debug, Clone)]
enum Entry {
    Record(Arc<Known>),
    Written(Arc<Written>),
    Batch(Arc<Merged>),
}

/// A record that nobody has asked for yet: few pieces of memory instead of a dozen, most of which would
/// go as they came. The first who asks reads it, in its place: nothing is put back that was dropped
/// meanwhile.
#[derive(Debug)]
struct Written {
    bytes: Box<[u8]>,
    known: OnceLock<Arc<Known>>,
}

/// What the client of a batch is told once all of its items are done.
#[derive(Debug)]
pub struct Merged {
    /// The status.
    pub status: u16,
    /// The body: JSON.
    pub body: Bytes,
    /// Until when all of it is kept, as clients are told.
    pub kept_until: Option<Timestamp>,
    /// From when on some of it may be gone: the answer is to be made anew.
    pub holds_until: Option<Timestamp>,
    /// What [`Hot::dropped`] gave before the records were read.
    pub dropped: u64,
}

/// A final record in memory.
#[derive(Debug)]
pub struct Known {
    /// The record.
    pub record: Arc<Record>,
    /// The very bytes of a request that was found to be the record's. Whoever sends the same again
    /// need not be compared member by member.
    pub verbatim: OnceLock<Verbatim>,
    /// The headers of its replay, once there was one, under the name of the header that marks it.
    pub replay: OnceLock<(HeaderName, HeaderMap)>,
}

impl From<Arc<Record>> for Known {
    fn from(record: Arc<Record>) -> Self {
        Self { record, verbatim: OnceLock::new(), replay: OnceLock::new() }
    }
}

impl Hot {
    /// A cache of at most about `capacity` bytes; zero keeps nothing.
    pub fn new(capacity: u64) -> Self {
        Self::build(capacity, None)
    }

    /// The same for a store that other processes use too: nothing stays longer than `longest`,
    /// because a message that it was purged may be lost.
    pub fn for_a_while(capacity: u64, longest: Duration) -> Self {
        Self::build(capacity, Some(longest))
    }

    fn build(capacity: u64, longest: Option<Duration>) -> Self {
        let shards = (capacity / SHARD).clamp(1, 8) as usize;
        let items = (capacity / USUAL_ENTRY) as usize;
        let (hasher, lifecycle) = (BuildIdHasher::default(), DefaultLifecycle::default());
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(items)
            .weight_capacity(capacity)
            // The other half is left to the newest, most of which nobody asks for again.
            .hot_allocation(0.5)
            .build();
        let entries = match options {
            Ok(options) => Cache::with_options(options, Weight, hasher, lifecycle),
            // Only without a capacity.
            Err(_) => Cache::with(items, capacity, Weight, hasher, lifecycle),
        };
        let (max_entry, dropped) = (MAX_ENTRY.min(capacity), AtomicU64::new(0));
        Self { entries, max_entry, longest, dropped }
    }

    fn entry(&self, id: &RecordId) -> Option<Entry> {
        let Held { entry, until, .. } = self.entries.get(id)?;
        if until.is_some_and(|until| until <= Instant::now()) {
            self.entries.remove(id);
            return None;
        }
        Some(entry)
    }

    /// The final record with this id, when it is here. It may have expired: decide with its time.
    pub fn get(&self, id: &RecordId) -> Option<Arc<Known>> {
        match self.entry(id)? {
            Entry::Record(known) => Some(known),
            Entry::Written(written) => {
                if let Some(known) = written.known.get() {
                    return Some(known.clone());
                }
                let Ok(record) = Codec::plain().decode(id, &written.bytes) else {
                    self.entries.remove(id);
                    return None;
                };
                let read = || Arc::new(Known::from(Arc::new(record)));
                Some(written.known.get_or_init(read).clone())
            }
            Entry::Batch(_) => None,
        }
    }

    /// Keeps a record, if it is final and its answer was kept; anything else is ignored.
    pub fn put(&self, id: RecordId, record: impl Into<Arc<Record>>) {
        let record = record.into();
        if is_replayable(&record) {
            let weight = weight(&record);
            self.insert(id, Entry::Record(Arc::new(record.into())), weight);
        }
    }

    /// Keeps a record that was read when [`Hot::dropped`] gave `dropped`, unless any was dropped
    /// since: it may be the one, as it was before.
    pub fn put_unless_dropped(&self, id: RecordId, record: impl Into<Arc<Record>>, dropped: u64) {
        self.unless_dropped(&id, dropped, || self.put(id, record));
    }

    /// The same for a record that was completed just now: perhaps nobody ever asks for it.
    pub fn put_completed(&self, id: RecordId, record: &Arc<Record>, dropped: u64) {
        let weight = weight(record) + Codec::plain().size_hint(record);
        if !is_replayable(record) || weight as u64 > self.max_entry {
            // One that fits but once is not kept in two forms.
            return self.put_unless_dropped(id, record.clone(), dropped);
        }
        let bytes = Codec::plain().encode(&id, record).into_boxed_slice();
        let written = Written { bytes, known: OnceLock::new() };
        let entry = Entry::Written(Arc::new(written));
        self.unless_dropped(&id, dropped, || self.insert(id, entry, weight));
    }

    fn unless_dropped(&self, id: &RecordId, dropped: u64, put: impl FnOnce()) {
        put();
        // Looked at last: what is dropped from now on is dropped with this.
        if self.dropped() != dropped {
            self.entries.remove(id);
        }
    }

    /// The answer of the batch with this name, at `now`.
    pub fn merged(&self, name: &RecordId, now: Timestamp) -> Option<Arc<Merged>> {
        let Entry::Batch(merged) = self.entry(name)? else { return None };
        let due = merged.holds_until.is_some_and(|end| end <= now);
        (!due && merged.dropped == self.dropped()).then_some(merged)
    }

    /// Keeps the answer of a batch whose items are all done. `name` is a digest of everything that
    /// decided it but the records.
    pub fn put_merged(&self, name: RecordId, merged: Arc<Merged>) {
        let weight = OVERHEAD + merged.body.len();
        self.insert(name, Entry::Batch(merged), weight);
    }

    /// How often a record was dropped, for [`Merged::dropped`].
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }

    fn insert(&self, id: RecordId, entry: Entry, weight: usize) {
        // No entry is larger than fits here.
        let Ok(weight) = u32::try_from(weight) else { return };
        if u64::from(weight) <= self.max_entry {
            let until = self.longest.map(|longest| Instant::now() + longest);
            self.entries.insert(id, Held { entry, weight, until });
        }
    }

    /// Drops the record with this id, and all answers of batches, which may be made of it.
    pub fn forget(&self, id: &RecordId) {
        self.dropped.fetch_add(1, Ordering::AcqRel);
        self.entries.remove(id);
    }

    /// Drops everything: a record may have changed without a word.
    pub fn forget_all(&self) {
        self.dropped.fetch_add(1, Ordering::AcqRel);
        self.entries.clear();
    }

    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }
}

/// Drops what other processes say has changed, for as long as the store is there: also while the
/// gateway drains.
pub async fn follow(hot: Arc<Hot>, mut announced: broadcast::Receiver<RecordId>) {
    loop {
        match announced.recv().await {
            Ok(id) => hot.forget(&id),
            // Something was said that was not heard.
            Err(broadcast::error::RecvError::Lagged(_)) => hot.forget_all(),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Whether the answer of a record can be given again without asking the store.
fn is_replayable(record: &Record) -> bool {
    // Of what was settled, the first client is told so: that is in the store.
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

/// About how many bytes a record takes in memory, once it was asked for.
fn weight(record: &Record) -> usize {
    let members = record.fingerprint.members.iter().map(|member| member.name.len() + 56);
    let answer = kept(record).map_or(0, |response| {
        let headers = response.headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER);
        response.body.len() + headers.sum::<usize>()
    });
    OVERHEAD + record.route.len() + record.key.len() + members.sum::<usize>() + answer
}

#[cfg(test)]
mod tests;
