//! What the chapters are written with: a gateway that is the real binary, a backend that does what
//! it is told and counts, and a client that sends exact bytes.
//!
//! Nothing here sleeps to wait for something: a chapter waits for a condition (a request seen, a
//! line printed, a gate opened), and every wait has an end.

pub(crate) mod admin;
mod authorization;
pub(crate) mod backend;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod http2;
pub(crate) mod issuer;
pub(crate) mod metrics;
pub(crate) mod programs;
pub(crate) mod relay;
pub(crate) mod reply;
pub(crate) mod rewards;
pub(crate) mod rng;
mod rounds;
pub(crate) mod shared;
pub(crate) mod tills;

use std::time::{Duration, Instant};

pub(crate) use admin::{AdminClient, TOKEN};
pub(crate) use backend::{Backend, Seen};
pub(crate) use client::{Conn, Request, Response};
pub(crate) use gateway::{Gateway, Setup};
pub(crate) use reply::{Act, Gate, answer};
pub(crate) use rewards::Rewards;
pub(crate) use rounds::rounds;
pub(crate) use shared::{Kind, Shop};

/// The longest any test waits for something that must happen.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(30);

/// Polls until `condition` gives something, with a short back-off.
///
/// # Panics
/// The condition gave nothing within [`WAIT_LIMIT`].
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + WAIT_LIMIT;
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "gave up waiting: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Runs `work` in `count` threads at once and gives their results in order.
pub(crate) fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|index| {
                let (work, start) = (&work, &start);
                scope.spawn(move || {
                    start.wait();
                    work(index)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
