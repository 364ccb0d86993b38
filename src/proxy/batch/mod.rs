//! Routes in items mode: one batch from start to finish.
//!
//! This file reads the batch and decides from the records of its items whether it is answered from
//! them, waits, or is sent; `busy` knows which items are being sent in this process, `records`
//! claims them and records what became of them, `call` is the half that a client's disconnect
//! cannot cancel, `told` writes the answers. What a batch is, what is still to send and what was
//! issued is decided in `items`.

pub(super) mod busy;
mod call;
mod records;
mod told;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::exchange::{self, Answer, Arrived};
use super::intake::{self, Whole};
use super::{Gateway, outcome};
use crate::config::ItemsMode;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::{RecordId, TenantId};
use crate::items::{self, Batch, BatchError, Plan, Request, Verdict};
use crate::problem::{Dialect, Problem, Slug};
use busy::Sending;
use records::Records;

/// How often a batch is planned anew when an item is in flight and nobody here is sending it: the
/// sender may just have ended.
const MAX_LOOKS: usize = 3;

/// A batch, whole and valid.
pub(super) struct Intake {
    tenant: TenantId,
    batch: Batch,
    /// The id of each item's record.
    ids: Vec<RecordId>,
    /// Digest of the business id the body names.
    subject: Option<[u8; 16]>,
    /// Names and values of the path's parameters.
    parameters: Vec<(String, String)>,
    whole: Whole,
}

/// A request on a route in items mode.
pub(super) async fn exchange(
    gateway: &Arc<Gateway>,
    route: usize,
    mode: &ItemsMode,
    arrived: Box<Arrived>,
) -> Answer {
    let intake = match read(gateway, route, mode, arrived).await? {
        Ok(intake) => intake,
        Err(error) => return refused(mode, error),
    };
    let end = Instant::now() + mode.duplicates.wait;
    let mut looks = 0;
    let mut waiting = None;
    loop {
        let records = records::read(gateway, &intake.ids).await?;
        let plan = records::plan(&intake.batch, &records, gateway.store.now());
        let sending = match plan.verdict() {
            Verdict::Reused { item } => return reused(mode, &intake, &records, item),
            Verdict::Replay => return told::replayed(gateway, mode, &intake.batch, &records),
            Verdict::Send => match gateway.busy.hold(intake.names(&plan)) {
                Ok(hold) => {
                    // Its turn has come: the place is for those who still wait.
                    drop(waiting.take());
                    let (first, answered) = oneshot::channel();
                    let start = call::Start { route, intake, records, plan };
                    call::lead(gateway, start, call::Conclusion { hold, first });
                    return exchange::first_answer(answered, mode.duplicates.answer_within).await;
                }
                Err(sending) => sending,
            },
            Verdict::InFlight { item } => {
                let Some(sending) = gateway.busy.holder(intake.ids[item].as_bytes()) else {
                    looks += 1;
                    if looks < MAX_LOOKS {
                        continue;
                    }
                    return parallel(mode, outcome::RETRY_LATER);
                };
                sending
            }
        };
        // They are read anew after the wait.
        drop(records);
        if waiting.is_none() {
            waiting =
                if mode.duplicates.wait.is_zero() { None } else { gateway.waiters[route].take() };
            if waiting.is_none() {
                return parallel(mode, rest(&sending));
            }
        }
        if timeout_at(end, sending.ended()).await.is_err() {
            return parallel(mode, rest(&sending));
        }
        looks = 0;
    }
}

/// Reads and identifies a batch; nothing is claimed or sent.
async fn read(
    gateway: &Gateway,
    route: usize,
    mode: &ItemsMode,
    arrived: Box<Arrived>,
) -> Result<Result<Intake, BatchError>, Problem> {
    let Arrived { head, body, peer, path } = *arrived;
    intake::refuse_nominations(gateway, &[], None, &head.headers)?;
    let most = gateway.config.routes[route].max_body;
    let most = most.unwrap_or(gateway.config.server.limits.max_body);
    let (body, reservation) = intake::read_body(gateway, body, most, None).await?;
    let tenant = TenantId::of(&gateway.config.tenant.headers, &head.headers);
    let parameters = gateway.router.parameters(&head.method, &path);
    let whole = Whole { head, peer, body, reservation };
    let batch = {
        let named = borrowed(&parameters);
        let request = Request { tenant: &tenant, parameters: &named, body: &whole.body };
        match Batch::read(&mode.rules, &request) {
            Ok(batch) => batch,
            Err(error) => return Ok(Err(error)),
        }
    };
    let scope = items::scope(&mode.ledger);
    let id = |item: &items::batch::Item| RecordId::new(&tenant, &scope, &item.id);
    let ids = batch.items.iter().map(id).collect();
    let subject = mode.record.subject.as_ref().and_then(|at| {
        let document = crate::json::Document::parse(&whole.body).ok()?;
        intake::subject(&document, at, &tenant)
    });
    Ok(Ok(Intake { tenant, batch, ids, subject, parameters, whole }))
}

fn borrowed(parameters: &[(String, String)]) -> Vec<(&str, &str)> {
    parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

impl Intake {
    /// What the batch must have for itself to send what `plan` says.
    fn names(&self, plan: &Plan) -> Vec<busy::Name> {
        let items = plan.sent().map(|(at, _)| *self.ids[at].as_bytes());
        items.chain(self.batch.serial.iter().copied()).collect()
    }

    /// The fingerprints of all items, with a digest for each member.
    fn fingerprints(&self, mode: &ItemsMode) -> Result<Vec<Fingerprint>, Problem> {
        let named = borrowed(&self.parameters);
        let request = Request { tenant: &self.tenant, parameters: &named, body: &self.whole.body };
        // The same body was read already; this cannot fail.
        Batch::fingerprints(&mode.rules, &request).map_err(problem)
    }
}

/// When a batch may be expected to end: one that has run for some time is given as much again.
fn rest(sending: &Sending) -> Duration {
    sending.started.elapsed().clamp(Duration::from_secs(1), Duration::from_secs(30))
}

fn problem(error: BatchError) -> Problem {
    let slug = match error {
        BatchError::NotJson(_)
        | BatchError::DuplicateMember
        | BatchError::NoItems
        | BatchError::NotAnObject { .. } => Slug::BodyInvalid,
        BatchError::TooMany { .. } => Slug::TooManyItems,
        BatchError::IdMissing { .. } => Slug::KeyMissing,
        BatchError::IdInvalid { .. } => Slug::KeyInvalid,
        BatchError::DuplicateItem { .. } => Slug::DuplicateItem,
        BatchError::Quantity { .. } => Slug::QuantityInvalid,
    };
    Problem::new(slug, format!("{error} Nothing was sent."))
}

fn refused(mode: &ItemsMode, error: BatchError) -> Answer {
    let words = match error {
        BatchError::DuplicateItem { .. } => mode.rules.render.duplicate.as_ref(),
        BatchError::NotJson(_)
        | BatchError::DuplicateMember
        | BatchError::NoItems
        | BatchError::NotAnObject { .. }
        | BatchError::TooMany { .. }
        | BatchError::IdMissing { .. }
        | BatchError::IdInvalid { .. }
        | BatchError::Quantity { .. } => None,
    };
    told::worded(words, mode.dialect, problem(error))
}

/// The id of the item at this place belongs to another item.
fn reused(mode: &ItemsMode, intake: &Intake, records: &Records, item: usize) -> Answer {
    let known = records.get(item).and_then(Option::as_deref);
    let now = intake.fingerprints(mode)?;
    let differing = known
        .zip(now.get(item))
        .map(|(known, fingerprint)| known.record.fingerprint.differing(fingerprint))
        .unwrap_or_default();
    let which = if differing.is_empty() {
        String::new()
    } else {
        format!(" (different: {})", differing.join(", "))
    };
    let detail = format!(
        "The id of item {} was already used for a different item{which}. Nothing was sent; use a \
         new id for a new item.",
        item + 1
    );
    let problem = Problem::new(Slug::KeyReused, detail).member("item", item + 1);
    let problem =
        if differing.is_empty() { problem } else { problem.member("differing", differing) };
    told::worded(mode.rules.render.mismatch.as_ref(), mode.dialect, problem)
}

/// Another batch with one of the items, or for the same customer, is running.
fn parallel(mode: &ItemsMode, delay: Duration) -> Answer {
    let dialect: Dialect = mode.dialect;
    told::worded(mode.rules.render.parallel.as_ref(), dialect, outcome::in_progress(delay))
}
