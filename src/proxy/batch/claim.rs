//! Claiming what a batch is to send, against whoever else wants to send the same.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::claims::{self, ClaimResult, ClaimedItems};
use super::ledger::{self, Records};
use super::read::BatchInput;
use super::remote::{RemoteWait, follows};
use super::response::{parallel, replay, reused};
use crate::config::ItemsMode;
use crate::items::{self, BatchDecision, BatchPlan, ItemDecision};
use crate::problem::Problem;
use crate::proxy::answer::AnswerResult;
use crate::proxy::reply;
use crate::proxy::request::claim::MAX_TRIES;
use crate::proxy::request::read as intake;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;

/// A batch on its way to its claim.
pub(crate) struct Claiming<'a> {
    pub(crate) gateway: &'a Arc<Gateway>,
    pub(crate) route: &'a Route,
    pub(crate) mode: &'a ItemsMode,
    pub(crate) start: Start,
}

impl Claiming<'_> {
    /// Claims what is missing, or says what the records have become meanwhile; gives the claim and
    /// the body to send. What another process is sending is waited for.
    pub(crate) async fn claim(&mut self) -> Result<(ClaimedItems, Bytes), AnswerResult> {
        let (gateway, mode) = (self.gateway, self.mode);
        let mut elsewhere = RemoteWait::default();
        let mut dropped = gateway.hot.generation();
        let mut tries = 0;
        while tries < MAX_TRIES {
            let Start { intake, records, plan, .. } = &mut self.start;
            let waits = match plan.decision() {
                BatchDecision::Send => {
                    let body = body_to_send(mode, intake, plan).map_err(Err)?;
                    let claim = claims::claim(gateway, intake, self.route, mode, (plan, records));
                    match claim.await {
                        Ok(ClaimResult::Made(claimed)) => return Ok((claimed, body)),
                        Ok(ClaimResult::Lost) => None,
                        Ok(ClaimResult::NotItsTurn { id, owner }) => {
                            Some(elsewhere.follow(gateway, id, owner))
                        }
                        Err(problem) => return Err(self.without_a_claim(problem, dropped).await),
                    }
                }
                BatchDecision::InFlight { item } => {
                    Some(follows(gateway, &mut elsewhere, intake, records, item))
                }
                BatchDecision::Reused { item } => return Err(reused(mode, intake, records, item)),
                BatchDecision::Replay => {
                    return Err(replay(gateway, mode, intake, records, dropped));
                }
            };
            match waits {
                None => tries += 1,
                Some(true) if self.wait(&mut elsewhere).await => {}
                Some(_) => return Err(parallel(mode, reply::RETRY_LATER)),
            }
            dropped = gateway.hot.generation();
            self.look().await.map_err(Err)?;
        }
        tracing::error!("the records of a batch kept changing; nothing was sent");
        Err(Err(reply::store_unavailable()))
    }

    /// Reads the records and plans anew.
    async fn look(&mut self) -> Result<(), Problem> {
        let Start { intake, records, plan, .. } = &mut self.start;
        *records = ledger::read(self.gateway, &intake.ids).await?;
        *plan = ledger::plan(&intake.batch, records, self.gateway.store.now());
        Ok(())
    }

    /// The answer of a batch that cannot be claimed: a disk without room for claims can be read all
    /// the same. One on a server that did not answer is not asked again.
    async fn without_a_claim(&mut self, problem: Problem, dropped: u64) -> AnswerResult {
        if self.gateway.store.is_shared() || self.look().await.is_err() {
            return Err(problem);
        }
        let Start { intake, records, plan, .. } = &self.start;
        match plan.decision() {
            BatchDecision::Replay => replay(self.gateway, self.mode, intake, records, dropped),
            BatchDecision::Send | BatchDecision::InFlight { .. } | BatchDecision::Reused { .. } => {
                Err(problem)
            }
        }
    }

    /// Waits until what is followed may have changed, at most as long as the client would; says
    /// whether it may.
    async fn wait(&self, elsewhere: &mut RemoteWait) -> bool {
        let Ok(_waiting) = self.route.waiters.try_acquire() else {
            return false;
        };
        timeout_at(self.start.until, elsewhere.changed(self.gateway)).await.is_ok()
    }
}

/// The body upstream; that of the client where nothing changes.
pub(crate) fn body_to_send(
    mode: &ItemsMode,
    intake: &mut BatchInput,
    plan: &BatchPlan,
) -> Result<Bytes, Problem> {
    let whole = &mut intake.whole;
    let whole_item = |(part, item): (&ItemDecision, &items::batch::Item)| {
        *part == ItemDecision::Send(item.quantity)
    };
    if plan.items.iter().zip(&intake.batch.items).all(whole_item) {
        return Ok(whole.body.clone());
    }
    let Some(body) = plan.body(&mode.rules, &intake.batch, &whole.body) else {
        tracing::error!("a batch could not be reduced; nothing was sent");
        return Err(reply::store_unavailable());
    };
    if !whole.reservation.grow(body.len() as u64) {
        return Err(intake::out_of_memory());
    }
    Ok(Bytes::from(body))
}

/// A batch that has something to send.
pub(crate) struct Start {
    pub(crate) intake: Box<BatchInput>,
    pub(crate) records: Records,
    pub(crate) plan: BatchPlan,
    /// Until when it may wait for what other processes are sending.
    pub(crate) until: Instant,
}
