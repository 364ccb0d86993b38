//! The search for an earlier attempt that a new request may repeat under another key.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::timeout;

use super::read::KeyedRequest;
use crate::config::{RequestMode, SuspectAction, SuspectRules};
use crate::idempotency::suspect::{header_text, may_be_repeated, since};
use crate::idempotency::{Decision, Fingerprint, Record, decide};
use crate::problem::{Problem, Slug};
use crate::proxy::answer::AnswerResult;
use crate::proxy::headers::{EARLIER_HEADER, OVERRIDE};
use crate::proxy::reply;
use crate::proxy::state::Gateway;
use crate::store::{ListPosition, Query, Store, StoreError};

/// Header that names the earlier attempt.
pub(crate) const EARLIER: HeaderName = HeaderName::from_static(EARLIER_HEADER);

/// Time limit for the search.
const SEARCH_WITHIN: Duration = Duration::from_secs(2);
/// Records of a read; each may hold an answer of `max_stored_body`.
const PAGE: usize = 16;

/// The value of `Idempotency-Earlier` for a new request with a business id, if its route looks for
/// earlier attempts and there is one.
///
/// # Errors
/// When the request is to be refused, or the store does not answer in time: nothing was claimed.
pub(crate) async fn search(
    gateway: &Gateway,
    mode: &RequestMode,
    request: &KeyedRequest,
    (fingerprint, subject): (&Fingerprint, Option<[u8; 16]>),
) -> Result<Option<HeaderValue>, Problem> {
    let Some((rules, subject)) = mode.suspect.as_ref().zip(subject) else { return Ok(None) };
    let search = earlier(&*gateway.store, rules, request, (fingerprint, subject));
    let found = match timeout(SEARCH_WITHIN, search).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::error!(
                record = ?request.id, %error,
                "the search for an earlier attempt failed; the request was not sent"
            );
            return Err(reply::store_unavailable());
        }
        Err(_) => {
            tracing::error!(
                record = ?request.id,
                "the search for an earlier attempt took too long; the request was not sent"
            );
            return Err(reply::store_unavailable());
        }
    };
    let Some(record) = found else { return Ok(None) };
    let value = HeaderValue::try_from(header_text(&record)).ok();
    match rules.then {
        SuspectAction::Tell => Ok(value),
        SuspectAction::Refuse if is_overridden(&request.buffered.head.headers) => Ok(value),
        SuspectAction::Refuse => Err(suspected(value)),
    }
}

/// The latest attempt that a request may repeat, if its own key has no answer yet.
///
/// Records of other callers are left out by the store, and pages are read until one is found or
/// there are no more: with a bound on their number, others' records of the subject would hide the
/// caller's own.
async fn earlier(
    store: &dyn Store,
    rules: &SuspectRules,
    request: &KeyedRequest,
    (fingerprint, subject): (&Fingerprint, [u8; 16]),
) -> Result<Option<Record>, StoreError> {
    let own = store.get(request.id).await?;
    let decision = decide(own.as_ref(), fingerprint, store.expiry_time());
    if !matches!(decision, Decision::Forward { .. }) {
        return Ok(None);
    }
    let since = since(store.now(), rules.within);
    let mut query = Query {
        subject: Some(subject),
        shard: Some(request.id.shard()),
        since: Some(since),
        limit: PAGE,
        ..Query::default()
    };
    loop {
        let page = store.list(query.clone()).await?;
        let is_last = page.len() < PAGE;
        for (id, record) in page {
            query.after = Some(ListPosition::of(&id, &record));
            if id != request.id && may_be_repeated(&record, &request.tenant, since) {
                return Ok(Some(record));
            }
        }
        if is_last {
            return Ok(None);
        }
    }
}

/// Adds the earlier attempt to an answer.
pub(crate) fn tell(answer: AnswerResult, earlier: Option<HeaderValue>) -> AnswerResult {
    let Some(earlier) = earlier else { return answer };
    match answer {
        Ok(mut response) => {
            response.headers_mut().insert(EARLIER, earlier);
            Ok(response)
        }
        Err(problem) => Err(problem.header(EARLIER, earlier)),
    }
}

fn is_overridden(headers: &HeaderMap) -> bool {
    let slug = Slug::SuspectedDuplicate.as_str().as_bytes();
    headers.get_all(OVERRIDE).iter().any(|line| line.as_bytes().trim_ascii() == slug)
}

fn suspected(earlier: Option<HeaderValue>) -> Problem {
    let problem = Problem::new(
        Slug::SuspectedDuplicate,
        "The same was asked for a short while ago under another key. Nothing was sent. If both are \
         meant, send this request again with the header `Idempotency-Override: \
         suspected-duplicate`.",
    );
    match earlier {
        Some(earlier) => problem.header(EARLIER, earlier),
        None => problem,
    }
}
