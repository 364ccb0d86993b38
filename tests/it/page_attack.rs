//! The operator's page and its listener under attack: foreign cookies, stale pages, and clients that
//! hold connections.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{AdminClient, Backend, Gateway, Request, Response, Setup, TOKEN, answer};

/// A gateway with a token in front of a backend that counts.
fn start() -> (Backend, Gateway) {
    let backend = Backend::start();
    backend.always(answer(200, "{}"));
    let gateway = AdminClient::guard(Setup::before(&backend)).start();
    (backend, gateway)
}

fn own(gateway: &Gateway, method: &str, target: &str) -> Request {
    let host = gateway.admin.to_string();
    Request::exactly(&format!("{method} {target} HTTP/1.1")).header("host", host)
}

fn form(gateway: &Gateway, target: &str, body: &str) -> Request {
    own(gateway, "POST", target)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.as_bytes())
}

/// Logs in with these cookies, and returns the new one.
fn log_in(gateway: &Gateway, cookies: &str) -> String {
    let request = form(gateway, "/login", &format!("token={TOKEN}")).header("cookie", cookies);
    let told = request.send(gateway.admin);
    assert_eq!(told.status, 303, "{told:?}");
    told.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

fn get(gateway: &Gateway, target: &str, cookies: &str) -> Response {
    own(gateway, "GET", target).header("cookie", cookies).send(gateway.admin)
}

fn csrf(gateway: &Gateway, cookie: &str) -> String {
    let page = get(gateway, "/", cookie).text();
    let at = page.find("name=\"csrf\" value=\"").unwrap() + 19;
    page[at..].split('"').next().unwrap().to_owned()
}

#[test]
fn cookies_of_other_applications_of_the_host_end_no_session() {
    let (_backend, gateway) = start();
    let cookie = log_in(&gateway, "");
    let (name, _) = cookie.split_once('=').unwrap();
    for cookies in [
        format!("{name}2=x; {cookie}"),
        format!("{name}=x; {cookie}"),
        format!("{name}=; {cookie}"),
        format!("{cookie}; {name}=x"),
        format!("oncegate_session=x; oncegate_session_1=x; {cookie}"),
    ] {
        assert_eq!(get(&gateway, "/records", &cookies).status, 200, "{cookies}");
    }
    // A browser sends the cookies of one host to each of its ports.
    let (_other_backend, other) = start();
    let second = log_in(&other, &cookie);
    assert_ne!(second.split('=').next(), Some(name));
    let both = format!("{cookie}; {second}");
    for gateway in [&gateway, &other] {
        assert_eq!(get(gateway, "/records", &both).status, 200);
    }
}

#[test]
fn a_further_log_in_and_a_log_out_end_the_session_of_the_browser() {
    let (_backend, gateway) = start();
    let first = log_in(&gateway, "");
    let second = log_in(&gateway, &first);
    assert_eq!(get(&gateway, "/records", &first).status, 401);
    let out = format!("csrf={}", csrf(&gateway, &second));
    let told = form(&gateway, "/logout", &out).header("cookie", &second).send(gateway.admin);
    let gone = told.header("set-cookie").unwrap();
    let name = second.split('=').next().unwrap();
    assert!(gone.starts_with(&format!("{name}=;")) && gone.contains("Max-Age=0"), "{gone}");
    assert_eq!(get(&gateway, "/records", &second).status, 401);
}

#[test]
fn a_purge_is_about_the_attempt_that_was_looked_at() {
    let (backend, gateway) = start();
    let desk = AdminClient::of(&gateway);
    Request::redeem("k", "{}").send(gateway.addr).is(200, "executed", "");
    let id = desk.id("k");
    let reopen = AdminClient::request("POST", &format!("/api/records/{id}/reopen"));
    assert_eq!(reopen.json(r#"{"reason":"x"}"#).send(gateway.admin).status, 200);
    Request::redeem("k", "{}").send(gateway.addr).is(200, "executed", "");
    let cookie = log_in(&gateway, "");
    let csrf = csrf(&gateway, &cookie);
    let purge = |attempt: &str| {
        let fields = format!("csrf={csrf}&reason=x&confirm=yes&attempt={attempt}");
        let request = form(&gateway, &format!("/records/{id}/purge"), &fields);
        request.header("cookie", &cookie).send(gateway.admin)
    };
    let stale = purge("1");
    assert_eq!(stale.status, 409, "{stale:?}");
    assert!(stale.text().contains("attempt 2 is the current one"), "{}", stale.text());
    assert_eq!(purge("one").status, 400);
    for (attempt, status) in [("1", 409), ("x", 400), ("-1", 400), ("4294967296", 400)] {
        let target = format!("/api/records/{id}?attempt={attempt}");
        assert_eq!(AdminClient::request("DELETE", &target).send(gateway.admin).status, status);
    }
    // Nothing of it has changed the record.
    Request::redeem("k", "{}").send(gateway.addr).is(200, "replayed", "");
    assert_eq!(purge("2").status, 303);
    Request::redeem("k", "{}").send(gateway.addr).is(410, "rejected", "key-expired");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn the_address_of_a_refused_decision_leads_to_its_record() {
    let (_backend, gateway) = start();
    Request::redeem("k", "{}").send(gateway.addr).is(200, "executed", "");
    let id = AdminClient::of(&gateway).id("k");
    let cookie = log_in(&gateway, "");
    for action in ["resolve", "reopen", "purge"] {
        let told = get(&gateway, &format!("/records/{id}/{action}"), &cookie);
        assert_eq!((told.status, told.header("location")), (303, Some(format!("/records/{id}"))));
    }
    assert_eq!(get(&gateway, &format!("/records/{id}/forget"), &cookie).status, 400);
    assert_eq!(own(&gateway, "POST", "/style.css").send(gateway.admin).status, 401);
    assert_eq!(own(&gateway, "OPTIONS", "/style.css").send(gateway.admin).status, 405);
    // The name in an absolute form counts for more than the header.
    let absolute = own(&gateway, "GET", "http://evil.example/").header("cookie", &cookie);
    assert_eq!(absolute.send(gateway.admin).status, 403);
}

#[test]
fn clients_that_hold_connections_keep_no_probe_out() {
    let (_backend, gateway) = start();
    let connect = || {
        let held = TcpStream::connect(gateway.admin).unwrap();
        held.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        held
    };
    for _ in 0..3 {
        let mut held: Vec<TcpStream> = (0..64).map(|_| connect()).collect();
        assert_eq!(Request::get("/readyz").send(gateway.admin).status, 200);
        // The oldest was ended for the probe, without an answer.
        let mut rest = Vec::new();
        let _ = held[0].read_to_end(&mut rest);
        assert!(rest.is_empty(), "{rest:?}");
        assert_eq!(Request::get("/metrics").send(gateway.admin).status, 200);
    }
}
