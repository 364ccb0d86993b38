//! Nodes of the flat tree, and the limits of a text.

use std::fmt;

/// Maximum nesting of elements.
pub const MAX_XML_DEPTH: usize = 128;

/// Maximum number of elements, attributes and pieces of text.
pub const MAX_XML_NODES: usize = 100_000;

/// Maximum number of attributes of an element.
pub const MAX_ATTRIBUTES: usize = 128;

/// The reason a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XmlError {
    /// The text is not UTF-8, or names another encoding and is not ASCII.
    Encoding,
    /// The text is not well formed.
    Syntax,
    /// The text has a document type declaration.
    Doctype,
    /// A reference to an entity other than the predefined ones.
    Entity,
    /// Elements are nested deeper than [`MAX_XML_DEPTH`].
    TooDeep,
    /// More than [`MAX_XML_NODES`] nodes, or [`MAX_ATTRIBUTES`] attributes of an element.
    TooLarge,
}

impl fmt::Display for XmlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => f.write_str("not UTF-8"),
            Self::Syntax => f.write_str("not well formed"),
            Self::Doctype => f.write_str("a document type declaration, which is not accepted"),
            Self::Entity => f.write_str("an entity, which is not accepted"),
            Self::TooDeep => write!(f, "nested deeper than {MAX_XML_DEPTH} elements"),
            Self::TooLarge => write!(
                f,
                "more than {MAX_XML_NODES} nodes or {MAX_ATTRIBUTES} attributes of an element"
            ),
        }
    }
}

impl std::error::Error for XmlError {}

/// A node of the tree, in the order of the text.
#[derive(Debug, Clone)]
pub(super) enum XmlNode<'a> {
    /// An element with its name as written, prefix included.
    Element {
        name: &'a str,
        /// Index of the node after this element and its content.
        after: usize,
        /// Range of the element's attributes.
        attributes: std::ops::Range<usize>,
    },
    /// Characters between tags, as written, without references.
    Text(&'a str),
    /// The characters of a CDATA section.
    Section(&'a str),
    /// The character of a reference.
    Character(char),
    /// A processing instruction, without its marks.
    Instruction(&'a str),
}

/// An attribute as written: the name with its prefix, and the value with its references.
#[derive(Debug, Clone, Copy)]
pub(super) struct XmlAttribute<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
}

impl XmlAttribute<'_> {
    /// Reports the declaration of a namespace, which is no attribute to be found.
    pub(super) fn declares_namespace(&self) -> bool {
        self.name == "xmlns" || self.name.starts_with("xmlns:")
    }
}

/// A name without its prefix.
pub(super) fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}
