//! The position of hyper within the requests of one connection.
//!
//! Five decisions need more than hyper tells. hyper cuts the fragment off a target, so the request
//! line is looked at as it passes. hyper drops a length beside chunks, so the names of header lines
//! are looked at as well. hyper refuses a query with a raw `"`, `<` or `>`, which other
//! proxies pass, so these are escaped before hyper sees them. hyper answers a head it cannot parse
//! by itself, and that answer is known by the position alone: a head has passed and no exchange has
//! begun for it. And the time limit differs between a connection that idles and one with a head
//! under way.
//!
//! The tracker stops at the end of each head and of each body, so that hyper never holds bytes of
//! two requests at once and both always agree on the position. Where a body ends follows from the
//! framing that hyper has read from the head.

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::BytesMut;
use http_body::Body as _;
use hyper::body::Incoming;
use memchr::memchr;
use tokio::time::Instant;

use super::doubt::{NameSearch, RequestDoubt};

/// Follows the bytes read by hyper on a connection.
#[derive(Debug)]
pub(super) struct RequestTracker {
    position: Position,
    /// The target of the latest head contains `#`.
    has_fragment: bool,
    /// Looks for a length in the latest head.
    length: NameSearch,
    /// No request has begun yet: the time limit counts from the connection's acceptance.
    is_first: bool,
    /// The next byte is one of a query that must be escaped to pass.
    wants_escape: bool,
    /// The deadline is that of the present head.
    is_timed: bool,
    deadline: Option<Instant>,
    limits: HeadLimits,
}

/// Time limits outside an exchange.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimits {
    /// For the first head from the connection's acceptance, for a later head from its first byte.
    pub(super) header: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Before the first byte of a request; empty lines may precede it.
    Between,
    /// In the request line.
    RequestLine(LinePart),
    /// In a header line; `is_empty`: no byte of the line but a carriage return has passed.
    HeaderLine { is_empty: bool },
    /// The whole head has passed, and no exchange has begun for it.
    HeadPassed,
    /// In a body, with the number of bytes to come.
    Content(u64),
    /// In the line with a chunk's size; `is_size`: still in its digits.
    ChunkSize { size: u64, is_size: bool },
    /// In a chunk or the line end after it, with the number of bytes to come.
    Chunk(u64),
    /// In the lines after the last chunk.
    TrailerLine { is_empty: bool },
}

/// The part of a request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinePart {
    Method,
    Target,
    /// The target beyond its first `?`, and the version.
    Query,
}

impl RequestTracker {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self {
            position: Position::Between,
            has_fragment: false,
            length: NameSearch::default(),
            is_first: true,
            wants_escape: false,
            is_timed: true,
            deadline: Some(Instant::now() + limits.header),
            limits,
        }
    }

    /// The end of the time for what the client has to send now; `None` during an exchange.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// True between two requests.
    pub(super) fn is_between(&self) -> bool {
        self.position == Position::Between
    }

    /// True when bytes of a head have passed without an exchange for them. A write by hyper is then
    /// its own answer to the head.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(
            self.position,
            Position::RequestLine(_) | Position::HeaderLine { .. } | Position::HeadPassed
        )
    }

    /// True while the request line has not ended.
    pub(super) fn is_in_request_line(&self) -> bool {
        matches!(self.position, Position::RequestLine(_))
    }

    /// Notes the begin of an exchange for the passed head. Returns the reason for refusing it that
    /// hyper does not show.
    pub(super) fn begin(&mut self, body: &Incoming) -> Option<RequestDoubt> {
        self.begin_with(if body.is_end_stream() { Some(0) } else { body.size_hint().exact() })
    }

    /// `length`: bytes of the body; `None`: the body comes in chunks.
    fn begin_with(&mut self, length: Option<u64>) -> Option<RequestDoubt> {
        self.position = match length {
            Some(0) => Position::Between,
            Some(length) => Position::Content(length),
            None => Position::ChunkSize { size: 0, is_size: true },
        };
        self.is_first = false;
        self.deadline = None;
        if self.has_fragment {
            return Some(RequestDoubt::Fragment);
        }
        (length.is_none() && self.length.is_found()).then_some(RequestDoubt::TwoFramings)
    }

    /// Notes hyper's wait for the next request.
    pub(super) fn wait(&mut self) {
        if self.deadline.is_none() {
            self.deadline = Some(Instant::now() + self.limits.idle);
        }
    }

    /// Counts the bytes that may pass to hyper now, and moves the position beyond them.
    /// Afterwards [`escaped`](Self::escaped) must be applied to the rest.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        self.wants_escape = false;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let before = self.position;
            at += self.step(rest);
            if self.wants_escape {
                break;
            }
            let at_end = matches!(self.position, Position::Between | Position::HeadPassed);
            if at_end && before != Position::Between {
                // A head that arrives whole, as most do, needs no deadline of its own.
                self.is_timed |= self.position == Position::HeadPassed;
                break;
            }
        }
        if self.is_in_head() && !self.is_timed {
            (self.is_timed, self.deadline) = (true, Some(Instant::now() + self.limits.header));
        }
        at
    }

    /// The rest of the bytes after [`pass`](Self::pass), with the characters of a query escaped
    /// that hyper refuses; `None`: the bytes as they are.
    pub(super) fn escaped(&self, rest: &[u8]) -> Option<BytesMut> {
        if !self.wants_escape {
            return None;
        }
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let (line, beyond) = rest.split_at(end);
        let mut escaped = BytesMut::with_capacity(3 * line.len() + beyond.len());
        for byte in line {
            match escape(*byte) {
                Some(escape) => escaped.extend_from_slice(escape),
                None => escaped.extend_from_slice(&[*byte]),
            }
        }
        escaped.extend_from_slice(beyond);
        Some(escaped)
    }

    /// Moves the position over these bytes, unless the first of them wants to be escaped.
    fn step(&mut self, bytes: &[u8]) -> usize {
        match self.position {
            Position::Between => self.start(bytes),
            Position::RequestLine(part) => self.request_line(bytes, part),
            Position::HeaderLine { is_empty } => {
                let (passed, is_empty) = line(bytes, is_empty);
                self.length.pass(&bytes[..passed]);
                self.position = match is_empty {
                    LineEnd::Empty => Position::HeadPassed,
                    LineEnd::Text => Position::HeaderLine { is_empty: true },
                    LineEnd::Open { is_empty } => Position::HeaderLine { is_empty },
                };
                passed
            }
            // hyper reads on after a complete head, and decides its meaning.
            Position::HeadPassed => bytes.len(),
            Position::Content(left) => {
                let (passed, left) = skip(bytes, left);
                self.position = if left == 0 { Position::Between } else { Position::Content(left) };
                passed
            }
            Position::ChunkSize { size, is_size } => self.chunk_size(bytes[0], size, is_size),
            Position::Chunk(left) => {
                let (passed, left) = skip(bytes, left);
                self.position = match left {
                    0 => Position::ChunkSize { size: 0, is_size: true },
                    left => Position::Chunk(left),
                };
                passed
            }
            Position::TrailerLine { is_empty } => {
                let (passed, is_empty) = line(bytes, is_empty);
                self.position = match is_empty {
                    LineEnd::Empty => Position::Between,
                    LineEnd::Text => Position::TrailerLine { is_empty: true },
                    LineEnd::Open { is_empty } => Position::TrailerLine { is_empty },
                };
                passed
            }
        }
    }

    fn start(&mut self, bytes: &[u8]) -> usize {
        let empty = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        if empty > 0 {
            return empty;
        }
        // The first head has the deadline of the connection.
        self.is_timed = self.is_first;
        (self.has_fragment, self.length) = (false, NameSearch::default());
        self.request_line(bytes, LinePart::Method)
    }

    fn request_line(&mut self, bytes: &[u8], mut part: LinePart) -> usize {
        let end = memchr(b'\n', bytes);
        let line = &bytes[..end.unwrap_or(bytes.len())];
        let mut at = 0;
        if part == LinePart::Method
            && let Some(method) = line.iter().position(|byte| *byte == b' ')
        {
            (at, part) = (method, LinePart::Target);
        }
        if part != LinePart::Method {
            self.has_fragment |= memchr(b'#', &line[at..]).is_some();
        }
        if part == LinePart::Target
            && let Some(path) = memchr(b'?', &line[at..])
        {
            (at, part) = (at + path, LinePart::Query);
        }
        if part == LinePart::Query
            && let Some(refused) = line[at..].iter().position(|byte| escape(*byte).is_some())
        {
            self.wants_escape = true;
            self.position = Position::RequestLine(part);
            return at + refused;
        }
        self.position = match end {
            Some(_) => Position::HeaderLine { is_empty: true },
            None => Position::RequestLine(part),
        };
        line.len() + usize::from(end.is_some())
    }

    fn chunk_size(&mut self, byte: u8, size: u64, is_size: bool) -> usize {
        let digit = char::from(byte).to_digit(16).filter(|_| is_size);
        self.position = match digit {
            // hyper refuses a size beyond its range.
            Some(digit) => {
                let size = size.saturating_mul(16).saturating_add(u64::from(digit));
                Position::ChunkSize { size, is_size: true }
            }
            None if byte != b'\n' => Position::ChunkSize { size, is_size: false },
            None if size == 0 => Position::TrailerLine { is_empty: true },
            None => Position::Chunk(size.saturating_add(2)),
        };
        1
    }
}

/// The escape of a character that hyper refuses in a query.
fn escape(byte: u8) -> Option<&'static [u8]> {
    match byte {
        b'"' => Some(b"%22"),
        b'<' => Some(b"%3C"),
        b'>' => Some(b"%3E"),
        _ => None,
    }
}

/// The end of a line.
enum LineEnd {
    /// The line ended and was empty.
    Empty,
    /// The line ended with content.
    Text,
    /// The line continues; `is_empty` so far.
    Open { is_empty: bool },
}

/// Counts the bytes up to the end of a line; `is_empty`: as far as the line has come.
fn line(bytes: &[u8], is_empty: bool) -> (usize, LineEnd) {
    let end = memchr(b'\n', bytes);
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let is_empty = is_empty && line.iter().all(|byte| *byte == b'\r');
    match end {
        None => (line.len(), LineEnd::Open { is_empty }),
        Some(end) if is_empty => (end + 1, LineEnd::Empty),
        Some(end) => (end + 1, LineEnd::Text),
    }
}

/// Counts the bytes belonging to the `left` bytes, and the number still to come.
fn skip(bytes: &[u8], left: u64) -> (usize, u64) {
    let passed = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (passed, left - passed as u64)
}
