//! The canonical form of a text, for comparison.

use std::ops::Range;

use super::characters::{attribute_text, is_white_space, line_ends};
use super::document::XmlDocument;
use super::node::{XmlAttribute, XmlNode, local};

/// An attribute or a child element of the root in the canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XmlPiece {
    /// Range of the local name.
    pub name: Range<usize>,
    /// Range of the attribute or the element.
    pub whole: Range<usize>,
}

impl XmlDocument<'_> {
    /// Appends the canonical form, equal for texts that differ only in the order of attributes, in
    /// white space between elements and inside of tags, in comments, and in the spelling of
    /// characters (references, CDATA sections, line ends) and of empty elements. Prefixes count as
    /// written. Returns the attributes and the child elements of the root.
    pub fn canonical(&self, text: &mut Vec<u8>) -> Vec<XmlPiece> {
        let mut pieces = Vec::new();
        // The index at which each open element ends: a list instead of a recursion, so that
        // nesting costs no stack.
        let mut open: Vec<usize> = Vec::new();
        // The open child element of the root: the range of its name, and its start.
        let mut child: Option<(Range<usize>, usize)> = None;
        let mut at = self.root;
        loop {
            while open.last() == Some(&at) {
                open.pop();
                text.push(b'/');
                if open.len() == 1
                    && let Some((name, start)) = child.take()
                {
                    pieces.push(XmlPiece { name, whole: start..text.len() });
                }
            }
            match (&self.nodes.get(at), open.last()) {
                (Some(XmlNode::Element { name, after, .. }), enclosing) => {
                    if at != self.root && enclosing.is_none() {
                        break;
                    }
                    let start = text.len();
                    text.push(b'e');
                    let name = named(text, name);
                    if open.len() == 1 {
                        child = Some((name, start));
                    }
                    self.attributes(at, open.is_empty().then_some(&mut pieces), text);
                    open.push(*after);
                    at += 1;
                }
                (Some(XmlNode::Instruction(instruction)), Some(_)) => {
                    text.push(b'p');
                    field(text, &line_ends(instruction));
                    at += 1;
                }
                (Some(_), Some(end)) => at = self.run(at, *end, text),
                (Some(_) | None, _) => break,
            }
        }
        pieces
    }

    /// Appends the attributes of an element, which `pieces` collects.
    fn attributes(
        &self,
        element: usize,
        mut pieces: Option<&mut Vec<XmlPiece>>,
        text: &mut Vec<u8>,
    ) {
        let mut attributes: Vec<XmlAttribute<'_>> = self.attributes_of(element).to_vec();
        attributes.sort_unstable_by(|left, right| left.name.cmp(right.name));
        for attribute in attributes {
            let start = text.len();
            text.push(b'a');
            let name = named(text, attribute.name);
            // References were checked when the text was parsed.
            field(text, &attribute_text(attribute.value).unwrap_or_default());
            if let Some(pieces) = &mut pieces {
                pieces.push(XmlPiece { name, whole: start..text.len() });
            }
        }
    }

    /// Appends the characters from a node on, up to the next tag or `end`, unless they are white
    /// space between elements; returns the index of the node behind them.
    fn run(&self, start: usize, end: usize, text: &mut Vec<u8>) -> usize {
        let mut characters = String::new();
        let mut is_blank = true;
        let mut at = start;
        while at < end {
            match &self.nodes[at] {
                XmlNode::Text(piece) => {
                    is_blank &= piece.chars().all(is_white_space);
                    characters.push_str(&line_ends(piece));
                }
                XmlNode::Section(piece) => {
                    is_blank = false;
                    characters.push_str(&line_ends(piece));
                }
                XmlNode::Character(character) => {
                    is_blank = false;
                    characters.push(*character);
                }
                XmlNode::Element { .. } | XmlNode::Instruction(_) => break,
            }
            at += 1;
        }
        // White space that is all of an element's content is its text.
        let is_content = at == end
            && start.checked_sub(1).is_some_and(|before| {
                matches!(&self.nodes[before], XmlNode::Element { after, .. } if *after == end)
            });
        if !characters.is_empty() && (!is_blank || is_content) {
            text.push(b't');
            field(text, &characters);
        }
        at
    }
}

/// Appends a name with its prefix; returns the range of the local name.
fn named(text: &mut Vec<u8>, name: &str) -> Range<usize> {
    field(text, name);
    text.len() - local(name).len()..text.len()
}

/// Appends the length, then the characters.
fn field(text: &mut Vec<u8>, part: &str) {
    text.extend_from_slice(&(part.len() as u64).to_le_bytes());
    text.extend_from_slice(part.as_bytes());
}
