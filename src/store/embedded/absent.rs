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

/// As much memory as a processor fetches at once. Lines that nothing was added to take none.
type Line = [u64; WORDS];

/// A blocked Bloom filter (Putze, Sanders and Singler, 2007) over ids, which are digests already.
struct Filter(Vec<Line>);

impl Filter {
    /// One for about this many ids; for a power of two it is exact.
    fn new(ids: usize) -> Self {
        let lines = (ids * BYTES / size_of::<Line>()).max(1).next_power_of_two();
        Self(vec![[0; WORDS]; lines])
    }

    /// The place of the id's line, and its marks.
    fn place(&self, id: &RecordId) -> (usize, u64) {
        // All but the first byte of an id are a digest, and each half is used once.
        let number = u128::from_le_bytes(*id.as_bytes());
        ((number as u64 >> 8) as usize & (self.0.len() - 1), (number >> 64) as u64)
    }

    fn marks(marks: u64) -> impl Iterator<Item = (usize, u64)> {
        (0..MARKS).map(move |at| {
            let mark = marks >> (at * MARK_BITS);
            ((mark >> WORD_BITS) as usize % WORDS, 1 << (mark % u64::from(u64::BITS)))
        })
    }

    fn add(&mut self, id: &RecordId) {
        let (line, marks) = self.place(id);
        let line = &mut self.0[line];
        Self::marks(marks).for_each(|(word, bit)| line[word] |= bit);
    }

    fn may_have(&self, id: &RecordId) -> bool {
        let (line, marks) = self.place(id);
        let line = &self.0[line];
        Self::marks(marks).all(|(word, bit)| line[word] & bit != 0)
    }

    /// Adds all that another one of the same size has.
    fn join(&mut self, other: &Self) {
        for (line, more) in self.0.iter_mut().zip(&other.0) {
            if *more != [0; WORDS] {
                line.iter_mut().zip(more).for_each(|(word, more)| *word |= more);
            }
        }
    }
}

/// Knows of most ids that the store does not have that it does not have them.
pub(super) struct Absent {
    engine: Engine,
    recent: Arc<Recent>,
    sizes: Sizes,
    /// `None`: the store has too many, or could not be read.
    filter: Option<Filter>,
    /// Reads what the filter does not have yet; without it, the filter is whole.
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
        if let Some(filter) = &mut self.filter {
            filter.add(id);
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
        match (reading.found.try_recv(), &mut self.filter) {
            (Err(TryRecvError::Empty), _) => return,
            (Ok(found), Some(filter)) => filter.join(&found),
            // It has said why.
            (Ok(_) | Err(TryRecvError::Disconnected), _) => self.filter = None,
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
        self.reading = Some(Reading::start(self.engine.clone(), self.recent.clone(), made_for)?);
        self.filter = Some(Filter::new(made_for));
        self.left = 2 * made_for - ids;
        Ok(())
    }
}

/// A thread that reads the ids of all records that are there.
struct Reading {
    found: Receiver<Filter>,
    /// `None` at the end: nobody wants them any more.
    wanted: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reading {
    fn start(engine: Engine, recent: Arc<Recent>, made_for: usize) -> io::Result<Self> {
        let (result, found) = sync_channel(1);
        let (wanted, end) = sync_channel(0);
        let thread = std::thread::Builder::new().name("oncegate-ids".to_owned());
        let thread = thread.spawn(move || match read(&engine, &recent, made_for, &end) {
            // Whoever wanted it may be gone.
            Ok(Some(filter)) => drop(result.send(filter)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the ids cannot be read; claims ask the table, which takes longer");
            }
        })?;
        Ok(Self { found, wanted: Some(wanted), thread: Some(thread) })
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

/// Reads all ids, unless it is told that they are not wanted any more.
fn read(
    engine: &Engine,
    recent: &Recent,
    made_for: usize,
    end: &Receiver<()>,
) -> Result<Option<Filter>, fjall::Error> {
    let mut filter = Filter::new(made_for);
    // First what the table has not yet: what leaves there meanwhile is in the table when that is read.
    recent.for_each_id(|id| filter.add(id));
    let mut start = Instant::now();
    for (at, entry) in engine.records.iter().enumerate() {
        if let Some(id) = id_of(&entry.key()?) {
            filter.add(&id);
        }
        if (at + 1) % STEP == 0 {
            if end.recv_timeout(start.elapsed() * REST) != Err(RecvTimeoutError::Timeout) {
                return Ok(None);
            }
            start = Instant::now();
        }
    }
    Ok(Some(filter))
}

#[cfg(test)]
#[path = "absent_tests.rs"]
mod tests;
