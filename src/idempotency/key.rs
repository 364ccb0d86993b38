//! The idempotency key: sources and accepted values.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName};

use super::structured_field::{ParameterSyntax, StringError, string_item};
use crate::place::{BodyFormat, Place, RequestValues, ValueError};

/// A client's idempotency key: 1 to `max_length` visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

impl Key {
    /// The key's characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key's characters, owned.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys never reach a log; whoever prints one by mistake prints this.
        f.write_str("Key(…)")
    }
}

/// `[route.key]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRules {
    /// Places of the key in the request.
    pub places: KeyPlaces,
    /// Requests without a key are refused.
    pub required: bool,
    /// The name space of keys shared by requests.
    pub scope: Scope,
    /// Accepted spellings of the header.
    pub syntax: Syntax,
    /// Characters of the shortest key.
    pub min_length: usize,
    /// Characters of the longest key.
    pub max_length: usize,
    /// Further required format.
    pub format: Option<Format>,
    /// The key's header is forwarded upstream.
    pub forward: bool,
}

/// The places of a key in a request: one, or several whose texts make a composite key for clients
/// that send none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlaces(Vec<Place>);

impl KeyPlaces {
    /// A key at these places, in this order.
    pub const fn new(places: Vec<Place>) -> Self {
        Self(places)
    }

    /// A key in a header.
    pub fn in_header(name: HeaderName) -> Self {
        Self(vec![Place::Header(name)])
    }

    /// The places in their order.
    pub fn iter(&self) -> std::slice::Iter<'_, Place> {
        self.0.iter()
    }

    /// The only place; `None`: the key is a composite.
    pub fn single(&self) -> Option<&Place> {
        match self.0.as_slice() {
            [place] => Some(place),
            _ => None,
        }
    }

    /// The header that holds the key by itself.
    pub fn header(&self) -> Option<&HeaderName> {
        self.single().and_then(Place::header)
    }

    /// All headers that hold the key or a part of it.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().filter_map(Place::header)
    }

    /// Reports whether the key, or a part of it, stands in the body.
    pub fn in_body(&self) -> bool {
        self.0.iter().any(|place| place.body_format().is_some())
    }

    /// Reports whether the key, or a part of it, stands in the path.
    pub fn in_path(&self) -> bool {
        self.0.iter().any(|place| matches!(place, Place::Path(_)))
    }
}

impl fmt::Display for KeyPlaces {
    /// Writes a header in its usual spelling (`Idempotency-Key`), a pointer bare, and other places
    /// in their text form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, place) in self.0.iter().enumerate() {
            match at {
                0 => {}
                _ if at + 1 == self.0.len() => f.write_str(" and ")?,
                _ => f.write_str(", ")?,
            }
            match place {
                Place::Header(name) => f.write_str(&header_as_written(name))?,
                Place::Pointer(pointer) => write!(f, "{pointer}")?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}

/// The usual spelling of a header name: `Idempotency-Key` for `idempotency-key`.
pub fn header_as_written(name: &HeaderName) -> String {
    let mut start = true;
    let raise = |character: char| {
        let raised = if start { character.to_ascii_uppercase() } else { character };
        start = character == '-';
        raised
    };
    name.as_str().chars().map(raise).collect()
}

/// The name space of keys shared by requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A name space for each tenant.
    Tenant,
    /// A name space for each tenant and route.
    Route,
}

/// Accepted spellings of a key header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// The RFC 9651 String and the bare value.
    Any,
    /// The RFC 9651 String only, with well-formed parameters.
    Strict,
}

/// A required format of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A UUID in its hyphenated form, RFC 9562 section 4, in either case.
    Uuid,
}

/// The reason a key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyError {
    /// The request has no key.
    Missing,
    /// More than one header line, or a list.
    Several,
    /// A name stands twice in an object of the body, so readers may differ in what they take.
    DuplicateMember,
    /// Empty, or shorter than `min_length`.
    TooShort,
    /// Longer than `max_length`.
    TooLong,
    /// A space, a control character or a non-ASCII byte.
    Characters,
    /// An RFC 9651 String that is not well formed, or a bare value under `syntax = "strict"`.
    Syntax,
    /// Not of the configured format.
    Format,
    /// The value is neither a text nor a number.
    Type,
    /// The body cannot be read in the form in which the key stands there.
    Unreadable(BodyFormat),
    /// A composite key without one of its parts.
    Incomplete,
}

impl From<ValueError> for KeyError {
    fn from(error: ValueError) -> Self {
        match error {
            ValueError::Several => Self::Several,
            ValueError::DuplicateMember => Self::DuplicateMember,
            ValueError::NotText => Self::Type,
            ValueError::Unreadable(format) => Self::Unreadable(format),
        }
    }
}

impl From<StringError> for KeyError {
    fn from(error: StringError) -> Self {
        match error {
            StringError::Several => Self::Several,
            StringError::Characters => Self::Characters,
            StringError::Syntax => Self::Syntax,
        }
    }
}

impl KeyRules {
    /// The key of a request.
    ///
    /// # Errors
    /// [`KeyError::Missing`] when the request has no key; otherwise what is wrong with it.
    pub fn from_values(&self, values: &RequestValues<'_>) -> Result<Key, KeyError> {
        let place = match self.places.single() {
            Some(Place::Header(name)) => return self.from_headers(name, values.headers()),
            Some(place) => place,
            None => return self.composite(values),
        };
        self.from_text(&values.text(place)?.ok_or(KeyError::Missing)?)
    }

    /// The key of several parts: their texts, joined by commas, with everything that would be no
    /// visible character or could be taken for the join percent-encoded.
    fn composite(&self, values: &RequestValues<'_>) -> Result<Key, KeyError> {
        let texts: Vec<Option<Cow<'_, str>>> =
            self.places.iter().map(|place| values.text(place)).collect::<Result<_, _>>()?;
        if texts.iter().all(Option::is_none) {
            return Err(KeyError::Missing);
        }
        let mut key = Vec::new();
        for (at, text) in texts.into_iter().enumerate() {
            let text = text.ok_or(KeyError::Incomplete)?;
            if text.is_empty() {
                return Err(KeyError::TooShort);
            }
            if at > 0 {
                key.push(b',');
            }
            for byte in text.bytes() {
                if byte.is_ascii_graphic() && !matches!(byte, b',' | b'%') {
                    key.push(byte);
                } else {
                    key.extend_from_slice(format!("%{byte:02X}").as_bytes());
                }
            }
            if key.len() > self.max_length {
                return Err(KeyError::TooLong);
            }
        }
        self.check(key)
    }

    /// The key in the request's headers under `name`.
    ///
    /// # Errors
    /// [`KeyError::Missing`] when there is no such header; otherwise what is wrong with it.
    pub fn from_headers(&self, name: &HeaderName, headers: &HeaderMap) -> Result<Key, KeyError> {
        let mut lines = headers.get_all(name).iter();
        let line = lines.next().ok_or(KeyError::Missing)?;
        if lines.next().is_some() {
            return Err(KeyError::Several);
        }
        self.from_header_value(line.as_bytes())
    }

    /// The key in one header line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_header_value(&self, line: &[u8]) -> Result<Key, KeyError> {
        let line = line.trim_ascii();
        if line.first() == Some(&b'"') {
            let parameters = match self.syntax {
                Syntax::Any => ParameterSyntax::Ignored,
                Syntax::Strict => ParameterSyntax::WellFormed,
            };
            return self.check(string_item(line, parameters)?);
        }
        if line.contains(&b',') {
            return Err(KeyError::Several);
        }
        if self.syntax == Syntax::Strict && !line.is_empty() {
            return Err(KeyError::Syntax);
        }
        self.check(line.to_vec())
    }

    /// The key as a string or number of the body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_text(&self, text: &str) -> Result<Key, KeyError> {
        self.check(text.as_bytes().to_vec())
    }

    fn check(&self, key: Vec<u8>) -> Result<Key, KeyError> {
        if key.is_empty() || key.len() < self.min_length {
            return Err(KeyError::TooShort);
        }
        if key.len() > self.max_length {
            return Err(KeyError::TooLong);
        }
        if !key.iter().all(u8::is_ascii_graphic) {
            return Err(KeyError::Characters);
        }
        let key = String::from_utf8(key).map_err(|_| KeyError::Characters)?;
        match self.format {
            Some(Format::Uuid) if !is_hyphenated_uuid(&key) => Err(KeyError::Format),
            // Both cases write one UUID (RFC 9562 section 4), and libraries differ.
            Some(Format::Uuid) => Ok(Key(key.to_ascii_lowercase())),
            None => Ok(Key(key)),
        }
    }
}

/// The text a header names: an RFC 9651 String's, or the bare value, which may be UTF-8. For ids of
/// items, which bodies restrict to no characters.
///
/// # Errors
/// When it is neither, or empty.
pub fn any_text(line: &[u8]) -> Result<String, KeyError> {
    let line = line.trim_ascii();
    let text = match line.first() {
        Some(b'"') => string_item(line, ParameterSyntax::Ignored)?,
        Some(_) | None => line.to_vec(),
    };
    if text.is_empty() {
        return Err(KeyError::TooShort);
    }
    String::from_utf8(text).map_err(|_| KeyError::Characters)
}

fn is_hyphenated_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
