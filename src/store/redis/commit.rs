//! Commits and single records.

use std::collections::BTreeMap;

use ::redis::{Cmd, Value};

use super::dispatch::{self, Ask, Outcome};
use super::keys::slot_of;
use super::topology::READS;
use super::{Redis, error};
use crate::idempotency::RecordId;
use crate::store::shared::engine::{CasResult, EngineError, Group};

/// Keys in one question, so that a server is not held up for long.
const KEYS_AT_ONCE: usize = 256;
/// Rows in one script, for the same reason; a group that has more is a script of its own.
const ROWS_AT_ONCE: usize = 128;

impl Redis {
    pub(super) async fn swap(
        &self,
        lane: usize,
        groups: &[Group],
    ) -> Result<Vec<CasResult>, EngineError> {
        let bundles = bundles(groups)?;
        let asks: Vec<Ask> = bundles.iter().map(|it| self.script_of(it, groups)).collect();
        let terms = self.terms(lane, self.replicas, false);
        let outcomes = dispatch::send(&self.nodes, &asks, terms).await;
        let mut compared: Vec<Option<CasResult>> = groups.iter().map(|_| None).collect();
        let mut refused = None;
        let mut unsure = None;
        for (outcome, bundle) in outcomes.into_iter().zip(&bundles) {
            match ended(outcome, bundle, groups) {
                Ok(ends) => {
                    for (at, end) in bundle.members.iter().zip(ends) {
                        compared[*at] = Some(end);
                    }
                }
                Err(EngineError::Rejected(reason)) => refused = refused.or(Some(reason)),
                Err(EngineError::Indeterminate(reason)) => unsure = unsure.or(Some(reason)),
            }
        }
        let done = compared.contains(&Some(CasResult::Done));
        match (unsure, refused) {
            (Some(reason), _) => Err(EngineError::Indeterminate(reason)),
            // A part was made, so that it cannot be said that nothing was.
            (None, Some(reason)) if done => Err(EngineError::Indeterminate(reason)),
            (None, Some(reason)) => Err(EngineError::Rejected(reason)),
            (None, None) => Ok(compared.into_iter().flatten().collect()),
        }
    }

    fn script_of(&self, bundle: &Bundle, groups: &[Group]) -> Ask {
        let shard = bundle.shard;
        let names = ["ids", "open", "expiry", "subjects", "store"];
        let mut keys: Vec<String> = Vec::with_capacity(names.len() + bundle.rows);
        keys.extend(names.iter().map(|name| self.keys.of_shard(shard, name)));
        let members = || bundle.members.iter().map(|at| &groups[*at]);
        keys.extend(members().flat_map(|it| &it.changes).map(|row| self.keys.record(&row.id)));
        let mut run = self.scripts.swap.on(slot_of(shard), &keys);
        run.arg(&self.store_id).arg(u8::from(self.replicas > 0));
        for group in members() {
            let rows = i64::try_from(group.changes.len()).unwrap_or(i64::MAX);
            run.arg(if group.resent { -rows } else { rows });
            for row in &group.changes {
                let version = row.expect.map(u64::to_le_bytes);
                run.arg(row.id.as_bytes().as_slice());
                run.arg(version.as_ref().map_or(&[][..], |version| version.as_slice()));
                run.arg(row.put.as_ref().map_or(&[][..], |put| put.bytes.as_slice()));
            }
        }
        run.0
    }

    /// The bytes of these records, which a server without this store's markers does not give.
    pub(super) async fn fetch(
        &self,
        ids: &[RecordId],
        replicas: u32,
    ) -> Result<Vec<Option<Vec<u8>>>, EngineError> {
        let mut shards: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for (at, id) in ids.iter().enumerate() {
            shards.entry(id.shard()).or_default().push(at);
        }
        let mut parts: Vec<(u8, &[usize])> = Vec::new();
        for (shard, members) in &shards {
            parts.extend(members.chunks(KEYS_AT_ONCE).map(|part| (*shard, part)));
        }
        let asks: Vec<Ask> =
            parts.iter().map(|(shard, part)| self.question(*shard, part, ids, replicas)).collect();
        let answers = self.ask(READS, replicas, &asks).await?;
        let mut found = vec![None; ids.len()];
        for ((shard, part), answer) in parts.into_iter().zip(answers) {
            let Value::Array(values) = answer else { return Err(unreadable("MGET")) };
            let mut values = values.into_iter();
            self.check_marker(&values.next().unwrap_or_default(), shard)?;
            if values.len() != part.len() {
                return Err(unreadable("MGET"));
            }
            for (at, value) in part.iter().zip(values) {
                found[*at] = match value {
                    Value::BulkString(bytes) => Some(bytes),
                    Value::Nil => None,
                    _ => return Err(unreadable("MGET")),
                };
            }
        }
        Ok(found)
    }

    /// Asks for the marker of a shard and for records of it.
    fn question(&self, shard: u8, members: &[usize], ids: &[RecordId], replicas: u32) -> Ask {
        let records = members.iter().map(|at| self.keys.record(&ids[*at]));
        let keys: Vec<_> =
            std::iter::once(self.keys.of_shard(shard, "store")).chain(records).collect();
        if replicas > 0 {
            let mut run = self.scripts.read.on(slot_of(shard), &keys);
            run.arg(&self.store_id);
            return run.0;
        }
        let mut command = Cmd::new();
        command.arg("MGET").arg(keys);
        Ask { slot: slot_of(shard), command, script: None }
    }
}

pub(super) fn unreadable(command: &str) -> EngineError {
    EngineError::Rejected(format!("the Redis server's answer to {command} cannot be read"))
}

/// Groups of one shard, which one script compares and makes.
struct Bundle {
    shard: u8,
    /// Where the groups are.
    members: Vec<usize>,
    rows: usize,
}

/// Puts the groups of a shard together, in their order.
fn bundles(groups: &[Group]) -> Result<Vec<Bundle>, EngineError> {
    let mut bundles: Vec<Bundle> = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let shard = group.changes.first().map_or(0, |row| row.id.shard());
        if group.changes.iter().any(|row| row.id.shard() != shard) {
            let reason = "records of several shards cannot be changed together on Redis";
            return Err(EngineError::Rejected(reason.to_owned()));
        }
        let rows = group.changes.len();
        let fits = |it: &&mut Bundle| it.shard == shard && it.rows + rows <= ROWS_AT_ONCE;
        match bundles.iter_mut().find(fits) {
            Some(bundle) => {
                bundle.members.push(at);
                bundle.rows += rows;
            }
            None => bundles.push(Bundle { shard, members: vec![at], rows }),
        }
    }
    Ok(bundles)
}

/// What an outcome says of each group of its bundle.
fn ended(
    outcome: Outcome,
    bundle: &Bundle,
    groups: &[Group],
) -> Result<Vec<CasResult>, EngineError> {
    let strange =
        |target| EngineError::Indeterminate(error::unreachable(target, "its answer is strange"));
    match outcome {
        Outcome::Said(Value::Int(0), _) => {
            Ok(bundle.members.iter().map(|_| CasResult::Done).collect())
        }
        Outcome::Said(Value::Array(ends), target) if ends.len() == bundle.members.len() => {
            let members = bundle.members.iter().map(|at| &groups[*at]);
            let ends = ends.into_iter().zip(members).map(|(end, group)| end_of(end, group));
            ends.collect::<Option<_>>().ok_or_else(|| strange(&target))
        }
        Outcome::Said(Value::ServerError(error), target) => {
            let reason = error::no(&target, &error);
            if error::proves_untouched(&error) {
                Err(EngineError::Rejected(reason))
            } else {
                Err(EngineError::Indeterminate(reason))
            }
        }
        Outcome::Said(_, target) => Err(strange(&target)),
        Outcome::NotSent(reason) => Err(EngineError::Rejected(reason)),
        Outcome::Unsure(reason) => Err(EngineError::Indeterminate(reason)),
    }
}

/// The script's word on one group; `None`: it says nothing that makes sense.
fn end_of(end: Value, group: &Group) -> Option<CasResult> {
    let lost = match end {
        Value::Int(0) => return Some(CasResult::Done),
        Value::Array(lost) => lost,
        _ => return None,
    };
    let mut lost = lost.into_iter();
    let index = match lost.next() {
        Some(Value::Int(index)) => usize::try_from(index).ok(),
        _ => None,
    };
    let winner = match lost.next() {
        Some(Value::BulkString(bytes)) => Some(Some(bytes)),
        Some(Value::Nil) => Some(None),
        _ => None,
    };
    let (index, winner) = index.filter(|index| *index < group.changes.len()).zip(winner)?;
    Some(CasResult::Lost { index, winner })
}
