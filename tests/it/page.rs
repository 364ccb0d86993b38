//! The operator's page over raw HTTP: who is let in, and everything that is refused.

use crate::support::{
    Act, AdminClient, Backend, Gateway, Request, Response, Setup, TOKEN, answer, eventually,
};

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

fn setup(backend: &Backend) -> Setup {
    AdminClient::guard(Setup::before(backend)).redeem("record.subject = \"/qr\"")
}

/// A request to the page as a browser on this machine sends it.
fn own(gateway: &Gateway, method: &str, target: &str) -> Request {
    let host = gateway.admin.to_string();
    Request::exactly(&format!("{method} {target} HTTP/1.1")).header("host", host)
}

fn form(gateway: &Gateway, target: &str, fields: &[(&str, &str)]) -> Request {
    let escape = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            b' ' => "+".to_owned(),
            byte => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let fields = fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    let body = fields.collect::<Vec<_>>().join("&");
    own(gateway, "POST", target)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.as_bytes())
}

/// An operator who is logged in.
struct Operator<'g> {
    gateway: &'g Gateway,
    cookie: String,
    csrf: String,
}

impl<'g> Operator<'g> {
    fn log_in(gateway: &'g Gateway) -> Self {
        let reply = form(gateway, "/login", &[("token", TOKEN)]).send(gateway.admin);
        assert_eq!((reply.status, reply.header("location").as_deref()), (303, Some("/")));
        let set = reply.header("set-cookie").unwrap();
        for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(set.contains(part), "{set}");
        }
        let cookie = set.split(';').next().unwrap().to_owned();
        let mut operator = Self { gateway, cookie, csrf: String::new() };
        let page = operator.get("/").text();
        let at = page.find("name=\"csrf\" value=\"").unwrap() + 19;
        operator.csrf = page[at..].split('"').next().unwrap().to_owned();
        operator
    }

    fn get(&self, target: &str) -> Response {
        let request = own(self.gateway, "GET", target).header("cookie", &self.cookie);
        request.send(self.gateway.admin)
    }

    fn post(&self, target: &str, fields: &[(&str, &str)]) -> Response {
        let fields = [&[("csrf", self.csrf.as_str())], fields].concat();
        let request = form(self.gateway, target, &fields).header("cookie", &self.cookie);
        request.send(self.gateway.admin)
    }
}

fn lose(backend: &Backend, gateway: &Gateway, key: &str, body: &str) -> String {
    backend.always(Act::reset());
    Request::redeem(key, body).send(gateway.addr).is(502, "unknown", "outcome-unknown");
    backend.always(answer(200, "{}"));
    AdminClient::of(gateway).id(key)
}

const SETTLED: [(&str, &str); 5] = [
    ("as", "executed"),
    ("reason", "in the books"),
    ("by", "ann"),
    ("attempt", "1"),
    ("confirm", "yes"),
];

#[test]
fn the_door_opens_with_the_token_and_every_page_has_its_headers() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    let id = lose(&backend, &gateway, "k", r#"{"qr":"v"}"#);
    let door = own(&gateway, "GET", "/").send(gateway.admin);
    assert_eq!(door.status, 200);
    assert!(door.text().contains("Log in") && !door.text().contains("Overview"));
    let operator = Operator::log_in(&gateway);
    for (target, words) in [
        ("/".to_owned(), "Unknown outcomes"),
        ("/records".to_owned(), "Records found"),
        ("/records?subject=v".to_owned(), "Every key that touched"),
        (format!("/records/{id}"), "Settle the outcome"),
    ] {
        let page = operator.get(&target);
        assert_eq!(page.status, 200, "{target}: {page:?}");
        assert!(page.text().contains(words), "{target}: {}", page.text());
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("content-security-policy", POLICY),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(page.header(name).as_deref(), Some(value), "{target}");
        }
        let text = page.text();
        assert!(!text.contains("<script") && !text.contains("style=\""), "{target}");
    }
    let style = own(&gateway, "GET", "/style.css").send(gateway.admin);
    assert_eq!(style.header("content-type").as_deref(), Some("text/css; charset=utf-8"));
    // Logged out, the cookie is worth nothing.
    assert_eq!(operator.post("/logout", &[]).status, 303);
    assert_eq!(operator.get("/").status, 401);
}

#[test]
fn a_decision_is_made_once_with_a_reason_and_a_confirmation() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    let id = lose(&backend, &gateway, "k", r#"{"qr":"v"}"#);
    let operator = Operator::log_in(&gateway);
    let target = format!("/records/{id}/resolve");
    for left_out in ["reason", "confirm", "as"] {
        let fields: Vec<_> = SETTLED.into_iter().filter(|(name, _)| *name != left_out).collect();
        assert_eq!(operator.post(&target, &fields).status, 400, "{left_out}");
    }
    let mut stale = SETTLED;
    stale[3].1 = "2";
    assert_eq!(operator.post(&target, &stale).status, 409);
    assert_eq!(AdminClient::of(&gateway).show("k")["state"], "unknown");
    let fields = [&SETTLED[..], &[("status", "201"), ("body", "<ok>\r\n")]].concat();
    let reply = operator.post(&target, &fields);
    assert_eq!((reply.status, reply.header("location")), (303, Some(format!("/records/{id}"))));
    let again = operator.post(&target, &SETTLED);
    assert_eq!(again.status, 409);
    assert!(again.text().contains("the outcome of this record is known"), "{}", again.text());
    let replay = Request::redeem("k", r#"{"qr":"v"}"#).send(gateway.addr);
    replay.is(201, "recovered", "");
    assert_eq!(replay.text(), "<ok>\n");
    let page = operator.get(&format!("/records/{id}")).text();
    assert!(page.contains("executed, about attempt 1, by ann: in the books"), "{page}");
    assert!(page.contains("&lt;ok&gt;"), "{page}");
    let purge = format!("/records/{id}/purge");
    let fields = [("reason", "asked by the customer"), ("confirm", "yes")];
    assert_eq!(operator.post(&purge, &fields).status, 303);
    assert_eq!(AdminClient::of(&gateway).show("k")["state"], "tombstone");
    // What is not there.
    for target in ["/records/0", "/records/zz", &format!("/records/{}", "0".repeat(32))] {
        assert!(matches!(operator.get(target).status, 400 | 404), "{target}");
    }
    let none = format!("/records/{}/resolve", "0".repeat(32));
    assert_eq!(operator.post(&none, &SETTLED).status, 404);
    assert_eq!(operator.post(&format!("/records/{id}/forget"), &SETTLED).status, 404);
    assert_eq!(operator.get("/records?colour=red").status, 400);
    assert_eq!(operator.get("/records?since=yesterday").status, 400);
    assert_eq!(own(&gateway, "DELETE", "/").send(gateway.admin).status, 405);
}

#[test]
fn foreign_pages_hosts_and_forms_are_refused() {
    let backend = Backend::start();
    let gateway = setup(&backend).admin("hosts = [\"Gate.internal\"]").start();
    let id = lose(&backend, &gateway, "k", r#"{"qr":"v"}"#);
    let operator = Operator::log_in(&gateway);
    let target = format!("/records/{id}/resolve");
    let with = |csrf: &str| {
        let fields = [&[("csrf", csrf)][..], &SETTLED].concat();
        form(&gateway, &target, &fields)
    };
    let good = || with(&operator.csrf).header("cookie", &operator.cookie);
    // No session, one that is over, and one of somebody else.
    assert_eq!(with(&operator.csrf).send(gateway.admin).status, 401);
    for cookie in ["oncegate_session=", "oncegate_session=x", "other=1"] {
        let reply = with(&operator.csrf).header("cookie", cookie).send(gateway.admin);
        assert_eq!(reply.status, 401, "{cookie}");
    }
    for target in ["/", "/records", &format!("/records/{id}")] {
        let request = own(&gateway, "GET", target).header("cookie", "oncegate_session=x");
        assert_eq!(request.send(gateway.admin).status, 401, "{target}");
    }
    assert_eq!(own(&gateway, "GET", "/records").send(gateway.admin).status, 401);
    // The token of the API opens no page, and the cookie opens no API.
    let bearer =
        own(&gateway, "GET", "/records").header("authorization", format!("Bearer {TOKEN}"));
    assert_eq!(bearer.send(gateway.admin).status, 401);
    let api = own(&gateway, "GET", "/api/records").header("cookie", &operator.cookie);
    assert_eq!(api.send(gateway.admin).status, 401);
    // Without the token of the form, or with another session's.
    for csrf in ["", "x", &Operator::log_in(&gateway).csrf] {
        let reply = with(csrf).header("cookie", &operator.cookie).send(gateway.admin);
        assert_eq!(reply.status, 403, "{csrf}");
    }
    // Sent by another page.
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        assert_eq!(good().header(name, value).send(gateway.admin).status, 403, "{name}: {value}");
        let login = form(&gateway, "/login", &[("token", TOKEN)]).header(name, value);
        assert_eq!(login.send(gateway.admin).status, 403, "{name}: {value}");
    }
    // Under a name that somebody else made to resolve to this listener.
    let named = |host: &str| {
        let request = Request::exactly("GET / HTTP/1.1").header("host", host);
        request.header("cookie", &operator.cookie).send(gateway.admin).status
    };
    assert_eq!((named("evil.example"), named("127.0.0.1.evil.example")), (403, 403));
    assert_eq!((named("localhost:1"), named("gate.internal"), named("[::1]")), (200, 200, 200));
    // Probes and the API are not for browsers.
    let probe = Request::exactly("GET /healthz HTTP/1.1").header("host", "evil.example");
    assert_eq!(probe.send(gateway.admin).status, 200);
    assert_eq!(AdminClient::of(&gateway).show("k")["state"], "unknown");
    let own_form = good()
        .header("origin", format!("http://{}", gateway.admin))
        .header("sec-fetch-site", "same-origin");
    assert_eq!(own_form.send(gateway.admin).status, 303);
    let huge = own(&gateway, "POST", &target)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("cookie", &operator.cookie)
        .header("content-length", "99999999");
    assert_eq!(huge.send(gateway.admin).status, 413);
    let open = Setup::before(&backend).start();
    let closed = own(&open, "GET", "/").send(open.admin);
    assert_eq!(closed.status, 403);
    assert!(closed.text().contains("token_file"), "{}", closed.text());
}

#[test]
fn wrong_tokens_are_limited_for_each_address() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    let attempt = |token: &str| form(&gateway, "/login", &[("token", token)]).send(gateway.admin);
    for number in 0..10 {
        assert_eq!(attempt(&format!("wrong-{number}")).status, 401);
    }
    let reply = attempt("wrong-10");
    assert_eq!(reply.status, 429);
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // The right one has to wait as well.
    assert_eq!(attempt(TOKEN).status, 429);
    // The API has a token of its own on each request, and is not slowed down.
    assert_eq!(AdminClient::of(&gateway).get("/api/records").status, 200);
    assert!(!gateway.stderr().contains("wrong-1"), "{}", gateway.stderr());
}

#[test]
fn hostile_bytes_are_text_on_every_page() {
    let backend = Backend::start();
    let gateway = setup(&backend).start();
    let key = "<script>alert(1)</script>&#x27;";
    let voucher = "\\u202e<img src=x onerror=alert(2)>\\u0000";
    let body = format!(r#"{{"qr":"{voucher}"}}"#);
    let html = "<script>alert(3)</script>\u{202e}\u{7}";
    let headers = [("content-type", "text/html"), ("x-evil", "<b>\u{e9}</b>")];
    backend.always(Act::whole(200, &headers, html.as_bytes()));
    Request::redeem(key, &body).send(gateway.addr).is(200, "executed", "");
    backend.always(Act::reset());
    Request::redeem("<svg/onload=alert(4)>", &body).send(gateway.addr).is(
        502,
        "unknown",
        "outcome-unknown",
    );
    let operator = Operator::log_in(&gateway);
    let admin = AdminClient::of(&gateway);
    let ids: Vec<String> =
        admin.list("").0.iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect();
    let found = "/records?subject=%E2%80%AE%3Cimg+src%3Dx+onerror%3Dalert%282%29%3E%00".to_owned();
    let mut pages = vec!["/".to_owned(), "/records".to_owned(), found.clone()];
    pages.extend(ids.iter().map(|id| format!("/records/{id}")));
    pages.push("/records?key=%22%3E%3Cscript%3Ealert(5)%3C/script%3E".to_owned());
    pages.push("/records/%3Cscript%3E".to_owned());
    for target in &pages {
        let page = operator.get(target);
        let text = page.text();
        for evil in ["<script", "<img", "<svg/onload", "<b>", "\u{202e}", "\u{7}", "\u{0}"] {
            assert!(!text.contains(evil), "{target}: {evil:?} in {text}");
        }
    }
    let both = operator.get(&found).text();
    assert!(both.contains("&lt;script&gt;alert(1)") && both.contains("&lt;svg/onload"), "{both}");
    assert!(both.contains("⟨U+202E⟩&lt;img"), "{both}");
    // A refusal that quotes what was sent.
    let login = form(&gateway, "/login", &[("token", "<script>alert(6)</script>")]);
    assert!(!login.send(gateway.admin).text().contains("<script"));
    let scraped = Request::get("/metrics").send(gateway.admin).text();
    assert!(!scraped.contains("alert("), "{scraped}");
}

#[test]
fn the_overview_says_what_request_mode_would_have_done_on_an_observed_route() {
    let backend = Backend::start();
    let plain = setup(&backend).start();
    assert!(!Operator::log_in(&plain).get("/").text().contains("Observed routes"));
    let gateway = setup(&backend).redeem("mode = \"observe\"").start();
    let operator = Operator::log_in(&gateway);
    assert!(operator.get("/").text().contains("Observed routes"));
    let redeem = Request::redeem("k", r#"{"qr":"v"}"#);
    for row in [
        "<td>executed</td><td>1</td><td>sent the request, as happened</td>",
        "<td>replayed</td><td>1</td><td>prevented a second execution: answered from the record</td>",
    ] {
        assert_eq!(redeem.clone().send(gateway.addr).status, 200);
        eventually(row, || operator.get("/").text().contains(row).then_some(()));
    }
    assert_eq!(backend.calls(), 2);
}
