//! Starting, and not starting: one clear line, the exit code of the contract, nothing half-way.

use lsm_tree::{AbstractTree as _, AnyTree, Guard as _, SeqNo, SequenceNumberCounter};
use std::path::Path;

use crate::support::gateway::{Exit, run};
use crate::support::rng::Rng;
use crate::support::{Act, Backend, Request, Setup, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// The process ended with this code and said what is wrong, without a backtrace.
#[track_caller]
fn check_exit(exit: &Exit, code: i32, words: &[&str]) {
    assert_eq!(exit.code, Some(code), "{exit:?}");
    for word in words {
        assert!(exit.stderr.contains(word), "{word:?} is missing: {}", exit.stderr);
    }
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    assert!(!exit.stdout.contains("ready"), "{}", exit.stdout);
}

#[track_caller]
fn one_line(exit: &Exit) {
    assert_eq!(exit.stderr.trim().lines().count(), 1, "not one line: {}", exit.stderr);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

#[test]
fn every_mistake_of_a_configuration_is_told_at_once() {
    let backend = Backend::start();
    let setup = Setup::before(&backend)
        .server("dran = \"1s\"")
        .limits("max_body = \"many\"")
        .store("retention = \"7 fortnights\"")
        .redeem("duplicates.max_waitres = 1");
    let config = setup.write_config();
    for command in ["run", "check"] {
        let exit = run(&[command, "--config", &config]);
        let words = ["oncegate.toml:3", "drain", "max_body", "retention", "max_waiters"];
        check_exit(&exit, 2, &words);
    }
    assert!(!setup.store_path().exists(), "nothing is started half-way");
}

#[test]
fn a_policy_that_batches_do_not_have_is_refused_and_not_ignored() {
    let backend = Backend::start();
    let route = "name = \"batch\"\nmethods = [\"POST\"]\npath = \"/batch\"\nmode = \"items\"\n\
         items.at = \"/a\"\nitems.id = \"/id\"\nitems.response.match = [\"position\"]\n\
         items.response.issued = \"all\"\noutcome.on_unknown = \"resend\"";
    let exit = Setup::before(&backend).route(route).try_start().unwrap_err();
    check_exit(&exit, 2, &["on_unknown", "resend"]);
}

#[test]
fn files_that_cannot_be_read_are_told_by_check_and_no_store_is_made_for_them() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let lines = [
        "tls = { cert = \"absent.pem\", key = \"absent.pem\" }",
        "tls = { cert = \"oncegate.toml\", key = \"oncegate.toml\" }",
    ];
    for line in lines {
        let setup = setup.clone().server(line);
        let config = setup.write_config();
        for command in ["check", "run"] {
            check_exit(&run(&[command, "--config", &config]), 2, &["tls"]);
        }
        assert_eq!(run(&["check", "--no-files", "--config", &config]).code, Some(0));
        assert!(!setup.store_path().exists(), "{line}");
    }
    let setup = setup.upstream("ca = \"absent.pem\"").replacing("http://127", "https://127");
    let config = setup.write_config();
    for command in ["check", "run"] {
        check_exit(&run(&[command, "--config", &config]), 2, &["absent.pem"]);
    }
    assert!(!setup.store_path().exists());
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_bad_usage() {
    let setup = Setup::before(&Backend::start());
    let missing = setup.dir().join("missing.toml");
    check_exit(&run(&["run", "--config", text(&missing)]), 2, &["missing.toml"]);
    std::fs::write(setup.config_path(), "[server\n").unwrap();
    check_exit(&run(&["run", "--config", text(&setup.config_path())]), 2, &["oncegate.toml:1"]);
}

#[test]
fn bad_usage_ends_with_2() {
    let usages: [&[&str]; 4] =
        [&["run"], &["frobnicate"], &["run", "--config"], &["store", "info", "--nope"]];
    for arguments in usages {
        assert_eq!(run(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn check_prints_the_routes_as_understood() {
    let backend = Backend::start();
    let exit = run(&["check", "--config", &Setup::before(&backend).write_config()]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    for word in ["redeem", "/v1/vouchers/redeem", "optional", "rest"] {
        assert!(exit.stdout.contains(word), "{word} is missing: {}", exit.stdout);
    }
}

#[test]
fn the_version_is_told() {
    let exit = run(&["--version"]);
    assert_eq!(exit.code, Some(0));
    let reply = exit.stdout.trim();
    let commit = reply
        .strip_prefix(concat!("oncegate ", env!("CARGO_PKG_VERSION"), " ("))
        .and_then(|rest| rest.strip_suffix(')'));
    assert!(commit.is_some_and(|commit| !commit.is_empty()), "{reply}");
}

#[test]
fn a_port_in_use_is_told_in_one_line() {
    let backend = Backend::start();
    let taken = backend.addr().to_string();
    let exit = Setup::before(&backend).listen(&taken).try_start().unwrap_err();
    check_exit(&exit, 1, &[&taken]);
    one_line(&exit);
    let admin = Setup::before(&backend)
        .replacing("[admin]\nlisten = \"127.0.0.1:0\"", format!("[admin]\nlisten = \"{taken}\""));
    let exit = admin.try_start().unwrap_err();
    check_exit(&exit, 1, &[&taken]);
    one_line(&exit);
}

#[test]
fn a_store_that_another_process_holds_is_refused() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let gateway = setup.start();
    let exit = setup.try_start().unwrap_err();
    check_exit(&exit, 1, &[text(&setup.store_path())]);
    one_line(&exit);
    // The one that runs is not disturbed.
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
}

#[test]
fn a_store_that_cannot_be_written_is_refused() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    std::fs::write(setup.store_path(), "a file").unwrap();
    let exit = setup.try_start().unwrap_err();
    check_exit(&exit, 1, &[text(&setup.store_path())]);
    one_line(&exit);
    let setup = Setup::before(&backend).file_size_limit(Some(0));
    check_exit(&setup.try_start().unwrap_err(), 1, &[text(&setup.store_path())]);
}

#[test]
fn a_directory_that_holds_something_else_is_not_taken_for_a_store() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    std::fs::create_dir(setup.store_path()).unwrap();
    std::fs::write(setup.store_path().join("letter.txt"), "dear").unwrap();
    let exit = setup.try_start().unwrap_err();
    check_exit(&exit, 1, &[text(&setup.store_path())]);
    one_line(&exit);
    let left = std::fs::read_dir(setup.store_path()).unwrap().count();
    assert_eq!(left, 1, "nothing was added");
}

/// The table of a store that is stopped.
fn table(setup: &Setup) -> AnyTree {
    // Above every number that the store has used.
    let versions = SequenceNumberCounter::new(1 << 40);
    let path = setup.store_path().join("data/table");
    lsm_tree::Config::new(path, versions, SequenceNumberCounter::default()).open().unwrap()
}

/// Puts entries, sorted by key, into a table.
fn put_entries(table: &AnyTree, entries: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) {
    let mut ingestion = table.ingestion().unwrap();
    for (key, value) in entries {
        ingestion.write(key, value).unwrap();
    }
    ingestion.finish().unwrap();
}

#[test]
fn a_store_of_a_newer_schema_is_refused_and_left_as_it_is() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    setup.start().stop();
    {
        let table = table(&setup);
        let identity = table.get(b"\0identity", SeqNo::MAX).unwrap().unwrap();
        put_entries(
            &table,
            [(b"\0identity".to_vec(), [&9_u32.to_le_bytes(), &identity[4..]].concat())],
        );
    }
    for _ in 0..2 {
        let exit = setup.try_start().unwrap_err();
        check_exit(&exit, 1, &["schema", "9", "upgrade"]);
        one_line(&exit);
    }
}

#[test]
fn an_empty_store_is_not_taken_for_one_where_no_key_was_ever_used() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let strict = setup.clone().store("create = false");
    let exit = strict.try_start().unwrap_err();
    check_exit(&exit, 1, &[text(&setup.store_path())]);
    one_line(&exit);
    let init = run(&["store", "init", "--path", text(&setup.store_path())]);
    assert_eq!(init.code, Some(0), "{init:?}");
    let gateway = strict.start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    drop(gateway);
    let other = setup.clone().store("expect_id = \"8e03978e-40d5-43e8-bc93-6894a57f9324\"");
    check_exit(&other.try_start().unwrap_err(), 1, &["8e03978e"]);
}

#[test]
fn a_store_can_be_made_looked_at_and_checked() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let path = setup.store_path();
    let store = |what: &str| run(&["store", what, "--path", text(&path)]);
    assert_eq!(store("info").code, Some(1));
    assert_eq!(store("init").code, Some(0));
    assert_eq!(store("init").code, Some(1), "what exists is not made again");
    let mut gateway = setup.start();
    for key in ["a", "b", "c"] {
        Request::redeem(key, BODY).send(gateway.addr).is(200, "executed", "");
    }
    assert_eq!(store("info").code, Some(1), "locked by the gateway");
    gateway.stop();
    let info = store("info");
    assert_eq!(info.code, Some(0), "{info:?}");
    let verify = store("verify");
    assert_eq!(verify.code, Some(0), "{verify:?}");
    assert!((verify.stdout + &verify.stderr).contains('3'));
    let json = run(&["store", "info", "--path", text(&path), "--json"]);
    serde_json::from_str::<serde_json::Value>(&json.stdout).expect("JSON");
}

#[test]
fn a_gateway_needs_no_file() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let gateway = setup
        .launch(&[
            "run",
            "--upstream",
            &format!("http://{}", backend.addr()),
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--store",
            text(&setup.store_path()),
        ])
        .expect("starts");
    Request::get("/anything").send(gateway.addr).is(200, "", "");
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let request = Request::new(method, "/any/where");
        request.clone().json(BODY).send(gateway.addr).is(400, "rejected", "key-missing");
        let keyed = request.key(method).json(BODY);
        keyed.send(gateway.addr).is(200, "executed", "");
        keyed.send(gateway.addr).is(200, "replayed", "");
    }
    assert_eq!(backend.calls(), 5);
}

#[test]
fn health_is_an_exit_code() {
    let backend = Backend::start();
    let mut gateway = Setup::before(&backend).start();
    let admin = format!("http://{}", gateway.admin);
    assert_eq!(run(&["health", "--admin", &admin]).code, Some(0));
    gateway.stop();
    let exit = run(&["health", "--admin", &admin]);
    check_exit(&exit, 1, &[]);
    one_line(&exit);
}

#[test]
fn the_operators_pages_are_not_on_the_clients_port() {
    let backend = Backend::refusing();
    let gateway = Setup::before(&backend).start();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(Request::get(path).send(gateway.addr).error(), "upstream-unreachable");
    }
    let exit = Setup::before(&backend)
        .replacing("[admin]\nlisten = \"127.0.0.1:0\"", "[admin]\nlisten = \"0.0.0.0:0\"")
        .try_start()
        .unwrap_err();
    check_exit(&exit, 2, &["token"]);
}

#[test]
fn a_full_disk_stops_claims_and_loses_nothing() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    setup.start().stop();
    // Files may grow to a size that the store reaches soon.
    let full = setup.clone().file_size_limit(Some(soon_full(&setup.store_path())));
    let mut gateway = full.start();
    let mut kept = Vec::new();
    let refused = (0..5000).find_map(|number| {
        let request = Request::redeem(&format!("k-{number}"), &format!("[{number}]"));
        let reply = request.send(gateway.addr);
        match (reply.status, reply.disposition().as_str()) {
            (200, "executed") => {
                kept.push((request, reply.kept()));
                None
            }
            // The claim was durable, the outcome was not: told, and never run again.
            (200, "unrecorded") => None,
            _ => Some(reply),
        }
    });
    let refused = refused.expect("the disk is full at last");
    refused.is(503, "rejected", "store-unavailable");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let calls = backend.calls();
    // Only a restart helps: the process ends, so that its supervisor starts it again.
    assert_eq!(gateway.wait().code(), Some(1), "{}", gateway.stderr());
    gateway.logs(&["ERROR", "the store needs a restart"]);
    gateway.logs(&["INFO", "oncegate has ended", "reason=store", "exit=1"]);
    assert_eq!(backend.calls(), calls, "nothing is sent without a claim");
    drop(gateway);
    assert!(!kept.is_empty(), "the disk was full from the start");
    let gateway = setup.start();
    for (request, first) in &kept {
        let again = request.send(gateway.addr);
        again.is(200, "replayed", "");
        assert_eq!(&again.kept(), first);
    }
    Request::redeem("late-0", BODY).send(gateway.addr).is(200, "executed", "");
    assert!(backend.executions().values().all(|count| *count == 1));
}

#[test]
fn an_answer_that_cannot_be_recorded_is_given_and_said_to_be_unrecorded() {
    let backend = Backend::start();
    // Not to be compressed by the engine.
    let mut rng = Rng::seeded("an_answer_that_cannot_be_recorded");
    let large: Vec<u8> = (0..131_000).flat_map(|_| rng.next().to_le_bytes()).collect();
    backend.always(Act::whole(200, &[], &large));
    let setup = Setup::before(&backend);
    setup.start().stop();
    // Room for the claim, none for the answer.
    let limit = soon_full(&setup.store_path());
    let mut gateway = setup.clone().file_size_limit(Some(limit)).start();
    let first = Request::redeem("k", BODY).send(gateway.addr);
    first.is(200, "unrecorded", "");
    assert!(first.body == large);
    assert_eq!(gateway.wait().code(), Some(1), "{}", gateway.stderr());
    drop(gateway);
    let gateway = setup.start();
    Request::redeem("k", BODY).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_corrupt_record_fails_closed() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let mut gateway = setup.start();
    for key in ["a", "b", "c"] {
        Request::redeem(key, BODY).send(gateway.addr).is(200, "executed", "");
    }
    gateway.stop();
    {
        let table = table(&setup);
        let records = table.range([5_u8].., SeqNo::MAX, None);
        let records: Vec<_> = records.map(|entry| entry.into_inner().unwrap()).collect();
        assert_eq!(records.len(), 3);
        let damaged = records.into_iter().map(|(id, record)| {
            let mut bytes = record.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            (id.to_vec(), bytes)
        });
        put_entries(&table, damaged);
    }
    let gateway = setup.start();
    for key in ["a", "b", "c"] {
        Request::redeem(key, BODY).send(gateway.addr).is(503, "rejected", "store-unavailable");
    }
    assert_eq!(backend.calls(), 3, "a record that cannot be read is not taken for none");
    Request::redeem("d", BODY).send(gateway.addr).is(200, "executed", "");
    drop(gateway);
    let verify = run(&["store", "verify", "--path", text(&setup.store_path())]);
    assert_eq!(verify.code, Some(1), "{verify:?}");
}

#[test]
fn a_gateway_has_as_many_workers_as_it_is_told() {
    let backend = Backend::start();
    let with =
        |workers: usize| Setup::before(&backend).server(&format!("workers = {workers}")).start();
    let (mut few, mut many) = (with(1), with(7));
    // All but the workers are there either way; up to two threads that read files come and go.
    let differ = || many.threads().checked_sub(few.threads());
    let is_near_six = |more: usize| (4..=8).contains(&more);
    eventually("six workers more", || differ().is_some_and(is_near_six).then_some(()));
    few.stop();
    many.stop();
}

#[test]
fn the_demo_ends_without_a_word_of_failure_and_leaves_nothing() {
    let place = tempfile::TempDir::new().unwrap();
    let demo = std::process::Command::new(crate::support::gateway::BINARY)
        .args(["demo", "--json"])
        .env("TMPDIR", place.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success() && !stderr.contains("ERROR"), "{stderr}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

/// A limit to the size of files, in blocks of 512 bytes, that a store in `dir` reaches soon: with the
/// second step by which a file of its log grows.
pub(crate) fn soon_full(dir: &Path) -> u64 {
    largest_file(dir).max(1 << 20) / 512
}

/// The size of the largest file below `dir`, in bytes.
fn largest_file(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let kind = entry.metadata().unwrap();
            if kind.is_dir() { largest_file(&entry.path()) } else { kind.len() }
        })
        .max()
        .unwrap_or(0)
}
