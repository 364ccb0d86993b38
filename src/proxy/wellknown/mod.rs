//! The gateway's own pages for clients: the contract as it is configured, which the draft standard
//! obliges a server to publish (draft-ietf-httpapi-idempotency-key-header section 2), and the
//! status of one key. Neither ever calls a backend.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, request};
use serde_json::{Value, json};

use super::Gateway;
use super::exchange::Answer;
use crate::body::{Body, full};
use crate::clock::{Timestamp, rfc3339};
use crate::config::{ItemsMode, Mode, RequestMode, RouteConfig};
use crate::idempotency::fingerprint::{BodyCompare, Select};
use crate::idempotency::key::{
    Format, Key, KeyError, KeyRules, KeySource, Scope, Syntax, any_text, header_as_written,
};
use crate::idempotency::ledger::Progress;
use crate::idempotency::outcome::Verdict;
use crate::idempotency::retention::Keep;
use crate::idempotency::{Ledger, Record, RecordId, State, TenantId};
use crate::items;
use crate::items::rules::View;
use crate::problem::{Problem, SLUGS, Slug};

/// Where the contract is published.
pub(crate) const PATH: &str = "/.well-known/idempotency";
const STATUS_PATH: &str = "/.well-known/idempotency/status";

/// Answers a request below [`PATH`].
pub(crate) async fn answer(gateway: &Gateway, head: &request::Parts, path: &str) -> Answer {
    if path != PATH && path != STATUS_PATH {
        return Err(Problem::new(Slug::NoRoute, "Nothing is served at this address.")
            .disposition(None)
            .close());
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        let problem = Problem::new(Slug::MethodNotAllowed, "This address can only be read.");
        let allow = Some(HeaderValue::from_static("GET, HEAD"));
        return Err(Problem { allow, ..problem.disposition(None).close() });
    }
    if path == STATUS_PATH {
        return status(gateway, &head.headers).await;
    }
    let contract = contract(gateway);
    if wants_html(&head.headers) {
        return Ok(page("text/html; charset=utf-8", html(&contract)));
    }
    Ok(page("application/json", contract.to_string()))
}

fn page(media_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(http::header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// Whether `Accept` names HTML before it names JSON or anything.
fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let position = |media: &str| accept.find(media).unwrap_or(usize::MAX);
    position("text/html") < position("application/json").min(position("*/*"))
}

/// The status of the key in the request's key header, for the tenant of its credentials.
async fn status(gateway: &Gateway, headers: &HeaderMap) -> Answer {
    let tenant = TenantId::of(&gateway.config.tenant.headers, headers);
    let (mut named, mut refused) = (false, false);
    for route in &gateway.config.routes {
        let (scope, key) = match scoped_key(route, headers) {
            Some(Ok(found)) => found,
            Some(Err(error)) => {
                // Another route may take what this one refuses.
                refused |= error != KeyError::Missing;
                continue;
            }
            None => continue,
        };
        named = true;
        let id = RecordId::new(&tenant, &scope, &key);
        let record = gateway.store.get(id).await.map_err(|error| {
            tracing::error!(%error, "a key's status could not be read");
            super::reply::store_unavailable()
        })?;
        if let Some(record) = record.filter(|record| !forgotten(record, gateway.store.now())) {
            let text = status_document(&record, gateway.store.now()).to_string();
            return Ok(page("application/json", text));
        }
    }
    if refused && !named {
        let detail = "The idempotency key in the header is not valid.";
        return Err(Problem::new(Slug::KeyInvalid, detail));
    }
    if !named {
        let detail = "Name the key in the header it was sent with, such as Idempotency-Key.";
        return Err(Problem::new(Slug::KeyMissing, detail));
    }
    let detail = "This key is not known here: no request with it was accepted.";
    Err(Problem::new(Slug::NotFound, detail).disposition(None))
}

/// The scope and the key that this route would find a record by: for a batch API the header names
/// the id of an item.
fn scoped_key(
    route: &RouteConfig,
    headers: &HeaderMap,
) -> Option<Result<(String, String), KeyError>> {
    match &route.mode {
        Mode::Request(mode) => {
            let scope = match mode.key.scope {
                Scope::Tenant => String::new(),
                Scope::Route => route.name.to_string(),
            };
            Some(key_for(&mode.key, headers).map(|key| (scope, key.into_string())))
        }
        Mode::Items(mode) => {
            let id = headers.get("idempotency-key").map(|line| any_text(line.as_bytes()));
            let id = id.unwrap_or(Err(KeyError::Missing));
            Some(id.map(|id| (items::scope(&mode.ledger), id)))
        }
        Mode::Off => None,
    }
}

/// The key as this route would read it; where the route takes keys from bodies, from the usual
/// header.
fn key_for(rules: &KeyRules, headers: &HeaderMap) -> Result<Key, KeyError> {
    let usual = http::HeaderName::from_static("idempotency-key");
    let name = match &rules.source {
        KeySource::Header(name) => name,
        KeySource::Pointer(_) => &usual,
    };
    rules.from_headers(name, headers)
}

/// Whether it is as good as no record for clients.
fn forgotten(record: &Record, now: Timestamp) -> bool {
    matches!(record.state, State::Released { .. })
        || record.expired(now) == crate::idempotency::record::Expiry::Forget
}

fn status_document(record: &Record, now: Timestamp) -> Value {
    if let Some(ledger) = record.ledger() {
        return item_document(record, ledger);
    }
    let expired = record.expires().is_some_and(|at| at <= now);
    let (state, status, completed, expires) = match &record.state {
        State::InFlight => ("in_flight", None, None, None),
        State::Unknown { .. } | State::Turn | State::Item { .. } => ("unknown", None, None, None),
        State::Released { .. } => ("absent", None, None, None),
        State::Final { answer, completed, expires, .. } => {
            let state = if expired { "tombstone" } else { "final" };
            (state, Some(answer.status()), Some(*completed), *expires)
        }
        State::Tombstone { status, completed, expires } => {
            ("tombstone", Some(*status), Some(*completed), *expires)
        }
    };
    json!({
        "state": state,
        "status": status,
        "first_seen": rfc3339(record.first_seen),
        "completed_at": completed.map(rfc3339),
        "expires_at": expires.map(rfc3339),
        "attempts": record.attempts,
    })
}

/// The state of one item of a batch API.
fn item_document(record: &Record, ledger: &Ledger) -> Value {
    let state = match ledger.progress() {
        _ if ledger.in_flight > 0 => "in_flight",
        Progress::Complete => "complete",
        Progress::Partial => "partial",
        Progress::None => "none",
        Progress::Unknown => "unknown",
    };
    // Of its parts each had an answer of its own; there is no one status.
    let completed = ledger.is_done().then(|| rfc3339(record.updated));
    json!({
        "state": state,
        "status": null,
        "completed_at": completed,
        "requested": ledger.requested,
        "fulfilled": ledger.fulfilled,
        "in_flight": ledger.in_flight,
        "unknown": ledger.unknown,
        "reason": ledger.doubt.map(|doubt| doubt.to_string()),
        "closed": ledger.closed,
        "first_seen": rfc3339(record.first_seen),
        "updated_at": rfc3339(record.updated),
        "expires_at": record.expires().map(rfc3339),
        "attempts": record.attempts,
    })
}

/// The contract as it is configured.
fn contract(gateway: &Gateway) -> Value {
    let routes: Vec<Value> = gateway
        .config
        .routes
        .iter()
        .filter_map(|route| match &route.mode {
            Mode::Request(mode) => Some(route_contract(route, mode)),
            Mode::Items(mode) => Some(items_contract(route, mode)),
            Mode::Off => None,
        })
        .collect();
    let problems: Vec<Value> = SLUGS
        .iter()
        .map(|slug| {
            json!({
                "code": slug.as_str(),
                "title": slug.title(),
                "status": slug.status().as_u16(),
                "retryable": slug.retryable(),
            })
        })
        .collect();
    json!({
        "routes": routes,
        "tenant": { "headers": names(&gateway.config.tenant.headers) },
        "status": STATUS_PATH,
        "problems": problems,
    })
}

fn route_contract(route: &RouteConfig, mode: &RequestMode) -> Value {
    let (header, pointer) = match &mode.key.source {
        KeySource::Header(name) => (Some(header_as_written(name)), None),
        KeySource::Pointer(pointer) => (None, Some(pointer.to_string())),
    };
    let list = |meaning: Verdict| -> Vec<String> {
        let entries = mode.outcome.entries().iter();
        entries.filter(|(_, verdict)| *verdict == meaning).map(|(at, _)| at.to_string()).collect()
    };
    json!({
        "name": route.name,
        "methods": route.methods.iter().map(Method::as_str).collect::<Vec<_>>(),
        "path": route.path,
        "mode": "request",
        "key": {
            "header": header,
            "pointer": pointer,
            "required": mode.key.required,
            "scope": match mode.key.scope { Scope::Tenant => "tenant", Scope::Route => "route" },
            "syntax": match mode.key.syntax { Syntax::Any => "any", Syntax::Strict => "strict" },
            "min_length": mode.key.min_length,
            "max_length": mode.key.max_length,
            "format": mode.key.format.map(|format| match format { Format::Uuid => "uuid" }),
        },
        "fingerprint": fingerprint(mode),
        "duplicates": { "wait_seconds": mode.duplicates.wait.as_secs_f64() },
        "outcome": {
            "final": list(Verdict::Final),
            "retry": list(Verdict::Released),
            "unknown": list(Verdict::Unknown),
            "on_unknown": "hold",
        },
        "retention_seconds": seconds(mode.record.retention.answer),
        "tombstone_seconds": seconds(mode.record.retention.tombstone),
        "max_stored_body": mode.record.max_stored_body,
    })
}

fn items_contract(route: &RouteConfig, mode: &ItemsMode) -> Value {
    let rules = &mode.rules;
    let pointers = |list: &[crate::json::Pointer]| -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    };
    json!({
        "name": route.name,
        "methods": route.methods.iter().map(Method::as_str).collect::<Vec<_>>(),
        "path": route.path,
        "mode": "items",
        "items": {
            "at": rules.at.to_string(),
            "single": rules.single,
            "id": rules.id.to_string(),
            "quantity": rules.quantity.as_ref().map(ToString::to_string),
            "max_items": rules.max_items,
            "max_quantity": rules.max_quantity,
            "ledger": mode.ledger,
            "same": rules.same.as_deref().map(pointers),
            "shared": rules.shared.as_deref().map(pointers),
            "serialize_by": pointers(&rules.serialize_by),
            "view": match rules.view { View::Cumulative => "cumulative", View::Delta => "delta" },
        },
        "duplicates": { "wait_seconds": mode.duplicates.wait.as_secs_f64() },
        "outcome": { "on_unknown": "hold" },
        "retention_seconds": seconds(mode.record.retention.answer),
        "tombstone_seconds": seconds(mode.record.retention.tombstone),
    })
}

fn fingerprint(mode: &RequestMode) -> Value {
    let pointers = |list: &[crate::json::Pointer]| -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    };
    let (include, exclude) = match &mode.fingerprint.select {
        Select::All => (None, None),
        Select::Include(list) => (Some(pointers(list)), None),
        Select::Exclude(list) => (None, Some(pointers(list))),
    };
    json!({
        "covers": ["method", "path", "query", "media type", "caller", "body"],
        "body": match mode.fingerprint.body {
            BodyCompare::ByMediaType => "json for JSON media types, else raw",
            BodyCompare::Json => "json",
            BodyCompare::Raw => "raw",
        },
        "include": include,
        "exclude": exclude,
        "headers": names(&mode.fingerprint.headers),
    })
}

fn names(list: &[http::HeaderName]) -> Vec<String> {
    list.iter().map(header_as_written).collect()
}

/// `null` means for ever.
fn seconds(keep: Keep) -> Option<u64> {
    match keep {
        Keep::For(period) => Some(period.as_secs()),
        Keep::Forever => None,
    }
}

/// The contract for a person. Everything that comes from the configuration is escaped.
fn html(contract: &Value) -> String {
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let mut rows = String::new();
    for problem in contract["problems"].as_array().into_iter().flatten() {
        let code = escape(problem["code"].as_str().unwrap_or_default());
        let title = escape(problem["title"].as_str().unwrap_or_default());
        let retry = if problem["retryable"] == true { "yes" } else { "no" };
        rows.push_str(&format!(
            "<tr id=\"{code}\"><td><code>{code}</code></td><td>{title}</td><td>{}</td><td>{retry}</td></tr>\n",
            problem["status"]
        ));
    }
    let mut routes = String::new();
    for route in contract["routes"].as_array().into_iter().flatten() {
        let text = serde_json::to_string_pretty(route).unwrap_or_default();
        let name = escape(route["name"].as_str().unwrap_or_default());
        routes.push_str(&format!("<h3>{name}</h3>\n<pre>{}</pre>\n", escape(&text)));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>Idempotency contract</title></head><body>\n<h1>Idempotency contract</h1>\n\
         <p>Send the same key with every retry of one request. The request is carried out at most \
         once; later requests with the key get the stored answer. The state of a key is at \
         <code>{STATUS_PATH}</code>.</p>\n<h2>Routes</h2>\n{routes}<h2>Problems</h2>\n<table>\n\
         <tr><th>Code</th><th>Title</th><th>Status</th><th>Retry helps</th></tr>\n{rows}</table>\n\
         </body></html>\n"
    )
}
