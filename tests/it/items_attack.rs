//! Batches and answers made to mislead: each of these once got a wrong answer.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::gateway::BINARY;
use crate::support::rewards::{batch, issue, rows};
use crate::support::{Backend, Conn, Gate, Request, Rewards, Setup, answer, eventually};

#[test]
fn rows_without_the_object_around_them_are_not_a_refusal() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    rewards.answering(|_, _, body| answer(200, &body["rewards"].to_string()));
    let body = batch("+65", &[("a", "R1", 2)]);
    for (status, error) in [(200, ""), (409, "outcome-unknown")] {
        issue(&body).send(gateway.addr).is(status, "unknown", error);
    }
    assert_eq!((rewards.issued("a"), rewards.sent().len()), (2, 1));
    // An object that lacks the rows still says that there are none.
    rewards.refusing(400, r#"{"status":{"success":false,"code":8003}}"#);
    let reply = issue(&batch("+65", &[("b", "R1", 1)])).send(gateway.addr);
    reply.is(400, "executed", "");
}

/// A route without a profile, whose rows say "all of it" or a code.
const ALL: &str = r#"name = "credit"
methods = ["POST"]
path = "/credit"
mode = "items"
[route.items]
at = "/list"
id = "/id"
[route.items.response]
match = ["id:/id"]
issued = { all = { pointer = "/success", equals = true } }
retry = { pointer = "/code", equals = 8003 }"#;

#[test]
fn a_row_that_confirms_and_denies_is_unknown() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).route(ALL).start();
    let credit = Request::new("POST", "/credit").json(r#"{"list":[{"id":"a"}]}"#);
    backend.always(answer(200, r#"{"list":[{"id":"a","success":true,"code":8003}]}"#));
    for _ in 0..2 {
        credit.send(gateway.addr).is(409, "unknown", "outcome-unknown");
    }
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_place_proves_nothing_when_the_known_rows_stand_elsewhere() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    rewards.limit("R2", 0);
    // In the order b, c, a; only b's row has an id, and none names its reward.
    rewards.answering(|_, status, mut body| {
        let list = body["rewards"].as_array_mut().unwrap();
        list.rotate_left(1);
        for row in list.iter_mut().map(|row| row.as_object_mut().unwrap()) {
            row.remove("rewardId");
            if row["requestId"] != "b" {
                row.remove("requestId");
            }
        }
        answer(status, &body.to_string())
    });
    let body = batch("+65", &[("a", "R2", 1), ("b", "R1", 1), ("c", "R1", 1)]);
    let reply = issue(&body).send(gateway.addr);
    assert_eq!(rows(&reply), "a:0/1 1010, b:1/1 200, c:0/1 1010 = 1010");
    rewards.honest();
    issue(&body).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    assert_eq!((rewards.issued("c"), rewards.sent().len()), (1, 1));
}

#[test]
fn a_place_proves_nothing_when_another_row_names_another_reward() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    // In the order b, c, a, d, without ids: each reward stands twice, and the third row, a's, is of
    // the reward that c has too.
    rewards.answering(|_, status, mut body| {
        let list = body["rewards"].as_array_mut().unwrap();
        list[..3].rotate_left(1);
        for row in list.iter_mut() {
            row.as_object_mut().unwrap().remove("requestId");
        }
        // The backend could not give a's: it went to somebody else meanwhile.
        list[2]["quantity"] = 0.into();
        list[2]["intouch"] = serde_json::json!([]);
        answer(status, &body.to_string())
    });
    let body = batch("+65", &[("a", "R1", 1), ("b", "R2", 1), ("c", "R1", 1), ("d", "R2", 1)]);
    let reply = issue(&body).send(gateway.addr);
    reply.is(409, "unknown", "outcome-unknown");
    rewards.honest();
    issue(&body).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    assert_eq!((rewards.issued("c"), rewards.sent().len()), (1, 1));
}

/// Two further batches of the customer, of which one finds the only place to wait; gives its
/// connection.
fn one_that_waits(to: std::net::SocketAddr, ids: [&str; 2]) -> Conn {
    let [mut one, mut other] = ids.map(|id| issue(&batch("+65", &[(id, "R1", 1)])).begin(to));
    let refused = eventually("one of two is refused", || {
        let soon = Duration::from_millis(20);
        one.readable_within(soon).then_some(0).or(other.readable_within(soon).then_some(1))
    });
    let (mut refused, waiting) = if refused == 0 { (one, other) } else { (other, one) };
    refused.read().is(409, "in-progress", "request-in-progress");
    waiting
}

#[test]
fn a_batch_whose_turn_has_come_takes_no_place_to_wait() {
    let (rewards, gates) = (Rewards::start(), [Gate::default(), Gate::default()]);
    let gateway = rewards.gateway("duplicates.wait = \"30s\"\nduplicates.max_waiters = 1");
    let held = gates.clone();
    rewards.answering(move |seen, status, body| {
        let answer = answer(status, &body.to_string());
        held.get(seen.number).map_or(answer.clone(), |gate| answer.after(gate))
    });
    let mut first = issue(&batch("+65", &[("a", "R1", 1)])).begin(gateway.addr);
    rewards.backend.wait_calls(1);
    let mut second = one_that_waits(gateway.addr, ["b", "c"]);
    gates[0].open();
    first.read().is(200, "executed", "");
    rewards.backend.wait_calls(2);
    let mut third = one_that_waits(gateway.addr, ["d", "e"]);
    assert!(!third.readable_within(Duration::from_millis(20)));
    gates[1].open();
    second.read().is(200, "executed", "");
    third.read().is(200, "executed", "");
}

type Edit = fn(String) -> String;

#[test]
fn rows_that_cannot_be_read_are_not_a_refusal_by_the_status() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    let edits: [(u16, Edit); 3] = [
        (429, |text| text[..text.len() - 1].to_owned()),
        // Its own row in the merged answer.
        (409, |text| text.replacen("\"quantity\":", "\"quantity\":0,\"quantity\":", 1)),
        (429, |text| format!("\u{feff} {text},")),
    ];
    for (at, (first, edit)) in edits.into_iter().enumerate() {
        let id = format!("a{at}");
        rewards.answering(move |_, _, body| answer(429, &edit(body.to_string())));
        let body = batch("+65", &[(&id, "R1", 2)]);
        for status in [first, 409] {
            let reply = issue(&body).send(gateway.addr);
            // The answer without readable rows comes as it came; a merged answer is the gateway's.
            let error = if status == 429 { "" } else { "outcome-unknown" };
            reply.is(status, "unknown", error);
        }
        assert_eq!(rewards.issued(&id), 2);
    }
    // What is no JSON has no rows.
    rewards.backend.always(answer(429, "<html>too many</html>"));
    let body = batch("+65", &[("b", "R1", 1)]);
    issue(&body).send(gateway.addr).is(429, "not-executed", "");
}

#[test]
fn lists_longer_than_a_text_may_be_lose_nothing() {
    let backend = Backend::start();
    let route = "name = \"issue\"\nmethods = [\"POST\"]\npath = \"/issue\"\nmode = \"items\"\nprofile = \"capillary\"";
    let gateway = Setup::before(&backend).route(route).start();
    let half = vec!["1"; 59_999].join(",");
    let row = |rest: &str| format!(r#"{{"rewards":[{{"requestId":"a",{rest}}}]}}"#);
    let body = batch("+65", &[("a", "R1", 120_001)]);
    let rest = format!(r#""quantity":60000,"intouch":[{half}],"vendor":["v"]"#);
    backend.always(answer(200, &row(&rest)));
    for _ in 0..2 {
        issue(&body).send(gateway.addr).is(200, "executed", "");
    }
    // The last row has none of the lists: all of them are put into it.
    backend.always(answer(200, &row(r#""quantity":1"#)));
    for disposition in ["executed", "replayed"] {
        let reply = issue(&body).send(gateway.addr);
        reply.is(200, disposition, "");
        let row = &reply.json()["rewards"][0];
        let count = |name: &str| row[name].as_array().map_or(0, Vec::len);
        assert_eq!((count("intouch"), count("vendor")), (119_998, 2));
    }
}

#[test]
fn answers_from_the_ledger_share_the_memory_of_all_bodies() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).route(ALL).limits("buffered = \"1MiB\"");
    let gateway = setup.start();
    let list = |ids: std::ops::Range<usize>| {
        let items: Vec<String> = ids.map(|id| format!(r#"{{"id":{id}}}"#)).collect();
        Request::new("POST", "/credit").json(&format!(r#"{{"list":[{}]}}"#, items.join(",")))
    };
    let pad = "x".repeat(200 << 10);
    for id in 0..8 {
        let row = format!(r#"{{"list":[{{"id":{id},"success":true,"pad":"{pad}"}}]}}"#);
        backend.always(answer(200, &row));
        list(id..id + 1).send(gateway.addr).is(200, "executed", "");
    }
    assert!(list(0..3).send(gateway.addr).is(200, "replayed", "").body.len() > 600 << 10);
    // A request of a hundred bytes cannot take more than all bodies may.
    list(0..8).send(gateway.addr).is(503, "rejected", "overloaded");
    // What was taken was given back.
    list(4..7).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 8);
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let rewards = Rewards::start();
    let setup = rewards.setup("");
    let mut command = Command::new(BINARY);
    command.args(["run", "--config", &setup.write_config()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    drop(running.0.stderr.take());
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    // Kept open to the end of the test: only the log is lost.
    let mut lines = lines.map_while(Result::ok);
    let address = lines
        .by_ref()
        .find_map(|line| line.strip_prefix("oncegate: listening on ").map(str::to_owned))
        .expect("it starts");
    let to = address.parse().unwrap();
    // Refusals, and items whose fate is unknown, are worth a line.
    let body = batch("+65", &[("a", "R1", 2), ("b", "R1", 1)]);
    rewards.editing(200, |body| drop(body["rewards"].as_array_mut().unwrap().remove(0)));
    let reply = issue(&body).send(to);
    assert_eq!(rows(&reply), "a:0/2 1010, b:1/1 200 = 1010");
    issue(&batch("+65", &[("b", "R1", 2)])).send(to).is(422, "rejected", "key-reused");
}

#[test]
fn routes_of_one_ledger_cannot_forget_what_the_other_keeps() {
    let rewards = Rewards::start();
    let second = |lines: &str| {
        let name = "name = \"second\"\nmethods = [\"POST\"]\npath = \"/second\"\nmode = \"items\"";
        let setup = rewards.setup("[route.items]\nledger = \"rewards\"");
        setup.route(&format!("{name}\nprofile = \"capillary\"\n{lines}")).try_start()
    };
    let refused = [
        ("record.retention = \"1s\"\nitems.ledger = \"rewards\"", "`retention`"),
        (
            "[route.items]\nledger = \"rewards\"\n[route.items.response]\nmatch = [\"position\"]\n\
             issued = { arrays = [\"/c\"] }\nappend = [\"/c\"]",
            "`append`",
        ),
    ];
    for (lines, key) in refused {
        let exit = second(lines).expect_err("the two disagree");
        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert!(exit.stderr.contains(key), "{exit:?}");
    }
    second("items.ledger = \"rewards\"").expect("the two agree");
}
