//! Commits and single records.

use std::collections::BTreeMap;

use ::redis::{Cmd, Value};

use super::keys::slot_of;
use super::nodes::READS;
use super::send::{self, Ask, Outcome};
use super::{Redis, said};
use crate::idempotency::RecordId;
use crate::store::shared::engine::{Compared, Group, Trouble};

/// Keys in one question, so that a server is not held up for long.
const KEYS_AT_ONCE: usize = 256;

impl Redis {
    pub(super) async fn swap(
        &self,
        lane: usize,
        groups: &[Group],
    ) -> Result<Vec<Compared>, Trouble> {
        let asks: Result<Vec<Ask>, Trouble> = groups.iter().map(|it| self.script_of(it)).collect();
        let terms = self.terms(lane, self.replicas, false);
        let outcomes = send::send(&self.nodes, &asks?, terms).await;
        let mut compared = Vec::with_capacity(groups.len());
        let mut refused = None;
        let mut unsure = None;
        for (outcome, group) in outcomes.into_iter().zip(groups) {
            match ended(outcome, group) {
                Ok(end) => compared.push(end),
                Err(Trouble::Refused(reason)) => refused = refused.or(Some(reason)),
                Err(Trouble::Unsure(reason)) => unsure = unsure.or(Some(reason)),
            }
        }
        let done = compared.contains(&Compared::Done);
        match (unsure, refused) {
            (Some(reason), _) => Err(Trouble::Unsure(reason)),
            // A part was made, so that it cannot be said that nothing was.
            (None, Some(reason)) if done => Err(Trouble::Unsure(reason)),
            (None, Some(reason)) => Err(Trouble::Refused(reason)),
            (None, None) => Ok(compared),
        }
    }

    fn script_of(&self, group: &Group) -> Result<Ask, Trouble> {
        let shard = group.rows.first().map_or(0, |row| row.id.shard());
        if group.rows.iter().any(|row| row.id.shard() != shard) {
            let reason = "records of several shards cannot be changed together on Redis";
            return Err(Trouble::Refused(reason.to_owned()));
        }
        let names = ["store", "ids", "open", "expiry", "subjects"];
        let mut keys: Vec<String> =
            names.iter().map(|name| self.keys.of_shard(shard, name)).collect();
        keys.extend(group.rows.iter().map(|row| self.keys.record(&row.id)));
        let mut run = self.scripts.swap.on(slot_of(shard), &keys);
        run.arg(&self.store_id).arg(if group.again { "1" } else { "0" });
        for row in &group.rows {
            let version = row.expect.map(u64::to_le_bytes);
            run.arg(row.id.as_bytes().as_slice());
            run.arg(version.as_ref().map_or(&[][..], |version| version.as_slice()));
            run.arg(row.put.as_ref().map_or(&[][..], |put| put.bytes.as_slice()));
        }
        Ok(run.0)
    }

    /// The bytes of these records, which a server without this store's markers does not give.
    pub(super) async fn fetch(
        &self,
        ids: &[RecordId],
        replicas: u32,
    ) -> Result<Vec<Option<Vec<u8>>>, Trouble> {
        let mut shards: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for (at, id) in ids.iter().enumerate() {
            shards.entry(id.shard()).or_default().push(at);
        }
        let mut parts: Vec<(u8, &[usize])> = Vec::new();
        for (shard, members) in &shards {
            parts.extend(members.chunks(KEYS_AT_ONCE).map(|part| (*shard, part)));
        }
        let asks: Vec<Ask> =
            parts.iter().map(|(shard, part)| self.mget(*shard, part, ids)).collect();
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

    fn mget(&self, shard: u8, members: &[usize], ids: &[RecordId]) -> Ask {
        let mut command = Cmd::new();
        command.arg("MGET").arg(self.keys.of_shard(shard, "store"));
        for at in members {
            command.arg(self.keys.record(&ids[*at]));
        }
        Ask { slot: slot_of(shard), command, script: None }
    }
}

pub(super) fn unreadable(command: &str) -> Trouble {
    Trouble::Refused(format!("the Redis server's answer to {command} cannot be read"))
}

/// What an outcome says of its group.
fn ended(outcome: Outcome, group: &Group) -> Result<Compared, Trouble> {
    match outcome {
        Outcome::Said(Value::Int(0), _) => Ok(Compared::Done),
        Outcome::Said(Value::Array(lost), target) => {
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
            match index.filter(|index| *index < group.rows.len()).zip(winner) {
                Some((index, winner)) => Ok(Compared::Lost { index, winner }),
                None => Err(Trouble::Unsure(said::unreachable(&target, "its answer is strange"))),
            }
        }
        Outcome::Said(Value::ServerError(error), target) => {
            let reason = said::no(&target, &error);
            if said::proves_untouched(&error) {
                Err(Trouble::Refused(reason))
            } else {
                Err(Trouble::Unsure(reason))
            }
        }
        Outcome::Said(_, target) => {
            Err(Trouble::Unsure(said::unreachable(&target, "its answer is strange")))
        }
        Outcome::NotSent(reason) => Err(Trouble::Refused(reason)),
        Outcome::Unsure(reason) => Err(Trouble::Unsure(reason)),
    }
}
