//! The reasons why a body is not a batch that can be claimed.

use std::fmt;

use crate::json::ParseError;

/// Bytes of the longest id.
pub const MAX_ID: usize = 4096;

/// The reason a body was refused. Items are counted from 0; the text never repeats a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchError {
    /// The body is not readable as JSON.
    NotJson(ParseError),
    /// The body has a content coding, such as gzip.
    Coded,
    /// A member name is repeated within an object.
    DuplicateMember,
    /// The body has no items at the configured place.
    NoItems,
    /// The batch has more than `max_items` items.
    TooMany {
        /// The limit.
        most: usize,
    },
    /// An item is not an object.
    NotAnObject {
        /// Index of the item.
        item: usize,
    },
    /// An item has no id.
    IdMissing {
        /// Index of the item.
        item: usize,
    },
    /// An id is neither a string nor a number, or longer than [`MAX_ID`].
    IdInvalid {
        /// Index of the item.
        item: usize,
    },
    /// Two items have the same id.
    DuplicateItem {
        /// Index of the first item.
        first: usize,
        /// Index of the second item.
        item: usize,
    },
    /// A quantity is not a whole number from 1 to `max_quantity`, in digits.
    Quantity {
        /// Index of the item.
        item: usize,
        /// The limit.
        most: u64,
    },
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotJson(error) => write!(f, "The body cannot be read: {error}."),
            Self::Coded => f.write_str(
                "The body is compressed (Content-Encoding), and a batch is read as plain JSON; \
                 send it without a coding.",
            ),
            Self::DuplicateMember => {
                f.write_str("The body names a member twice in one object; name each once.")
            }
            Self::NoItems => f.write_str("The body has no items where this API expects them."),
            Self::TooMany { most } => {
                write!(f, "The body has more than {most} items; send them in several requests.")
            }
            Self::NotAnObject { item } => write!(f, "Item {} is not an object.", item + 1),
            Self::IdMissing { item } => {
                write!(f, "Item {} has no id; each item needs one of its own.", item + 1)
            }
            Self::IdInvalid { item } => write!(
                f,
                "The id of item {} must be a string or a number of at most {MAX_ID} bytes.",
                item + 1
            ),
            Self::DuplicateItem { first, item } => write!(
                f,
                "Items {} and {} have the same id; each item needs one of its own.",
                first + 1,
                item + 1
            ),
            Self::Quantity { item, most } => write!(
                f,
                "The quantity of item {} must be a whole number from 1 to {most}.",
                item + 1
            ),
        }
    }
}

impl std::error::Error for BatchError {}
