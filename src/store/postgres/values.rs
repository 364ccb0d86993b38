//! Conversions between the store's values and PostgreSQL's types.

use uuid::Uuid;

use crate::clock::Timestamp;

/// Converts 16 bytes to `uuid`, which the server compares byte by byte.
pub(super) fn to_uuid(bytes: &[u8; 16]) -> Uuid {
    Uuid::from_bytes(*bytes)
}

/// Converts a time to `bigint`; times beyond its range become the largest value.
pub(super) fn to_bigint(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}
