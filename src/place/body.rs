//! The body of a request in the forms that are asked for.

use std::cell::OnceCell;
use std::fmt;

use http::HeaderMap;

use crate::form::{FormFields, Multipart};
use crate::json::{Document, ParseError};
use crate::media_type;
use crate::xml::XmlDocument;

/// A form of bodies that places are found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// JSON.
    Json,
    /// A form, URL-encoded.
    Form,
    /// XML.
    Xml,
}

impl BodyFormat {
    /// Reports whether a request declares its body to be of this form, or the body begins like one:
    /// for the backend such a body may be readable where the gateway refuses it.
    pub fn is_claimed(self, headers: &HeaderMap, body: &[u8]) -> bool {
        let starts = |byte: u8| body.trim_ascii_start().first() == Some(&byte);
        match self {
            Self::Json => (media_type::is_json(headers) && !body.is_empty()) || starts(b'{'),
            Self::Form => media_type::is_form(headers),
            Self::Xml => (media_type::is_xml(headers) && !body.is_empty()) || starts(b'<'),
        }
    }
}

impl fmt::Display for BodyFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Form => "a form (application/x-www-form-urlencoded)",
            Self::Xml => "XML without a document type declaration",
        })
    }
}

/// A body without its content coding, parsed at most once in each form.
#[derive(Debug)]
pub struct BodyForms<'a> {
    headers: &'a HeaderMap,
    bytes: &'a [u8],
    json: OnceCell<Result<Document<'a>, ParseError>>,
    form: OnceCell<Option<FormFields<'a>>>,
    multipart: OnceCell<Option<Multipart<'a>>>,
    xml: OnceCell<Option<XmlDocument<'a>>>,
}

impl<'a> BodyForms<'a> {
    /// The body `bytes` of a request with these headers.
    pub fn new(headers: &'a HeaderMap, bytes: &'a [u8]) -> Self {
        let (json, form) = (OnceCell::new(), OnceCell::new());
        let (multipart, xml) = (OnceCell::new(), OnceCell::new());
        Self { headers, bytes, json, form, multipart, xml }
    }

    /// The body itself.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// The body is not readable as JSON.
    pub fn json(&self) -> Result<&Document<'a>, ParseError> {
        self.json.get_or_init(|| Document::parse(self.bytes)).as_ref().map_err(|error| *error)
    }

    /// The body as a form; `None`: not readable as one, or of another media type, since nearly any
    /// text can be read as the name of a field.
    pub fn form(&self) -> Option<&FormFields<'a>> {
        let parse = || {
            let is_other =
                media_type::essence(self.headers).is_some() && !media_type::is_form(self.headers);
            if is_other { None } else { FormFields::parse(self.bytes).ok() }
        };
        self.form.get_or_init(parse).as_ref()
    }

    /// The body as the parts of a form; `None`: not readable as such, or without a boundary.
    pub fn multipart(&self) -> Option<&Multipart<'a>> {
        let parse = || Multipart::parse(self.bytes, &media_type::boundary(self.headers)?);
        self.multipart.get_or_init(parse).as_ref()
    }

    /// The body as XML; `None`: not readable as XML.
    pub fn xml(&self) -> Option<&XmlDocument<'a>> {
        self.xml.get_or_init(|| XmlDocument::parse(self.bytes).ok()).as_ref()
    }
}
