//! The command line under attack: outputs that are full or closed, too many ids, and its words about
//! what was done.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::gateway::{BINARY, run};
use crate::support::{AdminClient, Backend, Gateway, Request, Setup, TOKEN, answer};

/// Runs the command with a standard output on which nothing can be written; gives its exit code and
/// what it says.
fn on_a_full_disk(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that reads nothing closes its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A gateway with a record of this key, the record's id, and the arguments to reach it.
fn start() -> (Backend, Gateway, String, [String; 4]) {
    let backend = Backend::start();
    backend.always(answer(200, "{}"));
    let gateway = AdminClient::guard(Setup::before(&backend)).start();
    Request::redeem("k", "{}").send(gateway.addr).is(200, "executed", "");
    let token = gateway.setup().dir().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let token = token.to_str().unwrap().to_owned();
    let admin = format!("http://{}", gateway.admin);
    let id = AdminClient::of(&gateway).id("k");
    (backend, gateway, id, ["--admin".to_owned(), admin, "--token-file".to_owned(), token])
}

#[test]
fn a_full_output_is_a_failure_that_says_what_was_done() {
    let (_backend, gateway, id, door) = start();
    let door: Vec<&str> = door.iter().map(String::as_str).collect();
    let config = gateway.setup().config_path();
    let config = config.to_str().unwrap();
    let store = tempfile::tempdir().unwrap();
    let store = store.path().to_str().unwrap();
    assert_eq!(run(&["store", "init", "--path", store]).code, Some(0));
    let made = tempfile::tempdir().unwrap();
    for (arguments, is_change) in [
        ([&["records", "list"], &door[..]].concat(), false),
        ([&["records", "list", "--json"], &door[..]].concat(), false),
        ([&["records", "show", &id], &door[..]].concat(), false),
        ([&["records", "purge", &id, "--json"], &door[..]].concat(), true),
        (vec!["check", "--config", config], false),
        ([&["check", "--config", config, "--against"], &door[1..]].concat(), false),
        (vec!["tenant", "--config", config], false),
        (vec!["store", "init", "--path", made.path().to_str().unwrap()], false),
        (vec!["store", "info", "--path", store], false),
        (vec!["store", "info", "--path", store, "--json"], false),
        (vec!["store", "verify", "--path", store], false),
        (vec!["generate", "completions", "bash"], false),
    ] {
        let (code, said) = on_a_full_disk(&arguments, "x-api-key: k\n");
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(said.contains("No space left on device"), "{arguments:?}: {said}");
        assert_eq!(said.contains("the change is made"), is_change, "{arguments:?}: {said}");
    }
    assert_eq!(AdminClient::of(&gateway).show("k")["state"], "tombstone");
}

#[test]
fn more_ids_than_are_taken_at_once_are_refused_before_anything_is_done() {
    let (_backend, gateway, id, door) = start();
    let mut ids = format!("{id}\n");
    for number in 0..100_000 {
        writeln!(ids, "{number:032x}").unwrap();
    }
    let arguments: Vec<&str> = door.iter().map(String::as_str).collect();
    let arguments = [&["records", "purge", "-"], &arguments[..]].concat();
    let (code, said) = on_a_full_disk(&arguments, &ids);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("more than 100000 ids, and nothing was done"), "{said}");
    assert_eq!(AdminClient::of(&gateway).show("k")["state"], "final");
}

#[test]
fn a_comparison_does_not_promise_more_than_it_has_compared() {
    let (_backend, gateway, _, door) = start();
    let setup = gateway.setup();
    let check = |text: &str| {
        let file = setup.dir().join("next.toml");
        std::fs::write(&file, text).unwrap();
        let door: Vec<&str> = door.iter().map(String::as_str).collect();
        let file = ["check", "--config", file.to_str().unwrap(), "--against"];
        let exit = run(&[&file, &door[1..]].concat());
        assert_eq!(exit.code, Some(0), "{exit:?}");
        exit.stdout
    };
    // Another secret in a file of another name.
    let other_token = check(&setup.toml().replace(TOKEN, "another-s3cret-of-the-desk"));
    assert_eq!(other_token, "no key changes its value; secrets are not compared\n");
    let tables = "[traces]\notlp = \"http://127.0.0.1:1\"\n[log]\nformat = \"json\"\n";
    let restart = check(&setup.toml().replace("[log]\n", tables));
    assert!(!restart.contains("refused"), "{restart}");
    for line in [
        "~ log.format: \"text\" -> \"json\" (needs a restart)",
        "+ traces.otlp: \"http://127.0.0.1:1/\" (needs a restart)",
    ] {
        assert!(restart.contains(line), "{restart}");
    }
}

#[test]
fn a_comparison_says_that_a_reload_would_be_refused_for_the_names_of_keys() {
    let (_backend, gateway, _, door) = start();
    let setup = gateway.setup();
    let scoped = "name = \"redeem\"\nkey.scope = \"route\"\n";
    let text = setup.toml().replacen("name = \"redeem\"\n", scoped, 1);
    let file = setup.dir().join("next.toml");
    let check = |text: &str, json: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let door: Vec<&str> = door.iter().map(String::as_str).collect();
        let file = ["check", "--config", file.to_str().unwrap(), "--against"];
        run(&[&file, &door[1..], json].concat())
    };
    let refused = check(&text, &[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stdout.contains("redeem.key.scope: \"tenant\" -> \"route\""), "{refused:?}");
    assert!(refused.stderr.contains("the running gateway would refuse this file"), "{refused:?}");
    let json = check(&text, &["--json"]);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let why = document["refused"].as_str().unwrap();
    // With the line that it asks for, the same file is taken.
    let accept = why.lines().last().unwrap().trim();
    assert!(accept.starts_with("accept_names = "), "{why}");
    let accepted = text.replacen("[store]\n", &format!("[store]\n{accept}\n"), 1);
    let taken = check(&accepted, &[]);
    assert_eq!((taken.code, taken.stderr.contains("refuse")), (Some(0), false), "{taken:?}");
}
