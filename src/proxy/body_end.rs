//! Bodies with a recognizable end.
//!
//! Without a length or chunks from the backend, a regular end of the connection looks like a broken
//! connection. A body still counts as whole if no prefix of the body is a valid body of its kind: a
//! closed JSON value, an XML document with a closed root element.

use crate::json::{Document, JsonType};

/// Returns true if a missing end of the body would be noticed. A JSON number has no recognizable
/// end: each of its digits may be the last.
pub(crate) fn shows_its_end(body: &[u8]) -> bool {
    match Document::parse(body) {
        Ok(json) => json.root().kind() != JsonType::Number,
        Err(_) => root_element_closes(body),
    }
}

/// Returns true for an XML document with all elements closed, and with only comments, instructions
/// and blanks around its root element. Names are compared as bytes. A document type with an
/// internal subset is not read, and neither are encodings other than supersets of ASCII.
fn root_element_closes(body: &[u8]) -> bool {
    let mut rest = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut open: Vec<&[u8]> = Vec::new();
    let mut seen_root = false;
    while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
        if open.is_empty() && !rest[..at].trim_ascii().is_empty() {
            return false;
        }
        let Some((piece, after)) = Markup::read(&rest[at..]) else { return false };
        rest = after;
        match piece {
            Markup::Other => {}
            Markup::Text if open.is_empty() => return false,
            Markup::Text => {}
            Markup::DocumentType if seen_root => return false,
            Markup::DocumentType => {}
            Markup::Opens(_) | Markup::Empty if open.is_empty() && seen_root => return false,
            Markup::Empty => seen_root = true,
            Markup::Opens(name) => {
                seen_root = true;
                open.push(name);
            }
            Markup::Closes(name) => {
                if open.pop() != Some(name) {
                    return false;
                }
            }
        }
    }
    seen_root && open.is_empty() && rest.trim_ascii().is_empty()
}

/// A piece of markup.
enum Markup<'b> {
    /// `<name …>`
    Opens(&'b [u8]),
    /// `</name>`
    Closes(&'b [u8]),
    /// `<name …/>`
    Empty,
    /// `<![CDATA[…]]>`
    Text,
    /// `<!DOCTYPE …>`
    DocumentType,
    /// A comment or a processing instruction.
    Other,
}

impl<'b> Markup<'b> {
    /// The piece at the start of `text`, which begins with `<`, and the text behind the piece.
    fn read(text: &'b [u8]) -> Option<(Self, &'b [u8])> {
        for (start, end, piece) in [
            (&b"<!--"[..], &b"-->"[..], Self::Other),
            (b"<?", b"?>", Self::Other),
            (b"<![CDATA[", b"]]>", Self::Text),
        ] {
            if let Some(inside) = text.strip_prefix(start) {
                return Some((piece, after(inside, end)?));
            }
        }
        let end = tag_end(text)?;
        let (inside, rest) = (&text[1..end], &text[end + 1..]);
        if inside.starts_with(b"!DOCTYPE") {
            return (!inside.contains(&b'[')).then_some((Self::DocumentType, rest));
        }
        if let Some(name) = inside.strip_prefix(b"/") {
            return Some((Self::Closes(name.trim_ascii_end()), rest));
        }
        let blank = inside.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'/');
        let name = &inside[..blank.unwrap_or(inside.len())];
        let valid = name.first().is_some_and(|first| {
            first.is_ascii_alphabetic() || matches!(first, b'_' | b':') || !first.is_ascii()
        });
        let piece = if inside.ends_with(b"/") { Self::Empty } else { Self::Opens(name) };
        valid.then_some((piece, rest))
    }
}

/// Position of the `>` at the end of a tag, outside of quotes.
fn tag_end(text: &[u8]) -> Option<usize> {
    let mut quote = None;
    text.iter().position(|byte| {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            (None | Some(_), _) => {}
        }
        quote.is_none() && *byte == b'>'
    })
}

/// The text behind the first `end`.
fn after<'b>(text: &'b [u8], end: &[u8]) -> Option<&'b [u8]> {
    let at = text.windows(end.len()).position(|window| window == end)?;
    Some(&text[at + end.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [&str; 10] = [
        r#"{"a":[1,2]}"#,
        "[]",
        "\"text\"",
        "true",
        "null",
        "<ok/>",
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE a SYSTEM \"a.dtd\">\n<a/>",
        "<s:Envelope xmlns:s='x>y'><s:Body a=\"/>\"><r>1 &lt; 2</r></s:Body></s:Envelope >",
        "\u{feff}<a><!-- <b> --><![CDATA[</a>]]><b/>text<b c='1'></b></a><!-- end -->\n",
        "<é>1</é>",
    ];

    #[test]
    fn a_whole_body_shows_its_end_and_no_beginning_of_it_does() {
        for body in WHOLE {
            assert!(shows_its_end(body.as_bytes()), "{body}");
            let least = body.trim_end_matches(['\n']).trim_end_matches("<!-- end -->").len();
            for end in (0..least).filter(|end| body.is_char_boundary(*end)) {
                assert!(!shows_its_end(&body.as_bytes()[..end]), "{}", &body[..end]);
            }
        }
    }

    #[test]
    fn what_may_go_on_does_not_show_its_end() {
        for body in [
            "",
            " ",
            "1",
            "12.5",
            "OK",
            "a=1&b=2",
            "id,name\n1,x\n",
            "<a></b>",
            "</a>",
            "<a></a><b>",
            "<a/>text",
            "text<a/>",
            "<a></a></a>",
            "<>",
            "<1/>",
            "<![CDATA[x]]>",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><a/>",
            "<html><br></html>",
            "<a/><b/>",
            "{\"a\":1}{",
            "<a b='></a>",
        ] {
            assert!(!shows_its_end(body.as_bytes()), "{body}");
        }
    }
}
