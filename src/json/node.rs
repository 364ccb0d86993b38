//! Nodes of the flat tree: one for each value, with spans into the text.

/// The type of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonType {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number; its text is kept.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct JsonNode {
    pub(super) kind: JsonType,
    /// Place of the value in the text, quotes and brackets included.
    pub(super) start: u32,
    pub(super) end: u32,
    /// Index of the node after this value and its children.
    pub(super) after: u32,
    /// Place of the member's name, quotes excluded; empty for elements and the root.
    pub(super) name_start: u32,
    pub(super) name_end: u32,
    /// The string has no escapes.
    pub(super) plain: bool,
    /// The name has no escapes.
    pub(super) plain_name: bool,
}
