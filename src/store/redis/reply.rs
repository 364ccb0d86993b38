//! Reading the values of replies.

use ::redis::Value;

use crate::store::shared::engine::EngineError;

/// The text of a string reply; `None` for replies of a different kind.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

/// The error for a reply of an unexpected shape.
pub(super) fn unreadable(command: &str) -> EngineError {
    EngineError::Rejected(format!("the Redis server's answer to {command} cannot be read"))
}
