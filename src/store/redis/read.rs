//! Reading single records.

use std::collections::BTreeMap;

use ::redis::{Cmd, Value};

use super::command::SlotCommand;
use super::engine::Redis;
use super::keys::slot_of;
use super::node::READ_CONNECTION;
use super::reply::unreadable;
use crate::idempotency::RecordId;
use crate::store::shared::engine::EngineError;

/// Keys per command, to keep the server responsive.
const MAX_KEYS: usize = 256;

impl Redis {
    /// The bytes of the records. A shard without the store's marker fails the read.
    pub(super) async fn read_records(
        &self,
        ids: &[RecordId],
    ) -> Result<Vec<Option<Vec<u8>>>, EngineError> {
        let mut shards: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for (at, id) in ids.iter().enumerate() {
            shards.entry(id.shard()).or_default().push(at);
        }
        let mut parts: Vec<(u8, &[usize])> = Vec::new();
        for (shard, members) in &shards {
            parts.extend(members.chunks(MAX_KEYS).map(|part| (*shard, part)));
        }
        let commands: Vec<SlotCommand> =
            parts.iter().map(|(shard, part)| self.read_command(*shard, part, ids)).collect();
        let answers = self.query(READ_CONNECTION, self.replicas, &commands).await?;
        let mut records = vec![None; ids.len()];
        for ((shard, part), answer) in parts.into_iter().zip(answers) {
            let Value::Array(values) = answer else { return Err(unreadable("MGET")) };
            let mut values = values.into_iter();
            self.check_marker(&values.next().unwrap_or_default(), shard)?;
            if values.len() != part.len() {
                return Err(unreadable("MGET"));
            }
            for (at, value) in part.iter().zip(values) {
                records[*at] = match value {
                    Value::BulkString(bytes) => Some(bytes),
                    Value::Nil => None,
                    _ => return Err(unreadable("MGET")),
                };
            }
        }
        Ok(records)
    }

    /// Reads records of a shard and the shard's marker in a single command.
    fn read_command(&self, shard: u8, members: &[usize], ids: &[RecordId]) -> SlotCommand {
        let records = members.iter().map(|at| self.keys.record(&ids[*at]));
        let keys: Vec<_> =
            std::iter::once(self.keys.of_shard(shard, "store")).chain(records).collect();
        if self.replicas > 0 {
            // `WAIT` needs a write before it; see read.lua.
            let mut call = self.scripts.read.call(slot_of(shard), &keys);
            call.arg(&self.store_id);
            return call.into_command();
        }
        let mut command = Cmd::new();
        command.arg("MGET").arg(keys);
        SlotCommand::new(slot_of(shard), command)
    }
}
