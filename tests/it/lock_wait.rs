//! A store that another process has open: `lock_wait`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::{Backend, Gateway, Request, Setup, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// A setup that waits this long for its store.
fn setup(backend: &Backend, wait: &str) -> Setup {
    let setup = Setup::before(backend);
    let path = setup.store_path();
    setup.on(format!("[store.embedded]\npath = {path:?}\nlock_wait = {wait:?}"))
}

/// Waits until the gateway says that it waits; gives its admin address.
fn admin_of_waiting(gateway: &Gateway) -> SocketAddr {
    eventually("the gateway waits for its store", || {
        let log = gateway.stderr();
        let line = log.lines().find(|line| line.contains("another process has the store open"))?;
        assert!(line.contains("WARN"), "{line}");
        let at = line.find("127.0.0.1:")?;
        let end = line[at..].find([' ', '"', ',', '\x1b']).map_or(line.len(), |end| at + end);
        line[at..end].parse().ok()
    })
}

#[test]
fn a_start_waits_for_the_process_that_has_the_store_and_is_not_ready() {
    let backend = Backend::start();
    let setup = setup(&backend, "30s");
    let mut first = setup.start();
    Request::redeem("k", BODY).send(first.addr).is(200, "executed", "");
    let second = setup.begin();
    let admin = admin_of_waiting(&second);
    for _ in 0..2 {
        let reply = Request::get("/readyz").send(admin);
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.text().contains("the store is not open yet"), "{reply:?}");
        assert_eq!(Request::get("/healthz").send(admin).status, 200);
        assert_eq!(Request::get("/api/records").send(admin).status, 503);
    }
    Request::redeem("k", BODY).send(first.addr).is(200, "replayed", "");
    first.stop();
    let second = second.ready().unwrap();
    assert_eq!(second.admin, admin);
    assert_eq!(Request::get("/readyz").send(admin).status, 200);
    Request::redeem("k", BODY).send(second.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
    assert_eq!(second.stderr().matches("another process has the store open").count(), 1);
}

#[test]
fn the_wait_ends_with_an_error() {
    let backend = Backend::start();
    let setup = setup(&backend, "700ms");
    let _first = setup.start();
    let begun = Instant::now();
    let exit = setup.try_start().unwrap_err();
    assert!(begun.elapsed() >= Duration::from_millis(700), "{exit:?}");
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("in use by another process"), "{exit:?}");
}

#[test]
fn a_signal_ends_the_wait() {
    let backend = Backend::start();
    let setup = setup(&backend, "1h");
    let first = setup.start();
    let mut second = setup.begin();
    admin_of_waiting(&second);
    second.stop();
    Request::redeem("k", BODY).send(first.addr).is(200, "executed", "");
}
