//! `/metrics`: names and labels of the contract, counts of what was sent, and no series for callers
//! or keys.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::rewards::{batch, issue};
use crate::support::{
    Act, AdminClient, Backend, Conn, Gate, Gateway, Request, Rewards, Setup, answer, at_once,
    eventually,
};

const BODY: &str = r#"{"qr":"rsg:1"}"#;
const PROMTOOL: &str = "/usr/bin/promtool";

/// The exposition, in the form that a scrape without a preference gets.
#[track_caller]
pub(crate) fn scrape(gateway: &Gateway) -> String {
    let scraped = Request::new("GET", "/metrics").send(gateway.admin);
    assert_eq!(scraped.status, 200, "{scraped:?}");
    assert_eq!(
        scraped.header("content-type").as_deref(),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    scraped.text()
}

/// Every sample by its name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(sample).collect()
}

/// The value of a sample.
#[track_caller]
fn value(gateway: &Gateway, name: &str) -> f64 {
    let text = scrape(gateway);
    *samples(&text).get(name).unwrap_or_else(|| panic!("no {name} in:\n{text}"))
}

fn requests(route: &str, outcome: &str) -> String {
    format!("oncegate_requests_total{{route=\"{route}\",outcome=\"{outcome}\"}}")
}

fn redeem(key: &str) -> Request {
    Request::redeem(key, BODY)
}

#[test]
fn every_answer_is_counted_by_its_route_and_by_what_it_said() {
    let backend = Backend::start();
    let setup = Setup::before(&backend)
        .redeem(r#"duplicates.wait = "0s""#)
        .redeem(r#"profile = "redeemsg""#);
    let gateway = setup.start();
    redeem("a").send(gateway.addr).is(200, "executed", "");
    redeem("a").send(gateway.addr).is(200, "replayed", "");
    redeem("a").send(gateway.addr).is(200, "replayed", "");
    // The envelope of this route turns the status into 409; the outcome is the slug all the same.
    Request::redeem("a", "{}").send(gateway.addr).is(409, "rejected", "key-reused");
    backend.always(Act::reset());
    redeem("b").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    redeem("b").send(gateway.addr).is(409, "unknown", "outcome-unknown");
    Request::new("GET", "/x").send(gateway.addr).is(502, "", "upstream-failed");
    backend.script(|seen| answer(200, &seen.number.to_string()));
    Request::new("GET", "/x").send(gateway.addr).is(200, "", "");
    Request::new("POST", "/optional").send(gateway.addr).is(200, "bypassed", "");
    Request::new("POST", "/nowhere").send(gateway.addr).is(405, "", "method-not-allowed");
    let mut conn = Conn::open(gateway.addr);
    conn.write("GET / HTTP/1.1\r\nbad line\r\n\r\n");
    conn.read().is(400, "rejected", "request-invalid");
    let samples = samples(&scrape(&gateway));
    for (route, outcome, count) in [
        ("redeem", "executed", 1.0),
        ("redeem", "replayed", 2.0),
        ("redeem", "key-reused", 1.0),
        ("redeem", "outcome-unknown", 2.0),
        ("redeem", "unknown", 0.0),
        ("redeem", "passed", 0.0),
        ("rest", "upstream-failed", 1.0),
        ("rest", "passed", 1.0),
        ("optional", "bypassed", 1.0),
        ("", "method-not-allowed", 1.0),
        ("", "request-invalid", 1.0),
    ] {
        assert_eq!(samples[&requests(route, outcome)], count, "{route} {outcome}");
    }
    // A reused key is no duplicate, and neither is the first request whose answer was lost.
    assert_eq!(samples[r#"oncegate_prevented_total{route="redeem"}"#], 3.0);
    assert_eq!(samples[r#"oncegate_prevented_total{route="rest"}"#], 0.0);
    assert_eq!(samples[r#"oncegate_replays_total{route="redeem"}"#], 2.0);
    assert_eq!(samples[r#"oncegate_request_seconds_count{route="redeem"}"#], 6.0);
    // Lost calls have taken time as well.
    assert_eq!(samples[r#"oncegate_upstream_seconds_count{upstream="backend"}"#], 5.0);
    assert_eq!(samples["oncegate_unknown_records"], 1.0);
    assert!(samples["oncegate_unknown_oldest_seconds"] < 60.0);
    assert!(samples[r#"oncegate_store_seconds_count{op="swap"}"#] >= 4.0);
    assert_eq!(samples[r#"oncegate_store_errors_total{op="swap"}"#], 0.0);
    assert!(samples["oncegate_store_commit_batch_count"] >= 4.0);
    assert!(samples["oncegate_store_created_timestamp_seconds"] > 1.7e9);
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(samples[name] > 0.0, "{name}");
    }
}

#[test]
fn figures_of_the_moment_follow_calls_connections_and_waiters() {
    let backend = Backend::start();
    let gate = Gate::default();
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend).start();
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..3).map(|_| scope.spawn(|| redeem("a").send(gateway.addr))).collect();
        eventually("two duplicates wait", || {
            (value(&gateway, "oncegate_waiters") == 2.0).then_some(())
        });
        for (name, wanted) in [
            ("oncegate_in_flight", 1.0),
            ("oncegate_connections", 3.0),
            (r#"oncegate_pool_connections{upstream="backend"}"#, 1.0),
        ] {
            eventually(name, || (value(&gateway, name) == wanted).then_some(()));
        }
        assert!(value(&gateway, "oncegate_buffered_bytes") >= BODY.len() as f64);
        gate.open();
        for client in clients {
            assert_eq!(client.join().unwrap().status, 200);
        }
    });
    eventually("nothing is left", || {
        let names = ["oncegate_waiters", "oncegate_in_flight", "oncegate_connections"];
        names.iter().all(|name| value(&gateway, name) == 0.0).then_some(())
    });
    eventually("the bodies are given back", || {
        (value(&gateway, "oncegate_buffered_bytes") == 0.0).then_some(())
    });
}

#[test]
fn items_that_are_not_sent_again_are_prevented() {
    let rewards = Rewards::start();
    let gateway = rewards.gateway("");
    let prevented = r#"oncegate_prevented_total{route="issue"}"#;
    let first = [("a", "R1", 1), ("b", "R2", 1)];
    // The third repetition is answered from the cache of replies.
    for (items, wanted) in [
        (first.as_slice(), 0.0),
        (&first, 2.0),
        (&first, 4.0),
        (&[("a", "R1", 1), ("c", "R3", 1)], 5.0),
    ] {
        assert_eq!(issue(&batch("91", items)).send(gateway.addr).status, 200);
        assert_eq!(value(&gateway, prevented), wanted, "{items:?}");
    }
    assert_eq!(rewards.sent(), ["R1x1,R2x1", "R3x1"]);
}

#[test]
fn the_first_alarm_of_a_route_raises_a_series_that_was_there() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    for reason in ["several", "gave_up", "contradiction"] {
        let name = format!("oncegate_alarms_total{{route=\"redeem\",reason=\"{reason}\"}}");
        assert!(value(&gateway, &name).abs() < f64::EPSILON, "{name}");
    }
}

#[test]
fn a_settled_record_leaves_the_count_of_unknown_ones() {
    let backend = Backend::start();
    let gateway = AdminClient::guard(Setup::before(&backend)).start();
    backend.always(Act::reset());
    for key in ["a", "b"] {
        redeem(key).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    }
    let unknown = |count: f64| {
        eventually("the count follows", || {
            (value(&gateway, "oncegate_unknown_records") == count).then_some(())
        });
    };
    unknown(2.0);
    AdminClient::of(&gateway).settle("a", "executed");
    unknown(1.0);
    AdminClient::of(&gateway).settle("b", "not-executed");
    unknown(0.0);
    for how in ["executed", "not-executed"] {
        let name =
            format!("oncegate_settled_total{{route=\"redeem\",by=\"operator\",as=\"{how}\"}}");
        assert_eq!(value(&gateway, &name), 1.0);
    }
    assert_eq!(value(&gateway, "oncegate_unknown_oldest_seconds"), 0.0);
}

#[test]
fn ten_thousand_callers_and_keys_make_no_series() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let send = |conn: &mut Conn, number: usize| {
        let request = redeem(&format!("key-{number}"))
            .header("authorization", format!("Bearer person-{number}"));
        conn.write(request.bytes());
        conn.read().is(200, "executed", "");
    };
    send(&mut Conn::open(gateway.addr), 0);
    let before: Vec<String> = samples(&scrape(&gateway)).into_keys().collect();
    at_once(8, |part| {
        let mut conn = Conn::open(gateway.addr);
        for number in 0..1250 {
            send(&mut conn, 1 + part * 1250 + number);
        }
    });
    let text = scrape(&gateway);
    let after: Vec<String> = samples(&text).into_keys().collect();
    assert_eq!(before, after);
    assert_eq!(samples(&text)[&requests("redeem", "executed")], 10_001.0);
    assert!(!text.contains("person-") && !text.contains("key-7"), "{text}");
}

#[test]
fn both_text_forms_are_served_and_the_linter_has_nothing_to_say() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    redeem("a").send(gateway.addr).is(200, "executed", "");
    let text = scrape(&gateway);
    let mut linter = Command::new(PROMTOOL)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool of Debian's prometheus; .ci/test installs it");
    linter.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let linted = linter.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&linted.stderr).into_owned();
    assert!(linted.status.success() && complaints.is_empty(), "{complaints}\n{text}");

    let openmetrics = Request::new("GET", "/metrics")
        .header("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        .send(gateway.admin);
    let kind = openmetrics.header("content-type").unwrap();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = openmetrics.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("# TYPE oncegate_requests counter\n"), "{text}");
    assert!(text.contains("oncegate_requests_total{route=\"redeem\",outcome=\"executed\"} 1\n"));
    let posted = Request::new("POST", "/metrics").send(gateway.admin);
    assert_eq!((posted.status, posted.header("allow").as_deref()), (405, Some("GET, HEAD")));
}
