//! The harness itself: a test must not pass because its tools see nothing.

use crate::support::{Act, Backend, Conn, Gate, Request, answer, at_once};

#[test]
fn the_backend_counts_and_answers_on_one_connection() {
    let backend = Backend::start();
    let mut conn = Conn::open(backend.addr());
    for number in 0..3 {
        conn.write(Request::redeem("k", "{}").bytes());
        assert_eq!(conn.read().text(), format!(r#"{{"execution":{number}}}"#));
    }
    assert_eq!((backend.calls(), backend.connections()), (3, 1));
    assert_eq!(backend.last().header("idempotency-key").as_deref(), Some("k"));
    assert_eq!(backend.executions()["{}"], 3);
}

#[test]
fn the_backend_refuses_until_it_listens() {
    let backend = Backend::refusing();
    let error = Request::get("/").try_send(backend.addr()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    backend.listen();
    assert_eq!(Request::get("/").send(backend.addr()).status, 200);
}

#[test]
fn the_backend_closes_resets_and_truncates() {
    let backend = Backend::start();
    let fails = |act: Act| {
        backend.always(act);
        Request::get("/").try_send(backend.addr()).unwrap_err().kind()
    };
    assert_eq!(fails(Act::close()), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(fails(Act::reset()), std::io::ErrorKind::ConnectionReset);
    let short = Act::raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").then(Act::close());
    assert_eq!(fails(short), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(backend.calls(), 3);
}

#[test]
fn a_gate_holds_every_answer_back_until_it_opens() {
    let (backend, gate) = (Backend::start(), Gate::default());
    backend.always(answer(200, "{}").after(&gate));
    let mut conns: Vec<Conn> = (0..3).map(|_| Request::get("/").begin(backend.addr())).collect();
    backend.wait_calls(3);
    gate.open();
    assert!(conns.iter_mut().all(|conn| conn.read().status == 200));
}

#[test]
fn the_client_reads_chunks_interim_answers_and_bodiless_statuses() {
    let backend = Backend::start();
    let interim = Act::raw("HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n");
    backend.always(interim.then(Act::chunked(200, &[b"ab", b"c"])));
    assert_eq!(Request::get("/").send(backend.addr()).text(), "abc");
    backend.always(Act::whole(204, &[], b""));
    assert_eq!(Request::get("/").send(backend.addr()).status, 204);
    backend.close_connections();
    assert_eq!(at_once(4, |index| index), [0, 1, 2, 3]);
}
