//! Which records the store certainly has not: a filter over the ids of all that it has, in memory.
//!
//! Nearly every claim is for a record that is not there. To learn that from the table takes a look into
//! the filter of each of its files; here it is one look into one line of memory. The filter is never
//! wrong about a record that is there, and seldom says "perhaps" about one that is not: then the table is
//! asked.
//!
//! The writer alone asks it, and adds what it makes durable. What was there before is added by a thread of its
//! own that reads the table, slowly; until that has ended everything is "perhaps". Ids that were removed
//! stay in it: when it is full, it is made anew.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fjall::UserKey;

use super::memtable::Memtable;
use super::table::{Table, id_of};
use crate::idempotency::RecordId;

/// For how many ids a filter is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilterSizes {
    pub(super) least: usize,
    /// With more of them in the store there is no filter, until as many have been added.
    pub(super) most: usize,
}

/// A filter of 2 to 8 MiB.
pub(super) const SIZES: FilterSizes = FilterSizes { least: 1 << 20, most: 4 << 20 };
/// Bytes for each id it is made for. When it is full it has twice as many ids, and one in forty that are
/// not there is looked for in vain.
const BYTES: usize = 2;
/// How long it reads before others have their turn, and for each such moment, how many are left to them.
const TURN: Duration = Duration::from_millis(5);
const REST: u32 = 3;
/// Ids that are read between two looks at the time.
pub(super) const STEP: usize = 64;

/// Bits that are set for an id, in one line of memory: 1 in 500 of those that are not there has them by
/// chance in a filter that holds what it was made for.
const MARKS: u32 = 7;
const MARK_BITS: u32 = 9;
const WORD_BITS: u32 = u64::BITS.trailing_zeros();
const WORDS: usize = 1 << (MARK_BITS - WORD_BITS);

/// As much memory as a processor fetches at once.
#[derive(Default)]
#[repr(align(64))]
struct Line([AtomicU64; WORDS]);

/// A blocked Bloom filter (Putze, Sanders and Singler, 2007) over ids, which are digests already: an id's
/// marks stand in one line. Two threads may add to it.
pub(super) struct Filter(Vec<Line>);

impl Filter {
    /// One for about this many ids; for a power of two it is exact.
    pub(super) fn new(ids: usize) -> Self {
        let lines = (ids * BYTES / size_of::<Line>()).max(1).next_power_of_two();
        Self((0..lines).map(|_| Line::default()).collect())
    }

    /// The line of an id, and the words in it with a bit each.
    fn marks(&self, id: &RecordId) -> impl Iterator<Item = (&AtomicU64, u64)> {
        // All but the first byte of an id are a digest, and each half is used once.
        let number = u128::from_le_bytes(*id.as_bytes());
        let line = &self.0[(number as u64 >> 8) as usize & (self.0.len() - 1)];
        (0..MARKS).map(move |at| {
            let mark = (number >> 64) as u64 >> (at * MARK_BITS);
            let word = &line.0[(mark >> WORD_BITS) as usize % WORDS];
            (word, 1 << (mark % u64::from(u64::BITS)))
        })
    }

    pub(super) fn add(&self, id: &RecordId) {
        for (word, bit) in self.marks(id) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// As [`Filter::add`], while nobody else adds: that takes less.
    pub(super) fn add_alone(&self, id: &RecordId) {
        for (word, bit) in self.marks(id) {
            word.store(word.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
        }
    }

    pub(super) fn may_have(&self, id: &RecordId) -> bool {
        self.marks(id).all(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }
}

/// Knows of most ids that the store does not have that it does not have them.
pub(super) struct IdFilter {
    engine: Table,
    recent: Arc<Memtable>,
    sizes: FilterSizes,
    /// `None`: the store has too many, or could not be read.
    filter: Option<Arc<Filter>>,
    /// Adds what the filter does not have yet; without it, the filter is whole.
    pub(super) reading: Option<FilterLoad>,
    /// Ids that are added before it is made anew.
    left: usize,
}

impl IdFilter {
    /// A filter for what the store has now and some more. All that is new has to be
    /// [added](Self::add) from now on.
    pub(super) fn new(engine: Table, recent: Arc<Memtable>, sizes: FilterSizes) -> Self {
        let mut new = Self { engine, recent, sizes, filter: None, reading: None, left: 0 };
        new.advance();
        new
    }

    /// Whether the store certainly does not have this record.
    pub(super) fn is_certain(&self, id: &RecordId) -> bool {
        self.reading.is_none() && self.filter.as_ref().is_some_and(|filter| !filter.may_have(id))
    }

    /// The store has this record, and did not before.
    pub(super) fn add(&mut self, id: &RecordId) {
        match (&self.filter, &self.reading) {
            (Some(filter), None) => filter.add_alone(id),
            (Some(filter), Some(_)) => filter.add(id),
            (None, _) => {}
        }
        self.left = self.left.saturating_sub(1);
    }

    /// Takes what has been read meanwhile, or begins anew when the filter is full; to be called now and
    /// then.
    pub(super) fn advance(&mut self) {
        let whole = if self.left == 0 {
            self.begin().map(|()| true).map_err(|error| error.to_string())
        } else {
            match self.reading.take_if(|reading| reading.thread.is_finished()) {
                Some(reading) => reading.join(),
                None => return,
            }
        };
        if whole != Ok(true) {
            self.filter = None;
        }
        if let Err(error) = whole {
            tracing::warn!(
                error,
                "the ids were not read; claims ask the table, which takes longer"
            );
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        // Nobody waits for what is still being read.
        if let Some(reading) = self.reading.take() {
            let _ = reading.join();
        }
        self.filter = None;
        let ids = self.engine.records.approximate_len() + self.recent.len();
        let FilterSizes { least, most } = self.sizes;
        self.left = most;
        if ids > most {
            return Ok(());
        }
        let made_for = (2 * ids).clamp(least, most).next_power_of_two();
        let filter = Arc::new(Filter::new(made_for));
        let reading = FilterLoad::start(self.engine.clone(), self.recent.clone(), filter.clone())?;
        (self.filter, self.reading) = (Some(filter), Some(reading));
        self.left = 2 * made_for - ids;
        Ok(())
    }
}

/// A thread that adds the ids of all records that are there.
pub(super) struct FilterLoad {
    thread: JoinHandle<Result<bool, fjall::Error>>,
    /// Dropped to stop it.
    go_on: SyncSender<()>,
}

impl FilterLoad {
    fn start(engine: Table, recent: Arc<Memtable>, filter: Arc<Filter>) -> io::Result<Self> {
        let (go_on, stop) = sync_channel(0);
        let thread = std::thread::Builder::new().name("oncegate-ids".to_owned());
        let thread = thread.spawn(move || read(&engine, &recent, &filter, &stop))?;
        Ok(Self { thread, go_on })
    }

    /// Ends it, if it has not ended: whether the filter has all ids, or why they could not be read.
    fn join(self) -> Result<bool, String> {
        drop(self.go_on);
        match self.thread.join() {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(_) => Err("the engine gave up".to_owned()),
        }
    }
}

impl Drop for IdFilter {
    fn drop(&mut self) {
        if let Some(reading) = self.reading.take() {
            let _ = reading.join();
        }
    }
}

/// Adds all ids; `false`: it was stopped.
pub(super) fn read(
    engine: &Table,
    recent: &Memtable,
    filter: &Filter,
    stop: &Receiver<()>,
) -> Result<bool, fjall::Error> {
    // First what the table has not yet: what leaves there meanwhile is in the table when that is read.
    recent.for_each_id(|id| filter.add(id));
    let (mut from, mut rest) = (Bound::Unbounded, Duration::ZERO);
    while stop.recv_timeout(rest) == Err(RecvTimeoutError::Timeout) {
        match add_some(engine, filter, from)? {
            Some((last, took)) => (from, rest) = (Bound::Excluded(last), took * REST),
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// Adds the ids of the table from a key on, for one turn: the last one and how long it took, unless
/// there are no more. An iterator keeps all it may come to, also files that were merged since, so each
/// turn has its own: a record that was there at the start is there until it is removed, and what comes is
/// added by the writer.
fn add_some(
    engine: &Table,
    filter: &Filter,
    from: Bound<UserKey>,
) -> Result<Option<(UserKey, Duration)>, fjall::Error> {
    let start = Instant::now();
    for (at, entry) in engine.records.range((from, Bound::Unbounded)).enumerate() {
        let key = entry.key()?;
        if let Some(id) = id_of(&key) {
            filter.add(&id);
        }
        if (at + 1) % STEP == 0 && start.elapsed() >= TURN {
            return Ok(Some((key, start.elapsed())));
        }
    }
    Ok(None)
}
