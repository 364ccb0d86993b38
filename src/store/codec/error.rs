//! Errors of decoding.

use std::fmt;

use super::layout::SCHEMA;

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
            Self::TooLong(bytes) => write!(f, "{bytes} bytes follow the last field"),
        }
    }
}

impl std::error::Error for DecodeError {}
