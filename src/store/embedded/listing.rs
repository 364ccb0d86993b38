//! Listings: a page of records from memtable and table combined.
//!
//! Keys of the memtable and of the table are merged in order. The current record of every key is
//! then read, and a key at the wrong position for its record is skipped: an entry of the table
//! outdated by a later change. The memtable is read first, because a record leaving the memtable in
//! the meantime is in the table by then.

use std::iter::Peekable;
use std::ops::Bound;
use std::vec;

use super::layout::{IndexedRecord, TableKey, corrupt, decode, query_key};
use super::memtable::Memtable;
use super::table::{Table, unreadable};
use crate::clock::Timestamp;
use crate::idempotency::{Record, RecordId};
use crate::store::codec::Head;
use crate::store::{Query, StoreError};

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
        None => lister.all(),
    }
}

type KeyRange = (Bound<TableKey>, TableKey);

/// Range of keys for a query, the last key included.
fn key_range(query: &Query) -> KeyRange {
    let key = |id: &RecordId| match (&query.subject, query.open) {
        (Some(subject), _) => TableKey::subject(subject, id),
        (None, true) => TableKey::open(id),
        (None, false) => TableKey::record(id),
    };
    let first = query.after.map_or(Bound::Included(key(&FIRST)), |id| Bound::Excluded(key(&id)));
    (first, key(&LAST))
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
        let last = TableKey::expiry(due.complete_until, &LAST);
        let mut page = Page::default();
        self.fill(&mut page, keys, &(first, last))?;
        let floor = page.first.map_or(due.complete_until, |key| key.expires());
        self.memtable.expiry().end(&due, floor);
        Ok(page.records)
    }

    /// Records of any other query.
    fn all(&self) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let (mut first, end) = key_range(self.query);
        let mut page = Page::default();
        loop {
            let missing = self.query.limit - page.records.len();
            let keys = self.memtable_keys(&(first, end), missing);
            // Behind the last key of a full selection the memtable may have further keys.
            let last = keys.last().filter(|_| keys.len() == missing).copied();
            self.fill(&mut page, keys, &(first, last.unwrap_or(end)))?;
            match last {
                // Records of the selection were removed in the meantime.
                Some(last) if page.records.len() < self.query.limit => {
                    first = Bound::Excluded(last);
                }
                Some(_) | None => return Ok(page.records),
            }
        }
    }

    /// First keys of the memtable's records selected by the query, in order.
    fn memtable_keys(&self, (first, last): &KeyRange, limit: usize) -> Vec<TableKey> {
        let mut keys = Vec::new();
        let behind_first = |key: &TableKey| match first {
            Bound::Included(first) => key >= first,
            Bound::Excluded(first) => key > first,
            Bound::Unbounded => true,
        };
        self.memtable.for_each(|id, head| {
            let key = head.and_then(|head| query_key(self.query, id, head));
            keys.extend(key.filter(|key| behind_first(key) && key <= last));
        });
        if keys.len() > limit {
            keys.select_nth_unstable(limit);
            keys.truncate(limit);
        }
        keys.sort_unstable();
        keys
    }

    /// Fills a page with the records of `keys` and of the table's keys within the range.
    fn fill(
        &self,
        page: &mut Page,
        keys: Vec<TableKey>,
        (first, last): &KeyRange,
    ) -> Result<(), StoreError> {
        let from = first.as_ref().map(TableKey::as_bytes);
        let stored = self.table.range(from, Bound::Included(last.as_bytes()));
        let mut stored = stored.peekable();
        let mut keys = keys.into_iter().peekable();
        while page.records.len() < self.query.limit {
            let Some(key) = next_key(&mut keys, &mut stored)? else { break };
            match self.read(&key) {
                Ok(Some(record)) => page.records.push((key.id(), record)),
                Ok(None) => continue,
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                Err(StoreError::Corrupt { id, reason }) => {
                    tracing::error!(record = ?id, reason, "a corrupt record was left out");
                }
            }
            page.first.get_or_insert(key);
        }
        Ok(())
    }

    /// Record of a key, if the key is still the record's position in the query's index.
    fn read(&self, key: &TableKey) -> Result<Option<Record>, StoreError> {
        let id = key.id();
        let wanted = |head: &Head| query_key(self.query, &id, head) == Some(*key);
        let newest = self.memtable.get(&id, |current: Option<&IndexedRecord>| {
            current.filter(|encoded| wanted(&encoded.head)).map(|encoded| encoded.bytes.clone())
        });
        if let Some(bytes) = newest {
            return bytes.map(|bytes| decode(&self.table.codec, &id, &bytes)).transpose();
        }
        let Some(bytes) = self.table.raw(&id)? else { return Ok(None) };
        let head = Head::decode(&id, &bytes).map_err(|error| corrupt(&id, error))?;
        wanted(&head).then(|| decode(&self.table.codec, &id, &bytes)).transpose()
    }
}

/// Next key of either sequence; a common key is returned once.
fn next_key<T>(
    keys: &mut Peekable<vec::IntoIter<TableKey>>,
    stored: &mut Peekable<impl Iterator<Item = Result<(lsm_tree::Slice, T), lsm_tree::Error>>>,
) -> Result<Option<TableKey>, StoreError> {
    loop {
        let next_stored = match stored.peek() {
            None => None,
            Some(Ok((key, _))) => match TableKey::parse(key) {
                Some(key) => Some(key),
                None => {
                    stored.next();
                    continue;
                }
            },
            Some(Err(error)) => return Err(unreadable(error)),
        };
        let next_new = keys.peek().copied();
        if next_stored.is_some() && (next_new.is_none() || next_stored <= next_new) {
            stored.next();
        }
        if next_new.is_some() && (next_stored.is_none() || next_new <= next_stored) {
            keys.next();
        }
        return Ok(match (next_new, next_stored) {
            (Some(new), Some(stored)) => Some(new.min(stored)),
            (new, stored) => new.or(stored),
        });
    }
}
