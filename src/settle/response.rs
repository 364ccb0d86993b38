//! The response that is replayed once an outcome is settled.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, HeaderName, HeaderValue};
use serde_json::json;

use super::values::RecordValues;
use crate::clock::{Timestamp, rfc3339};
use crate::config::ResponseTemplate;
use crate::idempotency::record::StoredResponse;
use crate::problem::{Dialect, Occurrence, Problem, Slug};
use crate::template::RenderError;

/// The response of an executed request: by its template, or a plain statement. A template without
/// a value is told, and the statement is replayed: the execution is proven all the same.
pub(crate) fn settled(
    template: Option<&ResponseTemplate>,
    values: &RecordValues<'_>,
) -> Arc<StoredResponse> {
    let Some(template) = template else { return usual(values.now) };
    match rendered(template, values) {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(
                route = %values.record.route, %error,
                "the `response` of a settled request has no value; a plain statement is replayed"
            );
            usual(values.now)
        }
    }
}

/// The response of a template.
///
/// # Errors
/// A field has no value.
pub(crate) fn rendered(
    template: &ResponseTemplate,
    values: &RecordValues<'_>,
) -> Result<Arc<StoredResponse>, RenderError> {
    let mut headers = Vec::with_capacity(template.headers.0.len() + 2);
    for (name, value) in &template.headers.0 {
        let text = value.render(values)?;
        let value = HeaderValue::from_str(&text);
        let value = value.map_err(|_| RenderError::Unfit(name.to_string()))?;
        headers.push((name.clone(), value));
    }
    let body = match &template.body {
        Some(body) => Bytes::from(body.render(values)?),
        None => Bytes::new(),
    };
    let has = |wanted: &HeaderName| headers.iter().any(|(name, _)| name == wanted);
    let (typed, dated) = (has(&CONTENT_TYPE), has(&DATE));
    if !body.is_empty() && !typed {
        headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    }
    if !dated {
        headers.push(date(values.now));
    }
    Ok(Arc::new(StoredResponse { status: template.status, headers, body }))
}

/// The default response, which states no more than what is proven.
fn usual(now: Timestamp) -> Arc<StoredResponse> {
    let body = json!({
        "status": "executed",
        "message": "This request was carried out. Its own answer was lost; the service has \
                    confirmed that it was carried out.",
        "confirmed_at": rfc3339(now),
    });
    stored(200, "application/json", body.to_string(), now)
}

/// The response of a request that was reversed: the problem `reversed`, in the form of the route's
/// errors. Every client reads the same, so that it names no exchange.
pub(crate) fn reversed(dialect: Dialect, now: Timestamp) -> Arc<StoredResponse> {
    let problem = Problem::new(
        Slug::Reversed,
        "The answer to this request was lost, so the request was undone. To try again, use a new \
         key.",
    );
    let occurrence = Occurrence { instance: crate::nonce::uuid(), request_id: None };
    let (head, body) = problem.disposition(None).render(dialect, &occurrence);
    let mut headers: Vec<_> =
        head.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    headers.push(date(now));
    Arc::new(StoredResponse { status: head.status.as_u16(), headers, body })
}

fn stored(status: u16, kind: &'static str, body: String, now: Timestamp) -> Arc<StoredResponse> {
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(kind)), date(now)];
    Arc::new(StoredResponse { status, headers, body: Bytes::from(body) })
}

fn date(now: Timestamp) -> (HeaderName, HeaderValue) {
    // A date is visible ASCII.
    let value = HeaderValue::from_str(&now.to_http_date());
    (DATE, value.unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT")))
}
