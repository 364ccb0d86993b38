//! Final answers kept in memory, so that a replay reads no disk.
//!
//! Only final records whose answer was kept, and items that are done, go in: nothing can change
//! them before they expire, and whoever uses one decides on it with the record's own time, so an
//! entry is never wrong, only absent. Bounded by bytes; the least useful entries leave first. Work in flight is never here.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName};
use moka::sync::Cache;

use crate::idempotency::record::BuildIdHasher;
use crate::idempotency::{Answer, Record, RecordId, State};

/// Bytes of answers kept in memory, unless the caller says otherwise.
pub const CAPACITY: u64 = 32 << 20;

/// A record larger than this stays on disk: one answer must not push out hundreds.
const MAX_ENTRY: u64 = 256 << 10;

/// What an entry costs beside its contents: the cache's own books, the allocations, and the lines
/// that the gateway adds to a replay.
const OVERHEAD: usize = 1024;

/// What a header line costs: in the record beside name and value, and in the map of its replay.
const HEADER: usize = 80 + 120;

/// The cache of final records. Cheap to clone; clones share the entries.
#[derive(Debug, Clone)]
pub struct Hot {
    entries: Cache<RecordId, Arc<Known>, BuildIdHasher>,
    max_entry: u64,
}

/// A final record in memory.
#[derive(Debug)]
pub struct Known {
    /// The record.
    pub record: Record,
    /// Digest of the very bytes of a request that was found to be the record's. Whoever sends the
    /// same bytes again need not be compared member by member.
    pub verbatim: OnceLock<[u8; 32]>,
    /// The headers of its replay, once there was one, under the name of the header that marks it.
    pub replay: OnceLock<(HeaderName, HeaderMap)>,
}

impl From<Record> for Arc<Known> {
    fn from(record: Record) -> Self {
        Self::new(Known { record, verbatim: OnceLock::new(), replay: OnceLock::new() })
    }
}

impl Hot {
    /// A cache of at most about `capacity` bytes; zero keeps nothing.
    pub fn new(capacity: u64) -> Self {
        let entries = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, known: &Arc<Known>| {
                u32::try_from(weight(&known.record)).unwrap_or(u32::MAX)
            })
            .build_with_hasher(BuildIdHasher::default());
        Self { entries, max_entry: MAX_ENTRY.min(capacity) }
    }

    /// The final record with this id, when it is here. It may have expired: decide with its time.
    pub fn get(&self, id: &RecordId) -> Option<Arc<Known>> {
        self.entries.get(id)
    }

    /// Keeps a record, if it is final and its answer was kept, or an item that is done; anything
    /// else is ignored.
    pub fn put(&self, id: RecordId, record: impl Into<Arc<Known>>) {
        let known = record.into();
        let record = &known.record;
        let replayable = match &record.state {
            State::Final { answer: Answer::Kept(_), .. } => true,
            State::Item { ledger, .. } => ledger.is_done(),
            State::Final { answer: Answer::NotRetained { .. }, .. }
            | State::InFlight
            | State::Unknown { .. }
            | State::Tombstone { .. } => false,
        };
        if replayable && weight(record) as u64 <= self.max_entry {
            self.entries.insert(id, known);
        }
    }

    /// Drops the record with this id.
    pub fn forget(&self, id: &RecordId) {
        self.entries.invalidate(id);
    }

    /// Bytes held now, as far as the cache's housekeeping has counted them.
    pub fn bytes(&self) -> u64 {
        self.entries.weighted_size()
    }
}

/// About how many bytes a record takes in memory.
fn weight(record: &Record) -> usize {
    let members = record.fingerprint.members.iter().map(|member| member.name.len() + 56);
    let answer = match &record.state {
        State::Final { answer: Answer::Kept(response), .. } => {
            let headers = response.headers.iter();
            let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER);
            response.body.len() + headers.sum::<usize>()
        }
        State::Item { ledger, .. } => ledger.bytes(),
        State::Final { answer: Answer::NotRetained { .. }, .. }
        | State::InFlight
        | State::Unknown { .. }
        | State::Tombstone { .. } => 0,
    };
    OVERHEAD + record.route.len() + record.key.len() + members.sum::<usize>() + answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idempotency::Ledger;
    use crate::store::samples;

    #[test]
    fn only_final_records_with_their_answer_are_kept() {
        let hot = Hot::new(CAPACITY);
        for (at, record) in samples::every_state().into_iter().enumerate() {
            let id = samples::id(at as u64);
            let kept = matches!(&record.state, State::Final { answer: Answer::Kept(_), .. })
                || record.ledger().is_some_and(Ledger::is_done);
            hot.put(id, record);
            assert_eq!(hot.get(&id).is_some(), kept, "sample {at}");
        }
    }

    #[test]
    fn a_forgotten_record_is_gone() {
        let hot = Hot::new(CAPACITY);
        let record = samples::kept(1, 100);
        hot.put(samples::id(1), record.clone());
        assert_eq!(hot.get(&samples::id(1)).map(|known| known.record.clone()), Some(record));
        hot.forget(&samples::id(1));
        assert!(hot.get(&samples::id(1)).is_none());
    }

    #[test]
    fn bytes_are_bounded() {
        let hot = Hot::new(64 << 10);
        for n in 0..1000 {
            hot.put(samples::id(n), samples::kept(n, 1000));
        }
        hot.entries.run_pending_tasks();
        assert!(hot.bytes() <= 64 << 10, "{} bytes", hot.bytes());
        assert!(hot.bytes() > 0);
    }

    #[test]
    fn an_answer_larger_than_the_cache_is_not_taken() {
        let hot = Hot::new(10_000);
        hot.put(samples::id(1), samples::kept(1, 20_000));
        assert!(hot.get(&samples::id(1)).is_none());
    }
}
