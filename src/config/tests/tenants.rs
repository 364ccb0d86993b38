//! The kinds of names of callers.

use super::ROUTE;
use crate::config::{CertificateName, Config, JwtKeys, Mistakes, UnknownCaller, parse};

const KEY: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Reads a configuration beside these files.
fn read(more: &str, files: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let name = directory.path().join("t.toml").display().to_string();
    parse(&format!("{ROUTE}{more}"), &name, &|_| None)
}

#[track_caller]
fn check(more: &str, files: &[(&str, &str)], expected: &[&str]) {
    let messages: Vec<String> = match read(more, files) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.list.into_iter().map(|mistake| mistake.what).collect(),
    };
    assert_eq!(messages, expected, "{more}");
}

#[test]
fn every_kind_of_name_is_read() {
    let digest = "0f".repeat(32);
    let directory = format!(
        "[shop-1]\ndigests = [\"{digest}\"]\nid = \"{0}{0}\"\n[\"shop 2\"]\nuris = [\"spiffe://a/b\"]\n\
         dns = [\"till.example\"]\njwt = [\"till-7\"]\n",
        "0123456789abcdef"
    );
    let config = read(
        "[server]\ntls = { cert = \"c\", key = \"k\", client_ca = \"a\" }\n\
         [tenant]\nheaders = [\"x-api-key\"]\ndirectory = \"tenants.toml\"\ncertificate = \"uri\"\n\
         unknown = \"reject\"\n[tenant.jwt]\nkeys_file = \"jwks.json\"\nissuer = \"i\"\n\
         audience = \"a\"\nclaim = \"client_id\"\nstale = \"1h\"\n[tenant.authorize]\n\
         upstream = \"api\"\npath = \"/check?a=b\"\ncache = \"2s\"\ntenant_header = \"x-tenant\"\n",
        &[("tenants.toml", &directory), ("jwks.json", KEY)],
    );
    let tenant = config.unwrap_or_else(|mistakes| panic!("{mistakes}")).tenant;
    assert_eq!(tenant.certificate, Some(CertificateName::Uri));
    assert_eq!(tenant.unknown, UnknownCaller::Reject);
    let directory = tenant.directory.as_ref().unwrap();
    assert_eq!(directory.len(), 2);
    assert_eq!(directory.by_uri("spiffe://a/b").unwrap().to_string(), "shop 2");
    assert_eq!(directory.by_dns("till.example"), directory.by_jwt("till-7"));
    let jwt = tenant.jwt.as_ref().unwrap();
    assert!(matches!(jwt.keys, JwtKeys::File(_)));
    assert_eq!((jwt.rules.claim.as_str(), jwt.stale.as_secs()), ("client_id", 3600));
    let authorize = tenant.authorize.as_ref().unwrap();
    assert_eq!((authorize.path.as_str(), authorize.cache.as_secs()), ("/check?a=b", 2));
    assert_eq!(authorize.headers, ["authorization"]);
    assert_eq!(tenant.kinds().len(), 4);
    // Secrets and names stay out of what is shown.
    let shown = serde_json::to_string(&tenant).unwrap();
    assert!(!shown.contains("0f0f") && !shown.contains("shop"), "{shown}");
}

#[test]
fn mistakes_of_a_directory_come_with_its_lines() {
    let digest = "0F".repeat(32);
    let text = format!(
        "top = 5\n[a]\ndigests = [\"abc\"]\nid = \"5\"\n[b]\ndigest = []\n[c]\ndigests = [\"{digest}\"]\n\
         [d]\ndigests = [\"{digest}\"]\n"
    );
    check(
        "[tenant]\ndirectory = \"tenants.toml\"",
        &[("tenants.toml", &text)],
        &[
            "`directory`: tenants.toml:1:1: `top` is no table; write [top] and its lines",
            "`directory`: tenants.toml:3:12: `digests`: write the SHA-256 of a credential as 64 hex digits, such as `printf %s \"$KEY\" | sha256sum` prints it",
            "`directory`: tenants.toml:4:6: `id` is the 32 hex digits that records show for the caller",
            "`directory`: tenants.toml:6:1: unknown key `digest`; did you mean `digests`?",
            "`directory`: tenants.toml:9:1: [d]: an entry of `digests` belongs to [c] already",
        ],
    );
    let message = read("[tenant]\ndirectory = \"none.toml\"", &[]).unwrap_err().to_string();
    assert!(message.contains("`directory`: cannot read "), "{message}");
}

#[test]
fn what_a_kind_needs_is_asked_for() {
    check(
        "[tenant.jwt]\n[tenant.authorize]",
        &[],
        &[
            "[tenant.jwt] needs `audience`, the `aud` of its tokens",
            "[tenant.jwt] needs `claim`, the claim that names the caller, such as \"client_id\"",
            "[tenant.jwt] needs `issuer`, the `iss` of its tokens",
            "[tenant.jwt] needs the public keys: `keys_file`, or `keys_url`",
            "[tenant.authorize] needs `path`, such as \"/check\"",
            "[tenant.authorize] needs `upstream`, the name of the [[upstream]] that is asked",
        ],
    );
    let jwt = |keys: &str| {
        format!("[tenant.jwt]\n{keys}\nissuer = \"i\"\naudience = \"a\"\nclaim = \"c\"")
    };
    for (keys, expected) in [
        (
            "keys_url = \"http://id.example/jwks\"",
            &[
                "`keys_url` must be https://, or on this machine: keys that are changed on their way name other callers",
            ][..],
        ),
        ("keys_url = \"https://id.example/jwks\"", &[]),
        ("keys_url = \"http://127.0.0.1:8080/jwks\"", &[]),
        ("keys_url = \"id.example\"", &["`keys_url` must start with http://, https:// or unix:"]),
        (
            "keys_file = \"empty.json\"",
            &[
                "`keys_file`: no key for signatures with RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA",
            ],
        ),
        (
            "keys_file = \"bad.json\"",
            &["`keys_file`: not a JSON Web Key Set, an object with an array \"keys\""],
        ),
        (
            "keys_file = \"jwks.json\"\nkeys_url = \"https://id.example/jwks\"",
            &["`keys_file` and `keys_url` are both given; keep one of them"],
        ),
    ] {
        let files = [("empty.json", "{\"keys\":[]}"), ("bad.json", "[]"), ("jwks.json", KEY)];
        check(&jwt(keys), &files, expected);
    }
    let authorize = |more: &str| format!("[tenant.authorize]\npath = \"/check\"\n{more}");
    for (more, expected) in [
        ("upstream = \"auth\"", "[tenant.authorize]: there is no upstream \"auth\""),
        (
            "upstream = \"api\"\nheaders = [\"x-tenant\"]\ntenant_header = \"x-tenant\"",
            "`tenant_header`: x-tenant is one of the `headers` that clients send; a client could name itself",
        ),
        ("upstream = \"api\"\ncache = \"5m\"", "`cache` is 5m, but must be 0s to 1m"),
    ] {
        check(&authorize(more), &[], &[expected]);
    }
    check(
        "[tenant]\nheaders = [\"authorization\", \"x-tenant\"]\n\
         authorize = { upstream = \"api\", path = \"/\", tenant_header = \"x-tenant\" }",
        &[],
        &[
            "x-tenant is the `tenant_header` of [tenant.authorize], which is taken from every client, and one of the credential `headers`: without a name from the service all callers would be one",
        ],
    );
    check(
        "[tenant]\ncertificate = \"dns\"",
        &[],
        &[
            "`certificate` names callers by verified client certificates; set `client_ca` in [server] `tls`, by which they are verified",
        ],
    );
    check(
        "[tenant]\nunknown = \"reject\"",
        &[],
        &[
            "`unknown = \"reject\"` refuses every caller: nothing names one; set `directory`, `certificate`, [tenant.jwt] or [tenant.authorize]",
        ],
    );
    check(
        "[tenant]\ndirectory = \"tenants.toml\"\nheaders = []",
        &[("tenants.toml", "")],
        &["`directory` finds callers by the credentials in `headers`, and there are none"],
    );
}

#[test]
fn a_route_has_a_table_of_its_own() {
    let config = read("[route.tenant]\nheaders = [\"x-shop\"]", &[]).unwrap();
    let own = config.routes[0].tenant.as_ref().unwrap();
    assert_eq!(own.headers[..], ["x-shop"]);
    assert_eq!(config.tenant.headers.len(), 2);
    // The credentials of the route are those that no key may be.
    check(
        "key.header = \"x-shop\"\n[route.tenant]\nheaders = [\"x-shop\"]",
        &[],
        &["x-shop is one of [tenant] `headers`, so that every key would be another caller's"],
    );
    check(
        "[route.tenant]\nheaders = [\"idempotency-key\"]",
        &[],
        &["idempotency-key is one of [tenant] `headers`, so that every key would be another \
             caller's"],
    );
    check(
        "mode = \"items\"\nprofile = \"capillary\"\nitems.batch = \"header:x-shop\"\n\
         outcome.on_unknown = \"probe\"\n\
         probe = { path = \"/p\", executed = { status = 200 }, headers = { a = \"{header:x-shop}\" } }\n\
         [route.tenant]\nheaders = [\"x-shop\"]",
        &[],
        &[
            "`batch` names x-shop, a credential; no key is made of one",
            "`headers.a`: {header:x-shop} is a credential, of which nothing is stored; write the \
             gateway's own credential into `headers`, or name the header in `forward`",
        ],
    );
    check(
        "mode = \"off\"\n[route.tenant]\nheaders = [\"x-shop\"]",
        &[],
        &["`tenant` has no use on a route with mode = \"off\"; remove one of them"],
    );
}
