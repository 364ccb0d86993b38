//! Percent-encoding (RFC 3986 section 2.1).

/// The byte encoded by two hexadecimal digits at the start of `digits`.
pub(crate) fn byte(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Decodes `text`; `None` for a bad escape or for bytes other than UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            bytes.push(byte(rest)?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Encodes all but the unreserved characters (RFC 3986 section 2.3).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(HEX[usize::from(byte >> 4)]);
            encoded.push(HEX[usize::from(byte & 15)]);
        }
    }
    encoded
}

/// Digits of an escape.
const HEX: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hexadecimal_digits_and_nothing_else_are_a_byte() {
        for (digits, expected) in [("2F", Some(b'/')), ("2frest", Some(b'/')), ("00", Some(0))] {
            assert_eq!(byte(digits.as_bytes()), expected, "{digits}");
        }
        for digits in ["", "2", "+1", "g0", "2 ", "é"] {
            assert_eq!(byte(digits.as_bytes()), None, "{digits}");
        }
    }

    #[test]
    fn every_text_is_read_back_from_its_encoding() {
        assert_eq!(encode("a b/é~"), "a%20b%2F%C3%A9~");
        for text in ["", "%", "a%2Fb", "\0\u{7f}", "ü+&=?#"] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text), "{text}");
        }
    }

    #[test]
    fn a_text_is_decoded_whole_or_refused() {
        assert_eq!(decode("a%20b%C3%A9+").as_deref(), Some("a bé+"));
        for text in ["%", "%2", "a%zz", "%ff"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
