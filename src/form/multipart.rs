//! Parts of `multipart/form-data` bodies (RFC 7578, RFC 2046 section 5.1).

use std::borrow::Cow;

/// Parts of the largest body.
pub const MAX_PARTS: usize = 1000;

/// The parts of a body, in its order, without the boundary, the preamble and the epilogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart<'a>(Vec<FormPart<'a>>);

/// A part of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormPart<'a> {
    /// Header lines, without the empty line at their end.
    head: &'a [u8],
    /// The content as received.
    pub content: &'a [u8],
}

impl<'a> Multipart<'a> {
    /// Parses a whole body. `None`: the body is not one of this boundary up to the closing
    /// delimiter, or has more than [`MAX_PARTS`] parts.
    pub fn parse(body: &'a [u8], boundary: &str) -> Option<Self> {
        let delimiter = format!("--{boundary}");
        let mut parts = Vec::new();
        // Start of the part that the last delimiter opened.
        let mut open = None;
        let mut line = 0;
        loop {
            let end = line_end(body, line);
            if let Some(kind) = delimiter_kind(&body[line..end.unwrap_or(body.len())], &delimiter) {
                if let Some(start) = open {
                    if parts.len() == MAX_PARTS {
                        return None;
                    }
                    // The line break before a delimiter belongs to the delimiter.
                    parts.push(FormPart::parse(body.get(start..line.checked_sub(2)?)?)?);
                }
                match kind {
                    DelimiterKind::Close => return open.is_some().then_some(Self(parts)),
                    DelimiterKind::Open => open = Some(end? + 2),
                }
            }
            line = end? + 2;
        }
    }

    /// The parts in the order of the body.
    pub fn iter(&self) -> impl Iterator<Item = &FormPart<'a>> {
        self.0.iter()
    }
}

/// The position of the CRLF at the end of the line that starts at `start`.
fn line_end(body: &[u8], start: usize) -> Option<usize> {
    let mut from = start;
    loop {
        let at = from + body.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        if at > start && body[at - 1] == b'\r' {
            return Some(at - 1);
        }
        from = at + 1;
    }
}

enum DelimiterKind {
    Open,
    Close,
}

/// The kind of a delimiter line; `None`: the line is none.
fn delimiter_kind(line: &[u8], delimiter: &str) -> Option<DelimiterKind> {
    let rest = line.strip_prefix(delimiter.as_bytes())?;
    let (kind, padding) = match rest.strip_prefix(b"--") {
        Some(padding) => (DelimiterKind::Close, padding),
        None => (DelimiterKind::Open, rest),
    };
    padding.iter().all(|byte| matches!(byte, b' ' | b'\t')).then_some(kind)
}

impl<'a> FormPart<'a> {
    fn parse(part: &'a [u8]) -> Option<Self> {
        if let Some(content) = part.strip_prefix(b"\r\n") {
            return Some(Self { head: b"", content });
        }
        let end = part.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        Some(Self { head: &part[..end], content: &part[end + 4..] })
    }

    /// Header lines as names and values, without white space around them.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.head.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).map(
            |line| match line.iter().position(|byte| *byte == b':') {
                Some(colon) => (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii()),
                None => (line.trim_ascii(), &[][..]),
            },
        )
    }

    /// The name of the field, from `Content-Disposition`. `None`: no name, or one that readers
    /// understand in different ways: given twice, in another encoding, or with a backslash, which
    /// escapes a quotation mark for some and is a character for others.
    pub fn name(&self) -> Option<Cow<'a, str>> {
        let mut lines =
            self.headers().filter(|(name, _)| name.eq_ignore_ascii_case(b"content-disposition"));
        let (Some((_, value)), None) = (lines.next(), lines.next()) else { return None };
        let value = std::str::from_utf8(value).ok()?;
        if value.contains(|character: char| character == '\\' || character.is_control()) {
            return None;
        }
        let mut found = None;
        let mut rest = value.split_once(';')?.1.trim_start();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            let (text, behind) = match after.trim_start().strip_prefix('"') {
                // Clients write a quotation mark in a name as %22 (RFC 7578 section 4.2).
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(';').unwrap_or(after.len())),
            };
            let key = key.trim();
            if key.eq_ignore_ascii_case("name*")
                || (key.eq_ignore_ascii_case("name") && found.replace(text.trim()).is_some())
            {
                return None;
            }
            rest = match behind.trim_start() {
                "" => "",
                behind => behind.strip_prefix(';')?.trim_start(),
            };
        }
        found.map(Cow::Borrowed)
    }
}
