//! The String of RFC 9651 with its parameters, as far as keys need it.

/// Treatment of the parameters behind a string. They never decide about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParameterSyntax {
    /// Ignored, as far as they do not make the item a list.
    Ignored,
    /// Refused when they are not well formed.
    WellFormed,
}

/// The reason why a line is no such string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StringError {
    /// The line is a list.
    Several,
    /// The string has a control character or a non-ASCII byte.
    Characters,
    /// The string or a parameter is not well formed.
    Syntax,
}

/// The value of an Item that is a String (section 3.3.3, parsed as in section 4.2.5). `line` begins
/// with the quotation mark.
pub(super) fn string_item(
    line: &[u8],
    parameters: ParameterSyntax,
) -> Result<Vec<u8>, StringError> {
    let mut value = Vec::new();
    let rest = string(line, &mut value)?;
    if outside_quotes(rest).any(|byte| byte == b',') {
        return Err(StringError::Several);
    }
    let taken = match parameters {
        ParameterSyntax::Ignored => rest.is_empty() || (rest[0] == b';' && rest.is_ascii()),
        ParameterSyntax::WellFormed => are_parameters(rest),
    };
    if taken { Ok(value) } else { Err(StringError::Syntax) }
}

/// Parses a string, appends its value, and gives what follows.
fn string<'a>(line: &'a [u8], value: &mut Vec<u8>) -> Result<&'a [u8], StringError> {
    let inside = line.strip_prefix(b"\"").ok_or(StringError::Syntax)?;
    // Hardly any key has something escaped in it: the bytes before that are taken in one piece.
    let plain = |byte: &u8| matches!(*byte, 0x20..=0x7e) && *byte != b'"' && *byte != b'\\';
    let end = inside.iter().position(|byte| !plain(byte)).unwrap_or(inside.len());
    value.extend_from_slice(&inside[..end]);
    let mut rest = inside[end..].iter();
    loop {
        match rest.next() {
            None => return Err(StringError::Syntax),
            Some(b'"') => return Ok(rest.as_slice()),
            Some(b'\\') => match rest.next() {
                Some(escaped @ (b'"' | b'\\')) => value.push(*escaped),
                Some(_) | None => return Err(StringError::Syntax),
            },
            Some(byte @ 0x20..=0x7e) => value.push(*byte),
            Some(_) => return Err(StringError::Characters),
        }
    }
}

/// The bytes that are not inside a quoted string.
fn outside_quotes(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut quoted = false;
    let mut escaped = false;
    bytes.iter().copied().filter(move |&byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' if quoted => {
                escaped = true;
                false
            }
            b'"' => {
                quoted = !quoted;
                false
            }
            _ => !quoted,
        }
    })
}

/// Reports whether these bytes are parameters and nothing else (section 4.2.3.2).
fn are_parameters(mut rest: &[u8]) -> bool {
    while let Some(after) = rest.strip_prefix(b";") {
        let Some(after) = parameter(after) else { return false };
        rest = after;
    }
    rest.is_empty()
}

/// Parses a parameter behind its semicolon and gives what follows.
fn parameter(rest: &[u8]) -> Option<&[u8]> {
    let start = rest.iter().position(|byte| *byte != b' ')?;
    let rest = &rest[start..];
    if !matches!(rest.first()?, b'a'..=b'z' | b'*') {
        return None;
    }
    let name = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*');
    let rest = after(rest, name);
    match rest.strip_prefix(b"=") {
        Some(value) => bare_item(value),
        // The value is true.
        None => Some(rest),
    }
}

/// Parses a bare item (section 4.2.3.1) and gives what follows.
fn bare_item(item: &[u8]) -> Option<&[u8]> {
    match item.first()? {
        b'"' => string(item, &mut Vec::new()).ok(),
        b'-' | b'0'..=b'9' => number(item),
        b'*' | b'a'..=b'z' | b'A'..=b'Z' => Some(after(item, is_token)),
        b':' => {
            let rest = after(&item[1..], |byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
            });
            rest.strip_prefix(b":")
        }
        b'?' => match item.get(1)? {
            b'0' | b'1' => Some(&item[2..]),
            _ => None,
        },
        b'@' => {
            let rest = number(&item[1..])?;
            let whole = !item[..item.len() - rest.len()].contains(&b'.');
            whole.then_some(rest)
        }
        b'%' => display_string(&item[1..]),
        _ => None,
    }
}

/// Parses an integer or a decimal: at most 15 digits, or 12 before the point and 3 behind.
fn number(item: &[u8]) -> Option<&[u8]> {
    let digits = item.strip_prefix(b"-").unwrap_or(item);
    let rest = after(digits, u8::is_ascii_digit);
    let whole = digits.len() - rest.len();
    let Some(fraction) = rest.strip_prefix(b".") else {
        return (1..=15).contains(&whole).then_some(rest);
    };
    let rest = after(fraction, u8::is_ascii_digit);
    let places = fraction.len() - rest.len();
    ((1..=12).contains(&whole) && (1..=3).contains(&places)).then_some(rest)
}

/// Parses a Display String behind its percent sign.
fn display_string(item: &[u8]) -> Option<&[u8]> {
    let mut rest = item.strip_prefix(b"\"")?;
    let mut text = Vec::new();
    loop {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        match byte {
            b'"' => return std::str::from_utf8(&text).is_ok().then_some(rest),
            b'%' => {
                let (digits, behind) = rest.split_first_chunk::<2>()?;
                let lower = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
                if !digits.iter().all(lower) {
                    return None;
                }
                let digits = std::str::from_utf8(digits).ok()?;
                text.push(u8::from_str_radix(digits, 16).ok()?);
                rest = behind;
            }
            0x20..=0x7e => text.push(*byte),
            _ => return None,
        }
    }
}

/// The bytes from the first on that is not of this kind.
fn after(bytes: &[u8], kind: impl Fn(&u8) -> bool) -> &[u8] {
    let end = bytes.iter().position(|byte| !kind(byte)).unwrap_or(bytes.len());
    &bytes[end..]
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_rfc_9651() {
        for good in [
            "",
            ";a",
            "; a",
            ";a;b",
            ";*a",
            ";a-b_c.d*9",
            ";a=1",
            ";a=-1",
            ";a=999999999999999",
            ";a=1.5",
            ";a=-999999999999.123",
            ";a=\"\"",
            ";a=\"x\\\"y\\\\,;\"",
            ";a=tok/en:*",
            ";a=*",
            ";a=A",
            ";a=::",
            ";a=:aGVsbG8=:",
            ";a=:aGVsbG8:",
            ";a=?0",
            ";a=?1;b",
            ";a=@1659578233",
            ";a=@-1",
            ";a=%\"\"",
            ";a=%\"f%c3%bc\"",
            ";a=1;a=2",
            ";  a=1;   b=?0",
        ] {
            let line = format!("\"k\"{good}");
            for parameters in [ParameterSyntax::WellFormed, ParameterSyntax::Ignored] {
                assert_eq!(string_item(line.as_bytes(), parameters), Ok(b"k".to_vec()), "{line}");
            }
        }
        for bad in [
            ";",
            "; ",
            ";;",
            ";a;",
            ";A=1",
            ";1",
            ";-a",
            ";=1",
            ";a=",
            ";a =1",
            ";a= 1",
            ";a ;b",
            " ;a",
            ";a=\"",
            ";a=\"\\x\"",
            ";a=1.",
            ";a=.1",
            ";a=-",
            ";a=--1",
            ";a=1.2345",
            ";a=1e3",
            ";a=9999999999999999",
            ";a=9999999999999.1",
            ";a=:a",
            ";a=:a b:",
            ";a=?",
            ";a=?2",
            ";a=?true",
            ";a=@",
            ";a=@1.5",
            ";a=%",
            ";a=%\"",
            ";a=%\"%C3%BC\"",
            ";a=%\"%f\"",
            ";a=%\"%ff\"",
            ";a=(1)",
            ";a=1 ",
            ";a\t",
            ";a=[]",
            "x",
            " x",
            ";a=1\"",
        ] {
            let line = format!("\"k\"{bad}");
            let strict = string_item(line.as_bytes(), ParameterSyntax::WellFormed);
            assert_eq!(strict, Err(StringError::Syntax), "{line}");
        }
        for list in [";a=1,b", ", \"l\"", ";a=\"x,y\",b"] {
            let line = format!("\"k\"{list}");
            for parameters in [ParameterSyntax::WellFormed, ParameterSyntax::Ignored] {
                let reply = string_item(line.as_bytes(), parameters);
                assert_eq!(reply, Err(StringError::Several), "{line}");
            }
        }
    }
}
