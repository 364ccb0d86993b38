//! The access log: a line per request when it is switched on, with the fields of the contract.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::gateway::BINARY;
use crate::support::rewards::{batch, issue};
use crate::support::{
    Act, AdminClient, Backend, Conn, Gateway, Request, Rewards, Setup, answer, eventually,
};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// Every field of a line, but `items`, which only batches have.
const FIELDS: [&str; 17] = [
    "timestamp",
    "level",
    "message",
    "request_id",
    "instance",
    "route",
    "method",
    "status",
    "outcome",
    "record",
    "duration_ms",
    "upstream_ms",
    "store_ms",
    "bytes_in",
    "bytes_out",
    "client",
    "items",
];

fn json(setup: Setup) -> Setup {
    setup.log("access = true").log("format = \"json\"").log("level = \"error\"")
}

/// The access lines so far.
fn lines(gateway: &Gateway) -> Vec<Value> {
    let log = gateway.stderr();
    // The last line may be on its way.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    lines.filter(|line| line["message"] == "access").collect()
}

/// The `number`-th access line, from 1.
#[track_caller]
fn line(gateway: &Gateway, number: usize) -> Value {
    let line = eventually("the line is written", || lines(gateway).get(number - 1).cloned());
    let members = line.as_object().unwrap();
    let names: BTreeSet<&str> = members.keys().map(String::as_str).collect();
    let mut wanted = BTreeSet::from(FIELDS);
    if line.get("items").is_none() {
        wanted.remove("items");
    }
    assert_eq!(names, wanted, "{line}");
    assert!(members.values().all(|value| !value.is_object() && !value.is_array()), "{line}");
    assert_eq!(line["client"], "127.0.0.1");
    assert!(line["duration_ms"].as_f64().unwrap() >= 0.0);
    line
}

#[test]
fn a_request_has_a_line_with_what_was_sent() {
    let backend = Backend::start();
    let gateway = json(AdminClient::guard(Setup::before(&backend))).start();
    let redeem = Request::redeem("k", BODY).header("x-request-id", "till-7:42");
    backend.always(answer(201, r#"{"redeemed":true}"#));
    redeem.send(gateway.addr).is(201, "executed", "");
    let id = AdminClient::of(&gateway).id("k");
    let entry = line(&gateway, 1);
    for (name, value) in [
        ("level", Value::from("INFO")),
        ("request_id", "till-7:42".into()),
        ("instance", Value::Null),
        ("route", "redeem".into()),
        ("method", "POST".into()),
        ("status", 201.into()),
        ("outcome", "executed".into()),
        ("record", id.as_str().into()),
        ("bytes_in", BODY.len().into()),
        ("bytes_out", r#"{"redeemed":true}"#.len().into()),
    ] {
        assert_eq!(entry[name], value, "{name}: {entry}");
    }
    assert!(entry["upstream_ms"].as_f64().unwrap() > 0.0, "{entry}");
    assert!(entry["store_ms"].as_f64().unwrap() > 0.0, "{entry}");
    assert!(entry["duration_ms"].as_f64() >= entry["upstream_ms"].as_f64(), "{entry}");

    redeem.send(gateway.addr).is(201, "replayed", "");
    let entry = line(&gateway, 2);
    assert_eq!((&entry["outcome"], &entry["status"]), (&"replayed".into(), &201.into()), "{entry}");
    assert_eq!((&entry["record"], &entry["upstream_ms"]), (&id.into(), &Value::Null), "{entry}");

    let reused = Request::redeem("k", "{}").send(gateway.addr);
    reused.is(422, "rejected", "key-reused");
    let entry = line(&gateway, 3);
    let problem = reused.json();
    let instance = problem["instance"].as_str().unwrap().trim_start_matches("urn:uuid:");
    assert_eq!(
        (&entry["outcome"], &entry["status"]),
        (&"key-reused".into(), &422.into()),
        "{entry}"
    );
    assert_eq!(entry["instance"], instance, "{entry}");
    assert_eq!(entry["request_id"], problem["request_id"], "{entry}");

    // Passed, without a route, and without a key.
    backend.always(Act::whole(200, &[], &vec![b'x'; 300_000]));
    Request::get("/some/where").send(gateway.addr);
    let entry = line(&gateway, 4);
    assert_eq!((&entry["route"], &entry["outcome"]), (&"rest".into(), &"passed".into()), "{entry}");
    assert_eq!((&entry["bytes_out"], &entry["record"]), (&300_000.into(), &Value::Null), "{entry}");
    Request::new("DELETE", "/v1/vouchers/redeem").send(gateway.addr);
    let entry = line(&gateway, 5);
    assert_eq!((&entry["route"], &entry["status"]), (&Value::Null, &405.into()), "{entry}");
    assert_eq!(entry["outcome"], "method-not-allowed", "{entry}");
    Request::new("POST", "/v1/vouchers/redeem").json(BODY).send(gateway.addr);
    assert_eq!(line(&gateway, 6)["outcome"], "key-missing");

    backend.always(Act::close());
    Request::redeem("lost", BODY).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let entry = line(&gateway, 7);
    assert_eq!((&entry["outcome"], &entry["status"]), (&"outcome-unknown".into(), &502.into()));
    assert_eq!(entry["record"], AdminClient::of(&gateway).id("lost").as_str(), "{entry}");
    assert_eq!(lines(&gateway).len(), 7);
}

#[test]
fn streamed_bodies_are_counted() {
    let backend = Backend::start();
    let gateway = json(Setup::before(&backend)).start();
    let mut conn = Conn::open(gateway.addr);
    conn.write("PUT /optional HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    conn.write("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    assert_eq!(conn.read().status, 200);
    let entry = line(&gateway, 1);
    assert_eq!(
        (&entry["outcome"], &entry["bytes_in"]),
        (&"bypassed".into(), &11.into()),
        "{entry}"
    );
    // An answer to HEAD has no body.
    conn.write("HEAD /x HTTP/1.1\r\nhost: a\r\n\r\n");
    conn.read_to_head();
    let entry = line(&gateway, 2);
    assert_eq!((&entry["method"], &entry["bytes_out"]), (&"HEAD".into(), &0.into()), "{entry}");
}

#[test]
fn a_batch_has_its_first_record_and_the_number_of_its_items() {
    let rewards = Rewards::start();
    let gateway = json(rewards.setup("")).start();
    let batch = batch("+65", &[("a", "R1", 2), ("b", "R2", 1)]);
    issue(&batch).send(gateway.addr).is(200, "executed", "");
    let entry = line(&gateway, 1);
    assert_eq!((&entry["items"], &entry["outcome"]), (&2.into(), &"executed".into()), "{entry}");
    assert_eq!(entry["record"].as_str().unwrap().len(), 32, "{entry}");
    issue(&batch).send(gateway.addr).is(200, "replayed", "");
    let again = line(&gateway, 2);
    assert_eq!((&again["items"], &again["outcome"]), (&2.into(), &"replayed".into()), "{again}");
    assert_eq!(again["record"], entry["record"], "{again}");
}

#[test]
fn without_the_switch_there_is_no_line() {
    let backend = Backend::start();
    let mut gateway = Setup::before(&backend).env("ONCEGATE_LOG", "trace").start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    gateway.stop();
    assert!(!gateway.stderr().contains(" access "), "{}", gateway.stderr());
}

#[test]
fn a_text_log_has_the_same_fields_and_no_secret() {
    let backend = Backend::start();
    let mut gateway = Setup::before(&backend).log("access = true").start();
    let hostile = Request::redeem("hush-key", r#"{"qr":"hush-body"}"#).tenant("hush-tenant");
    hostile.header("x-request-id", "a=b\"c").send(gateway.addr).is(200, "executed", "");
    Request::get("/%1b%5b31m?hush-query").send(gateway.addr);
    gateway.stop();
    let log = gateway.stderr();
    let access: Vec<&str> = log.lines().filter(|line| line.contains(" INFO access ")).collect();
    assert_eq!(access.len(), 2, "{log}");
    for name in FIELDS.iter().skip(3).filter(|name| **name != "items") {
        assert!(access[0].contains(&format!(" {name}=")), "{name}: {}", access[0]);
    }
    assert!(access[0].contains(r#" request_id="a=b\"c" "#), "{}", access[0]);
    assert!(!log.contains("hush") && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn every_line_of_an_exchange_names_it() {
    let backend = Backend::start();
    let gateway = AdminClient::guard(Setup::before(&backend)).log("format = \"json\"").start();
    backend.always(Act::close());
    let redeem = Request::redeem("k", BODY).header("x-request-id", "till-1");
    redeem.send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let id = AdminClient::of(&gateway).id("k");
    let seen = backend.seen();
    assert_eq!(seen[0].header("x-request-id").as_deref(), Some("till-1"));
    for message in ["the outcome is unknown", "refused"] {
        let line = gateway.logs(&[message, "till-1"]);
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["request_id"], "till-1", "{line}");
        assert_eq!(line["record"], id.as_str(), "{line}");
        assert_eq!((&line["route"], &line["upstream"]), (&"redeem".into(), &"backend".into()));
    }
    // An id that the gateway made is the same in the log, in the problem and upstream.
    Request::redeem("k-2", BODY).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let upstream = backend.seen()[1].header("x-request-id").unwrap();
    gateway.logs(&["the outcome is unknown", &upstream]);
    gateway.logs(&["refused", &upstream]);
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_request() {
    /// More lines than the queue and the pipe take.
    const REQUESTS: usize = 10_000;
    let backend = Backend::start();
    let setup = Setup::before(&backend).log("access = true");
    let mut command = Command::new(BINARY);
    command.args(["run", "--config", &setup.write_config()]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut addr = None;
    let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    for line in std::io::BufRead::lines(stdout) {
        let line = line.unwrap();
        if let Some(text) = line.strip_prefix("oncegate: listening on ") {
            addr = text.parse().ok();
        } else if line == "oncegate: ready" {
            break;
        }
    }
    let mut conn = Conn::open(addr.unwrap());
    let request = Request::new("DELETE", "/no/route").bytes();
    for _ in 0..REQUESTS / 10 {
        conn.write(request.repeat(10));
        for _ in 0..10 {
            conn.read();
        }
    }
    // The log is read at last: it says how many lines were lost, and the process ends in order.
    let mut log = String::new();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut log).unwrap();
    assert!(child.wait().unwrap().success());
    let written = log.lines().filter(|line| line.contains(" INFO access ")).count();
    assert!(written < REQUESTS, "the pipe took everything");
    let lost: usize = log
        .lines()
        .filter(|line| line.contains("lines of the log were lost"))
        .filter_map(|line| line.rsplit("times=").next()?.parse::<usize>().ok())
        .sum();
    assert!(lost > 0, "{written} lines");
}
