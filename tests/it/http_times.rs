//! Connections in time: how long one may idle, how long a head may take, and how soon a client that
//! is gone is let go.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::support::{Act, Backend, Conn, Gate, Gateway, Request, Setup, answer, eventually};

const HELLO: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";

fn gateway(backend: &Backend) -> Gateway {
    Setup::before(backend).start()
}

#[test]
fn a_reset_ends_a_quiet_exchange_within_a_second() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let gateway = gateway(&backend);
    // Nothing yet, a head, a part of a body; for both versions.
    let starts = [Act(Vec::new()), Act::raw(HELLO)];
    for (start, version) in starts.iter().flat_map(|start| [(start, "1.0"), (start, "1.1")]) {
        backend.always(start.clone().then(Act::close().after(&gate)));
        let calls = backend.calls();
        let mut conn = Conn::open(gateway.addr);
        conn.write(format!("GET /events HTTP/{version}\r\nhost: a\r\n\r\n"));
        backend.wait_calls(calls + 1);
        if !start.0.is_empty() {
            assert_eq!(conn.try_read_head().unwrap().0, 200);
        }
        let reset = Instant::now();
        conn.reset();
        backend.wait_ended(calls);
        assert!(reset.elapsed() < Duration::from_secs(1), "{version}: {:?}", reset.elapsed());
    }
}

#[test]
fn a_reset_behind_bytes_sent_ahead_or_a_half_close_ends_it_as_well() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let gateway = gateway(&backend);
    backend.always(Act::raw(HELLO).then(Act::close().after(&gate)));
    for half_close in [true, false] {
        let calls = backend.calls();
        let mut conn = Request::get("/events").begin(gateway.addr);
        assert_eq!(conn.try_read_head().unwrap().0, 200);
        if half_close {
            conn.half_close();
        } else {
            conn.write(Request::get("/next").bytes());
        }
        let reset = Instant::now();
        conn.reset();
        backend.wait_ended(calls);
        assert!(reset.elapsed() < Duration::from_secs(1), "{:?}", reset.elapsed());
    }
    assert_eq!(backend.calls(), 2);
}

#[test]
fn a_client_that_half_closes_a_passed_through_request_is_answered() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let gateway = gateway(&backend);
    backend.always(answer(200, "{}").after(&gate));
    let mut conn = Request::get("/slow").begin(gateway.addr);
    conn.half_close();
    backend.wait_calls(1);
    gate.open();
    conn.read().is(200, "", "");
}

#[test]
fn what_breaks_off_towards_http_1_0_ends_with_a_reset() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).redeem("record.max_stored_body = \"1B\"").start();
    let redeem = "POST /v1/vouchers/redeem HTTP/1.0\r\nhost: a\r\nidempotency-key: k\r\n\
                  content-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    for request in ["GET /download HTTP/1.0\r\nhost: a\r\n\r\n", redeem] {
        backend.always(Act::raw(HELLO).then(Act::close()));
        let mut conn = Conn::open(gateway.addr);
        conn.write(request);
        let error = conn.try_read(false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{request}");
    }
    // A whole one ends in order.
    backend.always(Act::chunked(200, &[b"hello"]));
    let mut conn = Conn::open(gateway.addr);
    conn.write("GET /download HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(conn.read().text(), "hello");
}

#[test]
fn a_process_that_is_killed_resets_its_http_1_0_clients() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let mut gateway = gateway(&backend);
    backend.always(Act::raw(HELLO).then(Act::close().after(&gate)));
    let mut conn = Conn::open(gateway.addr);
    conn.write("GET /download HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!(conn.try_read_head().unwrap().0, 200);
    assert_eq!(conn.read_exact(5), b"hello");
    gateway.kill9();
    assert_eq!(conn.try_read_line().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_idle_connection_lives_for_its_own_time() {
    let backend = Backend::start();
    let limits = "header_timeout = \"300ms\"\nidle_timeout = \"1500ms\"";
    let gateway = Setup::before(&backend).limits(limits).start();
    let mut conn = Conn::open(gateway.addr);
    for _ in 0..2 {
        conn.write(Request::get("/").bytes());
        assert_eq!(conn.read().status, 200);
        assert!(!conn.readable_within(Duration::from_millis(700)));
    }
    let idle = Instant::now();
    conn.ends();
    assert!(idle.elapsed() < Duration::from_millis(1400), "{:?}", idle.elapsed());
}

#[test]
fn a_later_head_has_its_time_from_its_first_byte() {
    let backend = Backend::start();
    let limits = "header_timeout = \"500ms\"\nidle_timeout = \"60s\"";
    let gateway = Setup::before(&backend).limits(limits).start();
    let mut conn = Conn::open(gateway.addr);
    conn.write(Request::get("/").bytes());
    assert_eq!(conn.read().status, 200);
    assert!(!conn.readable_within(Duration::from_millis(600)));
    conn.write("GET / HTTP/1.1\r\n");
    let begun = Instant::now();
    assert_eq!(conn.read().status, 408);
    assert!(begun.elapsed() >= Duration::from_millis(490), "{:?}", begun.elapsed());
    conn.ends();
    assert_eq!(backend.calls(), 1);
}

#[test]
fn the_first_head_has_its_time_from_the_connection_on() {
    let backend = Backend::start();
    let limits = "header_timeout = \"800ms\"\nidle_timeout = \"60s\"";
    let gateway = Setup::before(&backend).limits(limits).start();
    let opened = Instant::now();
    let mut silent = Conn::open(gateway.addr);
    let mut slow = Conn::open(gateway.addr);
    assert!(!slow.readable_within(Duration::from_millis(400)));
    slow.write("GET / HTTP/1.1\r\n");
    assert_eq!(slow.read().status, 408);
    assert!(opened.elapsed() < Duration::from_millis(1200), "{:?}", opened.elapsed());
    silent.ends();
}

#[test]
fn an_exchange_is_not_ended_by_the_times_between_requests() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let limits = "header_timeout = \"200ms\"\nidle_timeout = \"200ms\"";
    let gateway = Setup::before(&backend).limits(limits).start();
    backend.always(Act::raw(HELLO).then(Act::raw("0\r\n\r\n").after(&gate)));
    let mut conn = Request::get("/events").begin(gateway.addr);
    assert_eq!(conn.try_read_head().unwrap().0, 200);
    assert_eq!(conn.read_exact(10), b"5\r\nhello\r\n");
    assert!(!conn.readable_within(Duration::from_millis(600)));
    gate.open();
    assert_eq!(conn.read_exact(5), b"0\r\n\r\n");
    eventually("the connection ends", || {
        conn.readable_within(Duration::from_secs(1)).then_some(())
    });
    conn.ends();
}
