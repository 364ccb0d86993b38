//! Listings: an index gives candidates, and a candidate counts when its record still fits.
//!
//! The shard is the first byte of an id, so that shard after shard gives the order of ids. Expiry
//! is ordered over all shards by merging.

use std::collections::{HashSet, VecDeque};

use ::redis::{Cmd, Value};

use super::commit::unreadable;
use super::dispatch::Ask;
use super::keys::{hex, slot_of};
use super::topology::READS;
use super::{Redis, keys};
use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::idempotency::record::Nonce;
use crate::store::Query;
use crate::store::codec;
use crate::store::shared::engine::{EngineError, ListedRecord};

/// Shards asked first; each further question asks four times as many.
const FIRST_SHARDS: usize = 4;
/// Candidates taken from one shard at once.
const AT_ONCE: usize = 512;
/// Records read at once; each may hold an answer of the largest size.
const RECORDS: usize = 32;

/// An entry of an index: its bytes in order, and the id in it.
struct Candidate {
    entry: Vec<u8>,
    id: RecordId,
}

/// A part of an index that is not read yet: after these bytes, or with them, up to those.
#[derive(Clone)]
struct Range {
    shard: u8,
    index: &'static str,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Redis {
    pub(super) async fn page(&self, query: &Query) -> Result<Vec<ListedRecord>, EngineError> {
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        match query.expired_at {
            Some(at) => self.expired(query, at).await,
            None => self.in_id_order(query).await,
        }
    }

    async fn in_id_order(&self, query: &Query) -> Result<Vec<ListedRecord>, EngineError> {
        let (index, prefix) = match query.subject {
            _ if query.abandoned || query.open => ("open", &[][..]),
            Some(ref subject) => ("subjects", subject.as_slice()),
            None => ("ids", &[][..]),
        };
        let first = query.after.map_or(0, |after| after.shard());
        let mut ranges: VecDeque<Range> = (first..=u8::MAX)
            .map(|shard| {
                let after = query.after.filter(|after| after.shard() == shard);
                let from = after.map_or(prefix.to_vec(), |after| past(&[prefix, after.as_bytes()]));
                let from = [if from.is_empty() { b"-".as_slice() } else { b"[" }, &from].concat();
                Range { shard, index, from, to: end_of(prefix) }
            })
            .collect();
        let mut page = Vec::new();
        let mut shards = FIRST_SHARDS;
        while !ranges.is_empty() && page.len() < query.limit {
            let some: Vec<Range> = ranges.drain(..shards.min(ranges.len())).collect();
            let found = self.candidates(&some, query.limit.min(AT_ONCE)).await?;
            let full = found.iter().position(|(_, full)| *full);
            // What comes after a shard that has more waits until that one is through.
            let through = full.map_or(some.len(), |at| at + 1);
            let mut candidates = Vec::new();
            for (at, (of_shard, full)) in found.into_iter().take(through).enumerate() {
                if full && let Some(last) = of_shard.last() {
                    let from = [b"(".as_slice(), &last.entry].concat();
                    for range in some.iter().skip(through).rev() {
                        ranges.push_front(range.clone());
                    }
                    ranges.push_front(Range { from, ..some[at].clone() });
                }
                candidates.extend(of_shard);
            }
            self.take(query, candidates, &mut page).await?;
            shards = shards.saturating_mul(4);
        }
        Ok(page)
    }

    /// Records due at this time, in the order of expiry and then of ids.
    async fn expired(
        &self,
        query: &Query,
        at: Timestamp,
    ) -> Result<Vec<ListedRecord>, EngineError> {
        let to = end_of(&at.as_millis().to_be_bytes());
        let all = (0..=u8::MAX).map(|shard| Range {
            shard,
            index: "expiry",
            from: b"-".to_vec(),
            to: to.clone(),
        });
        let mut ranges: Vec<Range> = all.collect();
        let mut page = Vec::new();
        while !ranges.is_empty() && page.len() < query.limit {
            let found = self.candidates(&ranges, query.limit.min(AT_ONCE)).await?;
            // What is beyond the end of a shard that has more may come after what it has.
            let ends = found.iter().filter(|(_, full)| *full);
            let bound = ends.filter_map(|(of_shard, _)| of_shard.last()).map(|it| &it.entry).min();
            let bound = bound.cloned();
            let mut candidates = Vec::new();
            let mut rest = Vec::new();
            for (range, (of_shard, full)) in ranges.into_iter().zip(found) {
                let before = of_shard.len();
                let sure = |it: &Candidate| bound.as_ref().is_none_or(|bound| it.entry <= *bound);
                let taken: Vec<Candidate> = of_shard.into_iter().filter(sure).collect();
                let more = full || taken.len() < before;
                if more {
                    let from = match taken.last() {
                        Some(last) => [b"(".as_slice(), &last.entry].concat(),
                        None => range.from.clone(),
                    };
                    rest.push(Range { from, ..range });
                }
                candidates.extend(taken);
            }
            ranges = rest;
            candidates.sort_by(|one, other| one.entry.cmp(&other.entry));
            self.take(query, candidates, &mut page).await?;
        }
        Ok(page)
    }

    /// The first entries of each range, and whether there may be more.
    async fn candidates(
        &self,
        ranges: &[Range],
        limit: usize,
    ) -> Result<Vec<(Vec<Candidate>, bool)>, EngineError> {
        let mut asks = Vec::with_capacity(ranges.len() * 2);
        for range in ranges {
            let slot = slot_of(range.shard);
            let mut command = Cmd::new();
            command.arg("ZRANGE").arg(self.keys.of_shard(range.shard, range.index));
            command.arg(range.from.as_slice()).arg(range.to.as_slice());
            command.arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
            asks.push(Ask { slot, command, script: None });
            // After the entries: a marker that is still there was there before.
            let mut command = Cmd::new();
            command.arg("GET").arg(self.keys.of_shard(range.shard, "store"));
            asks.push(Ask { slot, command, script: None });
        }
        let mut answers = self.ask(READS, 0, &asks).await?.into_iter();
        let mut found = Vec::with_capacity(ranges.len());
        for range in ranges {
            let Some(Value::Array(entries)) = answers.next() else {
                return Err(unreadable("ZRANGE"));
            };
            self.check_marker(&answers.next().unwrap_or_default(), range.shard)?;
            let entries: Option<Vec<_>> =
                entries.into_iter().map(|entry| candidate(entry, range.index)).collect();
            let entries = entries.ok_or_else(|| unreadable("ZRANGE"))?;
            let full = entries.len() >= limit;
            found.push((entries, full));
        }
        Ok(found)
    }

    /// Adds the candidates whose records are what is asked for, up to the limit.
    async fn take(
        &self,
        query: &Query,
        mut candidates: Vec<Candidate>,
        page: &mut Vec<ListedRecord>,
    ) -> Result<(), EngineError> {
        if query.abandoned {
            candidates = self.without_owner(candidates).await?;
        }
        // An entry that moved while it was read is met twice.
        let mut seen: HashSet<RecordId> = page.iter().map(|(id, _)| *id).collect();
        let ids: Vec<RecordId> =
            candidates.iter().map(|it| it.id).filter(|id| seen.insert(*id)).collect();
        for some in ids.chunks(RECORDS) {
            if page.len() == query.limit {
                break;
            }
            let records = self.fetch(some, self.replicas).await?;
            let found = some.iter().zip(records).filter_map(|(id, bytes)| Some((*id, bytes?)));
            let fitting = found.filter(|(id, bytes)| fits(id, bytes, query));
            let left = query.limit - page.len();
            page.extend(fitting.take(left));
        }
        Ok(())
    }

    /// Those in flight whose owner has no lease. Asked after the index was read: who has something
    /// in flight there took its lease before.
    async fn without_owner(
        &self,
        candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, EngineError> {
        let owner = |it: &Candidate| -> Option<Nonce> { it.entry.get(16..)?.try_into().ok() };
        let owners: HashSet<Nonce> = candidates.iter().filter_map(owner).collect();
        if owners.is_empty() {
            return Ok(Vec::new());
        }
        let owners: Vec<Nonce> = owners.into_iter().collect();
        let keys = [self.keys.meta(), self.keys.replicas()];
        let mut run = self.scripts.alive.on(keys::meta_slot(), &keys);
        run.arg(&self.store_id);
        for owner in &owners {
            run.arg(hex(owner));
        }
        let answer = self.ask(READS, 0, &[run.0]).await?.pop();
        let Some(Value::Array(alive)) = answer else { return Err(unreadable("a script")) };
        if alive.len() != owners.len() {
            return Err(unreadable("a script"));
        }
        let dead = owners.into_iter().zip(alive).filter(|(_, alive)| *alive == Value::Int(0));
        let dead: HashSet<Nonce> = dead.map(|(owner, _)| owner).collect();
        let gone = |it: &Candidate| owner(it).is_some_and(|owner| dead.contains(&owner));
        Ok(candidates.into_iter().filter(gone).collect())
    }
}

/// Reads an entry of an index.
fn candidate(entry: Value, index: &str) -> Option<Candidate> {
    let Value::BulkString(entry) = entry else { return None };
    let id = match index {
        "open" => entry.first_chunk(),
        _ => entry.last_chunk(),
    };
    let id = RecordId::from_bytes(*id?);
    Some(Candidate { entry, id })
}

/// The first bytes that come after everything that begins with these.
fn past(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.extend([0xff; 33]);
    bytes
}

/// The end of everything that begins with these bytes.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    if prefix.is_empty() { b"+".to_vec() } else { past(&[b"[", prefix]) }
}

/// Whether a record still is what its index entry said. One that cannot be read is given as it is,
/// so that it is noticed.
fn fits(id: &RecordId, bytes: &[u8], query: &Query) -> bool {
    let Ok(head) = codec::peek(id, bytes) else { return true };
    (!query.open || head.open)
        && (!query.abandoned || head.in_flight)
        && (query.subject.is_none() || query.subject == head.subject)
        && query.expired_at.is_none_or(|at| head.expires.is_some_and(|expires| expires <= at))
}
