//! A message as matchers see it. The body is parsed when a matcher first needs it, and once in each
//! form.

use std::cell::OnceCell;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::truth::Truth;
use crate::form::FormFields;
use crate::json::{Document, Pointer, Value};
use crate::xml::XmlDocument;

/// A message: an answer, a row of an answer, or a request.
#[derive(Debug, Clone, Copy)]
pub struct MatchInput<'m, 'a> {
    /// Status of the answer; `None` for a request.
    pub status: Option<u16>,
    /// The header lines.
    pub headers: HeaderView<'m>,
    /// The query of a request.
    pub query: Option<&'m str>,
    /// The body, or the row.
    pub body: MatchBody<'m, 'a>,
    /// The array of the answer in which the row stands, when the answer has several.
    pub array: Option<&'m Pointer>,
}

/// The header lines of a message.
#[derive(Debug, Clone, Copy)]
pub enum HeaderView<'m> {
    /// The lines of a message on the wire.
    Map(&'m HeaderMap),
    /// The lines of a stored answer.
    Lines(&'m [(HeaderName, HeaderValue)]),
}

/// The body of a message.
#[derive(Debug, Clone, Copy)]
pub enum MatchBody<'m, 'a> {
    /// A body too large to look at.
    Unseen,
    /// The whole body.
    Whole(&'m ParsedBody<'a>),
    /// A JSON value: an item of a request, or a row of an answer.
    Value(Value<'m, 'a>),
}

/// A body, and the forms in which matchers have asked for it.
#[derive(Debug)]
pub struct ParsedBody<'a> {
    bytes: &'a [u8],
    json: OnceCell<Option<Document<'a>>>,
    xml: OnceCell<Option<XmlDocument<'a>>>,
    form: OnceCell<Option<FormFields<'a>>>,
}

impl<'a> ParsedBody<'a> {
    /// A body that nobody has looked at.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, json: OnceCell::new(), xml: OnceCell::new(), form: OnceCell::new() }
    }

    /// The bytes of the body.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The body as JSON; `None`: the body cannot be read as JSON.
    pub fn json(&self) -> Option<&Document<'a>> {
        self.json.get_or_init(|| Document::parse(self.bytes).ok()).as_ref()
    }

    /// The body as XML; `None`: the body cannot be read as XML.
    pub fn xml(&self) -> Option<&XmlDocument<'a>> {
        self.xml.get_or_init(|| XmlDocument::parse(self.bytes).ok()).as_ref()
    }

    /// The body as a form; `None`: the body cannot be read as a form. Nearly any text can, so JSON
    /// and XML are told by their first character; backends name other media types for forms.
    pub fn form(&self) -> Option<&FormFields<'a>> {
        let parse = || {
            let first = self.bytes.trim_ascii_start().first();
            let is_other = matches!(first, Some(b'{' | b'[' | b'<'));
            if is_other { None } else { FormFields::parse(self.bytes).ok() }
        };
        self.form.get_or_init(parse).as_ref()
    }
}

impl<'m, 'a> MatchInput<'m, 'a> {
    /// An answer.
    pub fn answer(status: u16, headers: HeaderView<'m>, body: MatchBody<'m, 'a>) -> Self {
        Self { status: Some(status), headers, query: None, body, array: None }
    }

    /// A request.
    pub fn request(
        headers: HeaderView<'m>,
        query: Option<&'m str>,
        body: MatchBody<'m, 'a>,
    ) -> Self {
        Self { status: None, headers, query, body, array: None }
    }

    /// A row of an answer with this status.
    pub fn row(status: u16, row: Value<'m, 'a>) -> Self {
        Self {
            status: Some(status),
            headers: HeaderView::Lines(&[]),
            query: None,
            body: MatchBody::Value(row),
            array: None,
        }
    }

    /// An item of a request.
    pub fn item(item: Value<'m, 'a>) -> Self {
        Self {
            status: None,
            headers: HeaderView::Lines(&[]),
            query: None,
            body: MatchBody::Value(item),
            array: None,
        }
    }
}

impl<'m> HeaderView<'m> {
    /// The values of a header, in the order of its lines.
    pub fn all<'n>(
        self,
        name: &'n HeaderName,
    ) -> impl Iterator<Item = &'m HeaderValue> + use<'m, 'n> {
        let (map, lines) = match self {
            Self::Map(map) => (Some(map.get_all(name)), &[][..]),
            Self::Lines(lines) => (None, lines),
        };
        let lines = lines.iter().filter(move |(line, _)| line == name).map(|(_, value)| value);
        map.into_iter().flatten().chain(lines)
    }
}

impl<'m, 'a> MatchBody<'m, 'a> {
    /// The body as a JSON value.
    pub fn json(self) -> Option<Value<'m, 'a>> {
        match self {
            Self::Unseen => None,
            Self::Whole(body) => body.json().map(Document::root),
            Self::Value(value) => Some(value),
        }
    }

    /// The whole body; `None` for a body that is not seen and for a part of one.
    pub(super) fn whole(self) -> Option<&'m ParsedBody<'a>> {
        match self {
            Self::Whole(body) => Some(body),
            Self::Unseen | Self::Value(_) => None,
        }
    }

    /// The truth of "the body holds this text".
    pub(super) fn contains(self, text: &str) -> Truth {
        match self {
            Self::Unseen => Truth::Undecided,
            Self::Whole(body) => String::from_utf8_lossy(body.bytes).contains(text).into(),
            Self::Value(value) => value.raw().contains(text).into(),
        }
    }
}
