//! Routes that are passed through: streamed both ways, without a limit and without a record.

use crate::support::{Act, Backend, Conn, Gate, Gateway, Request, Setup, answer, eventually};

const LARGE: usize = 20 << 20;

fn gateway(backend: &Backend) -> Gateway {
    let upload = "name = \"upload\"\nmethods = [\"PUT\"]\npath = \"/files/{name}\"\nmode = \"off\"";
    Setup::before(backend).route(upload).start()
}

#[test]
fn a_large_upload_passes() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let body: Vec<u8> = (0..=250).cycle().take(LARGE).collect();
    let reply = Request::new("PUT", "/files/a").body(&body).send(gateway.addr);
    reply.is(200, "", "");
    assert!(backend.last().body == body);
}

#[test]
fn a_large_download_passes() {
    let backend = Backend::start();
    let body: Vec<u8> = (0..=250).cycle().take(LARGE).collect();
    backend.always(Act::whole(200, &[], &body));
    let gateway = gateway(&backend);
    assert!(Request::get("/files/a").send(gateway.addr).body == body);
}

#[test]
fn an_upload_streams_before_it_is_whole() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let mut conn = Conn::open(gateway.addr);
    conn.write("PUT /files/a HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhello");
    eventually("the first half arrives", || (backend.body_bytes() == 5).then_some(()));
    conn.write("world");
    assert_eq!(conn.read().status, 200);
    assert_eq!(backend.last().text(), "helloworld");
}

#[test]
fn a_download_streams_before_it_is_whole() {
    let (backend, gate) = (Backend::start(), Gate::default());
    let first = Act::raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    backend.always(first.then(Act::raw("5\r\nworld\r\n0\r\n\r\n").after(&gate)));
    let gateway = gateway(&backend);
    let mut conn = Request::get("/files/a").begin(gateway.addr);
    let (status, headers) = conn.try_read_head().unwrap();
    assert_eq!(status, 200);
    assert!(headers.iter().any(|(name, _)| name == "transfer-encoding"), "{headers:?}");
    assert_eq!(conn.try_read_line().unwrap(), b"5");
    assert_eq!(conn.read_exact(7), b"hello\r\n");
    gate.open();
    assert_eq!(conn.try_read_line().unwrap(), b"5");
    assert_eq!(conn.read_exact(12), b"world\r\n0\r\n\r\n");
}

#[test]
fn a_download_cut_short_is_cut_short_for_the_client_too() {
    let backend = Backend::start();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";
    backend.always(Act::raw(head).then(Act::close()));
    let gateway = gateway(&backend);
    let error = Request::get("/files/a").try_send(gateway.addr).unwrap_err();
    let cut = [std::io::ErrorKind::UnexpectedEof, std::io::ErrorKind::ConnectionReset];
    assert!(cut.contains(&error.kind()), "{error}");
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    backend.always(Act::raw(head).then(Act::close()));
    let error = Request::get("/files/a").try_send(gateway.addr).unwrap_err();
    assert!(cut.contains(&error.kind()), "{error}");
}

#[test]
fn a_backend_that_is_not_there_or_fails_is_told_apart_from_its_own_errors() {
    let backend = Backend::refusing();
    let gateway = gateway(&backend);
    let reply = Request::get("/files/a").send(gateway.addr);
    assert_eq!((reply.status, reply.error()), (502, "upstream-unreachable".to_owned()));
    backend.listen();
    backend.always(Act::close());
    let reply = Request::get("/files/a").send(gateway.addr);
    assert_eq!((reply.status, reply.error()), (502, "upstream-failed".to_owned()));
    backend.always(answer(502, "{}"));
    Request::get("/files/a").send(gateway.addr).is(502, "", "");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn headers_of_both_sides_pass_but_for_those_of_the_connection() {
    let backend = Backend::start();
    let headers = [
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("etag", "\"x\""),
        ("connection", "x-private"),
        ("x-private", "1"),
    ];
    backend.always(Act::whole(200, &headers, b"{}"));
    let gateway = gateway(&backend);
    let request = Request::get("/files/a")
        .header("accept-encoding", "gzip")
        .header("range", "bytes=0-1")
        .header("te", "trailers");
    let reply = request.send(gateway.addr);
    assert_eq!(reply.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(reply.header("etag").as_deref(), Some("\"x\""));
    assert_eq!(reply.header("x-private"), None);
    let seen = backend.last();
    assert_eq!(seen.header("accept-encoding").as_deref(), Some("gzip"));
    assert_eq!(seen.header("range").as_deref(), Some("bytes=0-1"));
    assert_eq!(seen.header("te"), None);
}

#[test]
fn a_route_may_limit_its_bodies() {
    let backend = Backend::start();
    let limited = "name = \"limited\"\nmethods = [\"PUT\"]\npath = \"/small\"\nmode = \"off\"\n\
                   max_body = \"1KiB\"";
    let gateway = Setup::before(&backend).route(limited).start();
    let reply = Request::new("PUT", "/small").body(&[b'x'; 1025]).send(gateway.addr);
    assert_eq!((reply.status, reply.error()), (413, "body-too-large".to_owned()));
    assert_eq!(Request::new("PUT", "/small").body(&[b'x'; 1024]).send(gateway.addr).status, 200);
    assert_eq!(backend.calls(), 1);
}

#[test]
fn an_optional_key_that_is_absent_streams_a_body_over_the_limit() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).limits(r#"max_body = "1KiB""#).start();
    let large = vec![b'x'; 4 << 20];
    let reply = Request::new("POST", "/optional").body(&large).send(gateway.addr);
    reply.is(200, "bypassed", "");
    assert_eq!(backend.last().body.len(), large.len());
    let keyed = Request::new("POST", "/optional").key("k").body(&large).send(gateway.addr);
    keyed.is(413, "rejected", "body-too-large");
}

#[test]
fn a_client_that_leaves_ends_a_passed_through_download() {
    let backend = Backend::start();
    backend.always(Act::whole(200, &[], &vec![b'x'; 64 << 20]));
    let gateway = gateway(&backend);
    let mut conn = Request::get("/files/a").begin(gateway.addr);
    conn.try_read_head().unwrap();
    conn.reset();
    // The backend's connection is given up, not read to its end in secret.
    backend.close_connections();
    backend.always(answer(200, "{}"));
    assert_eq!(Request::get("/files/b").send(gateway.addr).status, 200);
}
