//! Routes in items mode: one batch from start to finish.
//!
//! This file reads the batch and decides from the records of its items whether it is answered from
//! them, waits, or is sent; `busy` knows which items are being sent in this process, `records`
//! claims them and records what became of them, `call` is the half that a client's disconnect
//! cannot cancel, `told` writes the answers. What a batch is, what is still to send and what was
//! issued is decided in `items`.

mod claim;
mod claims;
mod forward;
mod ledger;
mod read;
mod remote;
mod response;
mod serialize;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use self::claim::Start;
use self::read::{BatchRead, read};
use self::remote::{RemoteWait, follows};
use self::response::{parallel, refused, replay, reused};
use super::answer::{AnswerResult, first_answer};
use super::incoming::Arrived;
use super::reply;
use super::routing::Route;
use super::state::Gateway;
use crate::config::ItemsMode;
use crate::items::BatchDecision;
use crate::proxy::batch_locks::ActiveBatch;

/// How often a batch is planned anew when an item is in flight and nobody here is sending it: the
/// sender may just have ended.
const MAX_LOOKS: usize = 3;

/// A request on a route in items mode.
pub(crate) async fn exchange(
    gateway: &Arc<Gateway>,
    route: &Arc<Route>,
    mode: &Arc<ItemsMode>,
    arrived: Box<Arrived<'_>>,
) -> AnswerResult {
    let routing = arrived.routing;
    let mut intake = match read(gateway, route, mode, arrived).await? {
        BatchRead::Batch(intake) => intake,
        BatchRead::Known(merged) => return response::again(mode, &merged, None),
        BatchRead::Refused(error) => return refused(mode, error),
    };
    let end = Instant::now() + mode.duplicates.wait;
    let mut looks = 0;
    // Most batches are new: their claim is tried at once, and when it loses, the records are read.
    let mut looked = false;
    let mut waiting = None;
    let mut elsewhere = RemoteWait::default();
    loop {
        let dropped = gateway.hot.generation();
        let records = match looked {
            true => ledger::read(gateway, &intake.ids).await?,
            false => ledger::unread(&intake.ids),
        };
        let plan = ledger::plan(&intake.batch, &records, gateway.store.now());
        let sending = match plan.decision() {
            BatchDecision::Reused { item } => return reused(mode, &mut intake, &records, item),
            BatchDecision::Replay => return replay(gateway, mode, &intake, &records, dropped),
            BatchDecision::Send => {
                let hold = gateway.busy.hold(intake.names(&plan));
                match hold
                    .map(|hold| (hold, forward::CallPermits::take(gateway, routing, intake.tenant)))
                {
                    Ok((hold, Ok(places))) => {
                        // Its turn has come: the place is for those who still wait.
                        drop(waiting.take());
                        let (first, answered) = oneshot::channel();
                        let start = Start { intake, records, plan, until: end };
                        let conclusion = forward::BatchResponder { hold, first };
                        let rules = (route.clone(), mode.clone());
                        forward::lead(gateway, rules, start, conclusion, places);
                        let within = mode.duplicates.answer_within;
                        return first_answer(answered, within).await;
                    }
                    // One that is done needs neither a turn nor a place.
                    Ok((_, Err(_))) | Err(_) if !looked => {
                        looked = true;
                        continue;
                    }
                    Ok((_, Err(problem))) => return Err(problem),
                    Err(sending) => Holder::Local(sending),
                }
            }
            BatchDecision::InFlight { item } => match gateway.busy.holder(&intake.ids[item]) {
                Some(sending) => Holder::Local(sending),
                None if follows(gateway, &mut elsewhere, &intake, &records, item) => Holder::Remote,
                None => {
                    looks += 1;
                    if looks < MAX_LOOKS {
                        continue;
                    }
                    return parallel(mode, reply::RETRY_LATER);
                }
            },
        };
        // They are read anew after the wait.
        drop(records);
        if waiting.is_none() {
            waiting = if mode.duplicates.wait.is_zero() {
                None
            } else {
                route.waiters.try_acquire().ok()
            };
            if waiting.is_none() {
                return parallel(mode, sending.rest());
            }
        }
        intake.digests = None;
        let ended = async {
            match &sending {
                Holder::Local(sending) => sending.ended().await,
                Holder::Remote => elsewhere.changed(gateway).await,
            }
        };
        if timeout_at(end, ended).await.is_err() {
            return parallel(mode, sending.rest());
        }
        looks = 0;
    }
}

/// Holder of what a batch waits for.
enum Holder {
    /// A batch of this process.
    Local(Arc<ActiveBatch>),
    /// A batch of another process.
    Remote,
}

impl Holder {
    /// When its batch may be expected to end: one that has run for some time is given as much
    /// again.
    fn rest(&self) -> Duration {
        let Self::Local(sending) = self else { return reply::RETRY_LATER };
        sending.started.elapsed().clamp(Duration::from_secs(1), Duration::from_secs(30))
    }
}
