//! Few file descriptors: fewer clients, and never the end of the store.

use std::time::Duration;

use crate::support::{Backend, Conn, Request, Setup, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

#[test]
fn the_soft_limit_is_raised_to_the_hard_one() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).shell("ulimit -Sn 80; ulimit -Hn 4096");
    let mut gateway = setup.start();
    gateway.logs(&["oncegate has started", "descriptors=4096", "connections=2016"]);
    let warning = gateway.logs(&["WARN", "`connections` is lowered"]);
    for word in ["configured=10000", "connections=2016", "descriptors=4096", "LimitNOFILE"] {
        assert!(warning.contains(word), "{word}: {warning}");
    }
    let idle: Vec<Conn> = (0..400).map(|_| Conn::open(gateway.addr)).collect();
    assert_eq!(Request::get("/healthz").send(gateway.admin).status, 200);
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    drop(idle);
    gateway.stop();
}

#[test]
fn what_fits_is_not_lowered() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).limits("connections = 100");
    let mut gateway = setup.shell("ulimit -n 264").start();
    gateway.stop();
    gateway.logs(&["oncegate has started", "connections=100"]);
    assert!(!gateway.stderr().contains("lowered"), "{}", gateway.stderr());
}

#[test]
fn idle_clients_cannot_take_the_descriptors_of_store_and_operators() {
    let backend = Backend::start();
    // A log whose files are small, so that files of the table are written all the time.
    let setup = Setup::before(&backend)
        .shell("ulimit -n 200")
        .limits("header_timeout = \"120s\"")
        .env("ONCEGATE_LOG_SEGMENT", (96 << 10).to_string());
    let mut gateway = setup.start();
    gateway.logs(&["WARN", "`connections` is lowered", "connections=68"]);
    let mut used = Request::redeem("k", BODY).begin(gateway.addr);
    used.read().is(200, "executed", "");
    let idle: Vec<Conn> = (0..300).filter_map(|_| Conn::try_open(gateway.addr).ok()).collect();
    // Who is connected is served, and the store takes more than a file of its log.
    for number in 0..300 {
        used.write(Request::redeem(&format!("k-{number}"), BODY).bytes());
        used.read().is(200, "executed", "");
    }
    assert_eq!(Request::get("/readyz").send(gateway.admin).status, 200);
    // Who comes too late is told so.
    let mut late = Request::redeem("late", BODY).begin(gateway.addr);
    if late.readable_within(Duration::from_millis(500)) {
        let told = late.try_read(false);
        assert!(told.as_ref().is_ok_and(|told| told.status == 503) || told.is_err(), "{told:?}");
    }
    drop((idle, late));
    eventually("there is room again", || {
        let told = Request::redeem("late", BODY).try_send(gateway.addr).ok()?;
        (told.status == 200).then_some(())
    });
    gateway.stop();
    let lines = gateway.stderr().lines().count();
    assert!(lines < 100, "{lines} lines: {}", gateway.stderr());
    let gateway = setup.start();
    Request::redeem("k-299", BODY).send(gateway.addr).is(200, "replayed", "");
}
