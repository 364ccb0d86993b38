//! Nodes of the flat tree: one for each value, with spans into the text.

/// What kind of value a node is.
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
    /// Where the value stands in the text, quotes and brackets included.
    pub(super) start: u32,
    pub(super) end: u32,
    /// The node after this value and everything in it.
    pub(super) after: u32,
    /// Where the member's name stands, quotes excluded; empty for elements and the root.
    pub(super) name_start: u32,
    pub(super) name_end: u32,
    /// Nothing is escaped in the string.
    pub(super) plain: bool,
    /// Nothing is escaped in the name.
    pub(super) plain_name: bool,
}
