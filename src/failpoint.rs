//! Failpoints: positions at which tests kill or stop a debug build, to prove the state left behind.
//! Release builds contain none.
//!
//! `ONCEGATE_CRASH_AT=after-claim:3` kills the process with SIGKILL at the third passage,
//! `ONCEGATE_PAUSE_AT=after-claim:3` stops the process there with SIGSTOP.

#[cfg(debug_assertions)]
use std::sync::OnceLock;
#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicI64, Ordering};

#[cfg(debug_assertions)]
use rustix::process::Signal;

/// A failpoint, in the order of a new request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before the claim is handed to the store.
    BeforeClaim,
    /// The claim is durable, and the request was not sent.
    AfterClaim,
    /// The backend has the request, and the head of its answer has arrived.
    AfterDispatch,
    /// The complete answer has arrived and is not stored yet.
    AfterAnswer,
    /// The outcome is durable, and the client has no answer yet.
    AfterCompletion,
    /// The claim of a step of a settlement is durable, and nothing was sent.
    SettleClaimed,
    /// The step's answer has arrived and is not stored yet.
    SettleAnswered,
    /// The step's result is durable.
    SettleRecorded,
    /// The embedded store's log switches to its second file.
    AfterRotation,
    /// The embedded store is about to checkpoint a generation.
    BeforeCheckpoint,
    /// The entries of a checkpoint are partly written.
    DuringCheckpoint,
    /// The checkpoint is durable; the file of the log can be overwritten.
    AfterCheckpoint,
    /// Files of the table were merged.
    AfterCompaction,
}

/// Size of a file of the embedded store's log. In a debug build, `ONCEGATE_LOG_SEGMENT=65536` sets
/// a smaller size, so that a test fills several files.
pub fn log_segment(usual: u64) -> u64 {
    #[cfg(debug_assertions)]
    {
        static LESS: OnceLock<Option<u64>> = OnceLock::new();
        let read = || std::env::var("ONCEGATE_LOG_SEGMENT").ok()?.parse().ok();
        if let Some(less) = *LESS.get_or_init(read) {
            return less;
        }
    }
    usual
}

/// Upper bound for the delivery of a signal to the own process.
#[cfg(debug_assertions)]
const SIGNAL_TAKES: std::time::Duration = std::time::Duration::from_millis(500);

/// An order of the environment to act at a failpoint.
#[cfg(debug_assertions)]
struct Order {
    place: String,
    /// Passages left until the order applies.
    left: AtomicI64,
}

#[cfg(debug_assertions)]
impl Order {
    fn read(variable: &str) -> Option<Self> {
        let order = std::env::var(variable).ok()?;
        let (place, passage) = order.split_once(':')?;
        Some(Self { place: place.to_owned(), left: AtomicI64::new(passage.parse().ok()?) })
    }

    fn pass(&self, place: &str, signal: Signal) {
        if self.place == place && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, signal);
            // Any thread of the process may receive the signal; the current thread must not
            // continue before.
            std::thread::sleep(SIGNAL_TAKES);
        }
    }
}

/// Kills or stops the process at this point if the environment requests so.
#[cfg(debug_assertions)]
pub fn point(here: Point) {
    static ORDERS: OnceLock<[(Option<Order>, Signal); 2]> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        [
            (Order::read("ONCEGATE_CRASH_AT"), Signal::KILL),
            (Order::read("ONCEGATE_PAUSE_AT"), Signal::STOP),
        ]
    });
    let place = match here {
        Point::BeforeClaim => "before-claim",
        Point::AfterClaim => "after-claim",
        Point::AfterDispatch => "after-dispatch",
        Point::AfterAnswer => "after-answer",
        Point::AfterCompletion => "after-completion",
        Point::SettleClaimed => "settle-claimed",
        Point::SettleAnswered => "settle-answered",
        Point::SettleRecorded => "settle-recorded",
        Point::AfterRotation => "after-rotation",
        Point::BeforeCheckpoint => "before-checkpoint",
        Point::DuringCheckpoint => "during-checkpoint",
        Point::AfterCheckpoint => "after-checkpoint",
        Point::AfterCompaction => "after-compaction",
    };
    for (order, signal) in orders {
        if let Some(order) = order {
            order.pass(place, *signal);
        }
    }
}

/// Does nothing in a release build.
#[cfg(not(debug_assertions))]
pub fn point(_here: Point) {}
