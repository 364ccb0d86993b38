//! Templates: texts with fields in braces, such as
//! `/v1/cards/{/card}?since={dispatched_at-2m|unix}`.
//!
//! A template is parsed once, for the place where its text goes (a path, a header, a JSON body, …),
//! and rendered with the values of one record. Every field is encoded for its place, so that no
//! value can end a path segment, a header line or a JSON string. The module is pure; callers read
//! the values from requests, records and answers.

mod encode;
mod field;
mod mask;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;

use self::encode::Encoding;
pub use self::field::{Field, TimeBase, TimeFormat};
pub use self::mask::masked_target;
pub use self::parse::{FieldScope, TemplateError};
pub use self::value::{FieldValue, FieldValues};

/// Bytes of the longest rendered text.
pub const MAX_RENDERED: usize = 256 << 10;

/// Place where the text of a template goes; decides the encoding of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateSyntax {
    /// A request target in origin form: fields are percent-encoded.
    Path,
    /// A header value: fields are visible ASCII.
    Header,
    /// A JSON text: inside strings fields are escaped, outside they are JSON themselves.
    Json,
    /// `application/x-www-form-urlencoded`: fields are percent-encoded.
    Form,
    /// An XML text: fields are escaped.
    Xml,
    /// Any other text: fields as they are.
    Text,
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The text as written.
    written: String,
    syntax: TemplateSyntax,
    parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Field(Field, Encoding),
}

/// The reason a template cannot be rendered for a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenderError {
    /// The field has no value here.
    Absent(String),
    /// The value cannot stand in the place of the field.
    Unfit(String),
    /// The text would be longer than [`MAX_RENDERED`].
    TooLong,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(field) => write!(f, "{{{field}}} has no value"),
            Self::Unfit(field) => write!(f, "the value of {{{field}}} cannot stand there"),
            Self::TooLong => write!(f, "the text would be longer than {MAX_RENDERED} bytes"),
        }
    }
}

impl std::error::Error for RenderError {}

impl Template {
    /// Parses a template whose fields are within `scope`.
    ///
    /// # Errors
    /// The first field that is none, or a text that is no valid text of its syntax.
    pub fn parse(
        text: &str,
        syntax: TemplateSyntax,
        scope: &FieldScope,
    ) -> Result<Self, TemplateError> {
        parse::template(text, syntax, scope)
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The text with the same value for each field.
    pub fn with_fields(&self, value: &str) -> String {
        let parts = self.parts.iter().map(|part| match part {
            TemplatePart::Text(text) => text.as_str(),
            TemplatePart::Field(..) => value,
        });
        parts.collect()
    }

    /// The fields, in the order of the text.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Field(field, _) => Some(field),
            TemplatePart::Text(_) => None,
        })
    }

    /// Reports a template that is a single field whose value is a JSON number.
    pub fn is_number(&self, values: &dyn FieldValues) -> bool {
        let [TemplatePart::Field(field, _)] = self.parts.as_slice() else { return false };
        field.value(values).is_some_and(|value| value.is_number())
    }

    /// The text with the values of a record.
    ///
    /// # Errors
    /// A field without a value, or with a value that cannot stand in its place.
    pub fn render(&self, values: &dyn FieldValues) -> Result<String, RenderError> {
        let mut text = String::with_capacity(self.written.len() + 64);
        for part in &self.parts {
            match part {
                TemplatePart::Text(part) => text.push_str(part),
                TemplatePart::Field(field, encoding) => {
                    let value = field.value(values);
                    let value = value.ok_or_else(|| RenderError::Absent(field.to_string()))?;
                    encoding
                        .append(&mut text, &value)
                        .ok_or_else(|| RenderError::Unfit(field.to_string()))?;
                }
            }
            if text.len() > MAX_RENDERED {
                return Err(RenderError::TooLong);
            }
        }
        if self.syntax == TemplateSyntax::Path
            && let Some(field) = self.dot_segment(&text)
        {
            return Err(RenderError::Unfit(field));
        }
        Ok(text)
    }

    /// The first field, if the rendered path has a segment `.` or `..`, with which a server may
    /// leave the path as written.
    fn dot_segment(&self, rendered: &str) -> Option<String> {
        let path = rendered.split('?').next().unwrap_or_default();
        let leaves = path.split('/').any(|segment| matches!(segment, "." | ".."));
        let first = self.fields().next().map(Field::to_string);
        if leaves { Some(first.unwrap_or_default()) } else { None }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl serde::Serialize for Template {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}
