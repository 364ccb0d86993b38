//! Settlement under clocks that are wrong, that are set, and that change to and from summer time:
//! no step waits for a time that never comes, and no call counts as absent because its row was
//! looked for at another time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::clocks::{Machine, reset};
use crate::support::{Act, AdminClient, Backend, Gateway, Request, Setup, answer, eventually};

const HOUR: i64 = 3600;
const REDEEM: &str = "/v1/vouchers/redeem";

fn redeem(key: &str) -> Request {
    Request::redeem(key, &format!("{{\"qr\":\"{key}\"}}"))
}

fn lose(gateway: &Gateway, key: &str) {
    let reply = redeem(key).send(gateway.addr);
    assert_eq!(reply.disposition(), "unknown", "{reply:?}");
}

fn seconds() -> i64 {
    i64::try_from(oncegate::clock::now().as_millis() / 1000).unwrap()
}

#[test]
fn outcomes_from_before_and_after_a_step_of_the_clock_are_settled() {
    for offset in [reset(), -HOUR] {
        let (backend, paid) = (Backend::start(), Arc::new(AtomicBool::new(false)));
        let decided = paid.clone();
        backend.script(move |seen| match (seen.target(), seen.text().contains("final")) {
            (REDEEM, true) => answer(200, "{}"),
            (REDEEM, false) => Act::reset(),
            _ if decided.load(Ordering::SeqCst) => answer(200, r#"{"status":"paid"}"#),
            _ => answer(200, r#"{"status":"new"}"#),
        });
        let setup = AdminClient::guard(Setup::before(&backend))
            .redeem(r#"outcome.on_unknown = "probe""#)
            .redeem(r#"probe.path = "/sales/{key}""#)
            .redeem(r#"probe.min_age = "0s""#)
            .redeem(r#"probe.every = "100ms""#)
            .redeem(r#"probe.executed = { pointer = "/status", equals = "paid" }"#);
        let machine = Machine::with(setup);
        machine.set(offset);
        let gateway = machine.start();
        // A record that is kept for long, so that the step counts for as long.
        redeem("final").send(gateway.addr).is(200, "executed", "");
        lose(&gateway, "before");
        backend.wait_calls(3);
        machine.set(0);
        lose(&gateway, "after");
        let reply = redeem("after").send(gateway.addr);
        reply.is(409, "unknown", "outcome-unknown");
        let seconds: u64 = reply.header("retry-after").expect("a time").parse().unwrap();
        assert!(seconds < 60, "{offset}: the next step is soon, not in {seconds} s");
        paid.store(true, Ordering::SeqCst);
        for key in ["after", "before"] {
            AdminClient::of(&gateway).show_in(key, "final");
            redeem(key).send(gateway.addr).is(200, "recovered", "");
        }
        assert_eq!(backend.calls_to(REDEEM), 3, "{offset}");
    }
}

/// A route that looks for rows by their time, and believes a single absence.
fn listing(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend))
        .upstream(r#"timeout = "300ms""#)
        .redeem(r#"outcome.on_unknown = "probe""#)
        .redeem(r#"probe.path = "/sales?from={dispatched_at-2m|rfc3339}&day={dispatched_at|date}""#)
        .redeem(r#"probe.min_age = "0s""#)
        .redeem(r#"probe.every = "50ms""#)
        .redeem(r#"probe.rows = "/data""#)
        .redeem(r#"probe.match = { "/qr" = "{/qr}" }"#)
        .redeem(r#"probe.window = { at = "/created_at", before = "2m", after = "2m" }"#)
        .redeem(r#"probe.executed = { pointer = "/id", present = true }"#)
        .redeem(
            r#"probe.absent = { after = "10ms", sightings = 1, look_back = "1000h", control = "/health" }"#,
        )
}

fn dated(body: &Value) -> Act {
    let date = oncegate::clock::now().to_http_date();
    let headers = [("content-type", "application/json"), ("date", date.as_str())];
    Act::whole(200, &headers, body.to_string().as_bytes())
}

#[test]
fn a_row_outside_of_the_window_of_a_wrong_clock_is_not_taken_for_absent() {
    // The clock at the call and at the look, in seconds from the right time.
    for (call, look) in [(-HOUR, -HOUR), (-HOUR, 0), (HOUR, HOUR), (reset(), 0)] {
        let backend = Backend::start();
        backend.script(|seen| match seen.target() {
            REDEEM if seen.text().contains("final") => dated(&json!({})),
            REDEEM => Act::reset(),
            "/health" => dated(&json!({})),
            // The backend has the sale, by its own right clock.
            _ => dated(&json!({ "data": [{ "id": 1, "qr": "k", "created_at": seconds() }] })),
        });
        let machine = Machine::with(listing(&backend));
        machine.set(call);
        let gateway = machine.start();
        redeem("final").send(gateway.addr).is(200, "executed", "");
        lose(&gateway, "k");
        machine.set(look);
        let shown = eventually("the look is noted", || {
            let shown = AdminClient::of(&gateway).show("k");
            shown["history"].to_string().contains("clock differs").then_some(shown)
        });
        assert_eq!(shown["state"], "unknown", "{call} {look}: {shown}");
        redeem("k").send(gateway.addr).is(409, "unknown", "outcome-unknown");
        assert_eq!(backend.calls_to(REDEEM), 2, "{call} {look}");
    }
}

#[test]
fn under_right_clocks_an_absence_counts() {
    let backend = Backend::start();
    backend.script(|seen| match seen.target() {
        REDEEM => Act::reset(),
        _ => dated(&json!({ "data": [{ "id": 1, "qr": "other", "created_at": seconds() }] })),
    });
    let gateway = Machine::with(listing(&backend)).start();
    lose(&gateway, "k");
    AdminClient::of(&gateway).show_in("k", "released");
}

#[test]
fn rows_in_local_time_are_found_across_the_changes_of_summer_time() {
    // Two seconds before a change in Berlin, in UTC, and the offsets before and after.
    for (change, date, offsets) in [
        (1_774_745_998, "2026-03-29", ["+01:00", "+02:00"]),
        (1_792_889_998, "2026-10-25", ["+02:00", "+01:00"]),
    ] {
        let backend = Backend::start();
        let [before, after] = offsets;
        let local = |offset: &str, seconds: i64| {
            let hours: i64 = offset[1..3].parse().unwrap();
            let at = u64::try_from(change + seconds + hours * HOUR).unwrap() * 1000;
            let text = oncegate::clock::rfc3339(oncegate::clock::Timestamp::from_millis(at));
            format!("{}{offset}", &text[..19])
        };
        // The same reading of a clock on the wall with the other offset is an hour away.
        let (found, twin) = (local(before, 1), local(before, 1).replace(before, after));
        let later = local(after, 60);
        assert_eq!(&found[..19], &twin[..19]);
        backend.script(move |seen| {
            let row = |id: u32, qr: &str, at: &str| json!({ "id": id, "qr": qr, "created_at": at });
            let rows = [
                row(1, "found", &found),
                row(2, "twin", &twin),
                row(3, "found", &twin),
                row(4, "later", &later),
            ];
            match seen.target() {
                REDEEM => Act::reset(),
                "/health" => answer(200, "{}"),
                _ => answer(200, &json!({ "data": rows }).to_string()),
            }
        });
        let setup = listing(&backend).env("TZ", "Europe/Berlin");
        let machine = Machine::with(setup);
        machine.set(change - seconds());
        let gateway = machine.start();
        for key in ["found", "later", "twin"] {
            lose(&gateway, key);
        }
        let admin = AdminClient::of(&gateway);
        admin.show_in("found", "final");
        admin.show_in("later", "final");
        admin.show_in("twin", "released");
        let seen = backend.seen();
        let asked = seen.iter().find(|seen| seen.target().starts_with("/sales")).expect("a look");
        assert!(asked.target().contains(&format!("day={date}")), "{}", asked.line);
        assert!(asked.target().contains("Z&day"), "times are UTC: {}", asked.line);
    }
}
