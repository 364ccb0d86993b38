//! Errors of decoding.

use std::fmt;

use super::layout::SCHEMA;
use crate::store::seal::KeyId;

/// Reason why bytes are not a valid record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than any record has; holds their number.
    TooShort(usize),
    /// Unsupported version of the layout.
    Schema(u8),
    /// Checksum mismatch: some byte changed after encoding, or the record belongs to another id.
    Checksum,
    /// Invalid value of the named field.
    Invalid(&'static str),
    /// End of the bytes inside the named field.
    EndsIn(&'static str),
    /// The record is sealed, and no key was given.
    Sealed,
    /// The record is sealed under a key that is not there.
    UnknownKey(KeyId),
    /// The seal does not match: a byte changed after sealing, the record belongs to another place
    /// or state, or the key is wrong.
    Seal,
    /// Trailing bytes after the last field; holds their number.
    TooLong(usize),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(bytes) => write!(f, "{bytes} bytes are too short for a record"),
            Self::Schema(schema) => {
                write!(f, "layout {schema} is not supported, this version reads layout {SCHEMA}")
            }
            Self::Checksum => f.write_str("the checksum does not match"),
            Self::Invalid(field) => write!(f, "the field \"{field}\" has an invalid value"),
            Self::EndsIn(field) => write!(f, "the bytes end inside the field \"{field}\""),
            Self::Sealed => f.write_str("it is sealed, and no key is configured"),
            Self::UnknownKey(id) => write!(f, "it is sealed under the key {id}, which is missing"),
            Self::Seal => f.write_str("its seal does not match"),
            Self::TooLong(bytes) => write!(f, "{bytes} bytes follow the last field"),
        }
    }
}

impl std::error::Error for DecodeError {}
