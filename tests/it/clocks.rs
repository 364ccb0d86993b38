//! Wrong clocks: a key that was executed is not executed again because the time was set.
//!
//! The gateway runs under libfaketime, which reads the time to tell from a file. Waits and timeouts
//! keep the real time.

use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Backend, Gateway, Request, Response, Setup, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;
const DAY: i64 = 86_400;

/// A machine whose clock can be set.
pub(crate) struct Machine {
    file: PathBuf,
    setup: Setup,
}

impl Machine {
    fn new(backend: &Backend, lines: &[&str]) -> Self {
        Self::with(lines.iter().fold(Setup::before(backend), |setup, line| setup.redeem(line)))
    }

    /// A machine that runs this, with the right time.
    pub(crate) fn with(setup: Setup) -> Self {
        let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
            .map(|arch| PathBuf::from(format!("/usr/lib/{arch}/faketime/libfaketimeMT.so.1")))
            .into_iter()
            .find(|path| path.exists())
            .expect("the Debian package faketime is needed; .ci/test installs it");
        let file = setup.dir().join("clock");
        let setup = setup
            .env("LD_PRELOAD", library.to_str().unwrap())
            .env("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap())
            .env("FAKETIME_NO_CACHE", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        let machine = Self { file, setup };
        machine.set(0);
        machine
    }

    /// Sets the clock this far from the right time, in seconds.
    pub(crate) fn set(&self, offset: i64) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{offset:+}\n")).unwrap();
        std::fs::rename(next, &self.file).unwrap();
    }

    pub(crate) fn start(&self) -> Gateway {
        self.setup.start()
    }
}

/// Seconds from now to the start of the year 2000, where a clock without a battery starts.
pub(crate) fn reset() -> i64 {
    let now = oncegate::clock::now().as_millis() / 1000;
    946_684_800 - i64::try_from(now).unwrap()
}

fn send(gateway: &Gateway) -> Response {
    Request::redeem("k", BODY).send(gateway.addr)
}

/// The clock that the gateway shows.
fn year(reply: &Response) -> String {
    reply.header("idempotency-expires").expect("a time")[12..16].to_owned()
}

#[test]
fn a_key_that_ran_under_a_wrong_clock_does_not_run_again_when_the_clock_is_set() {
    for offset in [reset(), -40 * DAY, -8 * DAY, -3600] {
        let backend = Backend::start();
        let machine = Machine::new(&backend, &[]);
        machine.set(offset);
        let gateway = machine.start();
        send(&gateway).is(200, "executed", "");
        if offset == reset() {
            assert_eq!(year(&send(&gateway)), "2000", "the clock is faked");
        }
        machine.set(0);
        send(&gateway).is(200, "replayed", "");
        Request::redeem("other", BODY).send(gateway.addr).is(200, "executed", "");
        // The sweeper runs every 10 s at least; the store has listed what is due by then.
        let reply = Request::redeem("other", BODY).send(gateway.addr);
        assert_ne!(year(&reply), "2000", "new records have the right time");
        let gateway = gateway.restarted();
        send(&gateway).is(200, "replayed", "");
        assert_eq!(backend.calls(), 2, "{offset} s");
    }
}

#[test]
fn a_clock_that_runs_ahead_for_a_while_expires_nothing() {
    let backend = Backend::start();
    let machine = Machine::new(&backend, &[]);
    let gateway = machine.start();
    send(&gateway).is(200, "executed", "");
    for offset in [20 * DAY, 0, 400 * DAY, -3600, 0] {
        machine.set(offset);
        send(&gateway).is(200, "replayed", "");
    }
    assert_eq!(backend.calls(), 1);
}

#[test]
fn after_a_start_far_ahead_nothing_is_deleted() {
    let backend = Backend::start();
    let machine = Machine::new(&backend, &[]);
    let gateway = machine.start();
    send(&gateway).is(200, "executed", "");
    drop(gateway);
    machine.set(60 * DAY);
    let gateway = machine.start();
    send(&gateway).is(410, "rejected", "key-expired");
    assert!(gateway.stderr().contains("nothing is deleted for an hour"), "{}", gateway.stderr());
    // An answered call of another key is not deleted either.
    Request::redeem("other", BODY).send(gateway.addr).is(200, "executed", "");
    send(&gateway).is(410, "rejected", "key-expired");
    machine.set(0);
    send(&gateway).is(200, "replayed", "");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn a_clock_behind_the_newest_record_is_told_and_time_goes_on_from_there() {
    let backend = Backend::start();
    let machine = Machine::new(&backend, &["record.retention = \"2s\"\nrecord.tombstone = \"1h\""]);
    let gateway = machine.start();
    send(&gateway).is(200, "executed", "");
    let gateway = { gateway.restarted() };
    drop(gateway);
    machine.set(reset());
    let gateway = machine.start();
    let stderr = gateway.stderr();
    assert!(stderr.contains("WARN") && stderr.contains("behind the newest record"), "{stderr}");
    let other = Request::redeem("other", BODY).send(gateway.addr);
    other.is(200, "executed", "");
    assert_ne!(year(&other), "2000");
    let reply = eventually("time goes on", || {
        let reply = send(&gateway);
        (reply.disposition() != "replayed").then_some(reply)
    });
    reply.is(410, "rejected", "key-expired");
    machine.set(0);
    send(&gateway).is(410, "rejected", "key-expired");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn retention_ends_in_time_under_any_clock() {
    let backend = Backend::start();
    let machine = Machine::new(&backend, &["record.retention = \"2s\"\nrecord.tombstone = \"0s\""]);
    machine.set(reset());
    let gateway = machine.start();
    let sent = std::time::Instant::now();
    send(&gateway).is(200, "executed", "");
    machine.set(0);
    send(&gateway).is(200, "replayed", "");
    eventually("the key is free", || (send(&gateway).disposition() == "executed").then_some(()));
    assert!(sent.elapsed() >= Duration::from_secs(2));
}
