//! Which records the store certainly has not: a filter over the ids of all that it has, in memory.
//!
//! Nearly every claim is for a record that is not there. To learn that from the table takes a look into
//! the filter of each of its files; here it is one look into one line of memory. The filter is never
//! wrong about a record that is there, and seldom says "perhaps" about one that is not: then the table is
//! asked.
//!
//! The writer alone uses it, and adds what it makes durable. What was there before is read from the table
//! by a thread of its own, slowly; until that has ended everything is "perhaps". Ids that were removed
//! stay in it: when it is full, it is made anew.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use super::engine::{Engine, id_of};
use super::recent::Recent;
use crate::idempotency::RecordId;

/// For how many ids a filter is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) least: usize,
    /// With more of them in the store there is no filter.
    pub(super) most: usize,
}

/// A filter of 2 to 8 MiB.
pub(super) const SIZES: Sizes = Sizes { least: 1 << 20, most: 4 << 20 };
/// Bytes for each id it is made for. When it is full it has twice as many ids, and one in forty that are
/// not there is looked for in vain.
const BYTES: usize = 2;
/// Ids that are read from the table before others have their turn.
const STEP: usize = 4096;
/// For each moment of reading, so many are left to others.
const REST: u32 = 3;

/// Bits that are set for an id, in one line of memory: 1 in 500 of those that are not there has them by
/// chance in a filter that holds what it was made for.
const MARKS: u32 = 7;
const MARK_BITS: u32 = 9;
const WORD_BITS: u32 = u64::BITS.trailing_zeros();
const WORDS: usize = 1 << (MARK_BITS - WORD_BITS);

/// A blocked Bloom filter (Putze, Sanders and Singler, 2007) over ids, which are digests already: an id's
/// marks stand in one line, as much memory as a processor fetches at once. Two threads may add to it.
struct Filter(Vec<[AtomicU64; WORDS]>);

impl Filter {
    /// One for about this many ids; for a power of two it is exact.
    fn new(ids: usize) -> Self {
        let lines = (ids * BYTES / size_of::<[u64; WORDS]>()).max(1).next_power_of_two();
        Self((0..lines).map(|_| Default::default()).collect())
    }

    /// The line of an id, and the words in it with a bit each.
    fn marks(&self, id: &RecordId) -> impl Iterator<Item = (&AtomicU64, u64)> {
        // All but the first byte of an id are a digest, and each half is used once.
        let number = u128::from_le_bytes(*id.as_bytes());
        let line = &self.0[(number as u64 >> 8) as usize & (self.0.len() - 1)];
        (0..MARKS).map(move |at| {
            let mark = (number >> 64) as u64 >> (at * MARK_BITS);
            let word = &line[(mark >> WORD_BITS) as usize % WORDS];
            (word, 1 << (mark % u64::from(u64::BITS)))
        })
    }

    fn add(&self, id: &RecordId) {
        for (word, bit) in self.marks(id) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// As [`Filter::add`], while nobody else adds: that takes less.
    fn add_alone(&self, id: &RecordId) {
        for (word, bit) in self.marks(id) {
            word.store(word.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
        }
    }

    fn may_have(&self, id: &RecordId) -> bool {
        self.marks(id).all(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }
}

/// Knows of most ids that the store does not have that it does not have them.
pub(super) struct Absent {
    engine: Engine,
    recent: Arc<Recent>,
    sizes: Sizes,
    /// `None`: the store has too many, or could not be read.
    filter: Option<Arc<Filter>>,
    /// Adds what the filter does not have yet; without it, the filter is whole.
    reading: Option<Reading>,
    /// Ids that are added before it is made anew.
    left: usize,
}

impl Absent {
    /// A filter for what the store has now and some more. All that is new has to be
    /// [added](Self::add) from now on.
    pub(super) fn new(engine: Engine, recent: Arc<Recent>, sizes: Sizes) -> io::Result<Self> {
        let mut new = Self { engine, recent, sizes, filter: None, reading: None, left: 0 };
        new.begin()?;
        Ok(new)
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
        if self.left == 0 {
            if let Err(error) = self.begin() {
                tracing::warn!(%error, "claims ask the table, which takes longer");
            }
            return;
        }
        let Some(reading) = &self.reading else { return };
        match reading.ended.try_recv() {
            Err(TryRecvError::Empty) => return,
            Ok(()) => {}
            // It has said why.
            Err(TryRecvError::Disconnected) => self.filter = None,
        }
        self.reading = None;
    }

    fn begin(&mut self) -> io::Result<()> {
        self.reading = None;
        self.filter = None;
        let ids = self.engine.records.approximate_len() + self.recent.len();
        let Sizes { least, most } = self.sizes;
        self.left = most;
        if ids > most {
            return Ok(());
        }
        let made_for = (2 * ids).clamp(least, most).next_power_of_two();
        let filter = Arc::new(Filter::new(made_for));
        let reading = Reading::start(self.engine.clone(), self.recent.clone(), filter.clone())?;
        (self.filter, self.reading) = (Some(filter), Some(reading));
        self.left = 2 * made_for - ids;
        Ok(())
    }
}

/// A thread that reads the ids of all records that are there.
struct Reading {
    /// Says that the filter has all of them.
    ended: Receiver<()>,
    /// `None` at the end: nobody wants them any more.
    wanted: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reading {
    fn start(engine: Engine, recent: Arc<Recent>, filter: Arc<Filter>) -> io::Result<Self> {
        let (whole, ended) = sync_channel(1);
        let (wanted, end) = sync_channel(0);
        let thread = std::thread::Builder::new().name("oncegate-ids".to_owned());
        let thread = thread.spawn(move || match read(&engine, &recent, &filter, &end) {
            // Whoever wanted it may be gone.
            Ok(true) => drop(whole.send(())),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(
                    %error, "the ids cannot be read; claims ask the table, which takes longer"
                );
            }
        })?;
        Ok(Self { ended, wanted: Some(wanted), thread: Some(thread) })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        drop(self.wanted.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Adds all ids; `false`: it was told that they are not wanted any more.
fn read(
    engine: &Engine,
    recent: &Recent,
    filter: &Filter,
    end: &Receiver<()>,
) -> Result<bool, fjall::Error> {
    // First what the table has not yet: what leaves there meanwhile is in the table when that is read.
    recent.for_each_id(|id| filter.add(id));
    let mut start = Instant::now();
    for (at, entry) in engine.records.iter().enumerate() {
        if let Some(id) = id_of(&entry.key()?) {
            filter.add(&id);
        }
        if (at + 1) % STEP == 0 {
            if end.recv_timeout(start.elapsed() * REST) != Err(RecvTimeoutError::Timeout) {
                return Ok(false);
            }
            start = Instant::now();
        }
    }
    Ok(true)
}

#[cfg(test)]
#[path = "absent_tests.rs"]
mod tests;
