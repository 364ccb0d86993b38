//! In-memory filter over the ids of all records: identifies ids certainly absent from the store.
//!
//! Nearly every claim is for a new record. Without the filter, the table would query the filter of
//! every run; here a single cache line suffices. The filter has no false negatives and few false
//! positives; on a positive the table is read.
//!
//! Only the writer queries the filter, and adds the records it makes durable. A separate thread
//! slowly reads the previously existing ids from the table; until its end every answer is positive.
//! Removed ids stay in the filter; a full filter is rebuilt.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::layout::TableKey;
use super::memtable::Memtable;
use super::table::Table;
use crate::idempotency::RecordId;

/// Bounds for the capacity of a filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct FilterSizes {
    pub(super) least: usize,
    /// With more records in the store there is no filter, until as many have been added.
    pub(super) most: usize,
}

/// A filter of 2 to 8 MiB.
pub(super) const SIZES: FilterSizes = FilterSizes { least: 1 << 20, most: 4 << 20 };
/// Bytes per id of a filter's capacity. A full filter holds twice its capacity, with a false
/// positive rate of 1 in 40.
const BYTES: usize = 2;
/// Time slice for reading ids before a pause, and the length of the pause as a multiple: the thread
/// uses a quarter of a processor.
const SLICE: Duration = Duration::from_millis(5);
const PAUSE: u32 = 3;
/// Number of ids read between two checks of the time.
pub(super) const STEP: usize = 64;

/// Bits set per id, in a single cache line: a filter at its capacity has a false positive rate of 1
/// in 500.
const MARKS: u32 = 7;
const MARK_BITS: u32 = 9;
const WORD_BITS: u32 = u64::BITS.trailing_zeros();
const WORDS: usize = 1 << (MARK_BITS - WORD_BITS);

/// Cache line: the unit of memory fetched by a processor.
#[derive(Default)]
#[repr(align(64))]
struct Line([AtomicU64; WORDS]);

/// A blocked Bloom filter (Putze, Sanders and Singler, 2007) over ids. Ids are digests already; the
/// bits of an id share a cache line. Two threads may add concurrently.
pub(super) struct BloomFilter(Vec<Line>);

impl BloomFilter {
    /// Filter with a capacity of about `ids` ids; exact for powers of two.
    pub(super) fn new(ids: usize) -> Self {
        let lines = (ids * BYTES / size_of::<Line>()).max(1).next_power_of_two();
        Self((0..lines).map(|_| Line::default()).collect())
    }

    /// Words of an id's cache line, with a bit for each.
    fn marks(&self, id: &RecordId) -> impl Iterator<Item = (&AtomicU64, u64)> {
        // Apart from its first byte an id is a digest, and each half is used once.
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

    /// Adds an id without concurrent additions, which is cheaper than [`BloomFilter::add`].
    pub(super) fn add_alone(&self, id: &RecordId) {
        for (word, bit) in self.marks(id) {
            word.store(word.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
        }
    }

    pub(super) fn may_have(&self, id: &RecordId) -> bool {
        self.marks(id).all(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }
}

/// The filter of a store, with its loading thread.
pub(super) struct IdFilter {
    table: Table,
    memtable: Arc<Memtable>,
    sizes: FilterSizes,
    /// `None`: the store has too many records, or could not be read.
    filter: Option<Arc<BloomFilter>>,
    /// Thread adding the previously existing ids; `None`: the filter is complete.
    pub(super) reading: Option<FilterLoad>,
    /// Ids to add until the filter is built anew.
    left: usize,
}

impl IdFilter {
    /// Filter for the records of the store and some more. Every new record has to be
    /// [added](Self::add) from now on.
    pub(super) fn new(table: Table, memtable: Arc<Memtable>, sizes: FilterSizes) -> Self {
        let mut new = Self { table, memtable, sizes, filter: None, reading: None, left: 0 };
        new.advance();
        new
    }

    /// Returns true if the store certainly does not have the record.
    pub(super) fn is_absent(&self, id: &RecordId) -> bool {
        self.reading.is_none() && self.filter.as_ref().is_some_and(|filter| !filter.may_have(id))
    }

    /// Adds a record new to the store.
    pub(super) fn add(&mut self, id: &RecordId) {
        match (&self.filter, &self.reading) {
            (Some(filter), None) => filter.add_alone(id),
            (Some(filter), Some(_)) => filter.add(id),
            (None, _) => {}
        }
        self.left = self.left.saturating_sub(1);
    }

    /// Puts a fully loaded filter into use, or starts to rebuild a full filter. Called before every
    /// batch.
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
        // The ids still being read are no longer needed.
        if let Some(reading) = self.reading.take() {
            let _ = reading.join();
        }
        self.filter = None;
        let stored = self.table.newest_marker()?.records as usize;
        let ids = stored + self.memtable.len();
        let FilterSizes { least, most } = self.sizes;
        self.left = most;
        if ids > most {
            return Ok(());
        }
        let made_for = (2 * ids).clamp(least, most).next_power_of_two();
        let filter = Arc::new(BloomFilter::new(made_for));
        let reading = FilterLoad::start(self.table.clone(), self.memtable.clone(), filter.clone())?;
        (self.filter, self.reading) = (Some(filter), Some(reading));
        self.left = 2 * made_for - ids;
        Ok(())
    }
}

/// Thread adding the ids of all records.
pub(super) struct FilterLoad {
    thread: JoinHandle<Result<bool, lsm_tree::Error>>,
    /// Dropped to stop the thread.
    go_on: SyncSender<()>,
}

impl FilterLoad {
    fn start(table: Table, memtable: Arc<Memtable>, filter: Arc<BloomFilter>) -> io::Result<Self> {
        let (go_on, stop) = sync_channel(0);
        let thread = std::thread::Builder::new().name("oncegate-ids".to_owned());
        let thread = thread.spawn(move || read(&table, &memtable, &filter, &stop))?;
        Ok(Self { thread, go_on })
    }

    /// Stops the thread: true if the filter has all ids, or the error of reading them.
    fn join(self) -> Result<bool, String> {
        drop(self.go_on);
        match self.thread.join() {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(_) => Err("the table gave up reading".to_owned()),
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

/// Adds all ids; returns false if the thread was stopped early.
pub(super) fn read(
    table: &Table,
    memtable: &Memtable,
    filter: &BloomFilter,
    stop: &Receiver<()>,
) -> Result<bool, lsm_tree::Error> {
    // The memtable comes first: a record leaving the memtable in the meantime is in the table by
    // the time the table is read.
    memtable.for_each(|id, _| filter.add(id));
    let (mut after, mut pause) = (None, Duration::ZERO);
    while stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        match add_slice(table, filter, after)? {
            Some((last, took)) => (after, pause) = (Some(last), took * PAUSE),
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// Adds the ids of the table behind a key, for a single time slice; returns the last id and the
/// elapsed time, or `None` at the end. An iterator pins all files ahead of its position, even
/// merged files, so every slice has a new iterator. No id is missed: a record existing at the start
/// exists until removed, and the writer adds new records.
fn add_slice(
    table: &Table,
    filter: &BloomFilter,
    after: Option<RecordId>,
) -> Result<Option<(RecordId, Duration)>, lsm_tree::Error> {
    let start = Instant::now();
    for (at, entry) in table.records(after).enumerate() {
        let (key, _) = entry?;
        let Some(id) = TableKey::parse(&key).map(|key| key.id()) else { continue };
        filter.add(&id);
        if (at + 1) % STEP == 0 && start.elapsed() >= SLICE {
            return Ok(Some((id, start.elapsed())));
        }
    }
    Ok(None)
}
