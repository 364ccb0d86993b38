//! Places where a debug build can be told to die, so that tests can prove what a crash there
//! leaves behind. Release builds contain none of this.
//!
//! `ONCEGATE_CRASH_AT=after-claim:3` ends the process with SIGKILL at the third passage.

/// The places, in the order a fresh request passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before the claim is handed to the store.
    BeforeClaim,
    /// The claim is durable, nothing was sent.
    AfterClaim,
    /// The backend has the request, and the head of its answer is here.
    AfterDispatch,
    /// The whole answer is here, not yet stored.
    AfterAnswer,
    /// The outcome is durable, the client has not been told.
    AfterCompletion,
}

/// Dies here when the environment says so.
#[cfg(debug_assertions)]
pub fn point(here: Point) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};

    static ORDER: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    let order = ORDER.get_or_init(|| {
        let order = std::env::var("ONCEGATE_CRASH_AT").ok()?;
        let (place, passage) = order.split_once(':')?;
        Some((place.to_owned(), AtomicI64::new(passage.parse().ok()?)))
    });
    let Some((place, left)) = order else { return };
    let name = match here {
        Point::BeforeClaim => "before-claim",
        Point::AfterClaim => "after-claim",
        Point::AfterDispatch => "after-dispatch",
        Point::AfterAnswer => "after-answer",
        Point::AfterCompletion => "after-completion",
    };
    if place == name && left.fetch_sub(1, Ordering::SeqCst) == 1 {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
pub fn point(_here: Point) {}
