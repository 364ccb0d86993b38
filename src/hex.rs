//! Hexadecimal digits of bytes, two for each.

/// The lower-case digits of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// The bytes of exactly `2 * N` digits of either case; `None` for any other text, also with a sign,
/// which the numbers of the standard library may have.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// As [`decode`], for forms that allow lower-case digits only.
pub(crate) fn decode_lower<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) { None } else { decode(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_their_digits_and_other_texts_are_none() {
        let bytes: Vec<u8> = (0..=255).collect();
        for pair in bytes.chunks_exact(2) {
            let text = encode(pair);
            assert_eq!(decode::<2>(&text).as_ref().map(|bytes| &bytes[..]), Some(pair));
            assert_eq!(decode::<2>(&text.to_uppercase()), decode::<2>(&text));
        }
        for text in ["", "0", "000", "+f0", "0g00", "+f+f", " f0f", "é00", "00é"] {
            assert_eq!(decode::<2>(text), None, "{text:?}");
        }
        assert_eq!(decode_lower::<1>("0f"), Some([15]));
        assert_eq!(decode_lower::<1>("0F"), None);
    }
}
