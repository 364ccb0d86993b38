//! Counts and times the frames of a connection.
//!
//! hyper bounds streams, heads and windows, but neither the number of frames that cost work and
//! move nothing, nor the time of a peer that takes nothing. Both are seen from the frame headers.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::net::http2_frames::{FrameHead, FrameReader, FrameStep, kind};

/// Bytes that begin a connection (RFC 9113 section 3.4).
const PREFACE: usize = 24;

/// Frames without content within [`PERIOD`], at most.
const MOST_FRAMES: u64 = 1000;

/// The period in which frames are counted.
const PERIOD: Duration = Duration::from_secs(10);

/// Bytes of answers for each of which one more WINDOW_UPDATE is accepted. Clients open their
/// windows for many times as much.
const BYTES_PER_UPDATE: u64 = 1024;

/// The frames of a connection.
#[derive(Debug)]
pub(super) struct FrameMeter {
    preface_left: usize,
    /// The first frame has begun.
    is_begun: bool,
    received: FrameReader,
    sent: FrameReader,
    period: Instant,
    /// Frames without content in the period.
    frames: u64,
    /// WINDOW_UPDATE frames in the period.
    updates: u64,
    /// The client has reset a stream.
    has_resets: bool,
    /// Bytes of answers sent in the period.
    content: u64,
    /// Begin of the head, or of another frame without content, that is incomplete.
    head_since: Option<Instant>,
    /// Answers begun and not ended, with the time of their last byte.
    unfinished: HashMap<u32, Instant>,
}

/// The meter of a connection, for its stream and its task; the lock never waits long.
#[derive(Debug, Clone)]
pub(super) struct SharedMeter(Arc<Mutex<FrameMeter>>);

impl SharedMeter {
    /// A meter of a connection accepted at `accepted`.
    pub(super) fn new(accepted: Instant) -> Self {
        Self(Arc::new(Mutex::new(FrameMeter {
            preface_left: PREFACE,
            is_begun: false,
            received: FrameReader::default(),
            sent: FrameReader::default(),
            period: accepted,
            frames: 0,
            updates: 0,
            has_resets: false,
            content: 0,
            head_since: Some(accepted),
            unfinished: HashMap::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, FrameMeter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FrameMeter {
    /// Begin of the incomplete head; `None`: no head is under way.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.head_since
    }

    /// True once the client has reset a stream.
    pub(super) fn has_resets(&self) -> bool {
        self.has_resets
    }

    /// True while an answer is incomplete.
    pub(super) fn is_answering(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Answers that are incomplete and had no byte sent since `before`.
    pub(super) fn stalled(&self, before: Instant) -> usize {
        self.unfinished.values().filter(|last| **last <= before).count()
    }

    /// Notes received bytes.
    ///
    /// # Errors
    /// The reason for ending the connection.
    fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<(), &'static str> {
        let preface = self.preface_left.min(bytes.len());
        self.preface_left -= preface;
        if now.duration_since(self.period) >= PERIOD {
            (self.period, self.frames, self.updates, self.content) = (now, 0, 0, 0);
        }
        let Self {
            is_begun, received, frames, updates, has_resets, head_since, unfinished, ..
        } = self;
        let mut has_settings = true;
        received.pass(&bytes[preface..], |step| match step {
            FrameStep::Begun => {
                head_since.get_or_insert(now);
            }
            FrameStep::Head(head) if !std::mem::replace(is_begun, true) => {
                has_settings = head.is_settings();
                *frames += 1;
            }
            FrameStep::Head(head) => match head.kind {
                // The time of a body has limits of its own.
                kind::DATA => {
                    *head_since = None;
                    *frames += u64::from(head.length == 0 && !head.ends_stream());
                }
                kind::HEADERS => {}
                kind::WINDOW_UPDATE => *updates += 1,
                kind::RST_STREAM => {
                    unfinished.remove(&head.stream);
                    *has_resets = true;
                    *frames += 1;
                }
                _ => *frames += 1,
            },
            FrameStep::Whole(head) => {
                if head.ends_head() || !(head.is_head() || head.kind == kind::DATA) {
                    *head_since = None;
                }
            }
        });
        if !has_settings {
            // hyper takes any frame (RFC 9113 section 3.4).
            return Err("the first frame has no settings");
        }
        let most_updates = MOST_FRAMES + self.content / BYTES_PER_UPDATE;
        if self.frames > MOST_FRAMES || self.updates > most_updates {
            return Err("too many frames without content");
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8], now: Instant) {
        let Self { sent, content, unfinished, .. } = self;
        sent.pass(bytes, |step| {
            let (head, is_whole) = match step {
                FrameStep::Begun => return,
                FrameStep::Head(head) => (head, false),
                FrameStep::Whole(head) => (head, true),
            };
            note_sent(unfinished, head, is_whole, now);
            if head.kind == kind::DATA && is_whole {
                *content += head.length as u64;
            }
        });
    }
}

fn note_sent(
    unfinished: &mut HashMap<u32, Instant>,
    head: FrameHead,
    is_whole: bool,
    now: Instant,
) {
    match head.kind {
        kind::HEADERS | kind::DATA if is_whole && head.ends_stream() => {
            unfinished.remove(&head.stream);
        }
        kind::HEADERS | kind::DATA => {
            unfinished.insert(head.stream, now);
        }
        kind::RST_STREAM => {
            unfinished.remove(&head.stream);
        }
        _ => {}
    }
}

/// A stream whose frames are metered. Reading fails when there are too many frames without content.
#[derive(Debug)]
pub(super) struct MeteredStream<S> {
    stream: S,
    meter: SharedMeter,
}

impl<S> MeteredStream<S> {
    pub(super) fn new(stream: S, meter: SharedMeter) -> Self {
        Self { stream, meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = &buffer.filled()[before..];
        let received = self.meter.lock().receive(read, Instant::now());
        Poll::Ready(received.map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.meter.lock().send(&bytes[..written], Instant::now());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        let (mut meter, now, mut left) = (self.meter.lock(), Instant::now(), written);
        for slice in slices {
            let part = left.min(slice.len());
            meter.send(&slice[..part], now);
            left -= part;
        }
        drop(meter);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
        bytes.extend(std::iter::repeat_n(0, length.into()));
        bytes
    }

    /// Passes the preface and the settings that follow it, which are counted as well.
    fn begin(meter: &mut FrameMeter, now: Instant) {
        meter.receive(&[b'P'; PREFACE], now).unwrap();
        meter.receive(&frame(4, 0, 0, 0), now).unwrap();
        meter.frames = 0;
    }

    #[test]
    fn a_connection_begins_with_settings() {
        let now = Instant::now();
        for (first, is_taken) in [
            (frame(4, 0, 0, 0), true),
            (frame(4, 0, 0, 6), true),
            (frame(4, 1, 0, 0), false),
            (frame(6, 0, 0, 8), false),
            (frame(1, 5, 1, 9), false),
        ] {
            let bytes = [&[b'P'; PREFACE][..], &first].concat();
            for size in [1, 5, PREFACE, 100] {
                let meter = SharedMeter::new(now);
                let mut meter = meter.lock();
                let taken = bytes.chunks(size).all(|part| meter.receive(part, now).is_ok());
                assert_eq!(taken, is_taken, "{first:?} by {size}");
            }
        }
    }

    #[test]
    fn frames_without_content_are_counted_in_periods() {
        for (kind, flags, length) in [
            (6, 0, 8),
            (6, 1, 8),
            (4, 0, 0),
            (3, 0, 4),
            (2, 0, 5),
            (0, 0, 0),
            (9, 0, 5),
            (99, 0, 1),
        ] {
            let now = Instant::now();
            let meter = SharedMeter::new(now);
            let mut meter = meter.lock();
            begin(&mut meter, now);
            let bytes = frame(kind, flags, 1, length);
            for at in 0..MOST_FRAMES {
                assert!(meter.receive(&bytes, now).is_ok(), "{kind}: {at}");
            }
            assert!(meter.receive(&bytes, now).is_err(), "{kind}");
            assert!(meter.receive(&bytes, now + PERIOD).is_ok(), "{kind}");
        }
    }

    #[test]
    fn requests_bodies_and_updates_for_sent_bytes_are_free() {
        let now = Instant::now();
        let meter = SharedMeter::new(now);
        let mut meter = meter.lock();
        begin(&mut meter, now);
        for _ in 0..5 * MOST_FRAMES {
            assert!(meter.receive(&frame(1, 5, 1, 9), now).is_ok());
            assert!(meter.receive(&frame(0, 0, 1, 9), now).is_ok());
            assert!(meter.receive(&frame(0, 1, 1, 0), now).is_ok());
        }
        for _ in 0..MOST_FRAMES {
            assert!(meter.receive(&frame(8, 0, 1, 4), now).is_ok());
        }
        assert!(meter.receive(&frame(8, 0, 1, 4), now).is_err());
        for _ in 0..50 {
            meter.send(&frame(0, 0, 1, 200), now);
        }
        assert!(meter.receive(&frame(8, 0, 1, 4), now).is_ok());
    }

    #[test]
    fn heads_are_timed_from_their_first_byte_to_their_last() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let meter = SharedMeter::new(start);
        let mut meter = meter.lock();
        assert_eq!(meter.head_since(), Some(start));
        meter.receive(&[b'P'; PREFACE], start).unwrap();
        assert_eq!(meter.head_since(), Some(start));
        meter.receive(&frame(4, 0, 0, 0), start).unwrap();
        assert_eq!(meter.head_since(), None);
        let (head, rest) = (frame(1, 1, 1, 5), frame(9, 4, 1, 5));
        meter.receive(&head[..1], later(1)).unwrap();
        assert_eq!(meter.head_since(), Some(later(1)));
        meter.receive(&head[1..], later(2)).unwrap();
        meter.receive(&rest[..rest.len() - 1], later(3)).unwrap();
        assert_eq!(meter.head_since(), Some(later(1)));
        meter.receive(&rest[rest.len() - 1..], later(4)).unwrap();
        assert_eq!(meter.head_since(), None);
        meter.receive(&frame(0, 0, 1, 9)[..12], later(5)).unwrap();
        assert_eq!(meter.head_since(), None, "a body has limits of its own");
    }

    #[test]
    fn answers_are_followed_to_their_end() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let meter = SharedMeter::new(start);
        let mut meter = meter.lock();
        meter.send(&frame(4, 0, 0, 0), start);
        assert!(!meter.is_answering());
        meter.send(&frame(1, 4, 1, 3), start);
        meter.send(&frame(1, 5, 3, 3), start);
        meter.send(&frame(1, 4, 5, 3), start);
        assert!(meter.is_answering());
        meter.send(&frame(0, 0, 1, 3), later(2));
        assert_eq!((meter.stalled(later(1)), meter.stalled(later(2))), (1, 2));
        begin(&mut meter, start);
        meter.receive(&frame(3, 0, 5, 4), later(2)).unwrap();
        meter.send(&frame(0, 1, 1, 3), later(3));
        assert!(!meter.is_answering());
    }
}
