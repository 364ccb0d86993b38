//! Listings: a page of records from memtable and table combined.
//!
//! Keys of the memtable and of the table are merged in order, mostly the newest first: an index is
//! read from its end. The current record of every key is then read, and a key at the wrong position
//! for its record is skipped: an entry of the table outdated by a later change. The memtable is
//! read first, because a record leaving the memtable in the meantime is in the table by then.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::{Bound, RangeBounds as _};
use std::vec;

use super::layout::{IndexedRecord, TableKey, corrupt, decode, query_key};
use super::memtable::Memtable;
use super::read::RecordReadError;
use super::table::Table;
use crate::clock::Timestamp;
use crate::idempotency::{Record, RecordId};
use crate::store::codec::Head;
use crate::store::{ListPosition, Query, StoreError};

const FIRST: RecordId = RecordId::from_bytes([0; 16]);
const LAST: RecordId = RecordId::from_bytes([0xff; 16]);

/// Page of the records selected by a query.
///
/// Corrupt records are left out, and reported by `verify`: a single corrupt record must not block
/// the expiry loop or an operator.
pub(super) fn list(
    table: &Table,
    memtable: &Memtable,
    query: &Query,
) -> Result<Vec<(RecordId, Record)>, StoreError> {
    if query.limit == 0 {
        return Ok(Vec::new());
    }
    let lister = Lister { table, memtable, query };
    match query.expired_at {
        Some(until) => lister.due(until),
        None if query.keys.is_empty() => lister.newest(),
        None => lister.of_keys(),
    }
}

/// A range of keys. Listings by expiry go up, all others down.
#[derive(Clone, Copy)]
struct KeyRange {
    first: Bound<TableKey>,
    last: Bound<TableKey>,
}

impl KeyRange {
    fn contains(&self, key: &TableKey) -> bool {
        (self.first, self.last).contains(key)
    }
}

/// Range of the index by time, by subject or of open records that a query selects.
fn key_range(query: &Query) -> KeyRange {
    let key = |at: ListPosition| match (&query.subject, query.open) {
        (Some(subject), _) => TableKey::subject(subject, at),
        (None, true) => TableKey::open(at),
        (None, false) => TableKey::time(at),
    };
    let first_seen = query.since.unwrap_or(Timestamp::from_millis(0));
    let last = match query.after {
        Some(after) => Bound::Excluded(key(after)),
        None => Bound::Included(key(ListPosition::NEWEST)),
    };
    KeyRange { first: Bound::Included(key(ListPosition { first_seen, id: FIRST })), last }
}

/// A page, and the first key with a record, corrupt records included.
#[derive(Default)]
struct Page {
    records: Vec<(RecordId, Record)>,
    first: Option<TableKey>,
}

struct Lister<'a> {
    table: &'a Table,
    memtable: &'a Memtable,
    query: &'a Query,
}

impl Lister<'_> {
    /// Records due for expiry.
    fn due(&self, until: Timestamp) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let due = self.memtable.expiry().begin(until, self.query.limit);
        let keys = due.records.iter().map(|(at, id)| TableKey::expiry(*at, id)).collect();
        let first = Bound::Included(TableKey::expiry(due.floor, &FIRST));
        let last = Bound::Included(TableKey::expiry(due.complete_until, &LAST));
        let mut page = Page::default();
        self.fill(&mut page, keys, KeyRange { first, last }, Direction::Up)?;
        let floor = page.first.map_or(due.complete_until, |key| key.expires());
        self.memtable.expiry().end(&due, floor);
        Ok(page.records)
    }

    /// Records by time, all of them, open ones or those of a subject.
    fn newest(&self) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let mut range = key_range(self.query);
        let mut page = Page::default();
        loop {
            let missing = self.query.limit - page.records.len();
            let keys = self.memtable_keys(&range, missing);
            // Behind the last key of a full selection the memtable may have further keys.
            let last = keys.last().filter(|_| keys.len() == missing).copied();
            let first = last.map_or(range.first, Bound::Included);
            self.fill(&mut page, keys, KeyRange { first, ..range }, Direction::Down)?;
            match last {
                // Records of the selection were removed in the meantime.
                Some(last) if page.records.len() < self.query.limit => {
                    range.last = Bound::Excluded(last);
                }
                Some(_) | None => return Ok(page.records),
            }
        }
    }

    /// Records of some keys. They stand in the order of their ids: all are read, and the newest of
    /// them kept.
    fn of_keys(&self) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let mut newest = BTreeMap::new();
        for digest in &self.query.keys {
            let (first, last) = TableKey::records_of(digest);
            let range = KeyRange { first: Bound::Included(first), last: Bound::Included(last) };
            let keys = self.memtable_keys(&range, usize::MAX);
            self.each_key(keys, range, Direction::Down, |key| {
                let record = self.read(&key, |id, bytes| self.decode(id, bytes));
                if let Some(record) = unless_corrupt(record)? {
                    newest.insert(Reverse(ListPosition::of(&key.id(), &record)), record);
                }
                if newest.len() > self.query.limit {
                    newest.pop_last();
                }
                Ok(true)
            })?;
        }
        Ok(newest.into_iter().map(|(Reverse(at), record)| (at.id, record)).collect())
    }

    /// First keys of the memtable's records selected by the query, the newest first.
    fn memtable_keys(&self, range: &KeyRange, limit: usize) -> Vec<TableKey> {
        let mut keys = Vec::new();
        self.memtable.for_each(|id, head| {
            let key = head.and_then(|head| query_key(self.query, id, head));
            keys.extend(key.filter(|key| range.contains(key)).map(Reverse));
        });
        if keys.len() > limit {
            keys.select_nth_unstable(limit);
            keys.truncate(limit);
        }
        keys.sort_unstable();
        keys.into_iter().map(|Reverse(key)| key).collect()
    }

    /// Fills a page with the records of `keys` and of the table's keys within the range.
    fn fill(
        &self,
        page: &mut Page,
        keys: Vec<TableKey>,
        range: KeyRange,
        direction: Direction,
    ) -> Result<(), StoreError> {
        self.each_key(keys, range, direction, |key| {
            if page.records.len() == self.query.limit {
                return Ok(false);
            }
            match self.read(&key, |id, bytes| self.decode(id, bytes)) {
                Ok(Some(record)) => page.records.push((key.id(), record)),
                Ok(None) => return Ok(true),
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                Err(StoreError::Corrupt { id, reason }) => {
                    tracing::error!(record = ?id, reason, "a corrupt record was left out");
                }
            }
            page.first.get_or_insert(key);
            Ok(true)
        })
    }

    /// Calls `each` for `keys` and for the table's keys within the range, in order, until `false`.
    fn each_key(
        &self,
        keys: Vec<TableKey>,
        KeyRange { first, last }: KeyRange,
        direction: Direction,
        mut each: impl FnMut(TableKey) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let (from, to) =
            (first.as_ref().map(TableKey::as_bytes), last.as_ref().map(TableKey::as_bytes));
        let stored = self.table.range(from, to);
        let stored: Box<dyn Iterator<Item = _>> = match direction {
            Direction::Up => Box::new(stored),
            Direction::Down => Box::new(stored.rev()),
        };
        let mut stored = stored.peekable();
        let mut keys = keys.into_iter().peekable();
        while let Some(key) = next_key(&mut keys, &mut stored, direction)? {
            // The records of other shards need not be read.
            let fits = self.query.shard.is_none_or(|shard| key.id().shard() == shard);
            if fits && !each(key)? {
                break;
            }
        }
        Ok(())
    }

    fn decode(&self, id: &RecordId, bytes: &[u8]) -> Result<Record, StoreError> {
        decode(&self.table.codec, id, bytes)
    }

    /// Reads the record of a key, if the key is still the record's position in the query's index.
    fn read<T>(
        &self,
        key: &TableKey,
        read: impl FnOnce(&RecordId, &[u8]) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let id = key.id();
        let wanted = |head: &Head| query_key(self.query, &id, head) == Some(*key);
        let newest = self.memtable.get(&id, |current: Option<&IndexedRecord>| current.cloned());
        if let Some(current) = newest {
            let current = current.filter(|encoded| wanted(&encoded.head));
            return current.map(|encoded| read(&id, &encoded.bytes)).transpose();
        }
        let Some(bytes) = self.table.raw(&id)? else { return Ok(None) };
        let head = Head::decode(&id, &bytes).map_err(|error| corrupt(&id, error))?;
        wanted(&head).then(|| read(&id, &bytes)).transpose()
    }
}

/// Leaves a corrupt record out.
fn unless_corrupt<T>(read: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Err(StoreError::Corrupt { id, reason }) => {
            tracing::error!(record = ?id, reason, "a corrupt record was left out");
            Ok(None)
        }
        other => other,
    }
}

/// Direction in which keys are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// Next key of either sequence; a common key is returned once.
fn next_key<T>(
    keys: &mut Peekable<vec::IntoIter<TableKey>>,
    stored: &mut Peekable<impl Iterator<Item = Result<(lsm_tree::Slice, T), lsm_tree::Error>>>,
    direction: Direction,
) -> Result<Option<TableKey>, StoreError> {
    loop {
        if let Some(Err(error)) = stored.next_if(Result::is_err) {
            return Err(RecordReadError::from(error).into());
        }
        let next_stored = match stored.peek() {
            None | Some(Err(_)) => None,
            Some(Ok((key, _))) => match TableKey::parse(key) {
                Some(key) => Some(key),
                None => {
                    stored.next();
                    continue;
                }
            },
        };
        let next = match (keys.peek().copied(), next_stored) {
            (Some(new), Some(stored)) if direction == Direction::Up => Some(new.min(stored)),
            (Some(new), Some(stored)) => Some(new.max(stored)),
            (new, stored) => new.or(stored),
        };
        if next.is_some() && next == next_stored {
            stored.next();
        }
        keys.next_if(|key| Some(*key) == next);
        return Ok(next);
    }
}
