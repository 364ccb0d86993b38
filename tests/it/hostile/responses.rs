//! Hostile answers of a backend over HTTP/1.
//!
//! An expectation has three parts: what the client of a passed-through request gets (status, body
//! in quotation marks, and in brackets header lines that it had, or had not; `broken`: the transfer
//! breaks off), what becomes of a keyed request (`executed`: the answer is kept and replayed;
//! `unknown`: a retry reads 409), and whether the connection is used for the next call (`kept`) or
//! not (`ended`). `\e` at the end of what is sent closes the backend's connection.

use super::table::{self, Case};
use crate::support::{Act, Backend, Conn, Gateway, Request, Response, Setup, answer};

const TABLE: &str = include_str!("responses.txt");

/// The cases of the table.
pub(super) fn cases() -> Vec<Case> {
    table::cases(TABLE)
}

/// The answer to a passed-through request; `None`: the transfer broke off.
fn passed(gateway: &Gateway) -> Option<Response> {
    let mut conn = Conn::open(gateway.addr);
    conn.write(Request::get("/case").bytes());
    conn.try_read(false).ok()
}

/// Compares the answer to a passed-through request.
fn compare(expected: &str, found: Option<&Response>) -> Result<(), String> {
    let (message, lines) = match expected.split_once(" [") {
        Some((message, lines)) => (message, lines.trim_end_matches(']')),
        None => (expected, ""),
    };
    let Some(found) = found else {
        return if message == "broken" { Ok(()) } else { Err("no whole answer".to_owned()) };
    };
    let (status, body) = match message.split_once(" \"") {
        Some((status, body)) => (status, body.strip_suffix('"')),
        None => (message, None),
    };
    let is_same = found.status.to_string() == status
        && body.is_none_or(|body| found.body == table::bytes(body, &[]))
        && body.is_none() == (found.error() == "upstream-failed");
    let has = |line: &str| match (line.strip_prefix('!'), line.split_once(": ")) {
        (Some(name), _) => found.all(name).is_empty(),
        (None, Some((name, value))) => found.all(name) == [value],
        (None, None) => false,
    };
    let mut lines = lines.split(" | ").filter(|line| !line.is_empty());
    if is_same && lines.all(has) { Ok(()) } else { Err(format!("the client got {found:?}")) }
}

/// Sends a keyed request and its repetition, and compares what became of it.
fn keyed(gateway: &Gateway, key: &str, expected: &str) -> Result<(), String> {
    let request = Request::redeem(key, "{}");
    let first = request.try_send(gateway.addr).map_err(|error| format!("keyed: {error}"))?;
    let again = request.try_send(gateway.addr).map_err(|error| format!("again: {error}"))?;
    let is_met = match expected {
        "executed" => {
            let reply = (first.disposition(), again.disposition());
            reply == ("executed".into(), "replayed".into()) && first.kept() == again.kept()
        }
        _ => {
            let reply = (first.disposition(), again.status, again.error());
            reply == ("unknown".into(), 409, "outcome-unknown".into())
        }
    };
    if is_met { Ok(()) } else { Err(format!("keyed: {first:?}\n  again: {again:?}")) }
}

fn run(gateway: &Gateway, backend: &Backend, case: &Case, key: &str) -> Result<(), String> {
    let mut expected = case.expected.split("; ");
    let [passed_on, outcome, fate] = [(); 3].map(|()| expected.next().expect("three parts"));
    assert!(matches!(outcome, "executed" | "unknown") && matches!(fate, "kept" | "ended"));
    let text = case.sent.concat();
    let (text, closes) =
        text.strip_suffix("\\e").map_or((text.as_str(), false), |text| (text, true));
    let act = Act::raw(table::bytes(text, &[]));
    let act = if closes { act.then(Act::close()) } else { act };
    backend.script(move |seen| match seen.target() {
        "/next" => answer(200, "next"),
        _ => act.clone(),
    });
    let before = backend.calls();
    compare(passed_on, passed(gateway).as_ref())?;
    let next = Request::get("/next").send(gateway.addr);
    if next.status != 200 || next.text() != "next" {
        return Err(format!("the next request: {next:?}"));
    }
    let seen = backend.seen().split_off(before);
    let is_kept = seen.len() == 2 && seen[0].connection == seen[1].connection;
    if seen.len() != 2 || is_kept != (fate == "kept") {
        return Err(format!("{} calls, kept: {is_kept}", seen.len()));
    }
    keyed(gateway, key, outcome)?;
    match backend.calls() - before {
        3 => Ok(()),
        calls => Err(format!("{calls} calls instead of 3")),
    }
}

#[test]
fn answers_of_a_hostile_backend() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let cases = cases();
    let mut failures = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        if let Err(failure) = run(&gateway, &backend, case, &format!("k-{at}")) {
            let Case { section, name, sent, expected } = case;
            let sent = sent.concat();
            failures
                .push(format!("{section}: {name}\n  > {sent}\n  < {expected}\n  but {failure}"));
        }
    }
    table::report(&failures, cases.len());
}
