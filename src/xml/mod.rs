//! XML read in place, with parts of `quick-xml`: a flat tree of elements, attributes and text
//! (XML 1.0).
//!
//! Document type declarations are refused, so that no entity but the five predefined ones has a
//! meaning and nothing expands; depth, values and attributes are limited. Elements and attributes
//! are found by local name. A backend that understands a text in another way than this reader would
//! see another key, so that what is not well formed is refused as well.

mod canonical;
mod characters;
mod document;
mod node;
mod parse;
mod path;
#[cfg(test)]
mod tests;

pub use canonical::XmlPiece;
pub use document::{FoundXml, XmlDocument};
pub use node::{MAX_ATTRIBUTES, MAX_XML_DEPTH, MAX_XML_NODES, XmlError};
pub use path::{XmlPath, XmlPathError};
