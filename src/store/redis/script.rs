//! The Lua scripts of the store.

use ::redis::{Cmd, ToRedisArgs};

use super::command::SlotCommand;

/// Creates the metadata of a store.
pub(super) const CREATE_STORE: &str = include_str!("scripts/create_store.lua");
/// Creates the marker of a shard.
pub(super) const CREATE_MARKER: &str = include_str!("scripts/create_marker.lua");
/// Marks a store as complete.
pub(super) const COMPLETE_STORE: &str = include_str!("scripts/complete_store.lua");
/// Replaces the names of the keys.
pub(super) const SWAP_NAMES: &str = include_str!("scripts/swap_names.lua");
/// Tries the write commands of the scripts.
pub(super) const CHECK_RIGHTS: &str = include_str!("scripts/check_rights.lua");

/// A script and the SHA-1 digest for `EVALSHA`.
pub(super) struct Script {
    pub(super) text: &'static str,
    /// Empty until `SCRIPT LOAD` has returned the digest.
    pub(super) sha: String,
}

/// The scripts for daily use, called by digest.
pub(super) struct Scripts {
    pub(super) commit: Script,
    pub(super) read: Script,
    pub(super) heartbeat: Script,
    pub(super) live_owners: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |text| Script { text, sha: String::new() };
        Self {
            commit: script(include_str!("scripts/commit.lua")),
            read: script(include_str!("scripts/read.lua")),
            heartbeat: script(include_str!("scripts/heartbeat.lua")),
            live_owners: script(include_str!("scripts/live_owners.lua")),
        }
    }

    pub(super) fn all_mut(&mut self) -> [&mut Script; 4] {
        let Self { commit, read, heartbeat, live_owners } = self;
        [commit, read, heartbeat, live_owners]
    }
}

impl Script {
    /// A call with keys in `slot`.
    pub(super) fn call(&self, slot: u16, keys: &[String]) -> ScriptCall {
        let mut command = Cmd::new();
        command.arg("EVALSHA").arg(&self.sha).arg(keys.len()).arg(keys);
        ScriptCall(SlotCommand { script: Some(self.text), ..SlotCommand::new(slot, command) })
    }
}

/// A script call under construction.
pub(super) struct ScriptCall(SlotCommand);

impl ScriptCall {
    pub(super) fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.0.command.arg(arg);
        self
    }

    pub(super) fn into_command(self) -> SlotCommand {
        self.0
    }
}
