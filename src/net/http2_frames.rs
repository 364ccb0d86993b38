//! Frame headers of HTTP/2 in a stream of bytes (RFC 9113 section 4.1). Payloads are skipped, and
//! not kept.

/// Bytes of a frame header.
const HEADER: usize = 9;

/// The header of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

/// Types of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// The flag of the last frame of a message, on DATA and HEADERS.
const END_STREAM: u8 = 1;
/// The flag of the last frame of a head, on HEADERS and CONTINUATION.
const END_HEADERS: u8 = 4;
/// The flag of an acknowledgement, on SETTINGS and PING.
const ACK: u8 = 1;

impl FrameHead {
    /// True for the last frame of a message.
    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & END_STREAM != 0
    }

    /// True for the settings of a peer, which begin its frames (RFC 9113 section 3.4).
    pub(crate) fn is_settings(&self) -> bool {
        self.kind == kind::SETTINGS && self.flags & ACK == 0
    }

    /// True for a frame with a part of a head.
    pub(crate) fn is_head(&self) -> bool {
        matches!(self.kind, kind::HEADERS | kind::CONTINUATION)
    }

    /// True for the last frame of a head.
    pub(crate) fn ends_head(&self) -> bool {
        self.is_head() && self.flags & END_HEADERS != 0
    }
}

/// A step through the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameStep {
    /// The first byte of a frame has passed.
    Begun,
    /// The header of a frame has passed.
    Head(FrameHead),
    /// The whole frame has passed.
    Whole(FrameHead),
}

/// Follows frames through a stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    header: [u8; HEADER],
    /// Bytes of the header so far.
    filled: usize,
    /// Bytes of the payload to come.
    left: usize,
    current: FrameHead,
}

impl FrameReader {
    /// Follows `bytes` and reports every step.
    pub(crate) fn pass(&mut self, mut bytes: &[u8], mut report: impl FnMut(FrameStep)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = &bytes[skipped..];
                if self.left == 0 {
                    report(FrameStep::Whole(self.current));
                }
                continue;
            }
            if self.filled == 0 {
                report(FrameStep::Begun);
            }
            let taken = (HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < HEADER {
                continue;
            }
            self.filled = 0;
            let [a, b, c, kind, flags, stream @ ..] = self.header;
            self.current = FrameHead {
                length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
                kind,
                flags,
                stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            };
            self.left = self.current.length;
            report(FrameStep::Head(self.current));
            if self.left == 0 {
                report(FrameStep::Whole(self.current));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_followed_however_their_bytes_arrive() {
        let frame = |length: u8, kind, flags, stream| {
            let mut bytes = vec![0, 0, length, kind, flags, 0x80, 0, 0, stream];
            bytes.extend(std::iter::repeat_n(0xff, length.into()));
            bytes
        };
        let bytes =
            [frame(3, 1, 5, 1), frame(0, 0, 1, 1), frame(200, 0, 0, 3), frame(4, 3, 0, 3)].concat();
        let head = |length, kind, flags, stream| FrameHead { length, kind, flags, stream };
        let heads = [head(3, 1, 5, 1), head(0, 0, 1, 1), head(200, 0, 0, 3), head(4, 3, 0, 3)];
        let expected: Vec<FrameStep> = heads
            .iter()
            .flat_map(|head| [FrameStep::Begun, FrameStep::Head(*head), FrameStep::Whole(*head)])
            .collect();
        for size in [1, 2, 5, 9, 10, 64, 1000] {
            let (mut reader, mut steps) = (FrameReader::default(), Vec::new());
            for part in bytes.chunks(size) {
                reader.pass(part, |step| steps.push(step));
            }
            assert_eq!(steps, expected, "{size}");
        }
        assert!(heads[0].ends_stream() && heads[0].ends_head() && heads[1].ends_stream());
        assert!(!heads[2].ends_stream() && !heads[3].is_head());
    }
}
