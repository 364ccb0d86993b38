//! Answers of a batch API: the merged answer, and refusals in the backend's words.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode, response};

use super::envelope::header_lines;
use super::ledger::{Records, as_reported};
use super::read::BatchInput;
use super::unsettled;
use crate::body::{Body, owning};
use crate::clock::Timestamp;
use crate::config::ItemsMode;
use crate::idempotency::RecordId;
use crate::idempotency::outcome::UnknownReason;
use crate::items::rules::{Fulfillment, Refusal};
use crate::items::{self, BatchError, BatchOutcome, Ledger};
use crate::json::Document;
use crate::matcher::HeaderView;
use crate::problem::{Disposition, Problem, STATUS, Slug};
use crate::proxy::answer::AnswerResult;
use crate::proxy::batch_cache::BatchReply;
use crate::proxy::budget::Reservation;
use crate::proxy::reply;
use crate::proxy::request::refusals;
use crate::proxy::rewrite::forget_bytes;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;

/// Media type of bodies without a media type of the backend.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The backend's contribution to an answer.
pub(crate) struct BackendPart<'a> {
    pub(crate) head: response::Parts,
    pub(crate) body: &'a Bytes,
    pub(crate) joined: &'a BatchOutcome,
    /// Disposition of the batch, unless an item is unknown.
    pub(crate) disposition: Disposition,
}

/// Difference between a backend's body and the client's.
#[derive(PartialEq, Eq)]
enum BodyChange {
    None,
    /// The same JSON text with changed members: the media type stays.
    Edited,
    /// JSON in place of a different body.
    Replaced,
}

impl BodyChange {
    fn of(backend: &BackendPart<'_>, rendered: &[u8]) -> Self {
        if **backend.body == *rendered {
            Self::None
        } else if backend.joined.is_read() || Document::parse(backend.body).is_ok() {
            Self::Edited
        } else {
            Self::Replaced
        }
    }
}

/// The unchanged answer without readable rows: the outcome of its items is unknown.
pub(crate) fn as_it_came(
    head: response::Parts,
    body: Bytes,
    held: Option<Reservation>,
) -> Response<Body> {
    let mut response = Response::from_parts(head, owning(body, held));
    response.headers_mut().insert(STATUS, Disposition::Unknown.header());
    response
}

/// Memory for an answer rendered from the records: a short request may name items with long rows.
///
/// # Errors
/// When the buffer budget is exhausted.
pub(crate) fn memory(gateway: &Gateway, records: &Records) -> Result<Reservation, Problem> {
    let ledgers = records.iter().filter_map(|record| record.as_deref()?.ledger());
    let bytes: usize = ledgers.map(Ledger::bytes).sum();
    let mut memory = gateway.budget.reserve();
    if memory.grow(bytes as u64) { Ok(memory) } else { Err(refusals::out_of_memory()) }
}

/// The merged answer from the records of all items. `backend`: the backend's answer to the current
/// batch; `retry_after`: the time until a retry may settle an unknown item; `held`: memory reserved
/// until the client has the answer.
pub(crate) fn merged(
    mode: &ItemsMode,
    batch: &items::Batch,
    records: &Records,
    backend: Option<BackendPart<'_>>,
    (retry_after, mut held): (Option<Duration>, Option<Reservation>),
) -> AnswerResult {
    let entries: Option<Vec<&Ledger>> =
        records.iter().map(|record| record.as_deref()?.ledger()).collect();
    let Some(entries) = entries else {
        // Unsent items have a record before, and sent items have a record after the claim.
        tracing::error!("an item of a batch has no record; the client gets an unknown outcome");
        return Err(reply::outcome_unknown(UnknownReason::NotRecorded));
    };
    let response = backend.as_ref().map(|backend| items::BackendResponse {
        status: backend.head.status.as_u16(),
        headers: HeaderView::Map(&backend.head.headers),
        body: backend.body,
    });
    let joined = response.as_ref().zip(backend.as_ref().map(|backend| backend.joined));
    let rendered = items::render(&mode.rules, batch, &entries, joined);
    if let Some(held) = &mut held {
        let backends = backend.as_ref().map_or(0, |backend| backend.body.len());
        held.hold((backends + rendered.body.len()) as u64);
    }
    let (mut head, disposition, change) = match backend {
        Some(backend) => {
            let change = match rendered.replaces_text {
                true => BodyChange::Replaced,
                false => BodyChange::of(&backend, &rendered.body),
            };
            (backend.head, backend.disposition, change)
        }
        None => {
            let mut head = Response::new(()).into_parts().0;
            head.headers = items::envelope(&entries).map(header_lines).unwrap_or_default();
            let change = match rendered.replaces_text {
                true => BodyChange::Replaced,
                // The answer of a job may have no body.
                false if rendered.body.is_empty() => BodyChange::None,
                false => BodyChange::Edited,
            };
            (head, Disposition::Replayed, change)
        }
    };
    let disposition = match rendered.fulfillment {
        Fulfillment::Unknown => Disposition::Unknown,
        Fulfillment::Complete | Fulfillment::Partial | Fulfillment::None => disposition,
    };
    // The statuses of templates and backends are valid by construction.
    head.status = StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::OK);
    if change != BodyChange::None {
        forget_bytes(&mut head.headers);
    }
    if change == BodyChange::Replaced
        || change == BodyChange::Edited && !head.headers.contains_key(CONTENT_TYPE)
    {
        head.headers.insert(CONTENT_TYPE, JSON);
    }
    head.headers.insert(STATUS, disposition.header());
    if disposition == Disposition::Unknown {
        // The status is the template's, not the backend's.
        reply::insert_unknown(&mut head.headers);
        reply::insert_retry_after(&mut head.headers, retry_after);
    }
    if disposition == Disposition::Replayed {
        let name = mode.duplicates.replayed_header.clone();
        head.headers.insert(name, HeaderValue::from_static("true"));
    }
    let expires = expires(records).map(Timestamp::to_http_date);
    reply::insert_expires(&mut head.headers, expires);
    Ok(Response::from_parts(head, owning(Bytes::from(rendered.body), held)))
}

/// The reply to repetitions of a batch with all items done. `generation`: see
/// [`BatchReply::generation`].
pub(crate) fn done(
    mode: &ItemsMode,
    (batch, first): (&items::Batch, Option<RecordId>),
    records: &Records,
    generation: u64,
) -> Option<Arc<BatchReply>> {
    let done = |ledger: &&Ledger| ledger.is_done();
    let entries: Vec<&Ledger> = records
        .iter()
        .map(|record| record.as_deref()?.ledger().filter(done))
        .collect::<Option<_>>()?;
    let rendered = items::render(&mode.rules, batch, &entries, None);
    let mut headers = items::envelope(&entries).map(header_lines).unwrap_or_default();
    if rendered.replaces_text {
        headers.insert(CONTENT_TYPE, JSON);
    } else if !rendered.body.is_empty() {
        headers.entry(CONTENT_TYPE).or_insert(JSON);
    }
    Some(Arc::new(BatchReply {
        status: rendered.status,
        headers,
        body: Bytes::from(rendered.body),
        items: records.len(),
        first,
        kept_until: expires(records),
        holds_until: records.iter().flatten().filter_map(|record| record.expires()).min(),
        generation,
    }))
}

/// Answers with a cached reply; nothing was sent. `held`: memory reserved until the client has the
/// answer.
pub(crate) fn replay_cached(
    mode: &ItemsMode,
    merged: &BatchReply,
    held: Option<Reservation>,
) -> AnswerResult {
    let mut response = Response::new(owning(merged.body.clone(), held));
    // The statuses of templates are valid by construction.
    *response.status_mut() = StatusCode::from_u16(merged.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.clone_from(&merged.headers);
    headers.insert(STATUS, Disposition::Replayed.header());
    let name = mode.duplicates.replayed_header.clone();
    headers.insert(name, HeaderValue::from_static("true"));
    reply::insert_expires(headers, merged.kept_until.map(Timestamp::to_http_date));
    Ok(response)
}

/// The earliest end of retention among the records; `None` if a record is kept without end.
pub(crate) fn expires(records: &Records) -> Option<Timestamp> {
    let ends = records.iter().map(|record| record.as_deref()?.expires());
    ends.collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// A refusal in the backend's own words if configured, otherwise the problem.
pub(crate) fn worded(words: Option<&Refusal>, problem: Problem) -> AnswerResult {
    let Some(words) = words else { return Err(problem) };
    let (status, body) = items::refusal(words);
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    Err(problem.worded(status, body))
}

/// The reply to a batch without unsent items. `generation`: the cache generation from before the
/// read of the records.
pub(crate) fn replay(
    gateway: &Gateway,
    (route, mode): (&Route, &ItemsMode),
    input: &BatchInput,
    records: &Records,
    generation: u64,
) -> AnswerResult {
    let records = &*as_reported(records, gateway.store.expiry_time());
    let memory = memory(gateway, records)?;
    if let Some(merged) =
        done(mode, (&input.batch, input.ids.first().copied()), records, generation)
    {
        gateway.batch_replies.put(input.verbatim, merged.clone());
        return replay_cached(mode, &merged, Some(memory));
    }
    let retry_after = unsettled::retry_after(gateway, route, records);
    merged(mode, &input.batch, records, None, (retry_after, Some(memory)))
}

pub(crate) fn problem(error: BatchError) -> Problem {
    let slug = match error {
        BatchError::NotJson(_)
        | BatchError::Coded
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

pub(crate) fn refused(mode: &ItemsMode, error: BatchError) -> AnswerResult {
    let words = match error {
        BatchError::DuplicateItem { .. } => mode.rules.render.duplicate.as_ref(),
        BatchError::NotJson(_)
        | BatchError::Coded
        | BatchError::DuplicateMember
        | BatchError::NoItems
        | BatchError::NotAnObject { .. }
        | BatchError::TooMany { .. }
        | BatchError::IdMissing { .. }
        | BatchError::IdInvalid { .. }
        | BatchError::Quantity { .. } => None,
    };
    worded(words, problem(error))
}

/// The id of the item at position `item` belongs to a different item.
pub(crate) fn reused(
    mode: &ItemsMode,
    input: &mut BatchInput,
    records: &Records,
    item: usize,
) -> AnswerResult {
    let existing = records.get(item).and_then(Option::as_deref);
    let differing = existing
        .zip(input.fingerprint(mode, item))
        .map(|(existing, fingerprint)| existing.fingerprint.differing(&fingerprint))
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
    worded(mode.rules.render.mismatch.as_ref(), problem)
}

/// Refuses a batch while another batch with a common item or a common `serialize_by` value is in
/// flight.
pub(crate) fn in_progress(mode: &ItemsMode) -> AnswerResult {
    worded(mode.rules.render.parallel.as_ref(), reply::in_progress())
}
