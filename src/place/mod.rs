//! Places: where a value stands in a request, and the values that stand there.
//!
//! A place names a header, a member of a JSON body, a parameter of the path or of the query, a
//! field of a form, or an element or attribute of an XML body. The meaning of a value (a key, a
//! business id) is left to its reader.

mod body;
mod request;
#[cfg(test)]
mod tests;

use std::fmt;

use http::HeaderName;

use crate::json::{Pointer, PointerError};
use crate::xml::{XmlPath, XmlPathError};

pub use body::{BodyFormat, BodyForms};
pub use request::{RequestValues, ValueError};

/// A place in a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// A header.
    Header(HeaderName),
    /// A member of a JSON body.
    Pointer(Pointer),
    /// A parameter of the route's path.
    Path(String),
    /// A parameter of the query.
    Query(String),
    /// A field of a form.
    Form(String),
    /// An element or an attribute of an XML body.
    Xml(XmlPath),
}

/// The reason a text is not a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceError {
    /// The text starts with no kind of place.
    Kind,
    /// The text behind the kind is empty.
    NoName(&'static str),
    /// The name is none of a header.
    Header(String),
    /// The text behind `pointer:` is not a JSON pointer.
    Pointer(PointerError),
    /// The text behind `xml:` is not a path.
    Xml(XmlPathError),
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => f.write_str(
                "a place is one of header:NAME, pointer:/member, path:parameter, query:name, \
                 form:field and xml:/Element/@attribute; a bare /member is a pointer",
            ),
            Self::NoName(kind) => write!(f, "the name behind \"{kind}:\" is missing"),
            Self::Header(name) => write!(f, "\"{name}\" is not the name of a header"),
            Self::Pointer(error) => error.fmt(f),
            Self::Xml(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PlaceError {}

impl Place {
    /// Parses the text form: `header:NAME`, `pointer:/…`, a bare `/…`, `path:parameter`,
    /// `query:name`, `form:field` or `xml:/Element/@attribute`.
    ///
    /// # Errors
    /// When the text is not a place.
    pub fn parse(text: &str) -> Result<Self, PlaceError> {
        let pointer = |text| Pointer::parse(text).map(Self::Pointer).map_err(PlaceError::Pointer);
        if text.starts_with('/') {
            return pointer(text);
        }
        let (kind, rest) = text.split_once(':').ok_or(PlaceError::Kind)?;
        let name = |kind| if rest.is_empty() { Err(PlaceError::NoName(kind)) } else { Ok(rest) };
        match kind {
            "header" => {
                let name = name("header")?;
                let header = HeaderName::from_bytes(name.as_bytes());
                header.map(Self::Header).map_err(|_| PlaceError::Header(name.to_owned()))
            }
            "pointer" => pointer(rest),
            "path" => Ok(Self::Path(name("path")?.to_owned())),
            "query" => Ok(Self::Query(name("query")?.to_owned())),
            "form" => Ok(Self::Form(name("form")?.to_owned())),
            "xml" => XmlPath::parse(rest).map(Self::Xml).map_err(PlaceError::Xml),
            _ => Err(PlaceError::Kind),
        }
    }

    /// The form that a body must have for this place; `None`: the place is in the head.
    pub fn body_format(&self) -> Option<BodyFormat> {
        match self {
            Self::Header(_) | Self::Path(_) | Self::Query(_) => None,
            Self::Pointer(_) => Some(BodyFormat::Json),
            Self::Form(_) => Some(BodyFormat::Form),
            Self::Xml(_) => Some(BodyFormat::Xml),
        }
    }

    /// The header that the place names.
    pub fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Header(name) => Some(name),
            Self::Pointer(_) | Self::Path(_) | Self::Query(_) | Self::Form(_) | Self::Xml(_) => {
                None
            }
        }
    }
}

impl fmt::Display for Place {
    /// Writes the text form with its kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Pointer(pointer) => write!(f, "pointer:{pointer}"),
            Self::Path(name) => write!(f, "path:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Form(name) => write!(f, "form:{name}"),
            Self::Xml(path) => write!(f, "xml:{path}"),
        }
    }
}

impl serde::Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
