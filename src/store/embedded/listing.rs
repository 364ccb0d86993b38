//! Listings: a page of records out of memtable and table together.
//!
//! Keys of the memtable and of the table are merged in order. The record behind each key is then
//! read as it is now, and a key that is not where the query would look for that record is passed
//! over: an entry of the table that a later change outdated. The memtable is read first, because
//! what leaves it meanwhile is in the table by then.

use std::iter::Peekable;
use std::ops::Bound;
use std::vec;

use super::layout::{StoredRecord, TableKey, corrupt, decode, query_key};
use super::memtable::Memtable;
use super::table::{Table, unreadable};
use crate::clock::Timestamp;
use crate::idempotency::{Record, RecordId};
use crate::store::codec::Head;
use crate::store::{Query, StoreError};

const FIRST: RecordId = RecordId::from_bytes([0; 16]);
const LAST: RecordId = RecordId::from_bytes([0xff; 16]);

/// Page of the records a query asks for.
///
/// Records that cannot be read back are left out: `verify` names them, and one of them must not
/// keep the expiry loop or an operator from all others.
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

/// Keys at which a query looks for records; the last one is included.
fn key_range(query: &Query) -> KeyRange {
    let key = |id: &RecordId| match (&query.subject, query.open) {
        (Some(subject), _) => TableKey::subject(subject, id),
        (None, true) => TableKey::open(id),
        (None, false) => TableKey::record(id),
    };
    let first = query.after.map_or(Bound::Included(key(&FIRST)), |id| Bound::Excluded(key(&id)));
    (first, key(&LAST))
}

/// A page, and the first key at which a record was found, also one that cannot be read back.
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
    /// Records that are due for expiry.
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

    /// Records that any other query asks for.
    fn all(&self) -> Result<Vec<(RecordId, Record)>, StoreError> {
        let (mut first, end) = key_range(self.query);
        let mut page = Page::default();
        loop {
            let missing = self.query.limit - page.records.len();
            let keys = self.memtable_keys(&(first, end), missing);
            // The memtable may have more keys behind the last one of a full selection.
            let last = keys.last().filter(|_| keys.len() == missing).copied();
            self.fill(&mut page, keys, &(first, last.unwrap_or(end)))?;
            match last {
                // Records that were in the selection are gone meanwhile.
                Some(last) if page.records.len() < self.query.limit => {
                    first = Bound::Excluded(last);
                }
                Some(_) | None => return Ok(page.records),
            }
        }
    }

    /// The first keys of the memtable's records that the query asks for, in order.
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

    /// Adds to a page the records of these keys and of the table's keys within the range.
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

    /// Record of a key, if the query looks for the record under this key as it is now.
    fn read(&self, key: &TableKey) -> Result<Option<Record>, StoreError> {
        let id = key.id();
        let wanted = |head: &Head| query_key(self.query, &id, head) == Some(*key);
        let newest = self.memtable.get(&id, |current: Option<&StoredRecord>| {
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

/// Next key of either row; a key that is in both comes once.
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
