//! TLS on the listener: versions, certificates of clients, resumption, and what does not speak TLS.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::HandshakeKind;

use super::support::certificates::{Authority, Identity, connect, over, plain, secure};
use super::support::{Backend, Request, Setup, WAIT_LIMIT};

/// A gateway with TLS before `backend`; `more` are further members of `tls`.
fn encrypted(backend: &Backend, server: &Identity, more: &str) -> Setup {
    let setup = Setup::before(backend);
    server.write(setup.dir(), "server");
    setup.server(&format!("tls = {{ cert = \"server.crt\", key = \"server.key\"{more} }}"))
}

fn client_ca(folder: &Path, authority: &Authority, more: &str) -> String {
    authority.write(folder, "clients.pem");
    format!(", client_ca = \"clients.pem\"{more}")
}

#[test]
fn both_versions_of_tls_are_served_and_the_backend_is_told_https() {
    let (backend, authority) = (Backend::start(), Authority::new("servers"));
    let gateway = encrypted(&backend, &authority.server(), "").start();
    for (version, key) in [(&rustls::version::TLS12, "k12"), (&rustls::version::TLS13, "k13")] {
        let mut config = authority.trusting_with(None, &[version]);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let mut stream = connect(gateway.addr, &config).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let request = Request::redeem(key, "{}");
        let first = over(&mut stream, &request).unwrap();
        first.is(200, "executed", "");
        let second = over(&mut stream, &request).unwrap();
        second.is(200, "replayed", "");
        assert_eq!(first.kept(), second.kept());
        assert_eq!(backend.last().header("x-forwarded-proto").as_deref(), Some("https"));
    }
    assert_eq!(backend.calls(), 2);
    // A protocol that is not served ends the handshake.
    let mut config = authority.trusting(None);
    config.alpn_protocols = vec![b"smtp".to_vec()];
    assert!(connect(gateway.addr, &Arc::new(config)).is_err());
}

#[test]
fn a_request_without_tls_gets_no_answer_and_reaches_nobody() {
    let (backend, authority) = (Backend::start(), Authority::new("servers"));
    let gateway = encrypted(&backend, &authority.server(), "").start();
    let mut stream = plain(gateway.addr).unwrap();
    stream.write_all(&Request::redeem("k", "{}").bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    assert_eq!(backend.calls(), 0);
}

#[test]
fn a_handshake_that_does_not_go_on_ends_in_time() {
    let (backend, authority) = (Backend::start(), Authority::new("servers"));
    let setup = encrypted(&backend, &authority.server(), "").limits("header_timeout = \"500ms\"");
    let gateway = setup.start();
    for begin in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = plain(gateway.addr).unwrap();
        stream.write_all(begin).unwrap();
        let started = Instant::now();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let elapsed = started.elapsed();
        assert!(elapsed >= Duration::from_millis(300) && elapsed < WAIT_LIMIT / 2, "{elapsed:?}");
    }
    // The time of the handshake counts for the first head as well.
    let stream = plain(gateway.addr).unwrap();
    let mut stream = secure(stream, &Arc::new(authority.trusting(None))).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
}

#[test]
fn clients_need_a_certificate_of_the_configured_authority() {
    let (backend, servers) = (Backend::start(), Authority::new("servers"));
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let setup = Setup::before(&backend);
    servers.server().write(setup.dir(), "server");
    let more = client_ca(setup.dir(), &clients, "");
    let gateway = setup
        .server(&format!("tls = {{ cert = \"server.crt\", key = \"server.key\"{more} }}"))
        .start();
    let known = clients.client("spiffe://shop/till");
    for (identity, is_served) in [
        (None, false),
        (Some(others.client("spiffe://shop/till")), false),
        (Some(known.clone()), true),
    ] {
        let config = Arc::new(servers.trusting(identity.as_ref()));
        // In TLS 1.3 the client learns of the refusal after its own handshake.
        let served = connect(gateway.addr, &config)
            .and_then(|mut stream| over(&mut stream, &Request::get("/whoami")));
        assert_eq!(served.is_ok_and(|answer| answer.status == 200), is_served, "{identity:?}");
    }
    assert_eq!(backend.calls(), 1);
}

#[test]
fn an_optional_certificate_may_be_absent_but_not_wrong() {
    let (backend, servers) = (Backend::start(), Authority::new("servers"));
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let setup = Setup::before(&backend);
    servers.server().write(setup.dir(), "server");
    let more = client_ca(setup.dir(), &clients, ", client_auth = \"optional\"");
    let gateway = setup
        .server(&format!("tls = {{ cert = \"server.crt\", key = \"server.key\"{more} }}"))
        .start();
    for (identity, is_served) in [
        (None, true),
        (Some(others.client("spiffe://shop/till")), false),
        (Some(clients.client("spiffe://shop/till")), true),
    ] {
        let config = Arc::new(servers.trusting(identity.as_ref()));
        let served = connect(gateway.addr, &config)
            .and_then(|mut stream| over(&mut stream, &Request::get("/whoami")));
        assert_eq!(served.is_ok_and(|answer| answer.status == 200), is_served, "{identity:?}");
    }
}

#[test]
fn sessions_are_resumed_only_where_no_client_is_verified() {
    let (backend, servers) = (Backend::start(), Authority::new("servers"));
    let clients = Authority::new("clients");
    for is_verified in [false, true] {
        let setup = Setup::before(&backend);
        servers.server().write(setup.dir(), "server");
        let more = if is_verified { client_ca(setup.dir(), &clients, "") } else { String::new() };
        let gateway = setup
            .server(&format!("tls = {{ cert = \"server.crt\", key = \"server.key\"{more} }}"))
            .start();
        let identity = clients.client("spiffe://shop/till");
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            // The settings of a client keep its sessions.
            let config = Arc::new(servers.trusting_with(Some(&identity), &[version]));
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let mut stream = connect(gateway.addr, &config).unwrap();
                over(&mut stream, &Request::get("/")).unwrap();
                kinds.push(stream.conn.handshake_kind().unwrap());
            }
            let second = if is_verified { HandshakeKind::Full } else { HandshakeKind::Resumed };
            assert_eq!(kinds, [HandshakeKind::Full, second], "{version:?} {is_verified}");
        }
    }
}

#[test]
fn files_that_do_not_fit_stop_the_start_and_are_named() {
    let (backend, authority) = (Backend::start(), Authority::new("servers"));
    let (one, other) = (authority.server(), authority.server());
    let mixed = Identity { cert: one.cert.clone(), key: other.key };
    let exit = encrypted(&backend, &mixed, "").try_start().unwrap_err();
    assert_eq!(exit.code, Some(2), "{exit:?}");
    for part in ["server.crt", "server.key", "together"] {
        assert!(exit.stderr.contains(part), "{exit:?}");
    }
    let setup = Setup::before(&backend).server("tls = { cert = \"a.crt\", key = \"a.key\" }");
    let exit = setup.try_start().unwrap_err();
    assert!(exit.code == Some(2) && exit.stderr.contains("a.crt"), "{exit:?}");
}
