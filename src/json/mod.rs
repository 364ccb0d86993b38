//! JSON read in place: a flat tree of spans over the received bytes (RFC 8259).
//!
//! Number text, member order and duplicate names stay visible, which a tree of owned values would
//! lose; nothing is re-serialized. Depth and number of values are limited, so parsing takes bounded
//! time and memory for any input.

#[cfg(test)]
mod agreement;
mod document;
mod node;
mod parse;
mod pointer;
#[cfg(test)]
mod tests;

pub use document::{Document, Value};
pub use node::JsonType;
pub use parse::{MAX_DEPTH, MAX_VALUES, ParseError};
pub use pointer::{Pointer, PointerError};
