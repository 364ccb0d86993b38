//! Requests that the gateway makes itself, and responses that it replays once an outcome is
//! settled.

use std::time::Duration;

use http::Method;

use super::policy::{RequestTemplate, ResponseTemplate};
use super::table::TableReader;
use super::template::{HeaderTemplates, TemplateContext};
use crate::idempotency::tenant::CredentialHeaders;
use crate::matcher::StatusPattern;
use crate::template::{FieldScope, TemplateSyntax};

/// Repetitions and sightings, at most.
pub(super) const MOST_TIMES: u64 = 1000;
/// The longest pause or age, such as a backend's memory.
pub(super) const LONGEST_AGE: Duration = Duration::from_secs(400 * 86_400);

/// The parts of a file that the tables of a policy are checked against.
pub(super) struct PolicyContext<'c> {
    /// The credential headers of callers.
    pub(super) credentials: &'c CredentialHeaders,
    /// Pointers start at an item.
    pub(super) items: bool,
    /// The path of the route.
    pub(super) path: &'c str,
}

impl PolicyContext<'_> {
    /// The fields of templates for requests and responses of the gateway.
    pub(super) fn fields(&self, row: bool) -> TemplateContext<'_> {
        let scope = FieldScope { record: true, body: self.items, row, answer: true, names: &[] };
        TemplateContext { scope, credentials: self.credentials, path: self.path }
    }
}

/// `method`, `path`, `headers` and `body`.
pub(super) fn request(
    table: &TableReader<'_>,
    context: &PolicyContext<'_>,
    default: Option<Method>,
) -> Option<RequestTemplate> {
    let fields = context.fields(false);
    let method = method(table, default);
    if !table.has("path") {
        table.missing(&["path"], "the `path` to ask is missing, such as \"/v1/sales/{key}\"");
    }
    let path = table.template("path", TemplateSyntax::Path, &fields);
    let headers = table.header_templates("headers", &fields);
    let syntax = body_syntax(&headers);
    let body = table.template("body", syntax, &fields);
    if let Some(written) = body.as_ref().filter(|_| method == Some(Method::GET)) {
        table.wrong(written, "`body` has no use with GET; write the method that takes it");
    }
    let body = body.map(|body| body.value);
    Some(RequestTemplate { method: method?, path: path?.value, headers, body })
}

fn method(table: &TableReader<'_>, default: Option<Method>) -> Option<Method> {
    let Some(written) = table.optional::<String>("method") else {
        if default.is_none() && !table.has("method") {
            table.missing(&["method"], "the `method` is missing, such as \"POST\"");
        }
        return default;
    };
    match Method::from_bytes(written.value.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) | Err(_) => {
            let what = format!("`method`: \"{}\" is no method to use here", written.value);
            table.wrong(&written, what);
            None
        }
        Ok(method) if written.value.chars().all(|at| at.is_ascii_uppercase()) => Some(method),
        Ok(_) => {
            let what = format!(
                "`method`: methods are upper-case; write \"{}\"",
                written.value.to_ascii_uppercase()
            );
            table.wrong(&written, what);
            None
        }
    }
}

/// The syntax of a body, by its `content-type`; JSON without one.
fn body_syntax(headers: &HeaderTemplates) -> TemplateSyntax {
    let of_type = headers.0.iter().find(|(name, _)| name == http::header::CONTENT_TYPE);
    let Some((_, kind)) = of_type else { return TemplateSyntax::Json };
    let kind = kind.as_str().to_ascii_lowercase();
    if kind.contains("json") {
        TemplateSyntax::Json
    } else if kind.contains("x-www-form-urlencoded") {
        TemplateSyntax::Form
    } else if kind.contains("xml") {
        TemplateSyntax::Xml
    } else {
        TemplateSyntax::Text
    }
}

/// `response = { status = 200, headers = { … }, body = "…" }`
pub(super) fn response(
    table: &TableReader<'_>,
    context: &PolicyContext<'_>,
    row: bool,
) -> Option<ResponseTemplate> {
    table.optional_table("response", |table| {
        let fields = context.fields(row);
        let headers = table.header_templates("headers", &fields);
        let syntax = body_syntax(&headers);
        let body = table.template("body", syntax, &fields);
        let status = status(table);
        if let Some(body) = body.as_ref().filter(|_| matches!(status, 204 | 205 | 304)) {
            table.wrong(body, format!("an answer with status {status} has no body; leave it out"));
        }
        ResponseTemplate { status, headers, body: body.map(|body| body.value) }
    })
}

fn status(table: &TableReader<'_>) -> u16 {
    let Some(written) = table.optional::<StatusPattern>("status") else { return 200 };
    match written.value {
        StatusPattern::Exact(status @ 200..=599) => status,
        StatusPattern::Exact(_) | StatusPattern::Class(_) => {
            table.wrong(&written, "`status` is one status of an answer, such as 200");
            200
        }
    }
}
