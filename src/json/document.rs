//! The parsed text and its values.

use std::borrow::Cow;

use super::node::{JsonNode, JsonType};
use super::parse::{self, ParseError};
use super::pointer::{Pointer, array_index};

/// A parsed JSON text.
#[derive(Debug)]
pub struct Document<'a> {
    text: &'a str,
    /// All values in the order of their start in the text; the root is first.
    nodes: Vec<JsonNode>,
}

/// A value of a document.
#[derive(Debug, Clone, Copy)]
pub struct Value<'d, 'a> {
    document: &'d Document<'a>,
    at: usize,
}

impl<'a> Document<'a> {
    /// Parses a whole text: one value with optional white space around it.
    ///
    /// # Errors
    /// The text is not JSON, or exceeds a limit.
    pub fn parse(text: &'a [u8]) -> Result<Self, ParseError> {
        let (text, nodes) = parse::parse(text)?;
        Ok(Self { text, nodes })
    }

    /// The whole value.
    pub fn root(&self) -> Value<'_, 'a> {
        Value { document: self, at: 0 }
    }

    /// The value at a pointer (RFC 6901). Of members with the same name, the first.
    pub fn find(&self, pointer: &Pointer) -> Option<Value<'_, 'a>> {
        self.root().find(pointer)
    }

    /// Reports whether any object has two members of the same name.
    pub fn has_duplicates(&self) -> bool {
        self.duplicates_in(0..self.nodes.len())
    }

    /// Reports duplicate member names outside of these values, none of which is inside another.
    pub fn has_duplicates_outside(&self, values: &[Value<'_, '_>]) -> bool {
        let mut inside: Vec<_> =
            values.iter().map(|value| value.at..value.node().after as usize).collect();
        inside.sort_unstable_by_key(|nodes| nodes.start);
        let mut start = 0;
        for nodes in inside {
            if self.duplicates_in(start..nodes.start.max(start)) {
                return true;
            }
            start = nodes.end.max(start);
        }
        self.duplicates_in(start..self.nodes.len())
    }

    fn duplicates_in(&self, nodes: std::ops::Range<usize>) -> bool {
        nodes
            .map(|at| Value { document: self, at })
            .filter(|value| value.kind() == JsonType::Object)
            .any(|object| object.repeats_a_name())
    }
}

impl<'d, 'a> Value<'d, 'a> {
    fn node(&self) -> &'d JsonNode {
        &self.document.nodes[self.at]
    }

    /// The value at a pointer relative to this value. Of members with the same name, the first.
    pub fn find(&self, pointer: &Pointer) -> Option<Self> {
        pointer.tokens().iter().try_fold(*self, |value, token| value.child(token))
    }

    /// The member of this name, or the element of this index.
    pub fn child(&self, token: &str) -> Option<Self> {
        match self.kind() {
            JsonType::Object => {
                self.members().find(|(name, _)| name == token).map(|(_, member)| member)
            }
            JsonType::Array => array_index(token).and_then(|at| self.elements().nth(at)),
            JsonType::Null | JsonType::Bool | JsonType::Number | JsonType::String => None,
        }
    }

    /// Type of the value.
    pub fn kind(&self) -> JsonType {
        self.node().kind
    }

    /// Index of the value in the document; unique, and less than the index of every value inside.
    pub fn place(&self) -> usize {
        self.at
    }

    /// The value as written in the text.
    pub fn raw(&self) -> &'a str {
        &self.document.text[self.node().start as usize..self.node().end as usize]
    }

    /// Byte range of the value in the text.
    pub fn span(&self) -> std::ops::Range<usize> {
        self.node().start as usize..self.node().end as usize
    }

    /// Byte range of a member of an object, with its name; of any other value, of the value.
    pub fn member_span(&self) -> std::ops::Range<usize> {
        let node = self.node();
        // A name in quotes ends before the value, so only elements and the root have none.
        let named = node.name_end > 0;
        let start = if named { node.name_start as usize - 1 } else { node.start as usize };
        start..node.end as usize
    }

    /// The characters of a string; `None` for other kinds.
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        if self.kind() != JsonType::String {
            return None;
        }
        let raw = self.raw();
        let inside = &raw[1..raw.len() - 1];
        Some(if self.node().plain { Cow::Borrowed(inside) } else { parse::unescape(inside) })
    }

    /// The UTF-16 units of a string with a lone surrogate.
    fn lone_units(&self) -> Option<Vec<u16>> {
        let raw = self.raw();
        let is_plain = self.node().plain;
        raw.get(1..raw.len() - 1).filter(|_| !is_plain).and_then(parse::lone_units)
    }

    /// The characters of a string or the text of a number, for use as an identifier. A string with
    /// a lone surrogate is none: as text it could be that of another string.
    pub fn as_id(&self) -> Option<Cow<'a, str>> {
        match self.kind() {
            JsonType::String if self.lone_units().is_some() => None,
            JsonType::String => self.as_str(),
            JsonType::Number => Some(Cow::Borrowed(self.raw())),
            JsonType::Null | JsonType::Bool | JsonType::Array | JsonType::Object => None,
        }
    }

    /// Members of an object in the order of the text; empty for other types.
    pub fn members(&self) -> impl Iterator<Item = (Cow<'a, str>, Value<'d, 'a>)> + use<'d, 'a> {
        self.children(JsonType::Object).map(|value| (value.name(), value))
    }

    /// Elements of an array; empty for other types.
    pub fn elements(&self) -> impl Iterator<Item = Value<'d, 'a>> + use<'d, 'a> {
        self.children(JsonType::Array)
    }

    fn children(
        &self,
        kind: JsonType,
    ) -> impl Iterator<Item = Value<'d, 'a>> + Clone + use<'d, 'a> {
        let document = self.document;
        let end = self.node().after as usize;
        let mut next = if self.kind() == kind { self.at + 1 } else { end };
        std::iter::from_fn(move || {
            let at = next;
            (at < end).then(|| {
                next = document.nodes[at].after as usize;
                Value { document, at }
            })
        })
    }

    fn name(&self) -> Cow<'a, str> {
        let node = self.node();
        let raw = &self.document.text[node.name_start as usize..node.name_end as usize];
        if node.plain_name { Cow::Borrowed(raw) } else { parse::unescape(raw) }
    }

    /// Reports duplicate member names in this value or inside.
    pub fn has_duplicates(&self) -> bool {
        self.document.duplicates_in(self.at..self.node().after as usize)
    }

    /// Reports duplicate names among the direct members.
    fn repeats_a_name(&self) -> bool {
        if self.children(JsonType::Object).nth(FEW).is_some() {
            return self.sorted_members().is_none();
        }
        let mut members = self.children(JsonType::Object);
        while let Some(member) = members.next() {
            let name = member.name();
            let mut later = members.clone();
            if later.any(|other| other.name() == name) {
                return true;
            }
        }
        false
    }

    /// Members sorted by name; `None` when a name is repeated.
    pub fn sorted_members(&self) -> Option<Vec<(Cow<'a, str>, Value<'d, 'a>)>> {
        let mut members: Vec<_> = self.members().collect();
        members.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        let twice = members.windows(2).any(|pair| pair[0].0 == pair[1].0);
        (!twice).then_some(members)
    }

    /// Appends the canonical form, equal for all texts of the same value: members sorted by name,
    /// no white space, strings without escapes, number text as written. Values at the places in
    /// `skip` are omitted. Returns false, with the text half-written, when a member name is
    /// repeated.
    pub fn canonical(&self, text: &mut Vec<u8>, skip: &[usize]) -> bool {
        match self.kind() {
            JsonType::Null | JsonType::Bool | JsonType::Number => {
                text.push(b'v');
                text.extend_from_slice(self.raw().as_bytes());
                text.push(0);
            }
            JsonType::String => match self.lone_units() {
                None => {
                    text.push(b's');
                    length_prefixed(text, &self.as_str().unwrap_or_default());
                }
                Some(units) => {
                    text.push(b'u');
                    text.extend_from_slice(&(units.len() as u64).to_le_bytes());
                    units.iter().for_each(|unit| text.extend_from_slice(&unit.to_le_bytes()));
                }
            },
            JsonType::Array => {
                text.push(b'[');
                for element in self.elements() {
                    if !skip.contains(&element.at) && !element.canonical(text, skip) {
                        return false;
                    }
                }
                text.push(b']');
            }
            JsonType::Object => {
                let Some(members) = self.sorted_members() else { return false };
                text.push(b'{');
                for (name, member) in members {
                    if skip.contains(&member.at) {
                        continue;
                    }
                    text.push(b'm');
                    length_prefixed(text, &name);
                    if !member.canonical(text, skip) {
                        return false;
                    }
                }
                text.push(b'}');
            }
        }
        true
    }
}

/// Names up to this number are compared pairwise, which is faster than sorting.
const FEW: usize = 8;

fn length_prefixed(text: &mut Vec<u8>, part: &str) {
    text.extend_from_slice(&(part.len() as u64).to_le_bytes());
    text.extend_from_slice(part.as_bytes());
}
