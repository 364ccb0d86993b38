//! Characters of XML: white space, line ends, and the values of attributes.

use std::borrow::Cow;

use quick_xml::XmlVersion;
use quick_xml::errors::Error;
use quick_xml::escape::EscapeError;
use quick_xml::events::attributes::Attribute;
use quick_xml::name::QName;

use super::node::XmlError;

/// The characters of an attribute's value (XML 1.0 section 3.3.3); `None`: a bad reference.
pub(super) fn attribute_text(value: &str) -> Option<Cow<'_, str>> {
    checked_attribute_text(value).ok()
}

/// As [`attribute_text`], with the reason of a bad reference.
pub(super) fn checked_attribute_text(value: &str) -> Result<Cow<'_, str>, XmlError> {
    if !value.bytes().any(|byte| matches!(byte, b'&' | b'\t' | b'\n' | b'\r')) {
        return Ok(Cow::Borrowed(value));
    }
    let attribute = Attribute { key: QName(""), value: Cow::Borrowed(value) };
    let text =
        attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| match error {
            Error::Escape(EscapeError::UnrecognizedEntity(..)) => XmlError::Entity,
            _ => XmlError::Syntax,
        })?;
    if text.chars().all(is_character) { Ok(text) } else { Err(XmlError::Syntax) }
}

/// A text with line feeds alone as its line ends (XML 1.0 section 2.11).
pub(super) fn line_ends(text: &str) -> Cow<'_, str> {
    match text.contains('\r') {
        false => Cow::Borrowed(text),
        true => Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")),
    }
}

/// White space in the sense of XML.
pub(super) fn is_white_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}

/// A character that may stand in a text (XML 1.0 section 2.2).
pub(super) fn is_character(character: char) -> bool {
    matches!(
        character,
        '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..
    )
}
