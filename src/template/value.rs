//! Values of fields.

use std::borrow::Cow;
use std::time::Duration;

use super::field::{Field, TimeBase, TimeFormat};
use crate::clock::{self, Timestamp};
use crate::json::{Document, JsonType};

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue {
    /// Characters, from a header, a path, or another place outside of JSON.
    Text(String),
    /// A JSON text, from a place in a JSON body.
    Json(String),
}

/// The source of the values for one rendering.
pub trait FieldValues {
    /// The value of a field that is no time; `None`: there is none.
    fn value(&self, field: &Field) -> Option<FieldValue>;

    /// The time of a base; `None`: unknown.
    fn time(&self, base: TimeBase) -> Option<Timestamp>;
}

impl FieldValue {
    /// The characters of the value: of a JSON string its contents, else its JSON text. `None` for
    /// `null`, which has no characters.
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Json(json) => {
                let document = Document::parse(json.as_bytes()).ok()?;
                match document.root().kind() {
                    JsonType::Null => None,
                    JsonType::String => {
                        document.root().as_str().map(|text| Cow::Owned(text.into_owned()))
                    }
                    JsonType::Bool | JsonType::Number | JsonType::Array | JsonType::Object => {
                        Some(Cow::Borrowed(json.trim()))
                    }
                }
            }
        }
    }

    /// Reports a JSON number.
    pub fn is_number(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::Json(json) => Document::parse(json.as_bytes())
                .is_ok_and(|document| document.root().kind() == JsonType::Number),
        }
    }

    /// The value as JSON text.
    pub fn as_json(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Owned(serde_json::Value::from(text.as_str()).to_string()),
            Self::Json(json) => Cow::Borrowed(json),
        }
    }
}

impl TimeFormat {
    fn written(self, at: Timestamp) -> FieldValue {
        match self {
            Self::Rfc3339 => FieldValue::Text(clock::rfc3339(at)),
            // Numbers stand outside of JSON strings as numbers.
            Self::Unix => FieldValue::Json((at.as_millis() / 1000).to_string()),
            Self::UnixMs => FieldValue::Json(at.as_millis().to_string()),
            Self::Date => {
                let mut text = clock::rfc3339(at);
                text.truncate("2026-01-31".len());
                FieldValue::Text(text)
            }
        }
    }
}

impl Field {
    /// The value of the field: of a time its written form, else what the source has.
    pub(super) fn value(&self, values: &dyn FieldValues) -> Option<FieldValue> {
        let Self::Time { base, offset, format } = self else { return values.value(self) };
        let distance = Duration::from_millis(offset.unsigned_abs());
        let start = values.time(*base)?;
        let at = match offset.is_negative() {
            true => {
                Timestamp::from_millis(start.as_millis().saturating_sub(clock::millis(distance)))
            }
            false => start.saturating_add(distance),
        };
        Some(format.written(at))
    }
}
