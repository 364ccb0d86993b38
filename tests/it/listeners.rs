//! Unix sockets on both sides, and load balancers that announce their clients.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use super::support::certificates::{Authority, over, plain, secure};
use super::support::{Backend, Request, Setup, WAIT_LIMIT};

/// A redemption over a Unix socket.
fn redeem_at(path: &std::path::Path, key: &str) -> super::support::Response {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    over(&mut stream, &Request::redeem(key, "{}")).unwrap()
}

#[test]
fn clients_connect_to_a_unix_socket() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).listen("unix:gate.sock");
    let path = setup.dir().join("gate.sock");
    let mut gateway = setup.start();
    assert!(gateway.stdout().contains(&format!("listening on unix:{}", path.display())));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    redeem_at(&path, "k").is(200, "executed", "");
    redeem_at(&path, "k").is(200, "replayed", "");
    let seen = backend.last();
    assert_eq!(seen.header("x-forwarded-for"), None, "a process has no address");
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("http"));
    gateway.stop();
    assert!(!path.exists(), "the socket's file goes with the process");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_dead_socket_is_replaced_and_anything_else_is_left_alone() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).listen("unix:gate.sock");
    let path = setup.dir().join("gate.sock");
    std::fs::write(&path, "precious").unwrap();
    let exit = setup.try_start().unwrap_err();
    assert!(exit.code == Some(1) && exit.stderr.contains("no socket"), "{exit:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    let mut killed = setup.start();
    killed.kill9();
    assert!(path.exists(), "a killed process leaves its socket");
    let gateway = setup.start();
    redeem_at(&path, "k").is(200, "executed", "");
    let exit = setup.try_start().unwrap_err();
    assert!(exit.code == Some(1) && exit.stderr.contains("another process"), "{exit:?}");
    redeem_at(&path, "k").is(200, "replayed", "");
    drop(gateway);
}

#[test]
fn a_backend_listens_on_a_unix_socket() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let path = setup.dir().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let behind = backend.addr();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || relay(stream, TcpStream::connect(behind).unwrap()));
        }
    });
    let url = format!("http://{behind}");
    let gateway = setup.replacing(url, "unix:app.sock").start();
    Request::redeem("k", "{}").send(gateway.addr).is(200, "executed", "");
    Request::redeem("k", "{}").send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.last().header("host").as_deref(), Some("localhost"));
    assert_eq!(backend.calls(), 1);
    // Nobody listens: provably nothing was sent, and the key is free.
    std::fs::remove_file(&path).unwrap();
    backend.close_connections();
    Request::redeem("k2", "{}").send(gateway.addr).is(502, "not-executed", "upstream-unreachable");
}

fn relay(mut one: UnixStream, mut other: TcpStream) {
    let (mut from, mut to) = (other.try_clone().unwrap(), one.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut one, &mut other);
    let _ = other.shutdown(Shutdown::Write);
}

/// A header of version 2 for an IPv4 client.
fn version2(address: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(address);
    header.extend([10, 0, 0, 1, 1, 2, 3, 4]);
    header
}

#[test]
fn the_announced_address_is_the_clients() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).server("proxy_protocol = [\"127.0.0.0/8\"]").start();
    for (header, address) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (version2([192, 0, 2, 8]), "192.0.2.8"),
    ] {
        let mut stream = plain(gateway.addr).unwrap();
        stream.write_all(&header).unwrap();
        // In a segment of their own, or together with the request.
        over(&mut stream, &Request::get("/a")).unwrap().is(200, "", "");
        assert_eq!(backend.last().header("x-forwarded-for").as_deref(), Some(address));
        let mut stream = plain(gateway.addr).unwrap();
        let together = [&header[..], &Request::get("/b").bytes()].concat();
        stream.write_all(&together[..header.len() + 3]).unwrap();
        stream.write_all(&together[header.len() + 3..]).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        assert_eq!(backend.last().header("x-forwarded-for").as_deref(), Some(address));
    }
}

#[test]
fn a_load_balancer_without_a_header_is_not_served() {
    let backend = Backend::start();
    let setup = Setup::before(&backend)
        .server("proxy_protocol = [\"127.0.0.0/8\"]")
        .limits("header_timeout = \"400ms\"");
    let gateway = setup.start();
    for bytes in [
        Request::get("/").bytes(),
        b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2".to_vec(),
        version2([192, 0, 2, 7])[..20].to_vec(),
        vec![b'P'; 4096],
    ] {
        let mut stream = plain(gateway.addr).unwrap();
        let _ = stream.write_all(&bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{bytes:?}: {answer:?}");
    }
    assert_eq!(backend.calls(), 0);
    assert!(gateway.stderr().contains("sent no PROXY header"), "{}", gateway.stderr());
}

#[test]
fn a_header_from_anybody_else_is_no_request() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).server("proxy_protocol = [\"192.0.2.0/24\"]").start();
    let mut stream = plain(gateway.addr).unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    Request::get("/").send(gateway.addr).is(200, "", "");
    assert_eq!(backend.last().header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(backend.calls(), 1);
}

#[test]
fn the_header_comes_before_tls() {
    let (backend, authority) = (Backend::start(), Authority::new("servers"));
    let setup = Setup::before(&backend)
        .server("proxy_protocol = [\"127.0.0.1\"]")
        .server("tls = { cert = \"server.crt\", key = \"server.key\" }");
    authority.server().write(setup.dir(), "server");
    let gateway = setup.start();
    let mut stream = plain(gateway.addr).unwrap();
    stream.write_all(&version2([192, 0, 2, 9])).unwrap();
    let mut stream = secure(stream, &Arc::new(authority.trusting(None))).unwrap();
    over(&mut stream, &Request::redeem("k", "{}")).unwrap().is(200, "executed", "");
    let seen = backend.last();
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("192.0.2.9"));
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
}

#[test]
fn forwarding_headers_on_a_unix_socket_are_believed_only_by_name() {
    for (trusted, expected) in [("[]", None), ("[\"unix:\"]", Some("192.0.2.7"))] {
        let backend = Backend::start();
        let setup = Setup::before(&backend)
            .listen("unix:gate.sock")
            .server(&format!("trusted_proxies = {trusted}"));
        let path = setup.dir().join("gate.sock");
        let _gateway = setup.start();
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
        let request = Request::get("/").header("x-forwarded-for", "192.0.2.7");
        over(&mut stream, &request).unwrap().is(200, "", "");
        assert_eq!(backend.last().header("x-forwarded-for").as_deref(), expected);
    }
}
