//! Callers with names: the directory, tokens, and the authorization service.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::support::certificates::{Authority, connect, over};
use crate::support::gateway::BINARY;
use crate::support::issuer::{TokenIssuer, jwt, set};
use crate::support::{Act, Backend, Request, Setup, answer};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

fn digest(credential: &str) -> String {
    Sha256::digest(credential).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file beside the configuration.
fn write(setup: &Setup, name: &str, text: &str) {
    std::fs::write(setup.dir().join(name), text).unwrap();
}

fn bearer(token: &str) -> Request {
    Request::redeem("k", BODY).header("authorization", format!("Bearer {token}"))
}

/// The output of `oncegate tenant` for these header lines.
fn tenant(setup: &Setup, lines: &str) -> (Option<i32>, String, String) {
    let config = setup.write_config();
    let mut child = Command::new(BINARY)
        .args(["tenant", "--config", &config])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_caller_of_the_directory_keeps_its_keys_when_its_credential_is_renewed() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).tenant("directory = \"tenants.toml\"");
    let shops = |more: &str| {
        let (old, two) = (digest("old"), digest("two"));
        format!("[shop-1]\ndigests = [\"{old}\"{more}]\n[shop-2]\ndigests = [\"{two}\"]\n")
    };
    write(&setup, "tenants.toml", &shops(""));
    let gateway = setup.start();
    bearer("old").send(gateway.addr).is(200, "executed", "");
    bearer("two").send(gateway.addr).is(200, "executed", "");
    // Unknown here, so that it is another caller.
    bearer("new").send(gateway.addr).is(200, "executed", "");
    assert_eq!(tenant(&setup, "Authorization: Bearer old\n").1, "shop-1");
    let digits = tenant(&setup, "X-Api-Key: stranger\r\n\r\n").1;
    assert!(digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digits}");
    drop(gateway);
    write(&setup, "tenants.toml", &shops(&format!(", \"{}\"", digest("new"))));
    let gateway = setup.start();
    bearer("old").send(gateway.addr).is(200, "replayed", "");
    bearer("new").send(gateway.addr).is(200, "replayed", "");
    Request::redeem("k", BODY).tenant("new").send(gateway.addr).is(200, "replayed", "");
    // Two credentials of two callers are nobody's request, not the first's.
    let both = bearer("old").tenant("two");
    both.send(gateway.addr).is(401, "rejected", "caller-unknown");
    assert_eq!(backend.calls(), 3);
}

#[test]
fn records_show_and_find_the_name_of_a_caller() {
    let backend = Backend::start();
    let setup =
        Setup::before(&backend).tenant("directory = \"tenants.toml\"").admin("token = \"t\"");
    write(&setup, "tenants.toml", &format!("[shop-1]\ndigests = [\"{}\"]\n", digest("one")));
    let gateway = setup.start();
    bearer("one").send(gateway.addr).is(200, "executed", "");
    bearer("stranger").send(gateway.addr).is(200, "executed", "");
    let list = |query: &str| {
        let request = Request::get(&format!("/api/records?{query}"));
        let listed = request.header("authorization", "Bearer t").send(gateway.admin).json();
        listed["records"].as_array().unwrap().clone()
    };
    let named = list("tenant=shop-1");
    assert_eq!(named.len(), 1, "{named:?}");
    assert_eq!(named[0]["tenant"], "shop-1");
    let digits = named[0]["tenant_id"].as_str().unwrap().to_owned();
    assert_eq!(list(&format!("tenant={digits}")), named);
    assert!(list("tenant=shop-2").is_empty());
    let all = list("");
    assert_eq!(all.len(), 2);
    let other = all.iter().find(|record| record["tenant"] != "shop-1").unwrap();
    assert_eq!(
        (other["tenant"].as_str(), other["tenant"].as_str().map(str::len)),
        (other["tenant_id"].as_str(), Some(32))
    );
}

#[test]
fn a_caller_that_enters_the_directory_keeps_its_earlier_records() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).tenant("directory = \"tenants.toml\"");
    write(&setup, "tenants.toml", "");
    let gateway = setup.start();
    Request::redeem("k", BODY).tenant("s3cret").send(gateway.addr).is(200, "executed", "");
    drop(gateway);
    let id = tenant(&setup, "x-api-key: s3cret").1;
    let entry = format!("[shop]\nid = \"{id}\"\ndigests = [\"{}\"]\n", digest("s3cret"));
    write(&setup, "tenants.toml", &entry);
    assert_eq!(tenant(&setup, "x-api-key: s3cret").1, "shop");
    let gateway = setup.start();
    Request::redeem("k", BODY).tenant("s3cret").send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn strangers_are_refused_before_any_look_up_where_they_are_not_wanted() {
    let backend = Backend::start();
    let setup =
        Setup::before(&backend).tenant("directory = \"tenants.toml\"\nunknown = \"reject\"");
    write(&setup, "tenants.toml", &format!("[shop]\ndigests = [\"{}\"]\n", digest("one")));
    let gateway = setup.start();
    bearer("one").send(gateway.addr).is(200, "executed", "");
    for request in [bearer("two"), bearer(""), Request::redeem("k", BODY)] {
        request.send(gateway.addr).is(401, "rejected", "caller-unknown");
    }
    let status = Request::get("/.well-known/idempotency/status").key("k");
    status.send(gateway.addr).is(401, "rejected", "caller-unknown");
    let own = status.header("authorization", "Bearer one").send(gateway.addr);
    assert_eq!((own.status, own.json()["state"].as_str().unwrap()), (200, "final"));
    // Routes without keys pass, and the refusal costs no call.
    assert_eq!(Request::get("/open").send(gateway.addr).status, 200);
    assert_eq!(backend.calls(), 2);
    let (code, _, reply) = tenant(&setup, "x-api-key: stranger");
    assert!(code == Some(1) && reply.contains("caller-unknown"), "{reply}");
}

#[test]
fn a_route_may_name_callers_in_its_own_way() {
    let backend = Backend::start();
    let route = "name = \"own\"\nmethods = [\"POST\"]\npath = \"/own\"\n\
        tenant = { headers = [\"x-shop\"] }";
    let gateway = Setup::before(&backend).route(route).start();
    let own = |token: &str, shop: &str| {
        let request = Request::new("POST", "/own").key("k").json(BODY).header("x-shop", shop);
        request.header("authorization", format!("Bearer {token}")).send(gateway.addr)
    };
    own("a", "1").is(200, "executed", "");
    own("b", "1").is(200, "replayed", "");
    own("b", "2").is(200, "executed", "");
    bearer("a").send(gateway.addr).is(200, "executed", "");
    bearer("b").send(gateway.addr).is(200, "executed", "");
}

#[test]
fn another_way_to_name_callers_is_a_change_of_names() {
    let backend = Backend::start();
    let setup = Setup::before(&backend).tenant("headers = [\"authorization\"]");
    bearer("a").send(setup.start().addr).is(200, "executed", "");
    write(&setup, "tenants.toml", "");
    let with = |line: &str| setup.clone().tenant(line).try_start().unwrap_err();
    write(&setup, "jwks.json", &set(&[&TokenIssuer::new("a")]));
    let tokens = jwt("keys_file = \"jwks.json\"");
    for (line, expected) in
        [("directory = \"tenants.toml\"", "[tenant] directory"), (tokens.as_str(), "[tenant.jwt]")]
    {
        let exit = with(line);
        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert!(exit.stderr.contains(expected) && exit.stderr.contains("accept_names"), "{exit:?}");
    }
    let own = setup.clone().redeem("tenant = { headers = [\"x-shop\"] }").try_start().unwrap_err();
    assert!(own.stderr.contains("[route.tenant] headers = [\"x-shop\"]"), "{own:?}");
    // What the directory holds is no change.
    let setup = Setup::before(&backend).tenant("directory = \"tenants.toml\"");
    write(&setup, "tenants.toml", "");
    setup.start().stop();
    write(&setup, "tenants.toml", &format!("[shop]\ndigests = [\"{}\"]\n", digest("one")));
    setup.start().stop();
}

/// A listener that takes certificates of clients; the authorities of servers and of clients.
pub(crate) fn certificates(backend: &Backend) -> (Setup, Authority, Authority) {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let setup = Setup::before(backend).server(
        "tls = { cert = \"server.crt\", key = \"server.key\", client_ca = \"clients.pem\", \
         client_auth = \"optional\" }",
    );
    servers.server().write(setup.dir(), "server");
    clients.write(setup.dir(), "clients.pem");
    (setup, servers, clients)
}

#[test]
fn a_verified_certificate_names_its_caller_whatever_the_credentials_are() {
    let backend = Backend::start();
    let (setup, servers, clients) = certificates(&backend);
    let setup =
        setup.tenant("certificate = \"uri\"\nunknown = \"reject\"\ndirectory = \"tenants.toml\"");
    let entry =
        format!("[shop]\ndigests = [\"{}\"]\nuris = [\"spiffe://shop/1\"]\n", digest("one"));
    write(&setup, "tenants.toml", &entry);
    let gateway = setup.start();
    let send = |identity: Option<&str>, request: &Request| {
        let identity = identity.map(|uri| clients.client(uri));
        let config = Arc::new(servers.trusting(identity.as_ref()));
        over(&mut connect(gateway.addr, &config).unwrap(), request).unwrap()
    };
    let anonymous = Request::redeem("k", BODY);
    send(Some("spiffe://till/7"), &anonymous).is(200, "executed", "");
    // A renewed certificate, and credentials that name nobody.
    send(Some("spiffe://till/7"), &anonymous).is(200, "replayed", "");
    send(Some("spiffe://till/7"), &bearer("stranger")).is(200, "replayed", "");
    send(Some("spiffe://till/8"), &anonymous).is(200, "executed", "");
    send(None, &anonymous).is(401, "rejected", "caller-unknown");
    // The directory knows the certificate and the credential of one shop.
    send(Some("spiffe://shop/1"), &anonymous).is(200, "executed", "");
    send(None, &bearer("one")).is(200, "replayed", "");
    send(Some("spiffe://shop/1"), &bearer("one")).is(200, "replayed", "");
    send(Some("spiffe://till/7"), &bearer("one")).is(401, "rejected", "caller-unknown");
    assert_eq!(backend.calls(), 3);
}

#[test]
fn a_renewed_token_is_the_same_caller() {
    let backend = Backend::start();
    let issuer = TokenIssuer::new("a");
    let setup = Setup::before(&backend).tenant(&jwt("keys_file = \"jwks.json\""));
    write(&setup, "jwks.json", &set(&[&issuer]));
    let gateway = setup.start();
    bearer(&issuer.token("till-7", 60)).send(gateway.addr).is(200, "executed", "");
    bearer(&issuer.token("till-7", 600)).send(gateway.addr).is(200, "replayed", "");
    bearer(&issuer.token("till-8", 600)).send(gateway.addr).is(200, "executed", "");
    // A token that fails is refused, although strangers are not: also for a replay.
    for token in [
        issuer.token("till-7", -61),
        TokenIssuer::new("a").token("till-7", 600),
        TokenIssuer::new("z").token("till-7", 600),
        format!("{}x", issuer.token("till-7", 600)),
    ] {
        bearer(&token).send(gateway.addr).is(401, "rejected", "caller-unknown");
    }
    // An opaque credential is no token.
    bearer("opaque").send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.calls(), 3);
    let line = format!("authorization: Bearer {}", issuer.token("till-7", 60));
    assert_eq!(tenant(&setup, &line).1, "till-7");
}

#[test]
fn a_token_and_the_directory_name_one_caller() {
    let backend = Backend::start();
    let issuer = TokenIssuer::new("a");
    let setup = Setup::before(&backend)
        .tenant("directory = \"tenants.toml\"")
        .tenant(&jwt("keys_file = \"jwks.json\""));
    write(&setup, "jwks.json", &set(&[&issuer]));
    let entry = format!("[shop]\ndigests = [\"{}\"]\njwt = [\"till-7\"]\n", digest("key"));
    write(&setup, "tenants.toml", &entry);
    let gateway = setup.start();
    bearer(&issuer.token("till-7", 60)).send(gateway.addr).is(200, "executed", "");
    Request::redeem("k", BODY).tenant("key").send(gateway.addr).is(200, "replayed", "");
    bearer(&issuer.token("till-7", 60)).tenant("key").send(gateway.addr).is(200, "replayed", "");
    let other = bearer(&issuer.token("till-8", 60)).tenant("key");
    other.send(gateway.addr).is(401, "rejected", "caller-unknown");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn keys_are_fetched_renewed_and_kept() {
    let (backend, keys) = (Backend::start(), Backend::refusing());
    let (first, second) = (TokenIssuer::new("a"), TokenIssuer::new("b"));
    let url = format!("keys_url = \"http://{}/jwks.json\"", keys.addr());
    let gateway = Setup::before(&backend).tenant(&jwt(&url)).start();
    // No set, so that nobody is let through; other credentials name callers as before.
    let reply = bearer(&first.token("till", 60)).send(gateway.addr);
    reply.is(503, "rejected", "authorization-unavailable");
    assert!(reply.header("retry-after").is_some());
    Request::redeem("other", BODY).tenant("key").send(gateway.addr).is(200, "executed", "");
    keys.always(answer(200, &set(&[&first])));
    keys.listen();
    crate::support::eventually("the keys are fetched", || {
        let reply = bearer(&first.token("till", 60)).send(gateway.addr);
        (reply.status == 200).then_some(())
    });
    let fetched = keys.calls();
    // An unknown key leads to one fetch, and the answer to it does not take the good set away.
    keys.always(answer(200, "{\"keys\":[]}"));
    for _ in 0..20 {
        let reply = bearer(&second.token("till", 60)).send(gateway.addr);
        reply.is(401, "rejected", "caller-unknown");
    }
    assert!(keys.calls() <= fetched + 1, "{} fetches", keys.calls());
    bearer(&first.token("till", 60)).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn a_caller_over_its_rate_is_refused_with_the_time_to_wait_and_others_are_not() {
    let backend = Backend::start();
    let limits = "rate_per_tenant = \"6/h\"\nburst_per_tenant = 3";
    let gateway = Setup::before(&backend).limits(limits).start();
    let send =
        |tenant: &str, key: &str| Request::redeem(key, BODY).tenant(tenant).send(gateway.addr);
    for key in ["k", "l", "k"] {
        assert_eq!(send("a", key).status, 200);
    }
    for key in ["k", "m"] {
        let reply = send("a", key);
        reply.is(429, "rejected", "quota-exceeded");
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((500..=600).contains(&wait), "{wait}");
    }
    send("b", "k").is(200, "executed", "");
    assert_eq!(Request::get("/open").tenant("a").send(gateway.addr).status, 200);
    assert_eq!(backend.calls(), 4);
}

#[test]
fn a_caller_that_only_a_route_knows_learns_of_its_keys() {
    let (backend, auth) = (Backend::start(), Backend::start());
    auth.always(Act::whole(200, &[("x-tenant", "shop-7")], b""));
    let setup = Setup::before(&backend)
        .tenant("directory = \"tenants.toml\"\nunknown = \"reject\"")
        .redeem(
            "tenant.authorize = { upstream = \"auth\", path = \"/check\", cache = \"0s\", \
             tenant_header = \"x-tenant\" }",
        )
        .authorization_service(&auth, "60s");
    write(&setup, "tenants.toml", &format!("[shop]\ndigests = [\"{}\"]\n", digest("one")));
    let gateway = setup.start();
    bearer("ours").send(gateway.addr).is(200, "executed", "");
    let ask = |place: &str, key: &str| {
        let request = Request::get(&format!("/.well-known/idempotency/{place}")).key(key);
        request.header("authorization", "Bearer ours").send(gateway.addr)
    };
    assert_eq!(ask("status", "k").json()["state"], "final");
    assert_eq!(ask("answer", "k").status, 200);
    assert_eq!(ask("status", "never-used").status, 404);
    // Nobody can say that a key is unknown while its caller cannot be checked.
    auth.always(Act::whole(500, &[], b""));
    ask("status", "never-used").is(503, "rejected", "authorization-unavailable");
    auth.always(Act::whole(403, &[], b""));
    ask("status", "k").is(401, "rejected", "caller-unknown");
}
