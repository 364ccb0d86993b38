//! Names and values in the form of `application/x-www-form-urlencoded`.

use std::borrow::Cow;
use std::fmt;

use crate::percent;

/// Fields of the largest form. Common servers stop at this number as well.
pub const MAX_FIELDS: usize = 1000;

/// The fields of a form, in the order of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormFields<'a>(Vec<FormField<'a>>);

/// A field of a form, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormField<'a> {
    /// The name; may be empty.
    pub name: Cow<'a, str>,
    /// The value; empty for a name without `=`.
    pub value: Cow<'a, str>,
}

/// The reason why a body is not a readable form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormError {
    /// More than [`MAX_FIELDS`] fields.
    TooMany,
    /// A percent sign without two hexadecimal digits, or characters that are not UTF-8.
    Escape,
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "more than {MAX_FIELDS} fields"),
            Self::Escape => f.write_str("a field is not percent-encoded UTF-8"),
        }
    }
}

impl std::error::Error for FormError {}

impl<'a> FormFields<'a> {
    /// Parses a whole body.
    ///
    /// # Errors
    /// A field cannot be decoded, or there are too many fields.
    pub fn parse(body: &'a [u8]) -> Result<Self, FormError> {
        let text = std::str::from_utf8(body).map_err(|_| FormError::Escape)?;
        let mut fields = Vec::new();
        for (name, value) in pairs(text) {
            if fields.len() == MAX_FIELDS {
                return Err(FormError::TooMany);
            }
            let name = decoded(name).ok_or(FormError::Escape)?;
            let value = decoded(value).ok_or(FormError::Escape)?;
            fields.push(FormField { name, value });
        }
        Ok(Self(fields))
    }

    /// The fields in the order of the body.
    pub fn iter(&self) -> impl Iterator<Item = &FormField<'a>> {
        self.0.iter()
    }

    /// The values of all fields of this name.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |field| field.name == name).map(|field| field.value.as_ref())
    }

    /// The fields sorted by name; fields of one name stay in their order.
    pub fn sorted(&self) -> Vec<&FormField<'a>> {
        let mut sorted: Vec<&FormField<'a>> = self.0.iter().collect();
        sorted.sort_by(|left, right| left.name.cmp(&right.name));
        sorted
    }
}

/// A parameter in the query of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryValue<'a> {
    /// No parameter has the name.
    Absent,
    /// The decoded value of the only parameter of the name.
    Value(Cow<'a, str>),
    /// Two parameters have the name.
    Several,
    /// The value is not percent-encoded UTF-8.
    Undecodable,
}

/// The parameter `name` of a query. A parameter whose own name cannot be decoded has another name.
pub fn query_value<'a>(query: &'a str, name: &str) -> QueryValue<'a> {
    let mut named = pairs(query).filter(|(key, _)| decoded(key).is_some_and(|key| key == name));
    let Some((_, value)) = named.next() else { return QueryValue::Absent };
    if named.next().is_some() {
        return QueryValue::Several;
    }
    decoded(value).map_or(QueryValue::Undecodable, QueryValue::Value)
}

/// The query without the parameters of these names; everything else byte for byte.
pub fn query_without(query: &str, names: &[String]) -> String {
    let is_kept = |pair: &&str| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        !decoded(name).is_some_and(|name| names.iter().any(|excluded| *excluded == name))
    };
    query.split('&').filter(is_kept).collect::<Vec<_>>().join("&")
}

/// Names and values, still encoded. Empty pairs, as in `a=1&&b=2`, are none.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The characters of an encoded name or value; `None`: a bad escape, or not UTF-8.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    percent::decode(&text.replace('+', " ")).map(Cow::Owned)
}
