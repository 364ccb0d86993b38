//! The way of log lines to standard error: through a bounded queue to a thread of their own, so
//! that a log collector that stands still holds up no request. Lines that find no room are dropped
//! and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use super::format::LineFormat;
use super::line::LogLine;

/// Lines that wait to be written, at most.
const QUEUE: usize = 8192;
/// Bytes of lines that are written at once, at most.
const BATCH: usize = 64 << 10;
/// Time for the last lines to be written at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The thread that writes; `None`: lines are written by whoever logs them, as before the start of
/// the log and after its end.
static WRITER: Mutex<Option<LogWriter>> = Mutex::new(None);
/// Lines that were dropped since the last line about them.
static LOST: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct LogWriter {
    lines: SyncSender<String>,
    /// Ends with the thread.
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

/// Starts the thread. Without a thread, lines are written by whoever logs them.
pub(super) fn start(format: LineFormat) {
    let (lines, queue) = sync_channel(QUEUE);
    let (end, ended) = sync_channel(1);
    let thread = std::thread::Builder::new().name("oncegate-log".to_owned());
    let thread = thread.spawn(move || {
        let _end: SyncSender<()> = end;
        write_queued(&queue, format);
    });
    if let Ok(thread) = thread {
        let writer = LogWriter { lines, ended, thread };
        *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
    }
}

/// Writes the queued lines, and ends the thread; waits for a second at most.
pub(super) fn finish() {
    let writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(LogWriter { lines, ended, thread }) = writer else { return };
    drop(lines);
    if ended.recv_timeout(LAST_LINES) == Err(RecvTimeoutError::Disconnected) {
        let _ = thread.join();
    }
}

/// Queues a line, line feed included.
pub(super) fn write(line: String) {
    let writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
    match &*writer {
        Some(writer) => {
            if writer.lines.try_send(line).is_err() {
                LOST.fetch_add(1, Ordering::Relaxed);
            }
        }
        None => write_now(&line),
    }
}

fn write_now(lines: &str) {
    // A log that cannot be written ends no request.
    let _ = io::stderr().lock().write_all(lines.as_bytes());
}

/// Writes the lines of the queue until its senders are gone.
fn write_queued(queue: &Receiver<String>, format: LineFormat) {
    let mut batch = String::new();
    while let Ok(first) = queue.recv() {
        batch.clear();
        batch.push_str(&first);
        while batch.len() < BATCH {
            let Ok(next) = queue.try_recv() else { break };
            batch.push_str(&next);
        }
        if let times @ 1.. = LOST.swap(0, Ordering::Relaxed) {
            let what = "lines of the log were lost: standard error takes them too slowly";
            let mut line = LogLine::new(Level::WARN, what);
            line.add("times", times);
            batch.push_str(&line.render(format.format, format.color));
        }
        write_now(&batch);
    }
}

/// The writer of the events of the program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue;

impl MakeWriter<'_> for Queue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl Write for Queue {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
