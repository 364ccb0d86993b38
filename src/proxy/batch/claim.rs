//! Claims of a batch's unsent items, in competition with other batches of the same items.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::claims::ClaimedItems;
use super::ledger::{self, Records};
use super::new_claim::{self, ClaimResult};
use super::read::BatchInput;
use super::remote::{RemoteWait, follows};
use super::response::{in_progress, replay, reused};
use super::unsettled;
use crate::config::ItemsMode;
use crate::items::{self, BatchDecision, BatchPlan, ItemDecision};
use crate::problem::Problem;
use crate::proxy::answer::AnswerResult;
use crate::proxy::reply;
use crate::proxy::request::refusals;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;
use crate::settle::transition::MAX_TRIES;

/// A batch before its claim.
pub(crate) struct Claiming<'a> {
    pub(crate) gateway: &'a Arc<Gateway>,
    pub(crate) route: &'a Route,
    pub(crate) mode: &'a ItemsMode,
    pub(crate) start: Start,
}

impl Claiming<'_> {
    /// Claims the unsent items; returns the claim and the body to send, or the reply of the changed
    /// records. Items in flight in another process are awaited.
    pub(crate) async fn claim(&mut self) -> Result<(ClaimedItems, Bytes), AnswerResult> {
        let (gateway, mode) = (self.gateway, self.mode);
        let mut remote = RemoteWait::default();
        let mut dropped = gateway.cache.generation();
        let mut tries = 0;
        while tries < MAX_TRIES {
            let Start { input, records, plan, .. } = &mut self.start;
            let waits = match plan.decision() {
                BatchDecision::Send => {
                    let rules = (self.route, mode);
                    let body = body_to_send(rules, input, plan).map_err(Err)?;
                    let claim = new_claim::claim(gateway, input, self.route, mode, (plan, records));
                    match claim.await {
                        Ok(ClaimResult::Made(claimed)) => return Ok((claimed, body)),
                        Ok(ClaimResult::Lost) => None,
                        Ok(ClaimResult::Locked { id, owner }) => {
                            Some(remote.follow(gateway, id, owner))
                        }
                        Err(problem) => return Err(self.without_a_claim(problem, dropped).await),
                    }
                }
                BatchDecision::InFlight { item } => {
                    Some(follows(gateway, &mut remote, input, records, item))
                }
                BatchDecision::Reused { item } => return Err(reused(mode, input, records, item)),
                BatchDecision::Replay => {
                    let rules = (self.route, mode);
                    return Err(replay(gateway, rules, input, records, dropped));
                }
            };
            match waits {
                None => tries += 1,
                Some(true) if self.wait(&mut remote).await => {}
                Some(_) => return Err(in_progress(mode)),
            }
            dropped = gateway.cache.generation();
            self.read_records().await.map_err(Err)?;
        }
        tracing::error!(
            "the records of a batch kept changing during the claim; the batch was not sent"
        );
        Err(Err(reply::store_unavailable()))
    }

    /// Reads the records and plans anew.
    async fn read_records(&mut self) -> Result<(), Problem> {
        let Start { input, records, plan, .. } = &mut self.start;
        *records = ledger::read(self.gateway, &input.ids).await?;
        *plan = ledger::plan(&input.batch, records, self.gateway.store.expiry_time());
        unsettled::plan_repeats(self.gateway, self.route, (plan, records));
        Ok(())
    }

    /// The reply after a failed claim. A local disk without room for claims is still readable. A
    /// server that just failed to respond is not queried a second time.
    async fn without_a_claim(&mut self, problem: Problem, dropped: u64) -> AnswerResult {
        if self.gateway.store.is_shared() || self.read_records().await.is_err() {
            return Err(problem);
        }
        let Start { input, records, plan, .. } = &self.start;
        match plan.decision() {
            BatchDecision::Replay => {
                replay(self.gateway, (self.route, self.mode), input, records, dropped)
            }
            BatchDecision::Send | BatchDecision::InFlight { .. } | BatchDecision::Reused { .. } => {
                Err(problem)
            }
        }
    }

    /// Waits for a change of the followed record, at most as long as the client would; returns true
    /// after a change.
    async fn wait(&self, remote: &mut RemoteWait) -> bool {
        let Ok(_waiting) = self.route.waiters.try_acquire() else {
            return false;
        };
        timeout_at(self.start.until, remote.changed(self.gateway)).await.is_ok()
    }
}

/// The body for the upstream: the client's own if every item is sent unchanged.
pub(crate) fn body_to_send(
    (route, mode): (&Route, &ItemsMode),
    input: &mut BatchInput,
    plan: &BatchPlan,
) -> Result<Bytes, Problem> {
    let buffered = &mut input.buffered;
    let mark = route.settle.as_ref().map_or(&[][..], |settle| settle.item_mark());
    let unchanged = |(part, item): (&ItemDecision, &items::batch::Item)| match part {
        ItemDecision::Send(units) => *units == item.quantity,
        ItemDecision::Repeat(units) => *units == item.quantity && mark.is_empty(),
        ItemDecision::Settled
        | ItemDecision::Unknown
        | ItemDecision::InFlight
        | ItemDecision::Reused => false,
    };
    if plan.items.iter().zip(&input.batch.items).all(unchanged) {
        return Ok(buffered.body.clone());
    }
    let Some(body) = plan.body(&mode.rules, &input.batch, (&buffered.body, mark)) else {
        tracing::error!(
            "the body of a batch could not be reduced to its unsent items; it was not sent"
        );
        return Err(reply::store_unavailable());
    };
    if !buffered.reservation.grow(body.len() as u64) {
        return Err(refusals::out_of_memory());
    }
    Ok(Bytes::from(body))
}

/// A batch with at least a single item to send.
pub(crate) struct Start {
    pub(crate) input: Box<BatchInput>,
    pub(crate) records: Records,
    pub(crate) plan: BatchPlan,
    /// Deadline for waiting on other processes.
    pub(crate) until: Instant,
}
