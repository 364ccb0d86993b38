//! Parsing of templates.

use std::fmt;

use super::encode::Encoding;
use super::field::{Field, TimeBase, TimeFormat};
use super::{Template, TemplatePart, TemplateSyntax};
use crate::json::{Document, Pointer};
use crate::place::{Place, PlaceError};

/// Units of an offset, with their milliseconds.
const UNITS: [(&str, i64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The fields that a template may have.
#[derive(Debug, Clone, Default)]
pub struct FieldScope {
    /// Places of the request, the key, and times.
    pub record: bool,
    /// `{body:/…}`.
    pub body: bool,
    /// `{row:/…}`.
    pub row: bool,
    /// `{answer:/…}`.
    pub answer: bool,
    /// Names of the caller's own.
    pub names: &'static [&'static str],
}

/// The reason a text is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateError {
    /// The field is none of the known fields.
    Unknown(String),
    /// The field is known, and has no value in this template.
    OutOfScope(String),
    /// The field is written wrongly; holds the field and a sentence.
    Field(String, String),
    /// The text with its fields is no JSON.
    NotJson,
    /// The path does not start with a single slash.
    NoPath,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(field) => write!(
                f,
                "{{{field}}} is no field; write a place such as {{/id}}, {{path:id}} or \
                 {{header:x-id}}, or {{key}}, {{first_seen}}, {{dispatched_at-2m|unix}}, {{now}}"
            ),
            Self::OutOfScope(field) => write!(f, "{{{field}}} has no value here"),
            Self::Field(field, what) => write!(f, "{{{field}}}: {what}"),
            Self::NotJson => f.write_str(
                "the text is not JSON, which it must be unless another `content-type` is set; a \
                 field outside of a string is JSON itself, so write \"{/name}\" in quotes only \
                 for a text",
            ),
            Self::NoPath => f.write_str("a path starts with a single \"/\""),
        }
    }
}

impl std::error::Error for TemplateError {}

pub(super) fn template(
    text: &str,
    syntax: TemplateSyntax,
    scope: &FieldScope,
) -> Result<Template, TemplateError> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut context = EncodingContext { syntax, in_query: false, in_string: false, escaped: false };
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        if character == '{'
            && let Some(name) = candidate(&rest[1..])
        {
            let field = field(name, scope)?;
            if !plain.is_empty() {
                parts.push(TemplatePart::Text(std::mem::take(&mut plain)));
            }
            parts.push(TemplatePart::Field(field, context.encoding()));
            rest = &rest[name.len() + 2..];
            continue;
        }
        context.pass(character);
        plain.push(character);
        rest = &rest[character.len_utf8()..];
    }
    if !plain.is_empty() {
        parts.push(TemplatePart::Text(plain));
    }
    let template = Template { written: text.to_owned(), syntax, parts };
    match syntax {
        TemplateSyntax::Json if !is_json(&template) => Err(TemplateError::NotJson),
        TemplateSyntax::Path if !is_path(text) => Err(TemplateError::NoPath),
        _ => Ok(template),
    }
}

/// The text up to the closing brace, if it looks like a field: a brace that begins none is text.
fn candidate(rest: &str) -> Option<&str> {
    let end = rest.find(['{', '}', '"', '\n'])?;
    let name = rest.get(..end)?;
    let first = name.chars().next()?;
    let closes = rest[end..].starts_with('}');
    let named = first.is_ascii_alphabetic() && !name.contains(char::is_whitespace);
    (closes && (named || first == '/')).then_some(name)
}

/// The place in the text that decides the encoding of the next field.
struct EncodingContext {
    syntax: TemplateSyntax,
    in_query: bool,
    in_string: bool,
    escaped: bool,
}

impl EncodingContext {
    fn pass(&mut self, character: char) {
        self.in_query |= character == '?';
        match character {
            _ if self.escaped => self.escaped = false,
            '\\' if self.in_string => self.escaped = true,
            '"' => self.in_string = !self.in_string,
            _ => {}
        }
    }

    fn encoding(&self) -> Encoding {
        match self.syntax {
            TemplateSyntax::Path if self.in_query => Encoding::Query,
            TemplateSyntax::Path => Encoding::PathSegment,
            TemplateSyntax::Header => Encoding::Header,
            TemplateSyntax::Json if self.in_string => Encoding::JsonString,
            TemplateSyntax::Json => Encoding::Json,
            TemplateSyntax::Form => Encoding::Query,
            TemplateSyntax::Xml => Encoding::Xml,
            TemplateSyntax::Text => Encoding::Text,
        }
    }
}

fn field(name: &str, scope: &FieldScope) -> Result<Field, TemplateError> {
    let in_scope = |allowed: bool, field: Field| match allowed {
        true => Ok(field),
        false => Err(TemplateError::OutOfScope(name.to_owned())),
    };
    if let Some(own) = scope.names.iter().find(|own| **own == name) {
        return Ok(Field::Name(own));
    }
    if let Some(time) = time(name)? {
        return in_scope(scope.record, time);
    }
    if name == "key" {
        return in_scope(scope.record, Field::Key);
    }
    if name.starts_with('/') {
        pointer(name, name)?;
        return in_scope(scope.record, Field::Place(name.to_owned()));
    }
    match name.split_once(':') {
        Some(("pointer", at)) => {
            pointer(name, at)?;
            in_scope(scope.record, Field::Place(at.to_owned()))
        }
        Some(("row", at)) => in_scope(scope.row, Field::Row(pointer(name, at)?)),
        Some(("answer", at)) => in_scope(scope.answer, Field::Answer(pointer(name, at)?)),
        Some(("body", at)) => in_scope(scope.body, Field::Body(pointer(name, at)?)),
        Some(_) | None => match Place::parse(name) {
            Ok(_) => in_scope(scope.record, Field::Place(name.to_owned())),
            Err(PlaceError::Kind) => Err(TemplateError::Unknown(name.to_owned())),
            Err(error) => Err(TemplateError::Field(name.to_owned(), error.to_string())),
        },
    }
}

fn pointer(name: &str, at: &str) -> Result<Pointer, TemplateError> {
    Pointer::parse(at).map_err(|error| TemplateError::Field(name.to_owned(), error.to_string()))
}

/// A time with offset and format, such as `dispatched_at-2m|unix`; `None`: no time.
fn time(name: &str) -> Result<Option<Field>, TemplateError> {
    let (moment, format) = match name.split_once('|') {
        Some((moment, format)) => (moment, Some(format)),
        None => (name, None),
    };
    let Some((base, offset)) = TimeBase::ALL.into_iter().find_map(|base| {
        let rest = moment.strip_prefix(base.as_str())?;
        (rest.is_empty() || rest.starts_with(['+', '-'])).then_some((base, rest))
    }) else {
        return Ok(None);
    };
    let wrong = |what: &str| TemplateError::Field(name.to_owned(), what.to_owned());
    let offset = match offset.is_empty() {
        true => 0,
        false => self::offset(offset)
            .ok_or_else(|| wrong("an offset is a sign, a whole number and ms, s, m, h or d"))?,
    };
    let format = match format {
        None => TimeFormat::Rfc3339,
        Some(format) => TimeFormat::ALL
            .into_iter()
            .find(|known| known.as_str() == format)
            .ok_or_else(|| wrong("the formats are rfc3339, unix, unix_ms and date"))?,
    };
    Ok(Some(Field::Time { base, offset, format }))
}

/// Milliseconds of an offset such as `-2m` or `+1h30m`.
fn offset(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let mut rest = &text[1..];
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|at: char| !at.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|at: char| !at.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (_, millis) = UNITS.iter().find(|(unit, _)| *unit == &rest[..letters])?;
        total = total.checked_add(number.checked_mul(*millis)?)?;
        rest = &rest[letters..];
    }
    Some(sign * total)
}

/// Reports a JSON text once each field has a value.
fn is_json(template: &Template) -> bool {
    let text: String = template
        .parts
        .iter()
        .map(|part| match part {
            TemplatePart::Text(text) => text.as_str(),
            TemplatePart::Field(..) => "0",
        })
        .collect();
    Document::parse(text.as_bytes()).is_ok()
}

/// Reports a request target in origin form.
fn is_path(text: &str) -> bool {
    let allowed = |at: char| at.is_ascii_graphic() && at != '#';
    text.starts_with('/') && !text.starts_with("//") && text.chars().all(allowed)
}
