//! Listings: an index gives entries, and an entry counts when the record still matches the query.
//!
//! Every shard has its own indexes, which are merged.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use ::redis::{Cmd, Value};

use super::command::SlotCommand;
use super::engine::Redis;
use super::index::{Index, IndexEntry, IndexRange, ShardEntries, TIME, next_candidates};
use super::keys::slot_of;
use super::node::READ_CONNECTION;
use super::reply::unreadable;
use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::idempotency::id::KeyDigest;
use crate::idempotency::record::Nonce;
use crate::store::codec::Head;
use crate::store::shared::engine::{EngineError, ListedRecord};
use crate::store::{ListPosition, Query};

/// Entries read from a shard at once, at most, and in the first query of several shards at least.
const MAX_ENTRIES: usize = 512;
const MIN_ENTRIES: usize = 8;
/// Factor by which later queries read more entries.
const GROWTH: usize = 4;
/// Records read at once; a record may hold an answer of the largest size.
const MAX_RECORDS: usize = 32;

impl Redis {
    pub(super) async fn list_records(
        &self,
        query: &Query,
    ) -> Result<Vec<ListedRecord>, EngineError> {
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        let shards = query.shard.map_or(0..=u8::MAX, |shard| shard..=shard);
        if !query.keys.is_empty() {
            let of_key = |key: &KeyDigest| {
                let key = *key;
                shards.clone().map(move |shard| {
                    let prefix = [&[shard], key.as_slice()].concat();
                    IndexRange { shard, from: [b"[", &*prefix].concat(), to: end_of(&prefix) }
                })
            };
            return self.list_keys(query, query.keys.iter().flat_map(of_key).collect()).await;
        }
        let index = Index::of(query);
        let (from, to) = bounds(query, index);
        let range = |shard| IndexRange { shard, from: from.clone(), to: to.clone() };
        self.list_merged(query, index, shards.map(range).collect()).await
    }

    /// Lists records in the order of an index, merged over the shards.
    async fn list_merged(
        &self,
        query: &Query,
        index: Index,
        ranges: Vec<IndexRange>,
    ) -> Result<Vec<ListedRecord>, EngineError> {
        let mut page = Vec::new();
        // Records are mostly spread over the shards.
        let mut entries = 2 * query.limit.min(MAX_ENTRIES) / ranges.len();
        let mut shards: Vec<ShardEntries> = ranges.into_iter().map(ShardEntries::new).collect();
        while page.len() < query.limit {
            entries = entries.clamp(MIN_ENTRIES, MAX_ENTRIES);
            self.read_on(index, &mut shards, entries).await?;
            let candidates = next_candidates(index, &mut shards);
            if candidates.is_empty() {
                break;
            }
            self.add_matching(query, candidates, &mut page).await?;
            entries *= GROWTH;
        }
        Ok(page)
    }

    /// Reads entries of the shards of which none are left. The records of a busy caller stand in
    /// one shard, so the others are seldom read twice.
    async fn read_on(
        &self,
        index: Index,
        shards: &mut [ShardEntries],
        limit: usize,
    ) -> Result<(), EngineError> {
        let mut empty: Vec<&mut ShardEntries> =
            shards.iter_mut().filter(|shard| shard.has_more && shard.entries.is_empty()).collect();
        let ranges: Vec<IndexRange> = empty.iter().map(|shard| shard.range.clone()).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        let found = self.read_indexes(index, &ranges, limit).await?;
        for (shard, (entries, full)) in empty.iter_mut().zip(found) {
            if let Some(last) = entries.last() {
                shard.range = shard.range.clone().behind(last, index);
            }
            (shard.entries, shard.has_more) = (entries, full);
        }
        Ok(())
    }

    /// Lists the records of some keys. They stand in the order of their ids: all are read, and the
    /// newest of them kept.
    async fn list_keys(
        &self,
        query: &Query,
        mut ranges: Vec<IndexRange>,
    ) -> Result<Vec<ListedRecord>, EngineError> {
        let mut newest: BTreeMap<Reverse<ListPosition>, Vec<u8>> = BTreeMap::new();
        while !ranges.is_empty() {
            let found = self.read_indexes(Index::Ids, &ranges, MAX_ENTRIES).await?;
            let mut rest = Vec::new();
            let mut ids = Vec::new();
            for (range, (entries, full)) in ranges.into_iter().zip(found) {
                if let Some(last) = entries.last().filter(|_| full) {
                    rest.push(range.behind(last, Index::Ids));
                }
                ids.extend(entries.into_iter().map(|entry| entry.id));
            }
            ranges = rest;
            for some in ids.chunks(MAX_RECORDS) {
                let records = self.read_records(some).await?;
                for (id, bytes) in some.iter().zip(records) {
                    let Some(bytes) = bytes else { continue };
                    // An unreadable record is listed, for the reader to report.
                    let first_seen = Head::decode(id, &bytes).map(|head| head.first_seen);
                    let first_seen = first_seen.unwrap_or(ListPosition::NEWEST.first_seen);
                    if matches(id, &bytes, query) {
                        newest.insert(Reverse(ListPosition { first_seen, id: *id }), bytes);
                    }
                }
                while newest.len() > query.limit {
                    newest.pop_last();
                }
            }
        }
        Ok(newest.into_iter().map(|(Reverse(at), bytes)| (at, bytes)).collect())
    }

    /// Reads the first entries of every range; `true` when the range may have more.
    async fn read_indexes(
        &self,
        index: Index,
        ranges: &[IndexRange],
        limit: usize,
    ) -> Result<Vec<(Vec<IndexEntry>, bool)>, EngineError> {
        let mut commands = Vec::with_capacity(ranges.len() * 2);
        for range in ranges {
            let slot = slot_of(range.shard);
            let (from, to) = (range.from.as_slice(), range.to.as_slice());
            let mut command = Cmd::new();
            command.arg("ZRANGE").arg(self.keys.of_shard(range.shard, index.name()));
            if index.is_reversed() {
                command.arg(to).arg(from).arg("BYLEX").arg("REV");
            } else {
                command.arg(from).arg(to).arg("BYLEX");
            }
            command.arg("LIMIT").arg(0).arg(limit);
            commands.push(SlotCommand::new(slot, command));
            // After the entries: a marker that is still there proves that the entries were the
            // store's.
            let mut command = Cmd::new();
            command.arg("GET").arg(self.keys.of_shard(range.shard, "store"));
            commands.push(SlotCommand::new(slot, command));
        }
        let mut answers = self.query(READ_CONNECTION, 0, &commands).await?.into_iter();
        let mut found = Vec::with_capacity(ranges.len());
        for range in ranges {
            let Some(Value::Array(entries)) = answers.next() else {
                return Err(unreadable("ZRANGE"));
            };
            self.check_marker(&answers.next().unwrap_or_default(), range.shard)?;
            let entries: Option<Vec<_>> =
                entries.into_iter().map(|entry| index.entry(entry)).collect();
            let entries = entries.ok_or_else(|| unreadable("ZRANGE"))?;
            let full = entries.len() >= limit;
            found.push((entries, full));
        }
        Ok(found)
    }

    /// Adds the entries' records to the page where the query matches, up to the limit.
    async fn add_matching(
        &self,
        query: &Query,
        mut candidates: Vec<IndexEntry>,
        page: &mut Vec<ListedRecord>,
    ) -> Result<(), EngineError> {
        if query.abandoned {
            candidates = self.keep_abandoned(candidates).await?;
        }
        // An entry that moved during the reading appears twice.
        let mut seen: HashSet<RecordId> = page.iter().map(|(at, _)| at.id).collect();
        candidates.retain(|entry| seen.insert(entry.id));
        for some in candidates.chunks(MAX_RECORDS) {
            if page.len() == query.limit {
                break;
            }
            let ids: Vec<RecordId> = some.iter().map(|entry| entry.id).collect();
            let records = self.read_records(&ids).await?;
            let found = some.iter().zip(records).filter_map(|(entry, bytes)| Some((entry, bytes?)));
            let matching = found.filter(|(entry, bytes)| {
                is_current(entry, bytes) && matches(&entry.id, bytes, query)
            });
            let left = query.limit - page.len();
            page.extend(matching.map(|(entry, bytes)| (entry.position(), bytes)).take(left));
        }
        Ok(())
    }

    /// Keeps the entries in flight whose owner has no lease. The leases are read after the index,
    /// because an owner takes a lease before the first claim.
    async fn keep_abandoned(
        &self,
        candidates: Vec<IndexEntry>,
    ) -> Result<Vec<IndexEntry>, EngineError> {
        let owner =
            |it: &IndexEntry| -> Option<Nonce> { it.bytes.get(TIME + 16..)?.try_into().ok() };
        let owners: HashSet<Nonce> = candidates.iter().filter_map(owner).collect();
        if owners.is_empty() {
            return Ok(Vec::new());
        }
        let owners: Vec<Nonce> = owners.into_iter().collect();
        let alive = self.alive(&owners).await?;
        let gone = |it: &IndexEntry| owner(it).is_some_and(|owner| !alive.contains(&owner));
        Ok(candidates.into_iter().filter(gone).collect())
    }
}

/// The bounds of a query's part of an index, the same in every shard.
fn bounds(query: &Query, index: Index) -> (Vec<u8>, Vec<u8>) {
    let prefix = match (index, &query.subject, query.expired_at) {
        (Index::Expiry, _, Some(at)) => {
            return (b"-".to_vec(), end_of(&at.as_millis().to_be_bytes()));
        }
        (Index::Subjects, Some(subject), _) => subject.as_slice(),
        _ => &[],
    };
    let since = query.since.map_or(0, Timestamp::as_millis);
    let from = [b"[", prefix, &since.to_be_bytes()].concat();
    let to = query.after.map_or_else(
        || end_of(prefix),
        |after| {
            let time = after.first_seen.as_millis().to_be_bytes();
            [b"(", prefix, &time, after.id.as_bytes()].concat()
        },
    );
    (from, to)
}

/// Bytes sorted after every entry with the prefix; at most 40 bytes follow a prefix.
fn past(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.extend([0xff; 41]);
    bytes
}

/// Upper bound of the entries with the prefix.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    if prefix.is_empty() { b"+".to_vec() } else { past(&[b"[", prefix]) }
}

/// False for an entry of another time than the record's: the record was claimed anew meanwhile, and
/// has another position.
fn is_current(entry: &IndexEntry, bytes: &[u8]) -> bool {
    let has_time = entry.first_seen != ListPosition::NEWEST.first_seen;
    let head = Head::decode(&entry.id, bytes);
    !has_time || head.map_or(true, |head| head.first_seen == entry.first_seen)
}

/// True for a record that the query selects. An unreadable record is listed, for the reader to
/// report.
fn matches(id: &RecordId, bytes: &[u8], query: &Query) -> bool {
    Head::decode(id, bytes).map_or(true, |head| query.selects(id, &head))
}
