//! Claiming what a batch is to send, against whoever else wants to send the same.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::timeout_at;

use super::call::Start;
use super::elsewhere::Elsewhere;
use super::records::{self, Claim, ClaimedItems};
use super::{Intake, follows, parallel, reused, told};
use crate::config::ItemsMode;
use crate::items::{self, Part, Plan, Verdict};
use crate::problem::Problem;
use crate::proxy::claimed::MAX_TRIES;
use crate::proxy::exchange::Answer;
use crate::proxy::{Gateway, intake, outcome};

/// A batch on its way to its claim.
pub(super) struct Claiming<'a> {
    pub(super) gateway: &'a Arc<Gateway>,
    pub(super) mode: &'a ItemsMode,
    pub(super) start: Start,
}

impl Claiming<'_> {
    /// Claims what is missing, or says what the records have become meanwhile; gives the claim and
    /// the body to send. What another process is sending is waited for.
    pub(super) async fn claim(&mut self) -> Result<(ClaimedItems, Bytes), Answer> {
        let (gateway, mode) = (self.gateway, self.mode);
        let mut elsewhere = Elsewhere::default();
        let mut tries = 0;
        while tries < MAX_TRIES {
            let Start { route, intake, records, plan, .. } = &mut self.start;
            let waits = match plan.verdict() {
                Verdict::Send => {
                    let body = body_to_send(mode, intake, plan).map_err(Err)?;
                    let claim = records::claim(gateway, intake, *route, mode, (plan, records));
                    match claim.await.map_err(Err)? {
                        Claim::Made(claimed) => return Ok((claimed, body)),
                        Claim::Lost => None,
                        Claim::NotItsTurn { id, owner } => {
                            Some(elsewhere.follow(gateway, id, owner))
                        }
                    }
                }
                Verdict::InFlight { item } => {
                    Some(follows(gateway, &mut elsewhere, intake, records, item))
                }
                Verdict::Reused { item } => return Err(reused(mode, intake, records, item)),
                Verdict::Replay => {
                    let memory = told::memory(gateway, records).map_err(Err)?;
                    return Err(told::merged(mode, &intake.batch, records, None, Some(memory)));
                }
            };
            match waits {
                None => tries += 1,
                Some(true) if self.wait(&mut elsewhere).await => {}
                Some(_) => return Err(parallel(mode, outcome::RETRY_LATER)),
            }
            let Start { intake, records, plan, .. } = &mut self.start;
            *records = records::read(gateway, &intake.ids).await.map_err(Err)?;
            *plan = records::plan(&intake.batch, records, gateway.store.now());
        }
        tracing::error!("the records of a batch kept changing; nothing was sent");
        Err(Err(outcome::store_unavailable()))
    }

    /// Waits until what is followed may have changed, at most as long as the client would; says
    /// whether it may.
    async fn wait(&self, elsewhere: &mut Elsewhere) -> bool {
        let Some(_waiting) = self.gateway.waiters[self.start.route].take() else { return false };
        timeout_at(self.start.until, elsewhere.changed(self.gateway)).await.is_ok()
    }
}

/// The body upstream; that of the client where nothing changes.
fn body_to_send(mode: &ItemsMode, intake: &mut Intake, plan: &Plan) -> Result<Bytes, Problem> {
    let whole = &mut intake.whole;
    let whole_item =
        |(part, item): (&Part, &items::batch::Item)| *part == Part::Send(item.quantity);
    if plan.parts.iter().zip(&intake.batch.items).all(whole_item) {
        return Ok(whole.body.clone());
    }
    let Some(body) = plan.body(&mode.rules, &intake.batch, &whole.body) else {
        tracing::error!("a batch could not be reduced; nothing was sent");
        return Err(outcome::store_unavailable());
    };
    if !whole.reservation.grow(body.len() as u64) {
        return Err(intake::out_of_memory());
    }
    Ok(Bytes::from(body))
}
