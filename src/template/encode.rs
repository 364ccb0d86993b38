//! Encoding of a value for the place of its field.

use super::value::FieldValue;
use crate::percent;

/// The encoding of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Percent-encoded, and not empty: an empty segment would name another resource.
    PathSegment,
    /// Percent-encoded, in a query or a form.
    Query,
    /// Visible ASCII and inner spaces.
    Header,
    /// Escaped inside a JSON string.
    JsonString,
    /// A JSON value.
    Json,
    /// Escaped for XML.
    Xml,
    /// As it is.
    Text,
}

impl Encoding {
    /// Appends the encoded value; `None`: the value cannot stand here.
    pub(super) fn append(self, text: &mut String, value: &FieldValue) -> Option<()> {
        if self == Self::Json {
            text.push_str(&value.as_json());
            return Some(());
        }
        let plain = value.as_text()?;
        match self {
            Self::PathSegment | Self::Query => {
                if plain.is_empty() && self == Self::PathSegment {
                    return None;
                }
                text.push_str(&percent::encode(&plain));
            }
            Self::Header => {
                let visible = plain.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
                if plain.is_empty() || !visible || plain.trim() != plain.as_ref() {
                    return None;
                }
                text.push_str(&plain);
            }
            Self::JsonString => {
                let quoted = serde_json::Value::from(plain.as_ref()).to_string();
                text.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
            }
            Self::Xml => {
                for character in plain.chars() {
                    match character {
                        '&' => text.push_str("&amp;"),
                        '<' => text.push_str("&lt;"),
                        '>' => text.push_str("&gt;"),
                        '"' => text.push_str("&quot;"),
                        '\'' => text.push_str("&apos;"),
                        '\t' | '\n' | '\r' => text.push(character),
                        // XML 1.0 has no way to write a control.
                        control if control.is_control() => return None,
                        other => text.push(other),
                    }
                }
            }
            Self::Text | Self::Json => text.push_str(&plain),
        }
        Some(())
    }
}
