//! Routes in items mode: a batch from start to finish.
//!
//! `read` identifies the batch, and from the records of its items `exchange` decides to replay,
//! wait or send. `batch_locks` are the in-process locks, `new_claim` claims the items, `claims`
//! records their outcome, `unsettled` settles unknown items on a retry, `forward` is the half
//! beyond the reach of a client's disconnect, and `response` writes the answers. The definitions of
//! a batch, of unsent items and of issued items are in `items`.

mod claim;
mod claims;
mod draft;
mod envelope;
mod forward;
mod ledger;
mod new_claim;
mod read;
mod remote;
mod response;
mod serialize;
#[cfg(test)]
mod tests;
mod unsettled;

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use self::claim::Start;
use self::read::{BatchInput, BatchRead, read};
use self::remote::{RemoteWait, follows};
use self::response::{in_progress, refused, replay, reused};
use super::answer::{AnswerResult, first_answer};
use super::incoming::Arrived;
use super::replay_memory;
use super::routing::Route;
use super::state::Gateway;
use crate::config::ItemsMode;
use crate::idempotency::RecordId;
use crate::items::BatchDecision;
use crate::observe::exchange;
use crate::proxy::batch_locks::ActiveBatch;

/// Maximum number of plans for an item in flight without a sender in sight: the sender may just
/// have ended.
const MAX_PLANS: usize = 3;

/// A request on a route in items mode.
pub(crate) async fn exchange(
    gateway: &Arc<Gateway>,
    route: &Arc<Route>,
    mode: &Arc<ItemsMode>,
    arrived: Box<Arrived<'_>>,
) -> AnswerResult {
    let routing = arrived.routing;
    let mut input = match read(gateway, route, mode, arrived).await? {
        BatchRead::Batch(input) => {
            note(input.ids.len(), input.ids.first());
            input
        }
        BatchRead::Cached(merged) => {
            note(merged.items, merged.first.as_ref());
            route.metrics.prevented(merged.items);
            let replay = response::replay_cached(mode, &merged, None);
            return replay_memory::counted(&gateway.budget, replay);
        }
        BatchRead::Refused(error) => return refused(mode, error),
    };
    let end = Instant::now() + mode.duplicates.wait;
    let mut plans = 0;
    // Most batches are new: the claim is tried without a read, and the records are read after a
    // lost claim.
    let mut have_read = route.settle.is_some();
    let mut is_settled = route.settle.is_none();
    let mut waiting = None;
    let mut remote = RemoteWait::default();
    loop {
        let dropped = gateway.cache.generation();
        let records = match have_read {
            true => ledger::read(gateway, &input.ids).await?,
            false => ledger::unread(&input.ids),
        };
        let mut plan = ledger::plan(&input.batch, &records, gateway.store.expiry_time());
        if !is_settled {
            // Once: a step that decided nothing has its next time.
            is_settled = true;
            if Box::pin(unsettled::settle(gateway, route, &input, &plan, end)).await {
                continue;
            }
        }
        unsettled::plan_repeats(gateway, route, (&mut plan, &records));
        let sending = match plan.decision() {
            BatchDecision::Reused { item } => return reused(mode, &mut input, &records, item),
            BatchDecision::Replay => {
                route.metrics.prevented(input.batch.items.len());
                return replay(gateway, (route, mode), &input, &records, dropped);
            }
            BatchDecision::Send => {
                let hold = gateway.locks.hold(input.names(&plan));
                match hold
                    .map(|hold| (hold, forward::CallPermits::take(gateway, routing, input.tenant)))
                {
                    Ok((hold, Ok(permits))) => {
                        // The wait is over: the permit is for batches still waiting.
                        drop(waiting.take());
                        let (first, answered) = oneshot::channel();
                        let start = Start { input, records, plan, until: end };
                        let responder = forward::BatchResponder { hold, first };
                        let rules = (route.clone(), mode.clone());
                        forward::lead(gateway, rules, start, responder, permits);
                        let within = mode.duplicates.answer_within;
                        return first_answer(answered, within).await;
                    }
                    // A completed batch needs neither locks nor permits, so the records are read
                    // first.
                    Ok((_, Err(_))) | Err(_) if !have_read => {
                        have_read = true;
                        continue;
                    }
                    Ok((_, Err(problem))) => return Err(problem),
                    Err(sending) => Holder::Local(sending),
                }
            }
            BatchDecision::InFlight { item } => match gateway.locks.holder(&input.ids[item]) {
                Some(sending) => Holder::Local(sending),
                None if follows(gateway, &mut remote, &input, &records, item) => Holder::Remote,
                None => {
                    plans += 1;
                    if plans < MAX_PLANS {
                        continue;
                    }
                    return held(route, mode, &input);
                }
            },
        };
        // The records are read anew after the wait.
        drop(records);
        if waiting.is_none() {
            waiting = if mode.duplicates.wait.is_zero() {
                None
            } else {
                route.waiters.try_acquire().ok()
            };
            if waiting.is_none() {
                return held(route, mode, &input);
            }
        }
        input.digests = None;
        let ended = async {
            match &sending {
                Holder::Local(sending) => sending.ended().await,
                Holder::Remote => remote.changed(gateway).await,
            }
        };
        if timeout_at(end, ended).await.is_err() {
            return held(route, mode, &input);
        }
        plans = 0;
    }
}

/// Notes a batch for the lines of its exchange.
fn note(items: usize, first: Option<&RecordId>) {
    exchange::note(|span| {
        span.set_items(items);
        if let Some(first) = first {
            span.set_record(first.as_bytes());
        }
    });
}

/// The answer to a batch of which an item is in flight; nothing of the batch was sent.
fn held(route: &Route, mode: &ItemsMode, input: &BatchInput) -> AnswerResult {
    route.metrics.prevented(input.batch.items.len());
    in_progress(mode)
}

/// Holder of the items awaited by a batch.
enum Holder {
    /// A batch of this process.
    Local(Arc<ActiveBatch>),
    /// A batch of another process.
    Remote,
}
