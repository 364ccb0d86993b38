//! Commands addressed to a hash slot.

use ::redis::Cmd;

/// A command and the slot of the command's keys.
#[derive(Debug, Clone)]
pub(super) struct SlotCommand {
    pub(super) slot: u16,
    pub(super) command: Cmd,
    /// Text of the script named by `EVALSHA`, for a server without the script.
    pub(super) script: Option<&'static str>,
}

impl SlotCommand {
    pub(super) fn new(slot: u16, command: Cmd) -> Self {
        Self { slot, command, script: None }
    }

    /// Runs a script once, by sending the text: cheaper than loading a script for a single call.
    pub(super) fn eval(script: &str, slot: u16, keys: &[String], args: &[&str]) -> Self {
        let mut command = Cmd::new();
        command.arg("EVAL").arg(script).arg(keys.len()).arg(keys).arg(args);
        Self::new(slot, command)
    }
}
