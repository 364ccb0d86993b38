//! The parser: the events of `quick-xml` collected into a flat tree, with the checks that the
//! library leaves to its users.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::attributes::{Attribute, Attributes};
use quick_xml::events::{BytesDecl, BytesRef, Event};
use quick_xml::name::QName;

use super::characters::{checked_attribute_text, is_character, is_white_space};
use super::document::XmlDocument;
use super::node::{MAX_ATTRIBUTES, MAX_XML_DEPTH, MAX_XML_NODES, XmlAttribute, XmlError, XmlNode};

/// Byte order mark, which is no part of the text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl<'a> XmlDocument<'a> {
    /// Parses a whole text.
    ///
    /// # Errors
    /// The text is not XML, or exceeds a limit.
    pub fn parse(text: &'a [u8]) -> Result<Self, XmlError> {
        parse(text)
    }
}

fn parse(bytes: &[u8]) -> Result<XmlDocument<'_>, XmlError> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|_| XmlError::Encoding)?;
    if has_control(bytes) {
        return Err(XmlError::Syntax);
    }
    let mut reader = Reader::from_str(text);
    // The names of end tags are compared with the tree, which costs no copy of each name.
    let config = reader.config_mut();
    (config.check_end_names, config.allow_unmatched_ends) = (false, true);
    // The declaration stands at the very start or nowhere.
    let mut is_start = true;
    // Most elements with their text and end tag take some more bytes than that.
    let nodes = Vec::with_capacity((text.len() / 16).clamp(8, MAX_XML_NODES));
    let mut parser = XmlParser { text, nodes, ..XmlParser::default() };
    loop {
        let event = reader.read_event().map_err(|_| XmlError::Syntax)?;
        let position = usize::try_from(reader.buffer_position()).map_err(|_| XmlError::TooLarge)?;
        match event {
            Event::Start(tag) => parser.start(position.checked_sub(1 + tag.len()), tag.len())?,
            Event::Empty(tag) => {
                parser.start(position.checked_sub(2 + tag.len()), tag.len())?;
                parser.close();
            }
            Event::End(tag) => parser.end(tag.name().0)?,
            Event::Text(piece) => parser.text(piece.into_inner())?,
            Event::CData(section) => parser.section(section.into_inner())?,
            Event::GeneralRef(reference) => parser.reference(&reference)?,
            Event::PI(instruction) => parser.instruction(instruction.into_inner())?,
            Event::Decl(declaration) if is_start => check_encoding(&declaration, text)?,
            Event::Decl(_) => return Err(XmlError::Syntax),
            Event::DocType(_) => return Err(XmlError::Doctype),
            Event::Comment(_) => {}
            Event::Eof => return parser.finished(),
        }
        is_start = false;
    }
}

/// Refuses texts of another encoding: read as UTF-8, their characters would be others.
fn check_encoding(declaration: &BytesDecl<'_>, text: &str) -> Result<(), XmlError> {
    let Some(encoding) = declaration.encoding() else { return Ok(()) };
    let encoding = encoding.map_err(|_| XmlError::Syntax)?;
    let is_utf8 = encoding.eq_ignore_ascii_case("utf-8") || encoding.eq_ignore_ascii_case("utf8");
    if is_utf8 || text.is_ascii() { Ok(()) } else { Err(XmlError::Encoding) }
}

#[derive(Default)]
struct XmlParser<'a> {
    text: &'a str,
    nodes: Vec<XmlNode<'a>>,
    attributes: Vec<XmlAttribute<'a>>,
    root: Option<usize>,
    /// Indices of the open elements.
    open: Vec<usize>,
}

impl<'a> XmlParser<'a> {
    /// Opens the element whose tag has its name at `start`, and `length` bytes without its marks.
    fn start(&mut self, start: Option<usize>, length: usize) -> Result<(), XmlError> {
        let tag = start.and_then(|start| self.text.get(start..start + length));
        let tag = tag.ok_or(XmlError::Syntax)?;
        if self.open.is_empty() && self.root.is_some() {
            return Err(XmlError::Syntax);
        }
        if self.open.len() == MAX_XML_DEPTH {
            return Err(XmlError::TooDeep);
        }
        let name_end = tag.bytes().position(|byte| !IN_NAME[usize::from(byte)]);
        let name_end = name_end.unwrap_or(tag.len());
        let name = checked_name(&tag[..name_end])?;
        let first = self.attributes.len();
        if name_end < tag.len() && !tag[name_end..].starts_with(is_white_space) {
            return Err(XmlError::Syntax);
        }
        // Duplicates are compared here, within the limit.
        for attribute in Attributes::new(tag, name_end).with_checks(false) {
            let Attribute { key: QName(name), value } = attribute.map_err(|_| XmlError::Syntax)?;
            let (name, Cow::Borrowed(value)) = (checked_name(name)?, value) else {
                return Err(XmlError::Syntax);
            };
            let others = &self.attributes[first..];
            if others.len() == MAX_ATTRIBUTES {
                return Err(XmlError::TooLarge);
            }
            if value.contains('<') || others.iter().any(|other| other.name == name) {
                return Err(XmlError::Syntax);
            }
            checked_attribute_text(value)?;
            self.attributes.push(XmlAttribute { name, value });
        }
        let at = self.nodes.len();
        self.root.get_or_insert(at);
        self.open.push(at);
        let attributes = first..self.attributes.len();
        self.push(XmlNode::Element { name, after: at + 1, attributes })
    }

    /// Closes the innermost element, whose name the end tag repeats.
    fn end(&mut self, name: &str) -> Result<(), XmlError> {
        let innermost = self.open.last().map(|at| &self.nodes[*at]);
        let fits = matches!(innermost, Some(XmlNode::Element { name: open, .. })
            if *open == name.trim_end_matches(is_white_space));
        if !fits {
            return Err(XmlError::Syntax);
        }
        self.close();
        Ok(())
    }

    fn close(&mut self) {
        let end = self.nodes.len();
        let open = self.open.pop().and_then(|at| self.nodes.get_mut(at));
        if let Some(XmlNode::Element { after, .. }) = open {
            *after = end;
        }
    }

    fn text(&mut self, piece: Cow<'a, str>) -> Result<(), XmlError> {
        let Cow::Borrowed(piece) = piece else { return Err(XmlError::Syntax) };
        match self.open.is_empty() {
            true if piece.chars().all(is_white_space) => Ok(()),
            true => Err(XmlError::Syntax),
            false => self.push(XmlNode::Text(piece)),
        }
    }

    fn section(&mut self, piece: Cow<'a, str>) -> Result<(), XmlError> {
        match piece {
            Cow::Borrowed(piece) if !self.open.is_empty() => self.push(XmlNode::Section(piece)),
            Cow::Borrowed(_) | Cow::Owned(_) => Err(XmlError::Syntax),
        }
    }

    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), XmlError> {
        if self.open.is_empty() {
            return Err(XmlError::Syntax);
        }
        let character = match reference.resolve_char_ref().map_err(|_| XmlError::Syntax)? {
            Some(character) if is_character(character) => character,
            Some(_) => return Err(XmlError::Syntax),
            None => match &**reference {
                "lt" => '<',
                "gt" => '>',
                "amp" => '&',
                "apos" => '\'',
                "quot" => '"',
                _ => return Err(XmlError::Entity),
            },
        };
        self.push(XmlNode::Character(character))
    }

    /// Keeps an instruction inside the root element; those around it are about the text itself.
    fn instruction(&mut self, piece: Cow<'a, str>) -> Result<(), XmlError> {
        match piece {
            Cow::Borrowed(_) if self.open.is_empty() => Ok(()),
            Cow::Borrowed(piece) => self.push(XmlNode::Instruction(piece)),
            Cow::Owned(_) => Err(XmlError::Syntax),
        }
    }

    fn push(&mut self, node: XmlNode<'a>) -> Result<(), XmlError> {
        if self.nodes.len() + self.attributes.len() >= MAX_XML_NODES {
            return Err(XmlError::TooLarge);
        }
        self.nodes.push(node);
        Ok(())
    }

    fn finished(self) -> Result<XmlDocument<'a>, XmlError> {
        let root = self.root.filter(|_| self.open.is_empty()).ok_or(XmlError::Syntax)?;
        Ok(XmlDocument { nodes: self.nodes, attributes: self.attributes, root })
    }
}

/// Bytes of names. Of the characters beyond ASCII all are taken: which of them are letters makes no
/// difference here.
const IN_NAME: [bool; 256] = {
    let mut in_name = [true; 256];
    let mut byte: u8 = 0;
    while byte < 0x80 {
        let is_sign = matches!(byte, b'_' | b':' | b'-' | b'.');
        in_name[byte as usize] = byte.is_ascii_alphanumeric() || is_sign;
        byte += 1;
    }
    in_name
};

/// A name, refused when it has characters that no name has.
fn checked_name(name: &str) -> Result<&str, XmlError> {
    let first = name.bytes().next().ok_or(XmlError::Syntax)?;
    let starts = !first.is_ascii_digit() && !matches!(first, b'-' | b'.');
    let is_name = starts && name.bytes().all(|byte| IN_NAME[usize::from(byte)]);
    if is_name { Ok(name) } else { Err(XmlError::Syntax) }
}

/// Reports control characters other than white space. The whole text is read without a branch for
/// each byte, which is many times faster than stopping at the first.
fn has_control(bytes: &[u8]) -> bool {
    bytes.chunks(256).any(|chunk| {
        chunk.iter().fold(false, |found, byte| {
            found | (*byte < 0x20 && *byte != b'\t' && *byte != b'\n' && *byte != b'\r')
        })
    })
}
