//! The records API: authorization and routing.
//!
//! `query` and `list` find records, `view` renders them, `resolve` makes operators' decisions
//! durable, and `response` checks an operator's response.

mod cursor;
mod list;
mod query;
mod reopen;
mod resolve;
#[cfg(test)]
mod resolve_tests;
mod response;
mod view;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use serde_json::Value;

pub(super) use self::query::Filters;
pub(super) use self::reopen::reopen;
pub(super) use self::resolve::{purge, resolve, show};
use self::response::StrictObject;
pub(super) use self::view::StateName;
use crate::admin::error::ApiError;
use crate::admin::state::AdminState;
use crate::admin::stats;
use crate::body::{self, Body, ReadError, ReadLimits, full};
use crate::idempotency::RecordId;
use crate::store::ListPosition;

/// Path prefix of the API.
pub(super) const PATH: &str = "/api/";

/// Bytes of the largest body of a reopen: a reason and a name.
const MOST_OF_REOPEN: u64 = 16 << 10;

/// Time limit for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers a request below [`PATH`].
pub(super) async fn answer(state: &Arc<AdminState>, request: Request<Incoming>) -> Response<Body> {
    let whole = request.body().is_end_stream();
    match route(state, request).await {
        Ok(document) => {
            let mut response = Response::new(full(document.to_string()));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => error.respond(!whole),
    }
}

/// A page of the records that fit, for the operator's page.
pub(super) async fn find(
    state: &AdminState,
    filters: &Filters,
) -> Result<(Vec<Value>, Option<ListPosition>), ApiError> {
    let _turn = state.turn().await;
    list::page(state, filters).await
}

async fn route(state: &Arc<AdminState>, request: Request<Incoming>) -> Result<Value, ApiError> {
    allowed(state, request.headers())?;
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let path: Vec<&str> = below(head.uri.path()).split('/').collect();
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    match path.as_slice() {
        ["config"] if reads => {
            query::pairs(query, &[])?;
            let mut shown = state.settings().shown.clone();
            // Without an answer of the store the rest is shown.
            if let Ok(Some(names)) = state.store.names().await {
                shown["names"] = serde_json::from_slice(&names.bytes).unwrap_or_default();
            }
            Ok(shown)
        }
        ["config"] => Err(ApiError::method("GET, HEAD")),
        ["records"] if reads => {
            let filters = Filters::parse(query)?;
            let _turn = state.turn().await;
            list::list(state, &filters).await
        }
        ["records"] => Err(ApiError::method("GET, HEAD")),
        ["stats"] if reads => {
            query::pairs(query, &[])?;
            Ok(stats::stats(state).await)
        }
        ["stats"] => Err(ApiError::method("GET, HEAD")),
        ["records", id] if reads => {
            query::pairs(query, &[])?;
            let _turn = state.turn().await;
            show(state, record_id(id)?).await
        }
        ["records", id] if head.method == Method::DELETE => {
            let (mut by, mut reason, mut attempt) = (None, None, None);
            for (name, value) in query::pairs(query, &["by", "reason", "attempt"])? {
                match name {
                    "by" => by = Some(value),
                    "reason" => reason = Some(value),
                    _ => attempt = Some(query::attempt(&value)?),
                }
            }
            purge(state, record_id(id)?, (by, reason), attempt).await
        }
        ["records", _] => Err(ApiError::method("GET, HEAD, DELETE")),
        ["records", id, "resolve"] if head.method == Method::POST => {
            query::pairs(query, &[])?;
            let id = record_id(id)?;
            is_json(&head.headers)?;
            let body = read(body, state.most_body()).await?;
            let StrictObject(wanted) = serde_json::from_slice(&body).map_err(|error| {
                ApiError::invalid("body-invalid", format!("the body cannot be read: {error}"))
            })?;
            resolve(state, id, wanted).await
        }
        ["records", id, "reopen"] if head.method == Method::POST => {
            query::pairs(query, &[])?;
            let id = record_id(id)?;
            is_json(&head.headers)?;
            let body = read(body, MOST_OF_REOPEN).await?;
            let StrictObject(wanted) = serde_json::from_slice(&body).map_err(|error| {
                ApiError::invalid("body-invalid", format!("the body cannot be read: {error}"))
            })?;
            reopen(state, id, wanted).await
        }
        ["records", _, "resolve" | "reopen"] => Err(ApiError::method("POST")),
        _ => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "no-such-address",
            "there is /api/stats, /api/config, /api/records, /api/records/{id}, \
             /api/records/{id}/resolve and /reopen",
        )),
    }
}

/// The path below [`PATH`].
fn below(path: &str) -> &str {
    path.strip_prefix(PATH).unwrap_or_default()
}

/// Checks the caller's token.
fn allowed(state: &AdminState, headers: &HeaderMap) -> Result<(), ApiError> {
    if state.settings().token.is_none() {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "no-token-configured",
            "the records API shows keys and answers of customers and has no token to guard it; set \
             `token_file` in [admin]",
        ));
    }
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let given = match (lines.next(), lines.next()) {
        (Some(line), None) => bearer(line.as_bytes()),
        _ => None,
    };
    if state.is_token(given.unwrap_or_default()) {
        return Ok(());
    }
    let detail = "this needs `Authorization: Bearer` with the token of [admin]";
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", detail))
}

/// The token of `Bearer <token>` (RFC 6750 section 2.1); the scheme's case does not matter.
fn bearer(line: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = line.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

pub(super) fn record_id(text: &str) -> Result<RecordId, ApiError> {
    RecordId::parse(text).ok_or_else(|| {
        ApiError::invalid("id-invalid", "a record's id is 32 hex digits in lower case")
    })
}

fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail = "the body must be JSON, sent with `Content-Type: application/json`";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", detail))
}

/// Reads the body, of at most `size` bytes.
pub(super) async fn read(body: Incoming, size: u64) -> Result<Bytes, ApiError> {
    let limits = ReadLimits { size, time: BODY_TIMEOUT, forbidden_trailers: &[] };
    // Memory is bounded by the size limit and the number of requests at once.
    body::read(body, limits, |_| true).await.map_err(|error| match error {
        ReadError::TooLarge | ReadError::OutOfMemory => {
            let detail = format!("the body is larger than the {size} bytes that are accepted");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
        }
        ReadError::CutShort | ReadError::ForbiddenTrailer => {
            ApiError::invalid("body-invalid", "the body broke off before its end")
        }
        ReadError::TooSlow => {
            let detail = "the body did not arrive in time; send it again";
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "too-slow", detail)
        }
    })
}
