//! Reading of `[tenant]` and `[route.tenant]`.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, Uri};

use super::backend_url::{BackendUrl, parse_url};
use super::callers::{
    AuthorizeConfig, CertificateName, JwtConfig, JwtKeys, TenantConfig, UnknownCaller,
};
use super::model::UpstreamConfig;
use super::table::{Located, TableReader};
use super::{defaults, upstreams};
use crate::caller::jwt::{JwtRules, KeySet};
use crate::idempotency::tenant::CredentialHeaders;

/// The longest time for which the answer of an authorization service is remembered: a caller that
/// was refused in between could see replays for as long.
const LONGEST_CACHE: Duration = Duration::from_secs(60);
/// Time for which a key set that cannot be renewed is used, unless configured.
const STALE: Duration = Duration::from_secs(86_400);
/// The longest such time.
const LONGEST_STALE: Duration = Duration::from_secs(30 * 86_400);
const CACHE: Duration = Duration::from_secs(5);
/// Time for a key set to arrive.
const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// `[tenant]` or `[route.tenant]`.
pub(super) fn tenant(table: &TableReader<'_>) -> TenantConfig {
    let default = || defaults::TENANT_HEADERS.map(HeaderName::from_static).to_vec();
    let headers = CredentialHeaders::new(table.headers("headers").unwrap_or_else(default));
    let names =
        [("uri", Some(Some(CertificateName::Uri))), ("dns", Some(Some(CertificateName::Dns)))];
    let unknown = [("allow", Some(UnknownCaller::Allow)), ("reject", Some(UnknownCaller::Reject))];
    let tenant = TenantConfig {
        certificate: table.choice("certificate", None, &names),
        directory: super::directory::directory(table),
        jwt: table.optional_table("jwt", jwt).flatten(),
        authorize: table.optional_table("authorize", authorize).flatten(),
        unknown: table.choice("unknown", UnknownCaller::Allow, &unknown),
        headers,
    };
    if table.has("directory") && tenant.headers.is_empty() {
        let what = "`directory` finds callers by the credentials in `headers`, and there are none";
        table.wrong_at(&["headers"], what);
    }
    let set = tenant.authorize.as_ref().and_then(|it| it.tenant_header.as_ref());
    if let Some(name) = set.filter(|name| tenant.headers.contains(name)) {
        let what = format!(
            "{name} is the `tenant_header` of [tenant.authorize], which is taken from every \
             client, and one of the credential `headers`: without a name from the service all \
             callers would be one"
        );
        table.wrong_at(&["headers", "authorize"], what);
    }
    // Counted as written: a file that cannot be read, or is not to be read, is no second mistake.
    let named = ["directory", "certificate", "jwt", "authorize"].iter().any(|key| table.has(key));
    if tenant.unknown == UnknownCaller::Reject && !named {
        let what = "`unknown = \"reject\"` refuses every caller: nothing names one; set \
                    `directory`, `certificate`, [tenant.jwt] or [tenant.authorize]";
        table.wrong_at(&["unknown"], what);
    }
    tenant
}

fn jwt(table: &TableReader<'_>) -> Option<JwtConfig> {
    if table.has("keys_file") && table.has("keys_url") {
        let what = "`keys_file` and `keys_url` are both given; keep one of them";
        table.wrong_at(&["keys_file"], what);
    }
    if !table.has("keys_file") && !table.has("keys_url") {
        let what = "[tenant.jwt] needs the public keys: `keys_file`, or `keys_url`";
        table.missing(&["keys_file", "keys_url"], what);
    }
    let file = table.file_text("keys_file").filter(|_| table.reads_files()).and_then(|text| {
        match KeySet::parse(text.value.as_bytes()) {
            Ok(keys) => Some(JwtKeys::File(Arc::new(keys))),
            Err(error) => {
                table.wrong(&text, format!("`keys_file`: {error}"));
                None
            }
        }
    });
    let url = table.optional::<String>("keys_url").and_then(|written| keys_url(table, &written));
    let text = |key: &'static str, what: &str| {
        let written = table.required::<String>(key, what)?;
        if written.value.is_empty() {
            table.wrong(&written, format!("`{key}` is empty"));
        }
        Some(written.value)
    };
    let issuer = text("issuer", "[tenant.jwt] needs `issuer`, the `iss` of its tokens");
    let audience = text("audience", "[tenant.jwt] needs `audience`, the `aud` of its tokens");
    let claim = text(
        "claim",
        "[tenant.jwt] needs `claim`, the claim that names the caller, such as \"client_id\"",
    );
    let stale = table.time("stale", STALE, Duration::ZERO..=LONGEST_STALE);
    let rules = JwtRules { issuer: issuer?, audience: audience?, claim: claim? };
    Some(JwtConfig { keys: file.or(url)?, rules, stale })
}

fn keys_url(table: &TableReader<'_>, written: &Located<String>) -> Option<JwtKeys> {
    let wrong = |what: String| table.wrong(written, format!("`keys_url` {what}"));
    let url = match parse_url(&written.value) {
        Ok(BackendUrl::Http(url)) => url,
        Ok(BackendUrl::Unix(_)) => {
            wrong("must start with http:// or https://".to_owned());
            return None;
        }
        Err(what) => {
            wrong(what);
            return None;
        }
    };
    let is_local = url.host().is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse().is_ok_and(|at: std::net::IpAddr| at.is_loopback())
    });
    if url.scheme_str() == Some("http") && !is_local {
        let what = "must be https://, or on this machine: keys that are changed on their way name \
                    other callers";
        wrong(what.to_owned());
    }
    let path = url.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let mut parts = url.into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    let server = BackendUrl::Http(Uri::from_parts(parts).ok()?);
    Some(JwtKeys::Url { server, path })
}

/// The server of a key set.
pub(crate) fn keys_server(url: &BackendUrl) -> UpstreamConfig {
    let server = upstreams::at("tenant.jwt", url.clone());
    UpstreamConfig { timeout: KEYS_TIMEOUT, ..server }
}

fn authorize(table: &TableReader<'_>) -> Option<AuthorizeConfig> {
    let upstream = table.required::<String>(
        "upstream",
        "[tenant.authorize] needs `upstream`, the name of the [[upstream]] that is asked",
    );
    let path =
        table.required::<String>("path", "[tenant.authorize] needs `path`, such as \"/check\"");
    let path = path.and_then(|written| {
        let path = written.value.parse::<PathAndQuery>().ok();
        let path = path.filter(|_| written.value.starts_with('/'));
        if path.is_none() {
            table.wrong(&written, "`path` is not a path, such as \"/check\"");
        }
        path
    });
    let headers = table.headers("headers").unwrap_or_else(|| vec![http::header::AUTHORIZATION]);
    let cache = table.time("cache", CACHE, Duration::ZERO..=LONGEST_CACHE);
    let tenant_header = table.header("tenant_header");
    if let Some(name) = tenant_header.as_ref().filter(|name| headers.contains(&name.value)) {
        let what = format!(
            "`tenant_header`: {} is one of the `headers` that clients send; a client could name \
             itself",
            name.value
        );
        table.wrong(name, what);
    }
    Some(AuthorizeConfig {
        upstream: upstream?.value,
        path: path?,
        headers,
        cache,
        tenant_header: tenant_header.map(|name| name.value),
    })
}

/// Notes an upstream of `[tenant.authorize]` that is not configured.
pub(super) fn check_upstream(
    table: &TableReader<'_>,
    at: Option<usize>,
    tenant: &TenantConfig,
    upstreams: &[UpstreamConfig],
) {
    let Some(authorize) = &tenant.authorize else { return };
    let is_known = upstreams.iter().any(|upstream| upstream.name == authorize.upstream);
    if !is_known && upstreams.iter().all(|upstream| !upstream.name.is_empty()) {
        let what = format!("[tenant.authorize]: there is no upstream \"{}\"", authorize.upstream);
        table.wrong_elsewhere(at, what);
    }
}
