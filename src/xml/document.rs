//! The parsed text, and the values found in it.

use std::borrow::Cow;

use super::characters::{attribute_text, is_white_space, line_ends};
use super::node::{XmlAttribute, XmlNode, local};
use super::path::XmlPath;

/// A parsed XML text.
#[derive(Debug)]
pub struct XmlDocument<'a> {
    pub(super) nodes: Vec<XmlNode<'a>>,
    pub(super) attributes: Vec<XmlAttribute<'a>>,
    /// Index of the root element.
    pub(super) root: usize,
}

/// Result of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundXml<'a> {
    /// Nothing stands at the path.
    Nothing,
    /// The text of the only element, without white space around it, or of the only attribute.
    Text(Cow<'a, str>),
    /// The only element has elements inside.
    Elements,
    /// Several elements or attributes stand at the path.
    Several,
}

impl<'a> XmlDocument<'a> {
    /// The value at a path.
    pub fn find(&self, path: &XmlPath) -> FoundXml<'a> {
        let Some(name) = path.attribute() else {
            let mut found = None;
            let mut is_only = true;
            self.descend(self.root, path.steps(), &mut |element| {
                is_only &= found.replace(element).is_none();
            });
            return match found {
                None => FoundXml::Nothing,
                Some(element) if is_only => self.element_text(element),
                Some(_) => FoundXml::Several,
            };
        };
        let mut found = None;
        let mut is_only = true;
        self.descend(self.root, path.steps(), &mut |element| {
            for attribute in self.attributes_of(element) {
                if local(attribute.name) == name && !attribute.declares_namespace() {
                    is_only &= found.replace(attribute.value).is_none();
                }
            }
        });
        match found {
            None => FoundXml::Nothing,
            // References were checked when the text was parsed.
            Some(value) if is_only => FoundXml::Text(attribute_text(value).unwrap_or_default()),
            Some(_) => FoundXml::Several,
        }
    }

    /// Reports whether any element or attribute stands at a path.
    pub fn contains(&self, path: &XmlPath) -> bool {
        self.find(path) != FoundXml::Nothing
    }

    /// Collects the elements at `steps`, of which the first is the name of `element` itself. Each
    /// node is visited once at most, and the depth is the length of the path.
    fn descend(&self, element: usize, steps: &[String], found: &mut dyn FnMut(usize)) {
        let Some((step, rest)) = steps.split_first() else { return };
        let XmlNode::Element { name, .. } = &self.nodes[element] else { return };
        if local(name) != step {
            return;
        }
        if rest.is_empty() {
            return found(element);
        }
        for child in self.children(element) {
            self.descend(child, rest, found);
        }
    }

    /// Indices of the nodes directly inside an element.
    pub(super) fn children(&self, element: usize) -> impl Iterator<Item = usize> + '_ {
        let end = match &self.nodes[element] {
            XmlNode::Element { after, .. } => *after,
            _ => element,
        };
        let mut next = element + 1;
        std::iter::from_fn(move || {
            let at = next;
            (at < end).then(|| {
                next = match &self.nodes[at] {
                    XmlNode::Element { after, .. } => *after,
                    _ => at + 1,
                };
                at
            })
        })
    }

    pub(super) fn attributes_of(&self, element: usize) -> &[XmlAttribute<'a>] {
        match &self.nodes[element] {
            XmlNode::Element { attributes, .. } => &self.attributes[attributes.clone()],
            _ => &[],
        }
    }

    fn element_text(&self, element: usize) -> FoundXml<'a> {
        let mut text: Cow<'a, str> = Cow::Borrowed("");
        for child in self.children(element) {
            let piece = match &self.nodes[child] {
                XmlNode::Element { .. } => return FoundXml::Elements,
                XmlNode::Instruction(_) => continue,
                XmlNode::Text(piece) | XmlNode::Section(piece) => line_ends(piece),
                XmlNode::Character(character) => Cow::Owned(character.to_string()),
            };
            if text.is_empty() { text = piece } else { text.to_mut().push_str(&piece) }
        }
        FoundXml::Text(match text {
            Cow::Borrowed(text) => Cow::Borrowed(trim(text)),
            Cow::Owned(text) => Cow::Owned(trim(&text).to_owned()),
        })
    }
}

/// A text without white space around it, in the sense of XML.
fn trim(text: &str) -> &str {
    text.trim_matches(is_white_space)
}
