//! The contract of the routes, as configured.

use http::Method;
use serde_json::{Value, json};

use crate::config::{ItemsMode, Mode, RequestMode, RouteConfig, TenantConfig};
use crate::idempotency::fingerprint::Select;
use crate::idempotency::key::{Format, Scope, Syntax, header_as_written};
use crate::idempotency::outcome::Verdict;
use crate::idempotency::retention::Keep;
use crate::items::rules::{ListKind, QuantityView};
use crate::place::Place;
use crate::problem::{Dialect, SLUGS, Slug};
use crate::proxy::routing::Routing;

/// The contract of the routes, as configured.
pub(crate) fn contract(routing: &Routing, status_path: &str, answer_path: &str) -> Value {
    let routes: Vec<Value> = routing
        .configured
        .iter()
        .filter(|route| route.is_keyed())
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
        "tenant": callers(routing.callers.config()),
        "status": status_path,
        "answer": answer_path,
        "problems": problems,
    })
}

fn route_contract(route: &RouteConfig, mode: &RequestMode) -> Value {
    let (header, pointer) = match mode.key.places.single() {
        Some(Place::Header(name)) => (Some(header_as_written(name)), None),
        Some(Place::Pointer(pointer)) => (None, Some(pointer.to_string())),
        Some(_) | None => (None, None),
    };
    let list = |meaning: Verdict| -> Vec<String> {
        let entries = mode.outcome.entries().iter();
        entries.filter(|(_, verdict)| *verdict == meaning).map(|(at, _)| at.to_string()).collect()
    };
    json!({
        "name": route.name,
        "methods": route.methods.iter().map(Method::as_str).collect::<Vec<_>>(),
        "path": route.path,
        "when": when(route),
        "tenant": route.tenant.as_ref().map(callers),
        "mode": "request",
        "key": {
            "from": mode.key.places.iter().collect::<Vec<_>>(),
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
            "pending": list(Verdict::Pending),
            "unknown": list(Verdict::Unknown),
            "on_unknown": "hold",
        },
        "suspect": mode.suspect.as_ref().map(|rules| json!({
            "within_seconds": rules.within.as_secs_f64(),
            "then": rules.then,
        })),
        "errors": errors(route, mode.dialect, |slug| mode.suspect.is_some() || !is_suspicion(slug)),
        "retention_seconds": seconds(mode.record.retention.answer),
        "tombstone_seconds": seconds(mode.record.retention.tombstone),
        "max_stored_body": mode.record.max_stored_body,
    })
}

fn is_suspicion(slug: Slug) -> bool {
    matches!(slug, Slug::SuspectedDuplicate)
}

/// The form of a route's own errors, and the statuses of each problem, as they are sent.
fn errors(route: &RouteConfig, dialect: Dialect, occurs: impl Fn(Slug) -> bool) -> Value {
    let statuses = |slug: Slug| {
        let sent = slug.statuses().iter().map(|usual| dialect.status(slug, *usual).as_u16());
        let replaced = route.replaced_errors.iter().find(|replaced| replaced.slug == slug);
        let mut sent: Vec<u16> = match replaced.and_then(|replaced| replaced.status) {
            Some(status) => vec![status.as_u16()],
            None => sent.collect(),
        };
        sent.sort_unstable();
        sent.dedup();
        (slug.as_str().to_owned(), json!(sent))
    };
    // A request of a route has one, and the page of a key is no route.
    let elsewhere = |slug: &Slug| matches!(slug, Slug::NoRoute | Slug::NotFound);
    let slugs = SLUGS.into_iter().filter(|slug| !elsewhere(slug) && occurs(*slug));
    let statuses: serde_json::Map<String, Value> = slugs.map(statuses).collect();
    json!({ "format": dialect.name(), "statuses": statuses })
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
        "when": when(route),
        "tenant": route.tenant.as_ref().map(callers),
        "mode": "items",
        "items": {
            "at": rules.at.to_string(),
            "single": rules.kind == ListKind::Single,
            "map": rules.kind == ListKind::Map,
            "id": rules.id.to_string(),
            "quantity": rules.quantity.as_ref().map(ToString::to_string),
            "max_items": rules.max_items,
            "max_quantity": rules.max_quantity,
            "batch": mode.batch_place(),
            "ledger": mode.ledger,
            "same": rules.same.as_deref().map(pointers),
            "shared": rules.shared,
            "serialize_by": mode.serialize_by(),
            "view": match rules.view {
                QuantityView::Cumulative => "cumulative",
                QuantityView::Delta => "delta",
            },
        },
        "duplicates": { "wait_seconds": mode.duplicates.wait.as_secs_f64() },
        "outcome": { "on_unknown": "hold" },
        "errors": items_errors(route, mode),
        "retention_seconds": seconds(mode.record.retention.answer),
        "tombstone_seconds": seconds(mode.record.retention.tombstone),
    })
}

/// The errors of a batch API; refusals in the backend's words may have statuses of their own.
fn items_errors(route: &RouteConfig, mode: &ItemsMode) -> Value {
    let mut errors = errors(route, mode.dialect, |slug| !is_suspicion(slug));
    let render = &mode.rules.render;
    for (words, slug) in [
        (&render.mismatch, Slug::KeyReused),
        (&render.duplicate, Slug::DuplicateItem),
        (&render.parallel, Slug::RequestInProgress),
    ] {
        let status = words.as_ref().and_then(|words| crate::items::refusal(words).0);
        if let Some(status) = status {
            errors["statuses"][slug.as_str()] = json!([status]);
        }
    }
    errors
}

/// The condition under which the route takes a request of its path; `null`: none.
fn when(route: &RouteConfig) -> Value {
    if route.when.is_empty() { Value::Null } else { json!(route.when) }
}

fn fingerprint(mode: &RequestMode) -> Value {
    let (include, exclude) = match &mode.fingerprint.select {
        Select::All => (None, None),
        Select::Include(selection) => (Some(selection.names().collect::<Vec<_>>()), None),
        Select::Exclude(selection) => (None, Some(selection.names().collect::<Vec<_>>())),
    };
    json!({
        "covers": ["method", "path", "query", "media type", "caller", "body"],
        "body": mode.fingerprint.body.name().unwrap_or(
            "json, form, multipart or xml for their media types, else raw",
        ),
        "include": include,
        "exclude": exclude,
        "query": { "exclude": mode.fingerprint.query_exclude },
        "headers": names(&mode.fingerprint.headers),
    })
}

/// The kinds of names of callers.
fn callers(tenant: &TenantConfig) -> Value {
    let kinds = tenant.kinds().into_iter();
    let kinds: Vec<&str> = kinds.map(|kind| kind.trim_matches(['[', ']'])).collect();
    json!({
        "headers": names(&tenant.headers),
        "kinds": kinds,
        "unknown": tenant.unknown,
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
