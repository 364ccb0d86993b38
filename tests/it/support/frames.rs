//! HTTP/2 in single frames: for clients and backends that do what no library does.

use std::io::{self, Read, Write};

/// The bytes that begin a client's connection.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// The frame that resets a stream for this reason.
    pub(crate) fn reset(stream: u32, reason: u32) -> Self {
        Self::new(RST_STREAM, 0, stream, reason.to_be_bytes())
    }

    /// The frame that ends a connection after the stream `last` for this reason.
    pub(crate) fn go_away(last: u32, reason: u32) -> Self {
        let payload = [last.to_be_bytes(), reason.to_be_bytes()].concat();
        Self::new(GOAWAY, 0, 0, payload)
    }

    /// The frame with these settings.
    pub(crate) fn settings(settings: &[(u16, u32)]) -> Self {
        let each =
            |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat();
        Self::new(SETTINGS, 0, 0, settings.iter().flat_map(each).collect::<Vec<u8>>())
    }

    /// A whole head.
    pub(crate) fn head(stream: u32, flags: u8, lines: &[(&str, &str)]) -> Self {
        Self::new(HEADERS, flags | END_HEADERS, stream, block(lines))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The reason in a reset or in the end of a connection.
    pub(crate) fn reason(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status of an answer: the first line of its head.
    pub(crate) fn status(&self) -> u16 {
        status(&self.payload)
    }
}

/// A block of header lines, each literal and without an index (RFC 7541 section 6.2.2).
pub(crate) fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "longer texts have another form");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The lines of a request.
pub(crate) fn request<'a>(
    method: &'a str,
    path: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let mut lines = vec![
        (":method", method),
        (":scheme", "https"),
        (":authority", "shop.example"),
        (":path", path),
    ];
    lines.extend(more);
    lines
}

fn status(block: &[u8]) -> u16 {
    // The size of the table may be set first.
    let block = if block[0] & 0xe0 == 0x20 { &block[1..] } else { block };
    if block[0] & 0x80 != 0 {
        return [200, 204, 206, 304, 400, 404, 500][usize::from(block[0] & 0x7f) - 8];
    }
    let at =
        if matches!(block[0], 0x48 | 0x08 | 0x18) { 1 } else { panic!("no status: {block:?}") };
    let (is_coded, length) = (block[at] & 0x80 != 0, usize::from(block[at] & 0x7f));
    let value = &block[at + 1..at + 1 + length];
    if !is_coded {
        return std::str::from_utf8(value).unwrap().parse().unwrap();
    }
    // Digits in the code of RFC 7541, appendix B.
    let bits: Vec<u8> =
        value.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let (mut digits, mut rest) = (String::new(), &bits[..]);
    while digits.len() < 3 {
        let number = |count: usize| rest[..count].iter().fold(0, |sum, bit| sum << 1 | bit);
        let (digit, count) = match number(5) {
            low @ 0..=2 => (low, 5),
            _ => (number(6) - 0x19 + 3, 6),
        };
        digits.push(char::from(b'0' + digit));
        rest = &rest[count..];
    }
    digits.parse().unwrap()
}

/// Writes frames.
pub(crate) fn write(stream: &mut impl Write, frames: &[Frame]) -> io::Result<()> {
    let bytes: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
    stream.write_all(&bytes)?;
    stream.flush()
}

/// The next frame.
pub(crate) fn read(stream: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload)?;
    let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
    Ok(Frame { kind: head[3], flags: head[4], stream, payload })
}

/// Frames up to the first that `wanted` accepts; `None`: the connection ended before.
pub(crate) fn until(stream: &mut impl Read, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
    loop {
        let frame = read(stream).ok()?;
        if wanted(&frame) {
            return Some(frame);
        }
    }
}
