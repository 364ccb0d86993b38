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
        let reply = late.try_read(false);
        assert!(
            reply.as_ref().is_ok_and(|reply| reply.status == 503) || reply.is_err(),
            "{reply:?}"
        );
    }
    drop((idle, late));
    eventually("there is room again", || {
        let reply = Request::redeem("late", BODY).try_send(gateway.addr).ok()?;
        (reply.status == 200).then_some(())
    });
    gateway.stop();
    let lines = gateway.stderr().lines().count();
    assert!(lines < 100, "{lines} lines: {}", gateway.stderr());
    let gateway = setup.start();
    Request::redeem("k-299", BODY).send(gateway.addr).is(200, "replayed", "");
}

/// Every new file, of a checkpoint, of a merge and of a read, fails to open for a while.
#[test]
fn a_store_that_cannot_open_files_for_a_while_goes_on_afterwards() {
    const ROUNDS: usize = 3;
    const KEYS: usize = 150;
    const DESCRIPTORS: u64 = 4096;
    let backend = Backend::start();
    // A log whose files are small: each round writes several runs of the table.
    let setup = Setup::before(&backend)
        .env("ONCEGATE_LOG_SEGMENT", (24 << 10).to_string())
        .shell(format!("ulimit -n {DESCRIPTORS}"));
    let mut gateway = setup.start();
    // Connections of the client and to the backend exist before the limit falls.
    let mut used = Request::redeem("first", BODY).begin(gateway.addr);
    used.read().is(200, "executed", "");
    let failing = |round| match round {
        0 => gateway.stderr().contains("a file of the store could not be opened"),
        // The log tells it once a minute.
        _ => true,
    };
    for round in 0..ROUNDS {
        gateway.limit_descriptors(3, DESCRIPTORS);
        for number in 0..KEYS {
            used.write(Request::redeem(&format!("k-{round}-{number}"), BODY).bytes());
            // A full log waits for its checkpoint, which waits for descriptors.
            eventually("the call is answered, or a file fails to open", || {
                let answered = used.readable_within(Duration::from_millis(300));
                (answered || failing(round)).then_some(())
            });
            if failing(round) && !used.readable_within(Duration::from_millis(300)) {
                gateway.limit_descriptors(DESCRIPTORS, DESCRIPTORS);
            }
            used.read().is(200, "executed", "");
        }
        assert!(failing(round), "{}", gateway.stderr());
        gateway.limit_descriptors(DESCRIPTORS, DESCRIPTORS);
    }
    assert_eq!(Request::get("/readyz").send(gateway.admin).status, 200);
    for round in 0..ROUNDS {
        for number in 0..KEYS {
            used.write(Request::redeem(&format!("k-{round}-{number}"), BODY).bytes());
            used.read().is(200, "replayed", "");
        }
    }
    gateway.stop();
    let gateway = setup.start();
    Request::redeem("k-0-0", BODY).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1 + ROUNDS * KEYS);
}
