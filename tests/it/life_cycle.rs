//! From the start to the end of the process: signals, exit codes, and what probes are logged.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::gateway::run;
use crate::support::{Backend, Conn, Gate, Gateway, Request, Setup, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// A gateway with a call in flight, which ends when the gate opens.
fn with_a_call(server: &str) -> (Backend, Gate, Gateway, Conn) {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let gateway = Setup::before(&backend).server(server).start();
    let call = Request::redeem("k", BODY).begin(gateway.addr);
    backend.wait_calls(1);
    (backend, gate, gateway, call)
}

#[track_caller]
fn refuses(gateway: &Gateway) {
    eventually("new connections are refused", || Conn::try_open(gateway.addr).err());
}

#[test]
fn before_a_drain_probes_are_told_and_clients_are_still_served() {
    let backend = Backend::start();
    let mut gateway = Setup::before(&backend).server("drain_delay = \"60s\"").start();
    let admin = format!("http://{}", gateway.admin);
    gateway.signal(Signal::INT);
    eventually("probes are logged", || {
        (Request::get("/readyz").send(gateway.admin).status == 503).then_some(())
    });
    let reply = Request::get("/readyz").send(gateway.admin).text();
    assert!(reply.starts_with("oncegate is draining"), "{reply}");
    assert_eq!(Request::get("/healthz").send(gateway.admin).status, 200);
    let health = run(&["health", "--admin", &admin]);
    assert_eq!(health.code, Some(1), "{health:?}");
    assert!(health.stderr.contains("oncegate is draining"), "{health:?}");
    // On a new connection.
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    gateway.signal(Signal::INT);
    assert_eq!(gateway.wait().code(), Some(1), "a second SIGINT ends at once");
}

#[test]
fn after_the_delay_the_drain_begins() {
    let backend = Backend::start();
    let mut gateway = Setup::before(&backend).server("drain_delay = \"200ms\"").start();
    let start = Instant::now();
    gateway.stop();
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let (_backend, _gate, mut gateway, _call) = with_a_call("drain = \"60s\"");
    gateway.signal(Signal::INT);
    refuses(&gateway);
    assert!(!gateway.ended());
    let start = Instant::now();
    gateway.signal(Signal::INT);
    assert_eq!(gateway.wait().code(), Some(1), "{}", gateway.stderr());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    gateway.logs(&["INFO", "oncegate has ended", "reason=SIGINT", "drained=false", "exit=1"]);
}

#[test]
fn further_requests_to_terminate_change_nothing() {
    let (_backend, gate, mut gateway, mut call) = with_a_call("drain = \"60s\"");
    gateway.sigterm();
    refuses(&gateway);
    for _ in 0..3 {
        gateway.sigterm();
        gateway.logs(&["INFO", "the signal is ignored", "signal=SIGTERM"]);
    }
    // One interrupt is no second one.
    gateway.signal(Signal::HUP);
    gateway.logs(&["the signal is ignored", "signal=SIGHUP"]);
    assert!(!gateway.ended());
    gate.open();
    call.read().is(200, "executed", "");
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.stderr());
}

#[test]
fn a_drain_that_ran_out_is_a_failure() {
    let (_backend, _gate, mut gateway, _call) = with_a_call("drain = \"200ms\"");
    gateway.sigterm();
    assert_eq!(gateway.wait().code(), Some(1), "{}", gateway.stderr());
    gateway.logs(&["WARN", "the drain time is over"]);
    gateway.logs(&["INFO", "oncegate has ended", "reason=SIGTERM", "drained=false", "exit=1"]);
}

#[test]
fn signals_without_a_meaning_are_told_and_ignored() {
    let backend = Backend::start();
    let mut gateway = Setup::before(&backend).start();
    for (signal, name) in [(Signal::USR1, "signal=SIGUSR1"), (Signal::USR2, "signal=SIGUSR2")] {
        gateway.signal(signal);
        gateway.logs(&["INFO", "the signal is ignored", name]);
    }
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    gateway.stop();
}

#[test]
fn health_is_the_readiness_of_an_oncegate_and_of_nothing_else() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let of = |addr: std::net::SocketAddr| run(&["health", "--admin", &format!("http://{addr}")]);
    let ready = of(gateway.admin);
    assert_eq!((ready.code, ready.stdout.trim()), (Some(0), "oncegate is ready"), "{ready:?}");
    // Another server that answers everything with 200, in other words.
    for text in ["ready\n", "", "{\"status\":\"UP\"}", "<h1>oncegate</h1>"] {
        backend.always(answer(200, text));
        let exit = of(backend.addr());
        assert_eq!(exit.code, Some(1), "{text:?}: {exit:?}");
        assert!(exit.stderr.contains("is not oncegate's"), "{text:?}: {exit:?}");
    }
    // The public listener passes the question on to the backend.
    assert_eq!(of(gateway.addr).code, Some(1));
}

#[test]
fn health_finds_the_admin_listener_in_the_configuration() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let gateway = setup.start();
    let free = "[admin]\nlisten = \"127.0.0.1:0\"";
    let health = |listen: String| {
        let setup = setup.clone().replacing(free, format!("[admin]\nlisten = \"{listen}\""));
        run(&["health", "--config", &setup.write_config()])
    };
    let exit = health(gateway.admin.to_string());
    assert_eq!((exit.code, exit.stdout.trim()), (Some(0), "oncegate is ready"), "{exit:?}");
    let exit = health("127.0.0.1:0".to_owned());
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.stderr.contains("port 0"), "{exit:?}");
    let exit = run(&["health", "--config", "missing.toml"]);
    assert_eq!(exit.code, Some(2), "{exit:?}");
}
