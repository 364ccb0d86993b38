//! The values of a request.

use std::borrow::Cow;

use http::HeaderMap;

use super::Place;
use super::body::{BodyFormat, BodyForms};
use crate::form::{QueryValue, query_value};
use crate::percent;
use crate::xml::FoundXml;

/// The parts of a request that places are found in.
#[derive(Debug)]
pub struct RequestValues<'a> {
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    /// Names and values of the path's parameters, still percent-encoded.
    parameters: &'a [(String, String)],
    body: BodyForms<'a>,
}

/// The reason why a place has no value that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueError {
    /// Two values stand where one is wanted.
    Several,
    /// A name stands twice in an object of the body.
    DuplicateMember,
    /// The value is no text and no number: an array, an element with elements inside, bytes that
    /// are not UTF-8.
    NotText,
    /// The body is not of the form that the place needs.
    Unreadable(BodyFormat),
}

impl<'a> RequestValues<'a> {
    /// The values of a request with this head and `body`, which has no content coding.
    pub fn new(
        headers: &'a HeaderMap,
        query: Option<&'a str>,
        parameters: &'a [(String, String)],
        body: &'a [u8],
    ) -> Self {
        Self { headers, query, parameters, body: BodyForms::new(headers, body) }
    }

    /// The body, parsed on demand.
    pub fn body(&self) -> &BodyForms<'a> {
        &self.body
    }

    /// The headers.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// The text at a place; `None`: nothing stands there. An empty body has no values. A member
    /// `null` is a value that is no text.
    ///
    /// # Errors
    /// When the value is not one text.
    pub fn text(&self, place: &Place) -> Result<Option<Cow<'_, str>>, ValueError> {
        if let Some(format) = place.body_format() {
            return if self.body.bytes().is_empty() {
                Ok(None)
            } else {
                self.in_body(place, format)
            };
        }
        match place {
            Place::Header(name) => {
                let mut lines = self.headers.get_all(name).iter();
                let Some(line) = lines.next() else { return Ok(None) };
                if lines.next().is_some() {
                    return Err(ValueError::Several);
                }
                let text = std::str::from_utf8(line.as_bytes().trim_ascii());
                text.map(|text| Some(Cow::Borrowed(text))).map_err(|_| ValueError::NotText)
            }
            Place::Path(name) => {
                let named = self.parameters.iter().find(|(parameter, _)| parameter == name);
                let Some((_, value)) = named else { return Ok(None) };
                percent::decode(value).map(|text| Some(Cow::Owned(text))).ok_or(ValueError::NotText)
            }
            Place::Query(name) => match query_value(self.query.unwrap_or_default(), name) {
                QueryValue::Absent => Ok(None),
                QueryValue::Value(value) => Ok(Some(value)),
                QueryValue::Several => Err(ValueError::Several),
                QueryValue::Undecodable => Err(ValueError::NotText),
            },
            Place::Pointer(_) | Place::Form(_) | Place::Xml(_) => Ok(None),
        }
    }

    fn in_body(
        &self,
        place: &Place,
        format: BodyFormat,
    ) -> Result<Option<Cow<'_, str>>, ValueError> {
        let unreadable = ValueError::Unreadable(format);
        match place {
            Place::Pointer(pointer) => {
                let document = self.body.json().map_err(|_| unreadable)?;
                if document.has_duplicates() {
                    // Of two members with one name, the backend may read the second.
                    return Err(ValueError::DuplicateMember);
                }
                let Some(value) = document.find(pointer) else { return Ok(None) };
                value.as_id().map(Some).ok_or(ValueError::NotText)
            }
            Place::Form(name) => {
                let mut values = self.body.form().ok_or(unreadable)?.values(name);
                match (values.next(), values.next()) {
                    (None, _) => Ok(None),
                    (Some(value), None) => Ok(Some(Cow::Borrowed(value))),
                    (Some(_), Some(_)) => Err(ValueError::Several),
                }
            }
            Place::Xml(path) => match self.body.xml().ok_or(unreadable)?.find(path) {
                FoundXml::Nothing => Ok(None),
                FoundXml::Text(text) => Ok(Some(text)),
                FoundXml::Elements => Err(ValueError::NotText),
                FoundXml::Several => Err(ValueError::Several),
            },
            Place::Header(_) | Place::Path(_) | Place::Query(_) => Ok(None),
        }
    }
}
