//! Digests of 16 bytes, and their text form.

/// The first half of a SHA-256 digest.
pub(super) fn first_16(digest: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}

/// Parses 32 lower-case hex digits into 16 bytes.
pub(super) fn sixteen(hex: &str) -> Option<[u8; 16]> {
    let lower = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    if hex.len() != 32 || !hex.bytes().all(lower) {
        return None;
    }
    u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
}
