//! `oncegate records`, against a running gateway.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::gateway::{Exit, run};
use crate::support::{Act, AdminClient, Backend, Gateway, Request, Setup, TOKEN};

/// A gateway, and the files an operator has.
struct Counter {
    backend: Backend,
    gateway: Gateway,
    admin: String,
    token: String,
}

impl Counter {
    fn open() -> Self {
        let backend = Backend::start();
        let gateway = AdminClient::guard(Setup::before(&backend)).start();
        let token = write(&gateway, "token", &format!("{TOKEN}\n"));
        let admin = format!("http://{}", gateway.admin);
        Self { backend, gateway, admin, token }
    }

    fn records(&self, arguments: &[&str]) -> Exit {
        let (command, rest) = arguments.split_first().expect("a command");
        let door = ["--admin", self.admin.as_str(), "--token-file", self.token.as_str()];
        run(&[&["records", command], rest, &door].concat())
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let exit = self.records(&[arguments, &["--json"]].concat());
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert_eq!(exit.stderr, "");
        serde_json::from_str(&exit.stdout).unwrap_or_else(|error| panic!("{error}: {exit:?}"))
    }

    /// A key whose outcome is unknown; gives the record's id.
    fn lose(&self, key: &str) -> String {
        self.backend.always(Act::reset());
        Request::redeem(key, "{}").send(self.gateway.addr).is(502, "unknown", "outcome-unknown");
        self.backend.always(Act::whole(200, &[], b"done"));
        AdminClient::of(&self.gateway).id(key)
    }
}

/// A file of the operator; gives its path.
fn write(gateway: &Gateway, name: &str, text: &str) -> String {
    let path = gateway.setup().dir().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().expect("a UTF-8 path").to_owned()
}

/// One line on standard error with these words, nothing else, and this exit code.
#[track_caller]
fn fails(exit: &Exit, code: i32, words: &str) {
    assert_eq!(exit.code, Some(code), "{exit:?}");
    assert!(exit.stderr.contains(words), "{exit:?}");
    assert_eq!((exit.stderr.lines().count(), exit.stdout.as_str()), (1, ""), "{exit:?}");
    assert!(!exit.stderr.contains(TOKEN));
}

#[test]
fn an_operator_finds_a_lost_answer_and_settles_it() {
    let counter = Counter::open();
    Request::redeem("fine", "{}").send(counter.gateway.addr).is(200, "executed", "");
    let id = counter.lose("lost");
    let table = counter.records(&["list", "--state", "unknown"]);
    assert_eq!(table.code, Some(0), "{table:?}");
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert!(lines[0].starts_with("id ") && lines[0].ends_with("key"), "{table:?}");
    assert!(lines[1].starts_with(&id) && lines[1].ends_with("lost"), "{table:?}");
    assert_eq!(lines.len(), 2);
    let shown = counter.records(&["show", &id]);
    assert!(shown.stdout.contains("why unknown  the connection failed"), "{shown:?}");

    let response = r#"{"status": 201, "headers": {"x-a": "1"}, "body": "{\"redeemed\":true}"}"#;
    let response = write(&counter.gateway, "response.json", response);
    let settled = counter.records(&[
        "resolve",
        &id,
        "--as",
        "executed",
        "--reason",
        "it is in the books & paid",
        "--by",
        "ann",
        "--response",
        &response,
    ]);
    assert_eq!((settled.code, settled.stderr.as_str()), (Some(0), ""), "{settled:?}");
    assert!(settled.stdout.starts_with("settled as executed\n"), "{settled:?}");
    assert!(settled.stdout.contains("by ann: it is in the books & paid"), "{settled:?}");
    let reply = Request::redeem("lost", "{}").send(counter.gateway.addr);
    reply.is(201, "recovered", "");
    assert_eq!(reply.text(), r#"{"redeemed":true}"#);

    let again = counter.records(&["resolve", &id, "--as", "not-executed", "--reason", "r"]);
    fails(&again, 1, "the outcome of this record is known");
    let purged = counter.json(&["purge", &id, "--by", "bob", "--reason", "asked by the customer"]);
    assert_eq!(
        (&purged["state"], &purged["history"][1]["by"]),
        (&"tombstone".into(), &"bob".into())
    );
    Request::redeem("lost", "{}").send(counter.gateway.addr).is(410, "rejected", "key-expired");
    let shown = counter.json(&["show", &id]);
    assert_eq!(shown, purged);

    let id = counter.lose("other");
    let released = counter.json(&["resolve", &id, "--as", "not-executed", "--reason", "r"]);
    assert_eq!(released["state"], "released");
    Request::redeem("other", "{}").send(counter.gateway.addr).is(200, "executed", "");
}

#[test]
fn a_listing_follows_the_pages_up_to_its_limit() {
    let counter = Counter::open();
    for n in 0..1003 {
        let request = Request::redeem(&format!("k-{n}"), "{}");
        request.send(counter.gateway.addr).is(200, "executed", "");
    }
    let listed = |limit: &str| {
        let page = counter.json(&["list", "--limit", limit]);
        let count = page["records"].as_array().map(Vec::len);
        (count, page["more"].as_bool())
    };
    assert_eq!(listed("7"), (Some(7), Some(true)));
    assert_eq!(listed("1002"), (Some(1002), Some(true)));
    assert_eq!(listed("5000"), (Some(1003), Some(false)));
    let page = counter.records(&["list", "--limit", "2"]);
    assert_eq!((page.code, page.stdout.lines().count()), (Some(0), 3), "{page:?}");
    assert!(page.stderr.contains("there may be more; --limit takes more than 2"), "{page:?}");
    let one = counter.json(&["list", "--key", "k-5", "--route", "redeem", "--state", "final"]);
    let tenant = one["records"][0]["tenant"].as_str().unwrap().to_owned();
    assert_eq!(one["records"].as_array().map(Vec::len), Some(1));
    let none = counter.json(&["list", "--tenant", &tenant, "--subject", "x&y=+1"]);
    assert_eq!(none["records"].as_array().map(Vec::len), Some(0));
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let counter = Counter::open();
    let id = "0".repeat(32);
    fails(&counter.records(&["show", &id]), 1, "there is no record with this id");
    fails(&counter.records(&["show", "abc"]), 2, "a record's id is 32 hex digits");
    fails(&counter.records(&["list", "--state", "lost"]), 2, "`state` is one of");
    let to = |admin: &str, token: &str| {
        run(&["records", "list", "--admin", admin, "--token-file", token])
    };
    let (admin, token) = (counter.admin.as_str(), counter.token.as_str());
    let wrong = write(&counter.gateway, "wrong", "another");
    fails(&to(admin, &wrong), 1, "(401 unauthorized)");
    let empty = write(&counter.gateway, "empty", " \n");
    fails(&to(admin, &empty), 2, "must hold one word");
    fails(&to(admin, "/nowhere/token"), 2, "cannot be read");
    for url in ["ftp://a", "https://a", "nonsense", "http://", "http://a/path", "http://u:p@a"] {
        fails(&to(url, token), 2, "an http URL with a host is needed");
    }
    for url in ["http://127.0.0.1:99999", "http://a:0"] {
        fails(&to(url, token), 2, "the port is a number, 1 to 65535");
    }
    let silent = Backend::refusing();
    let nobody = format!("http://{}", silent.addr());
    fails(&to(&nobody, token), 1, "is the gateway running");
    // Somebody else's server.
    counter.backend.always(Act::whole(200, &[], b"<html>"));
    fails(&to(&format!("http://{}", counter.backend.addr()), token), 1, "without JSON");
    counter.backend.always(Act::close());
    fails(&to(&format!("http://{}", counter.backend.addr()), token), 1, "was lost");
    let resolve = |file: &str| {
        counter.records(&["resolve", &id, "--as", "executed", "--reason", "r", "--response", file])
    };
    fails(&resolve("/nowhere/response.json"), 2, "cannot be read");
    fails(&resolve(&write(&counter.gateway, "bad.json", "[1]")), 2, "--response");
    assert!(Path::new(token).exists());
    let open = Setup::before(&counter.backend).start();
    fails(&to(&format!("http://{}", open.admin), token), 1, "set `token_file` in [admin]");
}

#[test]
fn another_server_is_not_taken_for_the_records_api() {
    let counter = Counter::open();
    let id = "0".repeat(32);
    let stranger = format!("http://{}", counter.backend.addr());
    let ask = |arguments: &[&str]| {
        let door = ["--admin", stranger.as_str(), "--token-file", counter.token.as_str()];
        run(&[&["records"], arguments, &door].concat())
    };
    let record = json!({ "id": "1".repeat(32), "state": "final" }).to_string();
    let stateless = json!({ "id": id }).to_string();
    for body in ["[]", "1", "null", r#"{"ok":true}"#, r#"{"records":{}}"#, &record, &stateless] {
        counter.backend.always(Act::whole(200, &[], body.as_bytes()));
        for arguments in [
            vec!["list"],
            vec!["list", "--json"],
            vec!["show", &id],
            vec!["purge", &id],
            vec!["resolve", &id, "--as", "executed", "--reason", "r"],
            vec!["resolve", &id, "--as", "not-executed", "--reason", "r", "--json"],
        ] {
            fails(&ask(&arguments), 1, "is not oncegate's records API");
        }
    }
    counter.backend.always(Act::whole(200, &[], br#"{"records":[1],"next":null}"#));
    fails(&ask(&["list"]), 1, "is not oncegate's records API");
}

#[test]
fn an_answer_that_cannot_be_printed_is_a_failure() {
    let counter = Counter::open();
    let id = counter.lose("lost");
    for arguments in [vec!["list"], vec!["list", "--json"], vec!["show", &id, "--json"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_oncegate"))
            .arg("records")
            .args(&arguments)
            .args(["--admin", &counter.admin, "--token-file", &counter.token])
            .stdout(full)
            .output()
            .unwrap();
        let reply = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {reply}");
        assert!(reply.contains("standard output cannot be written"), "{reply}");
        assert_eq!(reply.lines().count(), 1, "{reply}");
    }
}

#[test]
fn health_says_why_when_the_connection_is_closed() {
    let backend = Backend::start();
    for act in [Act::close(), Act::reset()] {
        backend.always(act);
        let exit = run(&["health", "--admin", &format!("http://{}", backend.addr())]);
        fails(&exit, 1, "the gateway cannot be asked: ");
        assert!(exit.stderr.to_lowercase().contains("connection"), "{exit:?}");
    }
    let exit = run(&["health", "--admin", "http://127.0.0.1:99999"]);
    fails(&exit, 2, "the port is a number, 1 to 65535");
}
