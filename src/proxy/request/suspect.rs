//! The search for an earlier attempt that a new request may repeat under another key.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::timeout;

use crate::config::{SuspectAction, SuspectRules};
use crate::idempotency::suspect::{earlier, header_text, since};
use crate::idempotency::{RecordId, TenantId};
use crate::problem::{Problem, Slug};
use crate::proxy::answer::AnswerResult;
use crate::proxy::headers::{EARLIER_HEADER, OVERRIDE};
use crate::proxy::reply;
use crate::proxy::state::Gateway;
use crate::store::Query;

/// Header that names the earlier attempt.
pub(crate) const EARLIER: HeaderName = HeaderName::from_static(EARLIER_HEADER);

/// Time limit for the search.
const SEARCH_WITHIN: Duration = Duration::from_secs(2);
/// Records of a subject that are read; a business id with more of them is no single sale.
const MOST_RECORDS: usize = 256;

/// A new request, as far as the search is concerned.
pub(crate) struct SuspectRequest<'a> {
    pub(crate) id: RecordId,
    pub(crate) tenant: &'a TenantId,
    pub(crate) subject: [u8; 16],
    pub(crate) headers: &'a HeaderMap,
}

/// The value of `Idempotency-Earlier`, where an earlier attempt is to be told.
///
/// # Errors
/// When the request is to be refused, or the store does not answer in time: nothing was claimed.
pub(crate) async fn search(
    gateway: &Gateway,
    rules: &SuspectRules,
    request: &SuspectRequest<'_>,
) -> Result<Option<HeaderValue>, Problem> {
    let query = Query { subject: Some(request.subject), limit: MOST_RECORDS, ..Query::default() };
    let records = match timeout(SEARCH_WITHIN, gateway.store.list(query)).await {
        Ok(Ok(records)) => records,
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
    if records.iter().any(|(id, _)| *id == request.id) {
        // A retry under its own key, which has its own answer.
        return Ok(None);
    }
    let since = since(gateway.store.now(), rules.within);
    let Some(record) = earlier(&records, request.id, request.tenant, since) else {
        return Ok(None);
    };
    let value = HeaderValue::try_from(header_text(record)).ok();
    match rules.then {
        SuspectAction::Tell => Ok(value),
        SuspectAction::Refuse if is_overridden(request.headers) => Ok(value),
        SuspectAction::Refuse => Err(suspected(value)),
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
