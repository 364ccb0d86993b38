//! The load and the group commit, the same for every engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::{Engine, Write};
use crate::Failure;

/// What was done in the time given.
pub(crate) struct Done {
    pub(crate) requests: u64,
    pub(crate) batches: u64,
    pub(crate) elapsed: Duration,
}

type Order = (Write, oneshot::Sender<()>);

/// Runs `writers` tasks for `seconds`, each making two durable writes per request, on one thread; the
/// engine gets a thread of its own.
pub(crate) fn drive(
    engine: Box<dyn Engine>,
    writers: usize,
    seconds: f64,
) -> Result<Done, Failure> {
    let (orders, inbox) = mpsc::channel(writers * 2);
    let writer = std::thread::spawn(move || commit_in_groups(engine, inbox));
    let requests = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let tasks: Vec<_> = (0..writers as u64)
            .map(|id| {
                tokio::spawn(client(id, orders.clone(), Arc::clone(&requests), Arc::clone(&stop)))
            })
            .collect();
        drop(orders);
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await?.ok_or("the writer thread ended")?;
        }
        Ok::<_, Failure>(())
    })?;
    let elapsed = start.elapsed();
    let batches = writer.join().map_err(|_| "the writer thread panicked")??;
    Ok(Done { requests: requests.load(Ordering::Relaxed), batches, elapsed })
}

async fn client(
    id: u64,
    orders: mpsc::Sender<Order>,
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Option<()> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = key(id << 40 | number);
        for claim in [true, false] {
            let (reply, durable) = oneshot::channel();
            let value = value(number, if claim { CLAIM } else { RECORD });
            orders.send((Write { key, value, claim }, reply)).await.ok()?;
            durable.await.ok()?;
        }
        number += 1;
        requests.fetch_add(1, Ordering::Relaxed);
    }
    Some(())
}

/// Takes whatever waits as one batch.
fn commit_in_groups(
    mut engine: Box<dyn Engine>,
    mut inbox: mpsc::Receiver<Order>,
) -> Result<u64, Failure> {
    let (mut batch, mut replies, mut batches) = (Vec::new(), Vec::new(), 0);
    while let Some((write, reply)) = inbox.blocking_recv() {
        batch.push(write);
        replies.push(reply);
        while let Ok((write, reply)) = inbox.try_recv() {
            batch.push(write);
            replies.push(reply);
        }
        engine.commit(&batch)?;
        batches += 1;
        batch.clear();
        for reply in replies.drain(..) {
            let _ = reply.send(());
        }
    }
    Ok(batches)
}

/// Sizes of a stored claim and of a completed record, in bytes.
pub(crate) const CLAIM: usize = 150;
pub(crate) const RECORD: usize = 600;

/// Keys are digests in the gateway, hence spread evenly; so are these.
pub(crate) fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix(number).to_be_bytes());
    key[8..].copy_from_slice(&mix(!number).to_be_bytes());
    key
}

/// A value that compresses about as well as a record: half text that repeats, half digits that do not.
pub(crate) fn value(number: u64, length: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(length + 64);
    let mut seed = number;
    while value.len() < length {
        seed = mix(seed);
        value.extend_from_slice(br#"{"redemption":"rdm_"#);
        value.extend_from_slice(format!("{seed:016x}").as_bytes());
    }
    value.truncate(length);
    value
}

/// The finalizer of splitmix64: a bijection that looks random.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
