//! `[route.errors]`: a route's own status, body and headers for the gateway's problems.

use http::{HeaderName, HeaderValue, StatusCode};

use super::diagnostics::nearest;
use super::document::{TomlMember, TomlNode, TomlValue};
use super::table::TableReader;
use crate::place::Place;
use crate::problem::{SLUGS, Slug};
use crate::template::{Field, FieldScope, Template, TemplateSyntax, TimeBase};

/// The fields of a problem.
const NAMES: &[&str] = &["detail", "code", "request_id"];

/// Headers of which each has one source.
const OWN_HEADERS: [&str; 7] = [
    "connection",
    "content-length",
    "idempotency-error",
    "idempotency-status",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Status, body and headers in place of those of the route's profile, for one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReplacement {
    /// The problem.
    pub slug: Slug,
    /// The status; `None`: the profile's.
    pub status: Option<StatusCode>,
    /// The body and its media type; `None`: the profile's.
    pub body: Option<(Template, &'static str)>,
    /// Headers in addition.
    pub headers: Vec<(HeaderName, Template)>,
}

/// The table of a route; empty when it is not in the file.
pub(super) fn errors(route: &TableReader<'_>) -> Vec<ErrorReplacement> {
    let mut replacements = Vec::new();
    route.note_kind("errors", || "a table of problems and their replacements".to_owned());
    let Some(node) = route.node("errors") else { return replacements };
    let TomlValue::Table(members) = &node.value else {
        route.other_kind("errors", node, "a table such as { key-reused = { status = 409 } }");
        return replacements;
    };
    for member in members {
        let known = SLUGS.into_iter().find(|slug| slug.as_str() == member.key);
        let Some(slug) = known else {
            let advice = match nearest(&member.key, SLUGS.iter().map(|slug| slug.as_str())) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "see /.well-known/idempotency for all of them".to_owned(),
            };
            let what = format!("`{}` in [route.errors] is no problem; {advice}", member.key);
            route.fail("errors", member.key_at, what);
            continue;
        };
        if slug == Slug::Reversed {
            let what = "`reversed` in [route.errors] would never be sent: it is kept like an \
                        answer of the backend; write it as `response` in [route.reverse]";
            route.fail("errors", member.key_at, what.to_owned());
            continue;
        }
        let TomlValue::Table(parts) = &member.node.value else {
            let what =
                format!("`errors.{}` must be a table such as {{ status = 409 }}", member.key);
            route.fail("errors", member.node.at, what);
            continue;
        };
        replacements.push(replacement(route, slug, parts));
    }
    replacements
}

fn replacement(route: &TableReader<'_>, slug: Slug, parts: &[TomlMember]) -> ErrorReplacement {
    let mut read = ErrorReplacement { slug, status: None, body: None, headers: Vec::new() };
    let wrong = |at: usize, what: String| {
        route.fail("errors", at, format!("`errors.{}`: {what}", slug.as_str()));
    };
    for part in parts {
        let TomlNode { at, value } = &part.node;
        match (part.key.as_str(), value) {
            ("status", TomlValue::Integer(number)) => {
                let status = u16::try_from(*number).ok().filter(|status| *status >= 200);
                read.status = status.and_then(|status| StatusCode::from_u16(status).ok());
                if read.status.is_none_or(|status| status.as_u16() > 599) {
                    wrong(*at, format!("`status` is {number}, but must be 200 to 599"));
                }
            }
            ("body", TomlValue::Text(text)) => {
                let (syntax, media_type) = kind_of(text);
                let template = template(text, syntax).map_err(|what| wrong(*at, what)).ok();
                read.body = template.map(|template| (template, media_type));
            }
            ("headers", TomlValue::Table(lines)) => {
                for line in lines {
                    match header(line) {
                        Ok(header) => read.headers.push(header),
                        Err(what) => wrong(line.key_at, what),
                    }
                }
            }
            ("status", _) => wrong(*at, "`status` must be a number such as 409".to_owned()),
            ("body", _) => wrong(*at, "`body` must be a text".to_owned()),
            ("headers", _) => wrong(*at, "`headers` must be a table of texts".to_owned()),
            (key, _) => wrong(
                part.key_at,
                format!("unknown key `{key}`; known here: `status`, `body` or `headers`"),
            ),
        }
    }
    let is_bodyless = read.status.is_some_and(|status| matches!(status.as_u16(), 204 | 205 | 304));
    if let Some(first) = parts.first().filter(|_| is_bodyless) {
        wrong(first.key_at, "this status has no body, so nobody could read the reason".to_owned());
    }
    read
}

/// The syntax of a body by its first character, and the media type.
fn kind_of(text: &str) -> (TemplateSyntax, &'static str) {
    match text.trim_start().chars().next() {
        Some('[') => (TemplateSyntax::Json, "application/json"),
        // A brace begins a field of a plain text as well.
        Some('{') if !text.trim_end().ends_with('}') || is_field(text.trim()) => {
            (TemplateSyntax::Text, "text/plain; charset=utf-8")
        }
        Some('{') => (TemplateSyntax::Json, "application/json"),
        Some('<') => (TemplateSyntax::Xml, "application/xml"),
        _ => (TemplateSyntax::Text, "text/plain; charset=utf-8"),
    }
}

/// True if the text is nothing but a field of a problem.
fn is_field(text: &str) -> bool {
    NAMES
        .iter()
        .any(|name| text.strip_prefix('{').and_then(|at| at.strip_suffix('}')) == Some(name))
}

fn header(line: &TomlMember) -> Result<(HeaderName, Template), String> {
    let name = HeaderName::from_bytes(line.key.as_bytes());
    let name = name.map_err(|_| format!("\"{}\" is not the name of a header", line.key))?;
    if OWN_HEADERS.contains(&name.as_str()) {
        return Err(format!("the gateway itself sets {name}"));
    }
    let TomlValue::Text(text) = &line.node.value else {
        return Err(format!("the value of {name} must be a text"));
    };
    let template = template(text, TemplateSyntax::Header)?;
    let is_plain = template.fields().next().is_none();
    if is_plain && HeaderValue::from_str(text).is_err() {
        return Err(format!("the value of {name} cannot stand in a header"));
    }
    Ok((name, template))
}

/// A template whose fields have values when a request is refused: those of the problem, places in
/// the head of the request, and the present time.
fn template(text: &str, syntax: TemplateSyntax) -> Result<Template, String> {
    let scope = FieldScope { record: true, names: NAMES, ..FieldScope::default() };
    let template = Template::parse(text, syntax, &scope).map_err(|error| error.to_string())?;
    let without_value = template.fields().find(|field| match field {
        Field::Name(_) | Field::Time { base: TimeBase::Now, .. } => false,
        Field::Place(place) => {
            let place = Place::parse(place);
            !place.is_ok_and(|place| place.body_format().is_none() && !is_credential(&place))
        }
        _ => true,
    });
    match without_value {
        None => Ok(template),
        Some(field) => Err(format!(
            "{{{field}}} has no value in an answer of the gateway; write {{detail}}, {{code}}, \
             {{request_id}}, {{now}}, or a header, path parameter or query parameter"
        )),
    }
}

fn is_credential(place: &Place) -> bool {
    let name = place.header().map(HeaderName::as_str);
    matches!(name, Some("authorization" | "cookie" | "proxy-authorization"))
}
