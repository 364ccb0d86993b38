//! The names under which keys are kept: a key beside the identity of the store.

use ::redis::{Cmd, Value};

use super::command::SlotCommand;
use super::engine::Redis;
use super::keys::meta_slot;
use super::node::CONTROL_CONNECTION;
use super::reply::{text, unreadable};
use super::script;
use crate::store::NamesDocument;
use crate::store::shared::engine::EngineError;

impl Redis {
    pub(super) async fn read_names(&self) -> Result<Option<NamesDocument>, EngineError> {
        let mut identity = Cmd::new();
        identity.arg("HGET").arg(self.keys.meta()).arg("store_id");
        let mut names = Cmd::new();
        names.arg("GET").arg(self.keys.names());
        // In this order: names that are absent prove nothing unless the store was there before.
        let commands = [identity, names].map(|command| SlotCommand::new(meta_slot(), command));
        let replies = self.query(CONTROL_CONNECTION, 0, &commands).await?;
        let [identity, names] = &replies[..] else { return Err(unreadable("GET")) };
        if text(identity).as_deref() != Some(&*self.store_id) {
            return Err(EngineError::Rejected(format!(
                "the record of the store {} is gone from Redis, or belongs to another store",
                self.store_id
            )));
        }
        match names {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => document(bytes).map(Some),
            _ => Err(unreadable("GET")),
        }
    }

    pub(super) async fn replace_names(
        &self,
        expect: Option<u64>,
        bytes: &[u8],
    ) -> Result<bool, EngineError> {
        let keys = [self.keys.meta(), self.keys.names()];
        let mut command = Cmd::new();
        command.arg("EVAL").arg(script::SWAP_NAMES).arg(keys.len()).arg(&keys[..]);
        command.arg(&self.store_id).arg(expect.unwrap_or(0)).arg(bytes);
        let command = SlotCommand::new(meta_slot(), command);
        match self.query(CONTROL_CONNECTION, self.replicas, &[command]).await?.pop() {
            Some(Value::Int(replaced)) => Ok(replaced == 1),
            _ => Err(unreadable("a script")),
        }
    }
}

/// Reads `<version> <document>`.
fn document(stored: &[u8]) -> Result<NamesDocument, EngineError> {
    let space = stored.iter().position(|byte| *byte == b' ');
    let version = space.and_then(|space| std::str::from_utf8(&stored[..space]).ok());
    match (space, version.and_then(|version| version.parse().ok())) {
        (Some(space), Some(version)) => {
            Ok(NamesDocument { version, bytes: stored[space + 1..].to_vec() })
        }
        _ => Err(EngineError::Rejected(
            "the names of the keys on Redis cannot be read; restore the key `names` from a backup"
                .to_owned(),
        )),
    }
}
