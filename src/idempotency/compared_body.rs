//! The body of a request in the form in which it is compared, and its canonical text.

use std::borrow::Cow;

use http::HeaderMap;

use super::preimage::field;
use super::select::{Piece, Select, member};
use crate::form::{FormFields, Multipart};
use crate::json::Document;
use crate::media_type;
use crate::place::BodyForms;
use crate::xml::XmlDocument;

/// Comparison of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyCompare {
    /// Comparison by the media type: JSON, a form, parts of a form or XML; else byte for byte.
    ByMediaType,
    /// JSON: the order of members and white space do not matter.
    Json,
    /// A form: the order of fields of different names and their encoding do not matter.
    Form,
    /// Parts of a form, whatever stands between them.
    Multipart,
    /// XML: the order of attributes and white space between elements do not matter.
    Xml,
    /// Bytes as they are.
    Raw,
    /// No comparison.
    Ignore,
}

impl BodyCompare {
    /// Name in the configuration; `None`: by media type, which is meant by leaving the key out.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::ByMediaType => None,
            Self::Json => Some("json"),
            Self::Form => Some("form"),
            Self::Multipart => Some("multipart"),
            Self::Xml => Some("xml"),
            Self::Raw => Some("raw"),
            Self::Ignore => Some("ignore"),
        }
    }

    /// The body in the form for its comparison, parsed when needed; byte for byte when it is not
    /// of that form, or has a content coding that could not be removed.
    pub fn of<'a>(
        self,
        headers: &HeaderMap,
        body: &'a BodyForms<'_>,
        is_decoded: bool,
    ) -> ComparedBody<'a> {
        let raw = ComparedBody::Raw(body.bytes());
        if self == Self::Ignore {
            return ComparedBody::Ignored;
        }
        if !is_decoded && !media_type::is_plain(headers) {
            return raw;
        }
        let parsed = match self.resolved(headers) {
            Self::Json => body.json().ok().map(ComparedBody::Json),
            Self::Form => body.form().map(ComparedBody::Form),
            Self::Multipart => body.multipart().map(ComparedBody::Multipart),
            Self::Xml => body.xml().map(ComparedBody::Xml),
            Self::ByMediaType | Self::Raw | Self::Ignore => None,
        };
        parsed.unwrap_or(raw)
    }

    /// The comparison of a body with these headers.
    pub(super) fn resolved(self, headers: &HeaderMap) -> Self {
        match self {
            Self::ByMediaType if media_type::is_json(headers) => Self::Json,
            Self::ByMediaType if media_type::is_form(headers) => Self::Form,
            Self::ByMediaType if media_type::is_multipart(headers) => Self::Multipart,
            Self::ByMediaType if media_type::is_xml(headers) => Self::Xml,
            Self::ByMediaType => Self::Raw,
            written => written,
        }
    }
}

/// The body of a request in the form in which it is compared.
#[derive(Debug, Clone, Copy)]
pub enum ComparedBody<'a> {
    /// Byte for byte, without content coding where there was one.
    Raw(&'a [u8]),
    /// As JSON.
    Json(&'a Document<'a>),
    /// As the fields of a form.
    Form(&'a FormFields<'a>),
    /// As the parts of a form.
    Multipart(&'a Multipart<'a>),
    /// As XML.
    Xml(&'a XmlDocument<'a>),
    /// Not compared.
    Ignored,
}

impl ComparedBody<'_> {
    /// Appends the canonical text of the parts that `select` chooses, and the places of the
    /// members, fields, parts or elements. Returns false when the body has no canonical form and is
    /// compared byte for byte.
    pub(super) fn write(
        &self,
        select: &Select,
        text: &mut Vec<u8>,
        pieces: &mut Vec<Piece>,
    ) -> bool {
        match self {
            Self::Raw(_) => false,
            Self::Ignored => {
                text.push(b'i');
                true
            }
            Self::Json(document) => {
                text.push(b'j');
                select.canonical(document, text, pieces)
            }
            Self::Form(fields) => {
                text.push(b'f');
                write_form(fields, select, text, pieces);
                true
            }
            Self::Multipart(parts) => {
                text.push(b'm');
                write_parts(parts, select, text, pieces)
            }
            Self::Xml(document) => {
                text.push(b'x');
                for piece in document.canonical(text) {
                    pieces.push(Piece { name: piece.name, whole: piece.whole });
                }
                true
            }
        }
    }
}

/// Appends the fields of a form by name; fields of one name keep their order.
fn write_form(
    fields: &FormFields<'_>,
    select: &Select,
    text: &mut Vec<u8>,
    pieces: &mut Vec<Piece>,
) {
    let names = match select {
        Select::Include(selection) => selection.fields.as_slice(),
        Select::All | Select::Exclude(_) => &[],
    };
    if names.is_empty() {
        for field_of_form in fields.sorted() {
            if select.takes_field(&field_of_form.name) {
                member(text, pieces, &field_of_form.name, |text| {
                    field(text, field_of_form.value.as_bytes());
                    true
                });
            }
        }
        return;
    }
    for name in names {
        member(text, pieces, name, |text| {
            for value in fields.values(name) {
                text.push(1);
                field(text, value.as_bytes());
            }
            text.push(0);
            true
        });
    }
}

/// Appends the parts of a form in their order, with their headers. Returns false when a part that
/// may be one of those left out has no name that can be read.
fn write_parts(
    parts: &Multipart<'_>,
    select: &Select,
    text: &mut Vec<u8>,
    pieces: &mut Vec<Piece>,
) -> bool {
    for part in parts.iter() {
        let name = part.name();
        if name.is_none() && select.names_fields() {
            return false;
        }
        let name = name.unwrap_or(Cow::Borrowed(""));
        if !select.takes_field(&name) {
            continue;
        }
        member(text, pieces, &name, |text| {
            for (name, value) in part.headers() {
                text.push(1);
                field(text, &name.to_ascii_lowercase());
                field(text, value);
            }
            text.push(0);
            field(text, part.content);
            true
        });
    }
    true
}
