//! Digests of 16 bytes.

/// The first half of a SHA-256 digest.
pub(super) fn first_16(digest: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}
