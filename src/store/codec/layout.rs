//! Constants of the record layout: its version, the state tags and the flags.

/// Version of the record layout that this program writes and reads.
pub const SCHEMA: u32 = 6;

/// [`SCHEMA`] as the first byte of every record.
pub(super) const SCHEMA_BYTE: u8 = 6;

/// The first byte of a sealed record.
pub(super) const SEALED_BYTE: u8 = SCHEMA_BYTE | 0x80;

pub(super) const HAS_EXPIRES: u8 = 1;
pub(super) const HAS_SUBJECT: u8 = 2;
pub(super) const HAS_HISTORY: u8 = 4;
pub(super) const UNREPORTED: u8 = 8;
pub(super) const HAS_VERBATIM: u8 = 16;
pub(super) const HAS_SETTLING: u8 = 32;
pub(super) const HAS_CALLER: u8 = 64;
pub(super) const ALL_FLAGS: u8 =
    HAS_EXPIRES | HAS_SUBJECT | HAS_HISTORY | UNREPORTED | HAS_VERBATIM | HAS_SETTLING | HAS_CALLER;

pub(super) const IN_FLIGHT: u8 = 1;
pub(super) const UNKNOWN: u8 = 2;
pub(super) const KEPT: u8 = 3;
pub(super) const NOT_RETAINED: u8 = 4;
pub(super) const TOMBSTONE: u8 = 5;
pub(super) const ITEM: u8 = 6;
pub(super) const ITEM_IN_FLIGHT: u8 = 7;
pub(super) const ITEM_UNKNOWN: u8 = 8;
pub(super) const LOCK: u8 = 9;
pub(super) const RELEASED: u8 = 10;

/// Replaces the tombstone period of an item whose outcomes have expired already.
pub(super) const GONE: u8 = 2;

/// Bytes of the fixed start of every record: schema, state, flags, version, owner and
/// first seen.
pub(super) const FIXED_HEAD: usize = 35;
/// Approximate bytes of all fields of fixed length.
pub(super) const FIXED: usize = 200;
/// Bytes of the checksum at the end.
pub(super) const CHECKSUM: usize = 4;
