//! Commits of groups of changes; a group is atomic.

use ::redis::Value;

use super::command::SlotCommand;
use super::dispatch::{self, CommandOutcome};
use super::engine::Redis;
use super::error;
use super::keys::slot_of;
use crate::store::shared::engine::{CasResult, EngineError, Group};

/// Changes per script, to keep the server responsive; a larger group is a script by itself.
const MAX_CHANGES: usize = 128;

impl Redis {
    pub(super) async fn commit_groups(
        &self,
        connection: usize,
        groups: &[Group],
    ) -> Result<Vec<CasResult>, EngineError> {
        let batches = script_batches(groups)?;
        let commands: Vec<SlotCommand> =
            batches.iter().map(|batch| self.commit_command(batch, groups)).collect();
        let policy = self.dispatch_policy(connection, self.replicas, false);
        let outcomes = dispatch::send(&self.topology, &commands, policy).await;
        let mut results: Vec<Option<CasResult>> = groups.iter().map(|_| None).collect();
        let mut rejected = None;
        let mut indeterminate = None;
        for (outcome, batch) in outcomes.into_iter().zip(&batches) {
            match batch_results(outcome, batch, groups) {
                Ok(of_batch) => {
                    for (at, result) in batch.members.iter().zip(of_batch) {
                        results[*at] = Some(result);
                    }
                }
                Err(EngineError::Rejected(reason)) => rejected = rejected.or(Some(reason)),
                Err(EngineError::Indeterminate(reason)) => {
                    indeterminate = indeterminate.or(Some(reason));
                }
            }
        }
        let any_done = results.contains(&Some(CasResult::Done));
        match (indeterminate, rejected) {
            (Some(reason), _) => Err(EngineError::Indeterminate(reason)),
            // `Rejected` would say that nothing was changed, but another batch has changed records.
            (None, Some(reason)) if any_done => Err(EngineError::Indeterminate(reason)),
            (None, Some(reason)) => Err(EngineError::Rejected(reason)),
            (None, None) => Ok(results.into_iter().flatten().collect()),
        }
    }

    /// The call of `commit.lua` for a batch; the script documents the arguments.
    fn commit_command(&self, batch: &ScriptBatch, groups: &[Group]) -> SlotCommand {
        let shard = batch.shard;
        let names = ["ids", "open", "expiry", "subjects", "times", "store"];
        let mut keys: Vec<String> = Vec::with_capacity(names.len() + batch.changes);
        keys.extend(names.iter().map(|name| self.keys.of_shard(shard, name)));
        let members = || batch.members.iter().map(|at| &groups[*at]);
        let changes = members().flat_map(|group| &group.changes);
        keys.extend(changes.map(|change| self.keys.record(&change.id)));
        let mut call = self.scripts.commit.call(slot_of(shard), &keys);
        call.arg(&self.store_id).arg(u8::from(self.replicas > 0));
        for group in members() {
            let count = i64::try_from(group.changes.len()).unwrap_or(i64::MAX);
            call.arg(if group.resent { -count } else { count });
            for change in &group.changes {
                let version = change.expect.map(u64::to_le_bytes);
                call.arg(change.id.as_bytes().as_slice());
                call.arg(version.as_ref().map_or(&[][..], |version| version.as_slice()));
                call.arg(change.put.as_ref().map_or(&[][..], |put| put.bytes.as_slice()));
            }
        }
        call.into_command()
    }
}

/// Groups of the same shard for a single script.
struct ScriptBatch {
    shard: u8,
    /// Indexes of the groups.
    members: Vec<usize>,
    /// Number of changes in the groups.
    changes: usize,
}

/// Combines the groups of a shard into batches, in order.
fn script_batches(groups: &[Group]) -> Result<Vec<ScriptBatch>, EngineError> {
    let mut batches: Vec<ScriptBatch> = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let shard = group.changes.first().map_or(0, |change| change.id.shard());
        if group.changes.iter().any(|change| change.id.shard() != shard) {
            let reason = "records of several shards cannot be changed together on Redis";
            return Err(EngineError::Rejected(reason.to_owned()));
        }
        let changes = group.changes.len();
        let fits = |batch: &&mut ScriptBatch| {
            batch.shard == shard && batch.changes + changes <= MAX_CHANGES
        };
        match batches.iter_mut().find(fits) {
            Some(batch) => {
                batch.members.push(at);
                batch.changes += changes;
            }
            None => batches.push(ScriptBatch { shard, members: vec![at], changes }),
        }
    }
    Ok(batches)
}

/// The results of a batch's groups, in order.
fn batch_results(
    outcome: CommandOutcome,
    batch: &ScriptBatch,
    groups: &[Group],
) -> Result<Vec<CasResult>, EngineError> {
    let unreadable = |address| {
        EngineError::Indeterminate(error::unreachable(address, "its answer cannot be read"))
    };
    match outcome {
        CommandOutcome::Answered(Value::Int(0), _) => {
            Ok(batch.members.iter().map(|_| CasResult::Done).collect())
        }
        CommandOutcome::Answered(Value::Array(results), address)
            if results.len() == batch.members.len() =>
        {
            let members = batch.members.iter().map(|at| &groups[*at]);
            let results = results.into_iter().zip(members);
            let results = results.map(|(result, group)| group_result(result, group));
            results.collect::<Option<_>>().ok_or_else(|| unreadable(&address))
        }
        CommandOutcome::Answered(Value::ServerError(error), address) => {
            let reason = error::server_error(&address, &error);
            if error::proves_no_change(&error) {
                Err(EngineError::Rejected(reason))
            } else {
                Err(EngineError::Indeterminate(reason))
            }
        }
        CommandOutcome::Answered(_, address) => Err(unreadable(&address)),
        CommandOutcome::NotSent(reason) => Err(EngineError::Rejected(reason)),
        CommandOutcome::Indeterminate(reason) => Err(EngineError::Indeterminate(reason)),
    }
}

/// Reads the script's result for a group; `None` for an unreadable result.
fn group_result(result: Value, group: &Group) -> Option<CasResult> {
    let lost = match result {
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
