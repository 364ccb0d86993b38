//! `oncegate check --against URL`: the changes that a file would make in a running gateway.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use super::admin_client::{AdminClient, CommandFailure};
use super::{block_on, failed, print, unwritable};
use crate::cli::records::AdminArgs;
use crate::cli::{self, CheckArgs, Exit};
use crate::config::{self, Config, NEEDS_RESTART};
use crate::gateway;

/// Members that name the elements of a list.
const NAME: &str = "name";

/// `oncegate check`
pub fn check(args: &CheckArgs) -> Exit {
    let Some(admin) = args.against.clone() else {
        let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
        let checked = cli::check(args, &gateway::check_files, &mut out, &mut err);
        return match checked {
            Ok(exit) => exit,
            // The reader has stopped.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Ok,
            Err(error) => failed(&unwritable(&error)),
        };
    };
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage;
        }
    };
    let token_file = args.token_file.clone().unwrap_or_default();
    let admin = AdminArgs { admin, token_file, json: args.json };
    block_on(async move {
        match compare(&admin, &config).await {
            Ok(None) => Exit::Ok,
            Ok(Some(refused)) => {
                eprintln!("oncegate: the running gateway would refuse this file: {refused}");
                Exit::Usage
            }
            Err(CommandFailure(exit, what)) => {
                eprintln!("oncegate: {what}");
                exit
            }
        }
    })
}

/// Prints the differences. Returns the reason why the running gateway would refuse the file.
async fn compare(args: &AdminArgs, config: &Config) -> Result<Option<String>, CommandFailure> {
    let admin = AdminClient::open(args)?;
    let running = admin.ask(Method::GET, "/api/config", None).await?;
    let (Some(digest), true) = (running["digest"].as_str(), running["config"].is_object()) else {
        return Err(admin.not_oncegate());
    };
    let digests = config.files.digests();
    let mut changes = Vec::new();
    differ(String::new(), &running["config"], &config.describe_json(), &mut changes);
    let files: Vec<String> = digests
        .each()
        .filter(|(path, digest)| {
            let known = &running["files"][path.display().to_string()];
            !known.is_null() && known.as_str() != digest.as_deref()
        })
        .map(|(path, _)| path.display().to_string())
        .collect();
    let refused = match &running["names"] {
        Value::Null => None,
        names => gateway::names::refusal(config, names.to_string().as_bytes()),
    };
    if args.json {
        let changes: Vec<Value> = changes.iter().map(KeyChange::to_json).collect();
        let document = json!({
            "digest": digest,
            "changes": changes,
            "files": files,
            "refused": refused,
        });
        print_differences(&format!("{document:#}"))?;
        return Ok(refused);
    }
    let mut lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    lines.extend(files.iter().map(|file| format!("~ content of {file}")));
    if changes.is_empty() {
        // The file may have another name than the running gateway's, and another secret in it.
        let nothing = match *digest == *digests.whole() {
            true => "the file changes nothing in the running gateway",
            false => "no key changes its value; secrets are not compared",
        };
        lines.push(nothing.to_owned());
    }
    print_differences(&lines.join("\n"))?;
    Ok(refused)
}

/// Prints the differences.
///
/// # Errors
/// Standard output cannot be written.
fn print_differences(text: &str) -> Result<(), CommandFailure> {
    print(text).map_err(|error| CommandFailure::failed(unwritable(&error)))
}

/// A key with different values.
struct KeyChange {
    key: String,
    /// `Null`: the key is new.
    from: Value,
    /// `Null`: the key is gone.
    to: Value,
}

impl KeyChange {
    fn needs_restart(&self) -> bool {
        NEEDS_RESTART.iter().any(|key| {
            self.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "key": self.key,
            "from": self.from,
            "to": self.to,
            "restart": self.needs_restart(),
        })
    }
}

impl std::fmt::Display for KeyChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.from, &self.to) {
            (Value::Null, to) => write!(f, "+ {}: {to}", self.key)?,
            (from, Value::Null) => write!(f, "- {}: {from}", self.key)?,
            (from, to) => write!(f, "~ {}: {from} -> {to}", self.key)?,
        }
        if self.needs_restart() {
            f.write_str(" (needs a restart)")?;
        }
        Ok(())
    }
}

/// Adds the differences of two documents below `key`. Elements of lists are compared by their
/// names where all have one, so that a new route in between is one difference.
fn differ(key: String, from: &Value, to: &Value, changes: &mut Vec<KeyChange>) {
    if from == to {
        return;
    }
    match (members(from), members(to)) {
        (Some(from), Some(to)) => {
            let names: BTreeSet<&str> = from.iter().chain(&to).map(|(name, _)| *name).collect();
            let dot = if key.is_empty() { "" } else { "." };
            for name in names {
                let value = |members: &[(&str, &Value)]| {
                    let found = members.iter().find(|(other, _)| *other == name);
                    found.map(|(_, value)| (*value).clone()).unwrap_or_default()
                };
                differ(format!("{key}{dot}{name}"), &value(&from), &value(&to), changes);
            }
        }
        _ => changes.push(KeyChange { key, from: from.clone(), to: to.clone() }),
    }
}

/// The members of an object, or of a list of named objects.
fn members(value: &Value) -> Option<Vec<(&str, &Value)>> {
    match value {
        Value::Object(members) => {
            Some(members.iter().map(|(name, value)| (name.as_str(), value)).collect())
        }
        Value::Array(elements) if !elements.is_empty() => {
            elements.iter().map(|element| Some((element[NAME].as_str()?, element))).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(from: Value, to: Value) -> Vec<String> {
        let mut changes = Vec::new();
        differ(String::new(), &from, &to, &mut changes);
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn differences_are_named_by_key_and_lists_by_their_names() {
        let from = json!({
            "server": { "listen": ["a:1"], "limits": { "max_body": "1MiB" } },
            "routes": [{ "name": "a", "path": "/a" }, { "name": "b", "path": "/b" }],
        });
        assert!(lines(from.clone(), from.clone()).is_empty());
        let to = json!({
            "server": { "listen": ["a:2"], "limits": { "max_body": "2MiB" } },
            "routes": [{ "name": "c", "path": "/c" }, { "name": "b", "path": "/bb" }],
        });
        assert_eq!(
            lines(from, to),
            [
                "- routes.a: {\"name\":\"a\",\"path\":\"/a\"}",
                "~ routes.b.path: \"/b\" -> \"/bb\"",
                "+ routes.c: {\"name\":\"c\",\"path\":\"/c\"}",
                "~ server.limits.max_body: \"1MiB\" -> \"2MiB\"",
                "~ server.listen: [\"a:1\"] -> [\"a:2\"] (needs a restart)",
            ]
        );
    }
}
