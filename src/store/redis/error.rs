//! What is told of a server's errors: one line, what it means and what to do.

use std::time::Duration;

use ::redis::{ErrorKind, RedisError, ServerError};

use super::target::Target;

pub(super) fn unreachable(target: &Target, error: &str) -> String {
    format!("the Redis server {target} cannot be reached: {error}")
}

pub(super) fn silent(patience: Duration) -> String {
    format!("no answer within {patience:?}")
}

/// Why a login failed.
pub(super) fn no_entry(target: &Target, error: &RedisError) -> String {
    let wrong = matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
    if wrong || error.kind() == ErrorKind::AuthenticationFailed {
        // What the server says is left out: some errors repeat what was sent.
        return format!(
            "the Redis server {target} does not accept the user and password of the URL; check \
             them, and the server's requirepass or ACL"
        );
    }
    match error.detail() {
        Some(detail) if error.code().is_some() => {
            format!("the Redis server {target} refused the login: {detail}")
        }
        Some(_) | None => unreachable(target, &error.to_string()),
    }
}

/// The code of an error, such as `OOM`. Redis 6.2 wraps what stopped a script in an error of its own.
pub(super) fn code(error: &ServerError) -> &str {
    let wrapped = error.details().filter(|detail| detail.starts_with("Error running script"));
    let inner = wrapped.and_then(|detail| detail.split_once(": -")).map(|(_, inner)| inner);
    inner.and_then(|inner| inner.split_whitespace().next()).unwrap_or(error.code())
}

/// What an error in the place of an answer means.
pub(super) fn no(target: &Target, error: &ServerError) -> String {
    let detail = error.details().unwrap_or_default();
    let code = code(error);
    let meaning = match code {
        "EMPTIED" => {
            "no longer holds this store: the marker of a shard is gone or another store's, so its \
             data were removed or replaced; nothing is claimed until the data are restored"
        }
        "NOAUTH" => "asks for a password: put it into the URL",
        "NOPERM" => "denies the user a command or a key; grant what docs/stores.md lists",
        "OOM" => "has no memory left: raise its maxmemory",
        "READONLY" => "is a replica; writes go to the primary",
        "MISCONF" => "cannot write its data to disk: free the disk and see its log",
        "LOADING" => "is still loading its data",
        "CLUSTERDOWN" => "says that its cluster is down: a slot has no primary",
        "MASTERDOWN" => "has lost its primary",
        "NOREPLICAS" => "has too few replicas for its min-replicas-to-write",
        "BUSY" => "is busy with somebody's script",
        "MOVED" | "ASK" | "TRYAGAIN" => "keeps sending us elsewhere: its cluster is being rebuilt",
        "CROSSSLOT" => "is a cluster; set `cluster = true`",
        _ if denied_within_script(error) => {
            "denies the user a command or a key; grant what docs/stores.md lists"
        }
        _ => return format!("the Redis server {target} said {code} {detail}"),
    };
    if detail.is_empty() {
        format!("the Redis server {target} {meaning}")
    } else {
        format!("the Redis server {target} {meaning} ({code} {detail})")
    }
}

/// Whether a script was stopped at a command that its user may not give. The words are those of
/// Redis up to 7.0, and those since and Valkey's.
fn denied_within_script(error: &ServerError) -> bool {
    let words = ["The user executing the script can't", "ACL failure in script"];
    error.details().is_some_and(|detail| words.iter().any(|word| detail.contains(word)))
}

/// Whether an error proves that a script changed nothing. The scripts compare before they write,
/// so that these stop them at their first write at the latest. A missing right does not: the
/// server checks it at each command.
pub(super) fn proves_untouched(error: &ServerError) -> bool {
    matches!(
        code(error),
        "EMPTIED"
            | "NOAUTH"
            | "OOM"
            | "READONLY"
            | "MISCONF"
            | "LOADING"
            | "CLUSTERDOWN"
            | "MASTERDOWN"
            | "NOREPLICAS"
            | "BUSY"
            | "NOSCRIPT"
            | "MOVED"
            | "ASK"
            | "TRYAGAIN"
            | "CROSSSLOT"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> ServerError {
        match ::redis::parse_redis_value(format!("{line}\r\n").as_bytes()).unwrap() {
            ::redis::Value::ServerError(error) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_stopped_a_script_is_known_in_every_version() {
        for (line, expected, untouched) in [
            ("-OOM command not allowed", "OOM", true),
            (
                "-ERR Error running script (call to f_9a1f): @user_script:168: @user_script: 168: \
                 -READONLY You can't write against a read only replica.",
                "READONLY",
                true,
            ),
            ("-ERR Error running script (call to f_9a1f): @user_script:1: what", "ERR", false),
            ("-ERR Error running script (call to f_9a1f): -", "ERR", false),
            ("-ERR no: -OOM", "ERR", false),
            ("-ERR", "ERR", false),
            (
                "-ERR Error running script (call to f_9a1f): @user_script:8: -NOPERM no",
                "NOPERM",
                false,
            ),
        ] {
            let error = error(line);
            assert_eq!((code(&error), proves_untouched(&error)), (expected, untouched), "{line}");
        }
    }

    #[test]
    fn a_right_that_is_missing_within_a_script_is_told_in_the_words_of_every_version() {
        for line in [
            "-ERR The user executing the script can't run this command or subcommand",
            "-ERR ACL failure in script: User gate has no permissions to run the 'zadd' command",
        ] {
            assert!(denied_within_script(&error(line)), "{line}");
        }
        assert!(!denied_within_script(&error("-ERR unknown command")));
    }
}
