//! Listings: an index gives entries, and an entry counts when the record still matches the query.
//!
//! The shard is the first byte of an id, so reading shard after shard gives the order of ids.
//! Expiry is merged over the shards.

use std::collections::{HashSet, VecDeque};

use ::redis::{Cmd, Value};

use super::command::SlotCommand;
use super::engine::Redis;
use super::keys::slot_of;
use super::node::READ_CONNECTION;
use super::reply::unreadable;
use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::idempotency::record::Nonce;
use crate::store::Query;
use crate::store::codec::Head;
use crate::store::shared::engine::{EngineError, ListedRecord};

/// Shards in the first query; every further query reads four times as many.
const FIRST_SHARDS: usize = 4;
/// Entries read from a shard at once.
const MAX_ENTRIES: usize = 512;
/// Records read at once; a record may hold an answer of the largest size.
const MAX_RECORDS: usize = 32;

/// An entry of an index.
struct IndexEntry {
    /// Sort key within the index.
    bytes: Vec<u8>,
    /// Record id within the bytes.
    id: RecordId,
}

/// An unread part of an index.
#[derive(Clone)]
struct IndexRange {
    shard: u8,
    index: &'static str,
    /// Lower bound in the form of `ZRANGE … BYLEX`: `-`, or `[` or `(` and bytes.
    from: Vec<u8>,
    /// Upper bound in the same form.
    to: Vec<u8>,
}

impl Redis {
    pub(super) async fn list_records(
        &self,
        query: &Query,
    ) -> Result<Vec<ListedRecord>, EngineError> {
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        match query.expired_at {
            Some(at) => self.list_expired(query, at).await,
            None => self.list_by_id(query).await,
        }
    }

    async fn list_by_id(&self, query: &Query) -> Result<Vec<ListedRecord>, EngineError> {
        let (index, prefix) = match query.subject {
            _ if query.abandoned || query.open => ("open", &[][..]),
            Some(ref subject) => ("subjects", subject.as_slice()),
            None => ("ids", &[][..]),
        };
        let first = query.after.map_or(0, |after| after.shard());
        let mut ranges: VecDeque<IndexRange> = (first..=u8::MAX)
            .map(|shard| {
                let after = query.after.filter(|after| after.shard() == shard);
                let from = after.map_or(prefix.to_vec(), |after| past(&[prefix, after.as_bytes()]));
                let from = [if from.is_empty() { b"-".as_slice() } else { b"[" }, &from].concat();
                IndexRange { shard, index, from, to: end_of(prefix) }
            })
            .collect();
        let mut page = Vec::new();
        let mut shards = FIRST_SHARDS;
        while !ranges.is_empty() && page.len() < query.limit {
            let some: Vec<IndexRange> = ranges.drain(..shards.min(ranges.len())).collect();
            let found = self.read_indexes(&some, query.limit.min(MAX_ENTRIES)).await?;
            let full = found.iter().position(|(_, full)| *full);
            // Ranges after the first shard with more entries wait until that shard is read to its
            // end.
            let through = full.map_or(some.len(), |at| at + 1);
            let mut candidates = Vec::new();
            for (at, (of_shard, full)) in found.into_iter().take(through).enumerate() {
                if full && let Some(last) = of_shard.last() {
                    let from = [b"(".as_slice(), &last.bytes].concat();
                    for range in some.iter().skip(through).rev() {
                        ranges.push_front(range.clone());
                    }
                    ranges.push_front(IndexRange { from, ..some[at].clone() });
                }
                candidates.extend(of_shard);
            }
            self.add_matching(query, candidates, &mut page).await?;
            shards = shards.saturating_mul(4);
        }
        Ok(page)
    }

    /// Lists records due at `at`, in the order of expiry and then of ids.
    async fn list_expired(
        &self,
        query: &Query,
        at: Timestamp,
    ) -> Result<Vec<ListedRecord>, EngineError> {
        let to = end_of(&at.as_millis().to_be_bytes());
        let all = (0..=u8::MAX).map(|shard| IndexRange {
            shard,
            index: "expiry",
            from: b"-".to_vec(),
            to: to.clone(),
        });
        let mut ranges: Vec<IndexRange> = all.collect();
        let mut page = Vec::new();
        while !ranges.is_empty() && page.len() < query.limit {
            let found = self.read_indexes(&ranges, query.limit.min(MAX_ENTRIES)).await?;
            // A shard with more entries may continue before the last entries of other shards, so
            // only entries up to the smallest such end are in their final order.
            let ends = found.iter().filter(|(_, full)| *full);
            let bound = ends.filter_map(|(of_shard, _)| of_shard.last()).map(|it| &it.bytes).min();
            let bound = bound.cloned();
            let mut candidates = Vec::new();
            let mut rest = Vec::new();
            for (range, (of_shard, full)) in ranges.into_iter().zip(found) {
                let before = of_shard.len();
                let sure = |it: &IndexEntry| bound.as_ref().is_none_or(|bound| it.bytes <= *bound);
                let taken: Vec<IndexEntry> = of_shard.into_iter().filter(sure).collect();
                let more = full || taken.len() < before;
                if more {
                    let from = match taken.last() {
                        Some(last) => [b"(".as_slice(), &last.bytes].concat(),
                        None => range.from.clone(),
                    };
                    rest.push(IndexRange { from, ..range });
                }
                candidates.extend(taken);
            }
            ranges = rest;
            candidates.sort_by(|one, other| one.bytes.cmp(&other.bytes));
            self.add_matching(query, candidates, &mut page).await?;
        }
        Ok(page)
    }

    /// Reads the first entries of every range; `true` when the range may have more.
    async fn read_indexes(
        &self,
        ranges: &[IndexRange],
        limit: usize,
    ) -> Result<Vec<(Vec<IndexEntry>, bool)>, EngineError> {
        let mut commands = Vec::with_capacity(ranges.len() * 2);
        for range in ranges {
            let slot = slot_of(range.shard);
            let mut command = Cmd::new();
            command.arg("ZRANGE").arg(self.keys.of_shard(range.shard, range.index));
            command.arg(range.from.as_slice()).arg(range.to.as_slice());
            command.arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
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
                entries.into_iter().map(|entry| index_entry(entry, range.index)).collect();
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
        let mut seen: HashSet<RecordId> = page.iter().map(|(id, _)| *id).collect();
        let ids: Vec<RecordId> =
            candidates.iter().map(|it| it.id).filter(|id| seen.insert(*id)).collect();
        for some in ids.chunks(MAX_RECORDS) {
            if page.len() == query.limit {
                break;
            }
            let records = self.read_records(some).await?;
            let found = some.iter().zip(records).filter_map(|(id, bytes)| Some((*id, bytes?)));
            let matching = found.filter(|(id, bytes)| matches(id, bytes, query));
            let left = query.limit - page.len();
            page.extend(matching.take(left));
        }
        Ok(())
    }

    /// Keeps the entries in flight whose owner has no lease. The leases are read after the index,
    /// because an owner takes a lease before the first claim.
    async fn keep_abandoned(
        &self,
        candidates: Vec<IndexEntry>,
    ) -> Result<Vec<IndexEntry>, EngineError> {
        let owner = |it: &IndexEntry| -> Option<Nonce> { it.bytes.get(16..)?.try_into().ok() };
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

/// Reads an entry of an index.
fn index_entry(entry: Value, index: &str) -> Option<IndexEntry> {
    let Value::BulkString(entry) = entry else { return None };
    let id = match index {
        "open" => entry.first_chunk(),
        _ => entry.last_chunk(),
    };
    let id = RecordId::from_bytes(*id?);
    Some(IndexEntry { bytes: entry, id })
}

/// Bytes sorted after every entry with the prefix; at most 32 bytes follow a prefix.
fn past(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.extend([0xff; 33]);
    bytes
}

/// Upper bound of the entries with the prefix.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    if prefix.is_empty() { b"+".to_vec() } else { past(&[b"[", prefix]) }
}

/// True for a record still in the state of the index entry. An unreadable record is listed, for the
/// reader to report.
fn matches(id: &RecordId, bytes: &[u8], query: &Query) -> bool {
    let Ok(head) = Head::decode(id, bytes) else { return true };
    (!query.open || head.open)
        && (!query.abandoned || head.in_flight)
        && (query.subject.is_none() || query.subject == head.subject)
        && query.expired_at.is_none_or(|at| head.expires.is_some_and(|expires| expires <= at))
}
