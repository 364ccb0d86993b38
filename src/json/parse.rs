//! The JSON parser: one pass, iterative, so that nesting costs no stack.

use std::borrow::Cow;
use std::fmt;

use super::node::{JsonNode, JsonType};

/// Maximum nesting of a text.
pub const MAX_DEPTH: usize = 128;

/// Maximum number of values of a text. A value costs 28 bytes, so a text costs 2.8 MB at most.
pub const MAX_VALUES: usize = 100_000;

/// Byte order mark, written by some programs before a text and ignored (RFC 8259 section 8.1).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Marker for a value without a parent: the root.
const NONE: usize = u32::MAX as usize;

/// The reason a text was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// The text is not UTF-8.
    Utf8,
    /// The text is not JSON from this byte on.
    Syntax {
        /// Offset of the first unexpected byte.
        at: usize,
    },
    /// The text is nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// The text has more than [`MAX_VALUES`] values, or more bytes than a 32-bit offset can
    /// address.
    TooLarge,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utf8 => f.write_str("not UTF-8"),
            Self::Syntax { at } => write!(f, "not JSON at byte {at}"),
            Self::TooDeep => write!(f, "nested deeper than {MAX_DEPTH} levels"),
            Self::TooLarge => write!(f, "more than {MAX_VALUES} values"),
        }
    }
}

impl std::error::Error for ParseError {}

/// Parses a whole text into the text and its nodes.
pub(super) fn parse(bytes: &[u8]) -> Result<(&str, Vec<JsonNode>), ParseError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ParseError::Utf8)?;
    if u32::try_from(bytes.len()).is_err() {
        return Err(ParseError::TooLarge);
    }
    // Most values with their name take some more bytes than that.
    let expected = (bytes.len() / 12).clamp(8, MAX_VALUES);
    let nodes = Vec::with_capacity(expected);
    let mut parser = Parser { bytes, at: 0, nodes, open: NONE, depth: 0 };
    parser.run()?;
    Ok((text, parser.nodes))
}

/// Bytes of a string that are neither escaped nor its end.
const ORDINARY: [bool; 256] = {
    let mut ordinary = [true; 256];
    let mut control = 0;
    while control < 0x20 {
        ordinary[control] = false;
        control += 1;
    }
    ordinary[b'"' as usize] = false;
    ordinary[b'\\' as usize] = false;
    ordinary
};

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<JsonNode>,
    /// Index of the open array or object, or [`NONE`]. While open, its `after` holds its parent.
    open: usize,
    /// Number of open arrays and objects.
    depth: usize,
}

/// The place of a member's name, without quotes.
#[derive(Clone, Copy)]
struct NameSpan {
    start: usize,
    end: usize,
    plain: bool,
}

impl NameSpan {
    const NONE: Self = Self { start: 0, end: 0, plain: true };
}

impl Parser<'_> {
    fn run(&mut self) -> Result<(), ParseError> {
        if self.bytes.starts_with(BYTE_ORDER_MARK) {
            self.at = BYTE_ORDER_MARK.len();
        }
        self.white_space();
        self.value(NameSpan::NONE)?;
        while self.open != NONE {
            let parent = self.open;
            self.white_space();
            let first = self.nodes.len() == parent + 1;
            let object = self.nodes[parent].kind == JsonType::Object;
            if self.peek() == Some(if object { b'}' } else { b']' }) {
                self.at += 1;
                self.close(parent);
                continue;
            }
            if !first {
                self.expect(b',')?;
                self.white_space();
            }
            let name = if object { self.name()? } else { NameSpan::NONE };
            self.value(name)?;
        }
        self.white_space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.wrong()) }
    }

    /// Reads a scalar whole, or the opening bracket of an array or object.
    fn value(&mut self, name: NameSpan) -> Result<(), ParseError> {
        if self.nodes.len() == MAX_VALUES {
            return Err(ParseError::TooLarge);
        }
        let start = self.at;
        let mut plain = true;
        let mut after = self.nodes.len() + 1;
        let kind = match self.peek() {
            Some(b'{') => JsonType::Object,
            Some(b'[') => JsonType::Array,
            Some(b'"') => JsonType::String,
            Some(b'-' | b'0'..=b'9') => JsonType::Number,
            Some(b't' | b'f') => JsonType::Bool,
            Some(b'n') => JsonType::Null,
            Some(_) | None => return Err(self.wrong()),
        };
        match kind {
            JsonType::Object | JsonType::Array => {
                if self.depth == MAX_DEPTH {
                    return Err(ParseError::TooDeep);
                }
                after = self.open;
                self.open = self.nodes.len();
                self.depth += 1;
                self.at += 1;
            }
            JsonType::String => plain = self.string()?,
            JsonType::Number => self.number()?,
            JsonType::Null => self.word(b"null")?,
            JsonType::Bool if self.peek() == Some(b't') => self.word(b"true")?,
            JsonType::Bool => self.word(b"false")?,
        }
        let offset = |at: usize| u32::try_from(at).map_err(|_| ParseError::TooLarge);
        self.nodes.push(JsonNode {
            kind,
            start: offset(start)?,
            end: offset(self.at)?,
            after: offset(after)?,
            name_start: offset(name.start)?,
            name_end: offset(name.end)?,
            plain,
            plain_name: name.plain,
        });
        Ok(())
    }

    fn close(&mut self, node: usize) {
        self.open = self.nodes[node].after as usize;
        self.depth -= 1;
        // Both fit: the text's length was checked, and there are at most MAX_VALUES nodes.
        self.nodes[node].end = u32::try_from(self.at).unwrap_or(u32::MAX);
        self.nodes[node].after = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
    }

    fn name(&mut self) -> Result<NameSpan, ParseError> {
        let start = self.at + 1;
        let plain = self.string()?;
        let end = self.at - 1;
        // No reader agrees with another about such a name.
        let raw = std::str::from_utf8(&self.bytes[start..end]).unwrap_or_default();
        if !plain && lone_units(raw).is_some() {
            return Err(ParseError::Syntax { at: start });
        }
        self.white_space();
        self.expect(b':')?;
        self.white_space();
        Ok(NameSpan { start, end, plain })
    }

    /// Reads a string and reports whether the string has no escapes.
    fn string(&mut self) -> Result<bool, ParseError> {
        self.expect(b'"')?;
        let mut plain = true;
        loop {
            while self.peek().is_some_and(|byte| ORDINARY[usize::from(byte)]) {
                self.at += 1;
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(plain);
                }
                Some(b'\\') => {
                    plain = false;
                    self.escape()?;
                }
                Some(_) | None => return Err(self.wrong()),
            }
        }
    }

    /// Reads an escape sequence. A lone surrogate is accepted in values (RFC 8259 section 8.2):
    /// programs write one when cutting a string counted in UTF-16 units.
    fn escape(&mut self) -> Result<(), ParseError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => self.four_hex(),
            Some(_) | None => Err(self.wrong()),
        }
    }

    fn four_hex(&mut self) -> Result<(), ParseError> {
        self.expect(b'u')?;
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(self.wrong())?;
        hex(digits).ok_or(self.wrong())?;
        self.at += 4;
        Ok(())
    }

    /// RFC 8259 section 6.
    fn number(&mut self) -> Result<(), ParseError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            Some(_) | None => return Err(self.wrong()),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.wrong()) }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), ParseError> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(self.wrong());
        }
        self.at += word.len();
        Ok(())
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), ParseError> {
        if self.peek() != Some(byte) {
            return Err(self.wrong());
        }
        self.at += 1;
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn wrong(&self) -> ParseError {
        ParseError::Syntax { at: self.at }
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

/// The UTF-16 units of a string without its quotes that has a lone surrogate; `None`: the string
/// has characters alone.
pub(super) fn lone_units(raw: &str) -> Option<Vec<u16>> {
    if !raw.contains("\\ud") && !raw.contains("\\uD") {
        return None;
    }
    let mut units = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        units.extend(rest[..at].encode_utf16());
        let after = &rest[at + 1..];
        let digits = after.strip_prefix('u').and_then(|digits| digits.as_bytes().get(..4));
        if let Some(unit) = digits.and_then(hex).and_then(|unit| u16::try_from(unit).ok()) {
            units.push(unit);
            rest = &after[5..];
        } else {
            let mut plain = String::new();
            rest = &after[escaped(after, &mut plain)..];
            units.extend(plain.encode_utf16());
        }
    }
    units.extend(rest.encode_utf16());
    let has_lone = char::decode_utf16(units.iter().copied()).any(|character| character.is_err());
    has_lone.then_some(units)
}

/// The characters of a string without its quotes. A lone surrogate is no character and becomes
/// U+FFFD and its number, so that two different surrogates stay different. Sequences the parser
/// would refuse become U+FFFD.
pub(super) fn unescape(raw: &str) -> Cow<'_, str> {
    let Some(first) = raw.find('\\') else { return Cow::Borrowed(raw) };
    let mut plain = String::with_capacity(raw.len());
    plain.push_str(&raw[..first]);
    let mut rest = &raw[first..];
    while let Some(after) = rest.strip_prefix('\\') {
        rest = &after[escaped(after, &mut plain)..];
        let next = rest.find('\\').unwrap_or(rest.len());
        plain.push_str(&rest[..next]);
        rest = &rest[next..];
    }
    Cow::Owned(plain)
}

/// Appends the character of an escape sequence and returns the length of the sequence after its
/// backslash.
fn escaped(after: &str, plain: &mut String) -> usize {
    let simple = match after.as_bytes().first() {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unit_escaped(after, plain),
        Some(other) if other.is_ascii() => char::from(*other),
        Some(_) | None => {
            plain.push('\u{fffd}');
            return 0;
        }
    };
    plain.push(simple);
    1
}

/// Appends the character of one or two escaped UTF-16 units, like [`escaped`].
fn unit_escaped(after: &str, plain: &mut String) -> usize {
    let unit = |at: usize| after.as_bytes().get(at..at + 4).and_then(hex);
    let Some(first) = unit(1) else {
        plain.push('\u{fffd}');
        return 1;
    };
    if let Some(character) = char::from_u32(first) {
        plain.push(character);
        return 5;
    }
    let second = if after[5..].starts_with("\\u") { unit(7) } else { None };
    let low = second.filter(|low| (0xdc00..0xe000).contains(low));
    let pair = low.filter(|_| first < 0xdc00);
    let point = pair.map(|low| 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00));
    match point.and_then(char::from_u32) {
        Some(character) => {
            plain.push(character);
            11
        }
        None => {
            plain.push('\u{fffd}');
            plain.push_str(&after[1..5].to_ascii_lowercase());
            5
        }
    }
}
