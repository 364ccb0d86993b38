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
pub(super) mod locks;
mod remote;
mod response;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::exchange::{self, Answer, Arrived};
use super::request::read::{self as intake, Whole};
use super::{Gateway, reply};
use crate::config::ItemsMode;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::{RecordId, TenantId};
use crate::items::{self, Batch, BatchError, Plan, Prints, Request, Verdict};
use crate::json::Document;
use crate::problem::{Dialect, Problem, Slug};
use crate::store::cache::Merged;
use claims::Records;
use locks::Sending;
use remote::Elsewhere;

/// How often a batch is planned anew when an item is in flight and nobody here is sending it: the
/// sender may just have ended.
const MAX_LOOKS: usize = 3;

/// A batch, whole and valid.
pub(crate) struct Intake {
    tenant: TenantId,
    batch: Batch,
    /// The digests of its items' members, for the records of new ones. They are not kept while it
    /// waits, but made again when they are needed.
    prints: Option<Prints>,
    /// The id of each item's record.
    ids: Vec<RecordId>,
    /// Digest of the business id the body names.
    subject: Option<[u8; 16]>,
    /// Names and values of the path's parameters.
    parameters: Vec<(String, String)>,
    /// Names the very bytes of the request, and what else decides its answer but the records.
    verbatim: RecordId,
    whole: Whole,
}

/// What came of reading a request.
enum Read {
    Batch(Box<Intake>),
    /// Its answer is known: nothing is to be sent for it any more.
    Known(Arc<Merged>),
    Refused(BatchError),
}

/// A request on a route in items mode.
pub(crate) async fn exchange(
    gateway: &Arc<Gateway>,
    route: usize,
    mode: &ItemsMode,
    arrived: Box<Arrived<'_>>,
) -> Answer {
    let mut intake = match read(gateway, route, mode, arrived).await? {
        Read::Batch(intake) => intake,
        Read::Known(merged) => return response::again(mode, &merged, None),
        Read::Refused(error) => return refused(mode, error),
    };
    let end = Instant::now() + mode.duplicates.wait;
    let mut looks = 0;
    // Most batches are new: their claim is tried at once, and when it loses, the records are read.
    let mut looked = false;
    let mut waiting = None;
    let mut elsewhere = Elsewhere::default();
    loop {
        let dropped = gateway.hot.dropped();
        let records = match looked {
            true => claims::read(gateway, &intake.ids).await?,
            false => claims::unread(&intake.ids),
        };
        let plan = claims::plan(&intake.batch, &records, gateway.store.now());
        let sending = match plan.verdict() {
            Verdict::Reused { item } => return reused(mode, &mut intake, &records, item),
            Verdict::Replay => return replay(gateway, mode, &intake, &records, dropped),
            Verdict::Send => {
                let hold = gateway.busy.hold(intake.names(&plan));
                match hold.map(|hold| (hold, forward::Places::take(gateway, intake.tenant))) {
                    Ok((hold, Ok(places))) => {
                        // Its turn has come: the place is for those who still wait.
                        drop(waiting.take());
                        let (first, answered) = oneshot::channel();
                        let start = forward::Start { route, intake, records, plan, until: end };
                        let conclusion = forward::Conclusion { hold, first };
                        forward::lead(gateway, start, conclusion, places);
                        let within = mode.duplicates.answer_within;
                        return exchange::first_answer(answered, within).await;
                    }
                    // One that is done needs neither a turn nor a place.
                    Ok((_, Err(_))) | Err(_) if !looked => {
                        looked = true;
                        continue;
                    }
                    Ok((_, Err(problem))) => return Err(problem),
                    Err(sending) => Sender::Here(sending),
                }
            }
            Verdict::InFlight { item } => match gateway.busy.holder(&intake.ids[item]) {
                Some(sending) => Sender::Here(sending),
                None if follows(gateway, &mut elsewhere, &intake, &records, item) => {
                    Sender::Elsewhere
                }
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
            waiting =
                if mode.duplicates.wait.is_zero() { None } else { gateway.waiters[route].take() };
            if waiting.is_none() {
                return parallel(mode, sending.rest());
            }
        }
        intake.prints = None;
        let ended = async {
            match &sending {
                Sender::Here(sending) => sending.ended().await,
                Sender::Elsewhere => elsewhere.changed(gateway).await,
            }
        };
        if timeout_at(end, ended).await.is_err() {
            return parallel(mode, sending.rest());
        }
        looks = 0;
    }
}

/// The answer of a batch of which nothing is to be sent; `dropped` as it was before its records were
/// read.
fn replay(
    gateway: &Gateway,
    mode: &ItemsMode,
    intake: &Intake,
    records: &Records,
    dropped: u64,
) -> Answer {
    let records = &*claims::as_told(records, gateway.store.now());
    let memory = response::memory(gateway, records)?;
    if let Some(merged) = response::done(mode, &intake.batch, records, dropped) {
        gateway.hot.put_merged(intake.verbatim, merged.clone());
        return response::again(mode, &merged, Some(memory));
    }
    response::merged(mode, &intake.batch, records, None, Some(memory))
}

/// Whether another process has this item in flight; then it is followed.
fn follows(
    gateway: &Gateway,
    elsewhere: &mut Elsewhere,
    intake: &Intake,
    records: &Records,
    item: usize,
) -> bool {
    let owner = records[item].as_deref().map(|record| record.owner);
    owner.is_some_and(|owner| elsewhere.follow(gateway, intake.ids[item], owner))
}

/// Who is sending what a batch waits for.
enum Sender {
    /// A batch of this process.
    Here(Arc<Sending>),
    /// Another process.
    Elsewhere,
}

impl Sender {
    /// When its batch may be expected to end: one that has run for some time is given as much
    /// again.
    fn rest(&self) -> Duration {
        let Self::Here(sending) = self else { return reply::RETRY_LATER };
        sending.started.elapsed().clamp(Duration::from_secs(1), Duration::from_secs(30))
    }
}

/// Reads and identifies a batch; nothing is claimed or sent.
async fn read(
    gateway: &Gateway,
    route: usize,
    mode: &ItemsMode,
    arrived: Box<Arrived<'_>>,
) -> Result<Read, Problem> {
    let Arrived { head, body, client, path } = *arrived;
    intake::refuse_nominations(gateway, &[], None, &head.headers)?;
    let most = gateway.config.routes[route].max_body;
    let most = most.unwrap_or(gateway.config.server.limits.max_body);
    let (body, reservation) = intake::read_body(gateway, body, most, None).await?;
    let tenant = client.tenant(&gateway.config.tenant.headers, &head.headers);
    let parameters = gateway.router.parameters(&head.method, path.of(&head.uri));
    let named = borrowed(&parameters);
    let request = Request { tenant: &tenant, parameters: &named, body: &body };
    let verbatim = verbatim(&gateway.config.routes[route].name, &request);
    if let Some(merged) = gateway.hot.merged(&verbatim, gateway.store.now()) {
        return Ok(Read::Known(merged));
    }
    let document = match Document::parse(&body) {
        Ok(document) => document,
        Err(error) => return Ok(Read::Refused(BatchError::NotJson(error))),
    };
    let (batch, prints) = match Batch::read_with_prints(&mode.rules, &request, &document) {
        Ok((batch, prints)) => (batch, Some(prints)),
        Err(error) => return Ok(Read::Refused(error)),
    };
    let scope = items::scope(&mode.ledger);
    let id = |item: &items::batch::Item| RecordId::new(&tenant, &scope, &item.id);
    let ids = batch.items.iter().map(id).collect();
    let subject = mode.record.subject.as_ref();
    let subject = subject.and_then(|at| intake::subject(&document, at, &tenant));
    drop(document);
    let whole = Whole { head, peer: client.ip, body, reservation };
    let intake = Intake { tenant, batch, prints, ids, subject, parameters, verbatim, whole };
    Ok(Read::Batch(Box::new(intake)))
}

/// A digest of everything that decides what a batch is told, but the records.
fn verbatim(route: &str, request: &Request<'_>) -> RecordId {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(b"oncegate/batch/1");
    field(route.as_bytes());
    field(request.tenant.as_bytes());
    for (name, value) in request.parameters {
        field(name.as_bytes());
        field(value.as_bytes());
    }
    field(request.body);
    let mut name = [0; 16];
    name.copy_from_slice(&hash.finalize()[..16]);
    RecordId::from_bytes(name)
}

fn borrowed(parameters: &[(String, String)]) -> Vec<(&str, &str)> {
    parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

impl Intake {
    /// What the batch must have for itself to send what `plan` says.
    fn names(&self, plan: &Plan) -> Vec<locks::Name> {
        let items = plan.sent().map(|(at, _)| self.ids[at]);
        items.chain(self.batch.serial.iter().copied().map(RecordId::from_bytes)).collect()
    }

    /// The fingerprint of the item at this place, with a digest for each member.
    fn fingerprint(&mut self, mode: &ItemsMode, at: usize) -> Option<Fingerprint> {
        let prints = match self.prints.take() {
            Some(prints) => prints,
            None => {
                let named = borrowed(&self.parameters);
                let body = &self.whole.body;
                let request = Request { tenant: &self.tenant, parameters: &named, body };
                // The same body was read already; this cannot fail.
                let document = Document::parse(body).ok()?;
                Batch::read_with_prints(&mode.rules, &request, &document).ok()?.1
            }
        };
        self.batch.fingerprint(self.prints.insert(prints), at)
    }
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
    response::worded(words, mode.dialect, problem(error))
}

/// The id of the item at this place belongs to another item.
fn reused(mode: &ItemsMode, intake: &mut Intake, records: &Records, item: usize) -> Answer {
    let known = records.get(item).and_then(Option::as_deref);
    let differing = known
        .zip(intake.fingerprint(mode, item))
        .map(|(known, fingerprint)| known.fingerprint.differing(&fingerprint))
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
    response::worded(mode.rules.render.mismatch.as_ref(), mode.dialect, problem)
}

/// Another batch with one of the items, or for the same customer, is running.
fn parallel(mode: &ItemsMode, delay: Duration) -> Answer {
    let dialect: Dialect = mode.dialect;
    response::worded(mode.rules.render.parallel.as_ref(), dialect, reply::in_progress(delay))
}
