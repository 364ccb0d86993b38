//! Error texts: a line with the server, the meaning of the error and the remedy.

use std::time::Duration;

use ::redis::{ErrorKind, RedisError, ServerError};

use super::address::ServerAddress;

pub(super) fn unreachable(address: &ServerAddress, error: &str) -> String {
    format!("the Redis server {address} cannot be reached: {error}")
}

pub(super) fn no_answer(timeout: Duration) -> String {
    format!("no answer within {timeout:?}")
}

/// The text for a failed login.
pub(super) fn login_failed(address: &ServerAddress, error: &RedisError) -> String {
    let denied = matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
    if denied || error.kind() == ErrorKind::AuthenticationFailed {
        // The server's own text is left out: some errors repeat the arguments, password included.
        return format!(
            "the Redis server {address} does not accept the user and password of the URL; check \
             them, and the server's requirepass or ACL"
        );
    }
    match error.detail() {
        Some(detail) if error.code().is_some() => {
            format!("the Redis server {address} refused the login: {detail}")
        }
        Some(_) | None => unreachable(address, &error.to_string()),
    }
}

/// The code of an error, such as `OOM`. Redis 6.2 wraps the error in a script into an `ERR` with
/// the line of the script; the code is then the inner code.
pub(super) fn code(error: &ServerError) -> &str {
    let wrapped = error.details().filter(|detail| detail.starts_with("Error running script"));
    let inner = wrapped.and_then(|detail| detail.split_once(": -")).map(|(_, inner)| inner);
    inner.and_then(|inner| inner.split_whitespace().next()).unwrap_or(error.code())
}

/// The text for a server's error in place of an answer.
pub(super) fn server_error(address: &ServerAddress, error: &ServerError) -> String {
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
        "BUSY" => "is busy with another client's script",
        "MOVED" | "ASK" | "TRYAGAIN" => {
            "keeps redirecting to other servers: its cluster is being rebuilt"
        }
        "CROSSSLOT" => "is a cluster; set `cluster = true`",
        _ if is_acl_denial_in_script(error) => {
            "denies the user a command or a key; grant what docs/stores.md lists"
        }
        _ => return format!("the Redis server {address} said {code} {detail}"),
    };
    if detail.is_empty() {
        format!("the Redis server {address} {meaning}")
    } else {
        format!("the Redis server {address} {meaning} ({code} {detail})")
    }
}

/// True for a script stopped at a command forbidden to the user. Redis up to 7.0 sends the first
/// text, later versions and Valkey send the second.
fn is_acl_denial_in_script(error: &ServerError) -> bool {
    let texts = ["The user executing the script can't", "ACL failure in script"];
    error.details().is_some_and(|detail| texts.iter().any(|text| detail.contains(text)))
}

/// True for an error as proof of a script without effect. The scripts compare before the first
/// write, and these errors stop a script at the first write at the latest. A missing right proves
/// no such thing: the server checks rights at every command, so earlier writes may have happened.
pub(super) fn proves_no_change(error: &ServerError) -> bool {
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
    fn the_code_that_stopped_a_script_is_read_in_every_version() {
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
            assert_eq!((code(&error), proves_no_change(&error)), (expected, untouched), "{line}");
        }
    }

    #[test]
    fn a_missing_right_within_a_script_is_recognized_in_every_version() {
        for line in [
            "-ERR The user executing the script can't run this command or subcommand",
            "-ERR ACL failure in script: User gate has no permissions to run the 'zadd' command",
        ] {
            assert!(is_acl_denial_in_script(&error(line)), "{line}");
        }
        assert!(!is_acl_denial_in_script(&error("-ERR unknown command")));
    }
}
