//! SIGTERM: no new work, and what is in flight is finished, recorded and answered.

use std::io::ErrorKind;

use crate::support::{Backend, Conn, Gate, Request, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

#[test]
fn a_call_in_flight_is_finished_recorded_and_answered() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, r#"{"drained":true}"#).after(&gate));
    let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "30s""#);
    let mut gateway = setup.start();
    let mut first = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    let mut waiting = Request::redeem("k", BODY).begin(gateway.addr);
    gateway.sigterm();
    eventually("new connections are refused", || {
        Conn::try_open(gateway.addr)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            .then_some(())
    });
    assert!(!gateway.ended());
    gate.open();
    let reply = first.read();
    reply.is(200, "executed", "");
    first.ends();
    if let Ok(reply) = waiting.try_read(false) {
        assert_eq!(reply.text(), r#"{"drained":true}"#);
    }
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.stderr());
    let gateway = setup.start();
    let again = Request::redeem("k", BODY).send(gateway.addr);
    again.is(200, "replayed", "");
    assert_eq!(reply.kept(), again.kept());
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_call_whose_client_left_is_finished_too() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let setup = Setup::before(&backend);
    let mut gateway = setup.start();
    Request::redeem("k", BODY).begin(gateway.addr).half_close();
    backend.wait_calls(1);
    gateway.sigterm();
    eventually("new connections are refused", || Conn::try_open(gateway.addr).err());
    gate.open();
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.stderr());
    let gateway = setup.start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn idle_connections_do_not_hold_the_end_up() {
    let backend = Backend::start();
    let mut gateway = Setup::before(&backend).start();
    let mut used = Request::get("/").begin(gateway.addr);
    assert_eq!(used.read().status, 200);
    let mut unused = Conn::open(gateway.addr);
    gateway.stop();
    used.ends();
    unused.ends();
}

#[test]
fn a_call_that_outlasts_the_drain_is_unknown_afterwards() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let setup = Setup::before(&backend).server(r#"drain = "200ms""#);
    let mut gateway = setup.start();
    let _cut = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    gateway.sigterm();
    gateway.wait();
    let gateway = setup.start();
    Request::redeem("k", BODY).send(gateway.addr).is(409, "unknown", "outcome-unknown");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn readiness_ends_with_the_signal_and_liveness_does_not() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let mut gateway = Setup::before(&backend).start();
    assert_eq!(Request::get("/readyz").send(gateway.admin).status, 200);
    assert_eq!(Request::get("/healthz").send(gateway.admin).status, 200);
    let mut running = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    gateway.sigterm();
    eventually("not ready", || {
        (Request::get("/readyz").send(gateway.admin).status == 503).then_some(())
    });
    assert_eq!(Request::get("/healthz").send(gateway.admin).status, 200);
    gate.open();
    running.read().is(200, "executed", "");
    assert_eq!(gateway.wait().code(), Some(0));
}
