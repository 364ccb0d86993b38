//! The log: its start and end, its formats, and what a wrong setting says.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::gateway::{BINARY, run};
use crate::support::{Act, AdminClient, Backend, Gate, Request, Setup, answer};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn is_digits(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The log of a gateway that was stopped, as documents.
fn documents(log: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    log.lines().map(parse).collect()
}

#[test]
fn the_log_begins_and_ends_with_a_line_about_the_gateway() {
    let backend = Backend::start();
    let mut gateway = Setup::before(&backend).limits("in_flight = 77").start();
    let config = gateway.setup().config_path();
    gateway.stop();
    let start = gateway.logs(&["INFO", "oncegate has started"]);
    let version = concat!("version=", env!("CARGO_PKG_VERSION"));
    let config = format!("config={}", config.display());
    for word in [version, &config, "routes=redeem,optional,rest", "in_flight=77", "buffered="] {
        assert!(start.contains(word), "{word}: {start}");
    }
    let end = gateway.logs(&["INFO", "oncegate has ended"]);
    for word in ["reason=SIGTERM", "drained=true", "exit=0"] {
        assert!(end.contains(word), "{word}: {end}");
    }
    assert_eq!(gateway.stderr().lines().last(), Some(end.as_str()));
}

#[test]
fn a_log_for_programs_is_a_flat_object_per_line() {
    let backend = Backend::start();
    for setup in [
        Setup::before(&backend).log("format = \"json\""),
        Setup::before(&backend).env("ONCEGATE_LOG_FORMAT", "json"),
        Setup::before(&backend).log("format = \"text\"").env("ONCEGATE_LOG_FORMAT", "json"),
    ] {
        let mut gateway = setup.env("ONCEGATE_LOG", "debug").start();
        backend.always(Act::close());
        Request::redeem("k", BODY).send(gateway.addr).is(502, "unknown", "outcome-unknown");
        gateway.stop();
        let lines = documents(&gateway.stderr());
        for line in &lines {
            let members = line.as_object().unwrap();
            assert!(members.values().all(|value| !value.is_object() && !value.is_array()));
            for name in ["timestamp", "level", "message"] {
                assert!(line[name].is_string(), "{name}: {line}");
            }
        }
        let find = |message: &str| {
            let found = lines.iter().find(|line| line["message"] == message);
            found.unwrap_or_else(|| panic!("no {message:?} in {lines:?}"))
        };
        assert_eq!(find("oncegate has started")["in_flight"], 10_000);
        assert_eq!(find("oncegate has ended")["drained"], true);
        let unknown = find("the outcome is unknown");
        assert_eq!(unknown["level"], "WARN");
        assert!(is_digits(unknown["record"].as_str().unwrap()), "{unknown}");
    }
}

#[test]
fn the_log_names_the_whole_id_of_a_record() {
    let backend = Backend::start();
    backend.always(Act::close());
    let setup = Setup::before(&backend).admin(&format!("token = \"{}\"", crate::support::TOKEN));
    let gateway = setup.start();
    Request::redeem("k", BODY).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let id = AdminClient::of(&gateway).id("k");
    assert!(is_digits(&id), "{id}");
    gateway.logs(&["WARN", "the outcome is unknown", &format!("record={id}")]);
}

#[test]
fn the_environment_wins_over_the_file() {
    let backend = Backend::start();
    let quiet = Setup::before(&backend).log("level = \"error\"");
    let started = |setup: &Setup| {
        let mut gateway = setup.start();
        gateway.stop();
        gateway.stderr().contains("oncegate has started")
    };
    assert!(!started(&quiet));
    assert!(started(&quiet.clone().env("ONCEGATE_LOG", "info")));
    assert!(started(&quiet.clone().env("ONCEGATE_LOG", "error,oncegate::commands=info")));
    assert!(!started(&quiet.clone().env("ONCEGATE_LOG", "")), "an empty variable says nothing");
    assert!(!started(&Setup::before(&backend).env("ONCEGATE_LOG", "off")));
}

#[test]
fn a_wrong_setting_of_the_log_is_bad_usage() {
    let backend = Backend::start();
    for (line, words) in [
        ("level = \"loud\"", "\"loud\" is no level of the log"),
        ("level = \"info,oncegate::store=loud\"", "is no filter of the log"),
        ("format = \"xml\"", "`format` cannot be \"xml\""),
        ("access = \"often\"", "`log.access`: \"often\" is neither true nor false"),
        ("levl = \"info\"", "did you mean `level`?"),
    ] {
        let setup = Setup::before(&backend).log(line);
        let config = setup.write_config();
        for command in ["run", "check"] {
            let exit = run(&[command, "--config", &config]);
            assert_eq!(exit.code, Some(2), "{line}: {exit:?}");
            assert!(exit.stderr.contains(words), "{line}: {exit:?}");
        }
    }
    for (name, value, words) in [
        ("ONCEGATE_LOG", "loud", "ONCEGATE_LOG: \"loud\" is no level of the log"),
        ("ONCEGATE_LOG", "3", "ONCEGATE_LOG: \"3\" is no level of the log"),
        ("ONCEGATE_LOG_FORMAT", "JSON", "ONCEGATE_LOG_FORMAT: \"JSON\" is no format of the log"),
    ] {
        let exit = Setup::before(&backend).env(name, value).try_start().unwrap_err();
        assert_eq!(exit.code, Some(2), "{name}={value}: {exit:?}");
        assert!(exit.stderr.contains(words), "{name}={value}: {exit:?}");
        let health = Command::new(BINARY).arg("health").env(name, value).output().unwrap();
        assert_eq!(health.status.code(), Some(2), "{name}={value}: {health:?}");
    }
}

#[test]
fn a_condition_that_lasts_is_told_once_and_counted() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let mut gateway = Setup::before(&backend).limits("in_flight = 1").start();
    let mut held = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    for number in 0..50 {
        let reply = Request::redeem(&format!("k-{number}"), "{}").send(gateway.addr);
        reply.is(503, "rejected", "overloaded");
    }
    gate.open();
    held.read().is(200, "executed", "");
    gateway.stop();
    let log = gateway.stderr();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("overloaded")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[0].contains("WARN requests are refused"), "{lines:?}");
    assert!(lines[0].contains(" times=1 "), "{lines:?}");
    assert!(lines[1].contains("WARN a condition was repeated times=49 "), "{lines:?}");
}

/// What the gateway writes to a terminal on standard error, from its start to its end.
fn on_a_terminal(no_color: Option<&str>) -> String {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let setup = Setup::before(&Backend::start());
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let side = std::fs::File::options().read(true).write(true).open(name.to_str().unwrap());
    let mut command = Command::new(BINARY);
    command.args(["run", "--config", &setup.write_config()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(side.unwrap());
    command.env_remove("NO_COLOR").envs(no_color.map(|value| ("NO_COLOR", value)));
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "oncegate: ready"));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    let mut written = Vec::new();
    // A terminal whose last user is gone ends with an error.
    let _ = std::fs::File::from(terminal).read_to_end(&mut written);
    String::from_utf8(written).unwrap()
}

#[test]
fn a_terminal_gets_colors_unless_they_are_not_wanted() {
    let text = on_a_terminal(None);
    assert!(text.contains("oncegate has ended") && text.contains('\u{1b}'), "{text}");
    assert!(on_a_terminal(Some("")).contains('\u{1b}'));
    for value in ["1", "0"] {
        let text = on_a_terminal(Some(value));
        assert!(text.contains("oncegate has ended") && !text.contains('\u{1b}'), "{text}");
    }
}
