//! The authorization service: asked before every look-up, and never failing open.

use crate::support::{Act, Backend, Gate, Request, Setup, answer};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn bearer(token: &str) -> Request {
    Request::redeem("k", BODY).header("authorization", format!("Bearer {token}"))
}

/// A gateway that asks the service `auth`.
fn asking(backend: &Backend, auth: &Backend, more: &str) -> Setup {
    let authorize = format!(
        "authorize = {{ upstream = \"auth\", path = \"/check\", headers = [\"authorization\"], \
         tenant_header = \"x-tenant\"{more} }}"
    );
    Setup::before(backend).tenant(&authorize).authorization_service(auth, "2s")
}

fn permission(name: &str) -> Act {
    Act::whole(200, &[("x-tenant", name)], b"")
}

#[test]
fn the_authorization_service_names_callers_and_is_asked_before_replays() {
    let (backend, auth) = (Backend::start(), Backend::start());
    auth.always(permission("shop-1"));
    let gateway = asking(&backend, &auth, ", cache = \"0s\"").start();
    let forged = bearer("a").header("x-tenant", "shop-2");
    forged.send(gateway.addr).is(200, "executed", "");
    // A client's own header of that name neither names it nor goes upstream.
    assert_eq!(backend.last().header("x-tenant"), None);
    let asked = auth.last();
    assert_eq!(asked.line, "GET /check HTTP/1.1");
    assert_eq!(asked.header("authorization").as_deref(), Some("Bearer a"));
    assert_eq!(asked.header("x-forwarded-method").as_deref(), Some("POST"));
    assert_eq!(asked.header("x-forwarded-uri").as_deref(), Some("/v1/vouchers/redeem"));
    assert_eq!((asked.body.len(), asked.header("x-tenant")), (0, None));
    bearer("renewed").send(gateway.addr).is(200, "replayed", "");
    auth.always(permission("shop-2"));
    bearer("a").send(gateway.addr).is(200, "executed", "");
    // Revoked: its own refusal, as it came, and no replay.
    auth.always(Act::whole(403, &[("x-why", "revoked"), ("content-type", "text/plain")], b"no"));
    let reply = bearer("a").send(gateway.addr);
    reply.is(403, "rejected", "");
    assert_eq!((reply.text().as_str(), reply.header("x-why").as_deref()), ("no", Some("revoked")));
    assert_eq!(backend.calls(), 2);
}

#[test]
fn the_authorization_service_learns_the_host_of_the_client() {
    let (backend, auth) = (Backend::start(), Backend::start());
    auth.always(permission("shop-1"));
    let listed = "headers = [\"host\", \"x-forwarded-host\"]";
    let gateway =
        asking(&backend, &auth, "").replacing("headers = [\"authorization\"]", listed).start();
    let request = bearer("a").header("x-forwarded-host", "forged.example");
    request.send(gateway.addr).is(200, "executed", "");
    let asked = auth.last();
    assert_eq!(asked.all("x-forwarded-host"), ["shop.example"]);
    assert_eq!(asked.all("host"), [auth.addr().to_string()]);
}

#[test]
fn a_service_that_does_not_answer_rightly_lets_nothing_through() {
    let (backend, auth) = (Backend::start(), Backend::start());
    let gateway = asking(&backend, &auth, "").start();
    let two =
        Act::raw("HTTP/1.1 200 OK\r\nx-tenant: a\r\nx-tenant: b\r\ncontent-length: 0\r\n\r\n");
    let shut = Gate::default();
    for act in [
        Act::whole(500, &[], b""),
        Act::whole(302, &[("location", "/in")], b""),
        Act::whole(404, &[], b""),
        two,
        permission(""),
        Act::close(),
        Act::reset(),
        Act::raw("nonsense\r\n\r\n").then(Act::close()),
        permission("late").after(&shut),
        Act::raw("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
        // Refusals that cannot be passed on as a whole.
        Act::whole(403, &[], &[b'x'; 70_000]),
        Act::raw("HTTP/1.1 401 Unauthorized\r\ncontent-length: 9\r\n\r\ncut").then(Act::close()),
        Act::raw("HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\n\r\nslow")
            .then(permission("a").after(&shut)),
        Act::raw("HTTP/1.1 200 OK\r\nx-tena").then(permission("a").after(&shut)),
        permission(&"n".repeat(257)),
        Act::whole(200, &[("x-tenant", "caf\u{e9}")], b""),
    ] {
        auth.always(act.clone());
        let reply = bearer("a").send(gateway.addr);
        let expected = (503, "rejected".to_owned(), "authorization-unavailable".to_owned());
        assert_eq!(reply.summary(), expected, "{act:?}");
    }
    shut.open();
    assert_eq!(backend.calls(), 0);
    auth.always(permission("shop"));
    bearer("a").send(gateway.addr).is(200, "executed", "");
}

#[test]
fn only_permissions_are_remembered_and_equal_questions_are_asked_once() {
    let (backend, auth) = (Backend::start(), Backend::start());
    let gateway = asking(&backend, &auth, ", cache = \"60s\"").start();
    auth.always(Act::whole(401, &[], b""));
    for _ in 0..3 {
        bearer("a").send(gateway.addr).is(401, "rejected", "");
    }
    assert_eq!(auth.calls(), 3);
    let gate = Gate::default();
    auth.always(permission("shop").after(&gate));
    let addr = gateway.addr;
    let together: Vec<_> =
        (0..8).map(|_| std::thread::spawn(move || bearer("b").send(addr))).collect();
    auth.wait_calls(4);
    gate.open();
    for sent in together {
        assert_eq!(sent.join().unwrap().status, 200);
    }
    bearer("b").send(gateway.addr).is(200, "replayed", "");
    assert_eq!(auth.calls(), 4);
    // Another credential is another question.
    bearer("c").send(gateway.addr).is(200, "replayed", "");
    assert_eq!((auth.calls(), backend.calls()), (5, 1));
}

#[test]
fn a_service_that_is_away_lets_nothing_through_and_then_everything_it_permits() {
    let (backend, auth) = (Backend::start(), Backend::refusing());
    let gateway = asking(&backend, &auth, "").start();
    for _ in 0..3 {
        let reply = bearer("a").send(gateway.addr);
        reply.is(503, "rejected", "authorization-unavailable");
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
    }
    assert_eq!(backend.calls(), 0);
    auth.always(permission("shop"));
    auth.listen();
    bearer("a").send(gateway.addr).is(200, "executed", "");
}

#[test]
fn in_observe_mode_a_service_may_delay_and_refuses_nobody() {
    let (backend, auth) = (Backend::start(), Backend::start());
    backend.always(answer(200, "{}"));
    let gateway = asking(&backend, &auth, ", cache = \"0s\"").redeem("mode = \"observe\"").start();
    let shut = Gate::default();
    let acts = [
        permission("shop"),
        Act::whole(403, &[], b"no"),
        Act::whole(500, &[], b""),
        Act::close(),
        permission("late").after(&shut),
    ];
    for (passed, act) in acts.into_iter().enumerate() {
        auth.always(act.clone());
        let reply = bearer("a").send(gateway.addr);
        assert_eq!((reply.status, backend.calls()), (200, passed + 1), "{act:?}");
    }
    shut.open();
}
