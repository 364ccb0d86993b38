//! What the clients of a batch API are told: the merged answer, and refusals in the backend's words.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    LAST_MODIFIED,
};
use http::{Response, StatusCode, response};
use http_body_util::BodyExt as _;

use super::records::Records;
use crate::body::{Held, full};
use crate::clock::Timestamp;
use crate::config::ItemsMode;
use crate::items::rules::{Progress, Refusal};
use crate::items::{self, Joined, Ledger};
use crate::problem::{Dialect, Disposition, Problem, STATUS_HEADER};
use crate::proxy::budget::Reservation;
use crate::proxy::exchange::{Answer, report};
use crate::proxy::{Gateway, intake, outcome};

/// Headers that are about the exact bytes of a body, which change here.
const ABOUT_BYTES: [HeaderName; 8] = [
    ETAG,
    LAST_MODIFIED,
    ACCEPT_RANGES,
    CONTENT_ENCODING,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Removes what is only true of the body as it was.
pub(super) fn forget_bytes(headers: &mut HeaderMap) {
    for name in &ABOUT_BYTES {
        headers.remove(name);
    }
}

/// The backend's part in an answer.
pub(super) struct Brought<'a> {
    pub(super) head: response::Parts,
    pub(super) body: &'a Bytes,
    pub(super) joined: &'a Joined,
    /// What the call came to, unless an item is unknown.
    pub(super) disposition: Disposition,
}

/// The answer from the records alone, in memory that is granted for it: a short request may name
/// items whose rows are long.
pub(super) fn replayed(
    gateway: &Gateway,
    mode: &ItemsMode,
    batch: &items::Batch,
    records: &Records,
) -> Answer {
    let ledgers = records.iter().filter_map(|known| known.as_deref()?.record.ledger());
    let bytes: usize = ledgers.map(Ledger::bytes).sum();
    let mut memory = gateway.budget.reserve();
    if !memory.grow(bytes as u64) {
        return Err(intake::out_of_memory());
    }
    merged(mode, batch, records, None, Some(memory))
}

/// The merged answer from the records of all items; `brought`: what this call was answered, `held`:
/// memory to hold until the client has the answer.
pub(super) fn merged(
    mode: &ItemsMode,
    batch: &items::Batch,
    records: &Records,
    brought: Option<Brought<'_>>,
    held: Option<Reservation>,
) -> Answer {
    let entries: Option<Vec<&Ledger>> =
        records.iter().map(|known| known.as_deref()?.record.ledger()).collect();
    let Some(entries) = entries else {
        // Every item that is not sent has a record, and every item that was has one now.
        tracing::error!("an item of a batch has no record");
        return Err(outcome::outcome_unknown(StatusCode::BAD_GATEWAY));
    };
    let response = brought.as_ref().map(|brought| items::Response {
        status: brought.head.status.as_u16(),
        body: brought.body,
    });
    let backend = response.as_ref().zip(brought.as_ref().map(|brought| brought.joined));
    let rendered = items::render(&mode.rules, batch, &entries, backend);
    let (mut head, disposition, unchanged) = match brought {
        Some(brought) => {
            let unchanged = *brought.body == rendered.body;
            (brought.head, brought.disposition, unchanged)
        }
        None => (Response::new(()).into_parts().0, Disposition::Replayed, false),
    };
    let disposition = match rendered.progress {
        Progress::Unknown => Disposition::Unknown,
        Progress::Complete | Progress::Partial | Progress::None => disposition,
    };
    // Templates have statuses that were checked, backends those that were read.
    head.status = StatusCode::from_u16(rendered.status).unwrap_or(StatusCode::OK);
    if !unchanged {
        forget_bytes(&mut head.headers);
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    head.headers.insert(STATUS_HEADER, disposition.header());
    if disposition == Disposition::Replayed {
        let name = mode.duplicates.replayed_header.clone();
        head.headers.insert(name, HeaderValue::from_static("true"));
    }
    let expires = expires(records).map(Timestamp::to_http_date);
    outcome::insert_expires(&mut head.headers, expires);
    let body = Held::new(Bytes::from(rendered.body), held).boxed_unsync();
    Ok(Response::from_parts(head, body))
}

/// Until when all of it is kept; `None` when some of it is kept without end.
fn expires(records: &Records) -> Option<Timestamp> {
    let ends = records.iter().map(|record| record.as_deref()?.record.expires());
    ends.collect::<Option<Vec<_>>>()?.into_iter().min()
}

/// A refusal in the backend's own words, where there are some; else the problem.
pub(super) fn worded(words: Option<&Refusal>, dialect: Dialect, problem: Problem) -> Answer {
    let Some(words) = words else { return Err(problem) };
    let (status, body) = items::refusal(words);
    let mut response = report(&problem, dialect);
    if let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) {
        *response.status_mut() = status;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = full(body);
    Ok(response)
}
