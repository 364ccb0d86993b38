//! The position of hyper within the requests of one connection.
//!
//! Four decisions need more than hyper tells. hyper cuts the fragment off a target, so the request
//! line is looked at as it passes. hyper refuses a query with a raw `"`, `<` or `>`, which other
//! proxies pass, so these are escaped before hyper sees them. hyper answers a head it cannot parse
//! by itself, and that answer is known by the position alone: a head has passed and no exchange has
//! begun for it. And the time limit differs between a connection that idles and one with a head
//! under way.
//!
//! The tracker stops at the end of each head and of each body, so that hyper never holds bytes of
//! two requests at once and both always agree on the position. Where a body ends follows from the
//! framing that hyper has read from the head.

use std::time::Duration;

use bytes::BytesMut;
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

/// Follows the bytes read by hyper on a connection.
#[derive(Debug)]
pub(super) struct RequestTracker {
    position: Position,
    /// The target of the latest head contains `#`.
    has_fragment: bool,
    /// No request has begun yet: the time limit counts from the connection's acceptance.
    is_first: bool,
    /// The next byte is one of a query that must be escaped to pass.
    wants_escape: bool,
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
            is_first: true,
            wants_escape: false,
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

    /// Notes the begin of an exchange for the passed head. Returns true when the target had a
    /// fragment.
    pub(super) fn begin(&mut self, body: &Incoming) -> bool {
        self.begin_with(if body.is_end_stream() { Some(0) } else { body.size_hint().exact() })
    }

    /// `length`: bytes of the body; `None`: the body comes in chunks.
    fn begin_with(&mut self, length: Option<u64>) -> bool {
        self.position = match length {
            Some(0) => Position::Between,
            Some(length) => Position::Content(length),
            None => Position::ChunkSize { size: 0, is_size: true },
        };
        self.is_first = false;
        self.deadline = None;
        self.has_fragment
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
                break;
            }
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
        if !self.is_first {
            self.deadline = Some(Instant::now() + self.limits.header);
        }
        self.has_fragment = false;
        self.request_line(bytes, LinePart::Method)
    }

    fn request_line(&mut self, bytes: &[u8], mut part: LinePart) -> usize {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let line = &bytes[..end.unwrap_or(bytes.len())];
        let mut at = 0;
        if part == LinePart::Method
            && let Some(method) = line.iter().position(|byte| *byte == b' ')
        {
            (at, part) = (method, LinePart::Target);
        }
        if part != LinePart::Method {
            self.has_fragment |= line[at..].contains(&b'#');
        }
        if part == LinePart::Target
            && let Some(path) = line[at..].iter().position(|byte| *byte == b'?')
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
    let end = bytes.iter().position(|byte| *byte == b'\n');
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker() -> RequestTracker {
        let second = Duration::from_secs(1);
        RequestTracker::new(HeadLimits { header: second, idle: second })
    }

    /// Passes all of `text` in reads of `size` bytes; begins an exchange after each head. Returns
    /// the pieces and, for each head, the fragment's flag.
    fn pieces(text: &str, size: usize, lengths: &[Option<u64>]) -> (Vec<String>, Vec<bool>) {
        let mut tracker = tracker();
        let (mut pieces, mut fragments, mut piece) = (Vec::new(), Vec::new(), String::new());
        let mut lengths = lengths.iter();
        let mut rest = text;
        while !rest.is_empty() {
            let read = &rest[..size.min(rest.len())];
            let passed = tracker.pass(read.as_bytes());
            assert!(tracker.escaped(&rest.as_bytes()[passed..]).is_none());
            assert!(passed > 0, "{:?} at {rest:?}", tracker.position);
            piece.push_str(&rest[..passed]);
            rest = &rest[passed..];
            if tracker.position == Position::HeadPassed {
                assert!(tracker.is_in_head());
                fragments.push(tracker.begin_with(*lengths.next().unwrap()));
                pieces.push(std::mem::take(&mut piece));
            } else if tracker.is_between() && !piece.trim().is_empty() {
                pieces.push(std::mem::take(&mut piece));
            }
        }
        assert_eq!(piece, "");
        (pieces, fragments)
    }

    #[test]
    fn heads_and_bodies_are_told_apart_however_the_bytes_arrive() {
        let expected = [
            "GET /a HTTP/1.1\r\nhost: a\r\n\r\n",
            "\r\n\r\nPOST /b HTTP/1.1\nhost: a\n\n",
            "GET /#c HTTP/1.1\r\n\r\n",
            "\r\nPOST /d#e HTTP/1.1\r\nx: #\r\n\r\n",
            "5;a=\"b\"\r\nGET /\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nx: y\r\n\r\n",
            "G#T /f HTTP/1.1\r\n\r\n",
            "POST http://a/g?x#y HTTP/1.1\r\n\r\n",
            "0\r\n\r\n",
        ];
        let lengths = [Some(0), Some(20), None, Some(0), None];
        let text = expected.concat();
        for size in [1, 2, 3, 7, 16, 64, 4096] {
            let (found, fragments) = pieces(&text, size, &lengths);
            assert_eq!(found, expected, "{size}");
            assert_eq!(fragments, [false, false, true, false, true], "{size}");
        }
    }

    #[test]
    fn characters_of_a_query_that_hyper_refuses_are_escaped_however_they_arrive() {
        let sent = "GET /\"<a>?b=\"<?>\"&c HTTP/1.1\r\nx: <\">?\r\n\r\n";
        let expected = "GET /\"<a>?b=%22%3C?%3E%22&c HTTP/1.1\r\nx: <\">?\r\n\r\n";
        for size in [1, 2, 3, 5, 11, 12, 13, 14, 100] {
            let mut tracker = tracker();
            let mut found = Vec::new();
            for read in sent.as_bytes().chunks(size) {
                let mut rest = BytesMut::from(read);
                while !rest.is_empty() {
                    let passed = tracker.pass(&rest);
                    found.extend_from_slice(&rest.split_to(passed));
                    if let Some(escaped) = tracker.escaped(&rest) {
                        rest = escaped;
                    }
                }
            }
            assert_eq!(String::from_utf8(found).unwrap(), expected, "{size}");
        }
    }

    #[test]
    fn an_exchange_has_no_deadline_of_its_own() {
        let mut tracker = tracker();
        assert!(tracker.deadline().is_some() && !tracker.is_in_head());
        assert_eq!(tracker.pass(b"\r\nG"), 3);
        assert!(tracker.deadline().is_some() && tracker.is_in_head());
        tracker.pass(b"ET / HTTP/1.1\r\n\r\n");
        tracker.begin_with(Some(0));
        assert!(tracker.deadline().is_none() && !tracker.is_in_head());
        tracker.wait();
        assert!(tracker.deadline().is_some() && tracker.is_between());
    }
}
