//! The response given by an operator for an executed request. The response is replayed like a
//! response of the backend, so only a storable response is accepted.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::admin::error::ApiError;
use crate::clock::{Timestamp, rfc3339};
use crate::idempotency::record::StoredResponse;

/// Header lines of a response.
const MOST_LINES: usize = 64;
/// Bytes of a header line's value.
const LONGEST_VALUE: usize = 8 << 10;

/// A value accepted only as an object: serde also takes an array for a struct, with the values in
/// an order that is no contract.
#[derive(Debug)]
pub(super) struct StrictObject<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for StrictObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for MembersVisitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor(PhantomData)).map(Self)
    }
}

/// `response` as written by the operator.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResponseInput {
    /// 200 to 599.
    status: u16,
    /// Names with a text, or a list of texts for several lines.
    #[serde(default)]
    headers: Map<String, Value>,
    /// The body as text, or as JSON.
    body: Option<Box<RawValue>>,
    /// The body as Base64, for binary bodies.
    body_base64: Option<String>,
}

impl ResponseInput {
    /// The response in stored form. `most`: bytes of the largest body; `ours`: the route's header
    /// that marks replays; `now`: its `Date` unless given.
    ///
    /// # Errors
    /// The first part that cannot be stored.
    pub(super) fn checked(
        self,
        most: u64,
        ours: Option<&HeaderName>,
        now: Timestamp,
    ) -> Result<Arc<StoredResponse>, ApiError> {
        if !(200..=599).contains(&self.status) {
            return Err(invalid("`response.status` is the status of an answer, 200 to 599"));
        }
        let (body, kind) = self.whole_body()?;
        if !body.is_empty() && matches!(self.status, 204 | 205 | 304) {
            return Err(invalid(format!(
                "an answer with status {} has no body; leave it out",
                self.status
            )));
        }
        if body.len() as u64 > most {
            return Err(invalid(format!(
                "`response` has a body of {} bytes; this route keeps {most} at most \
                 (max_stored_body)",
                body.len()
            )));
        }
        let mut headers = lines(&self.headers, ours)?;
        let kind_given = only(&headers, &CONTENT_TYPE)?.is_some();
        match only(&headers, &DATE)? {
            None => headers.push(date(now)),
            Some(date) => is_date(date)?,
        }
        if !body.is_empty() && !kind_given {
            headers.push((CONTENT_TYPE, HeaderValue::from_static(kind)));
        }
        Ok(Arc::new(StoredResponse { status: self.status, headers, body }))
    }

    /// The body and its default media type.
    fn whole_body(&self) -> Result<(Bytes, &'static str), ApiError> {
        match (&self.body, &self.body_base64) {
            (Some(_), Some(_)) => Err(invalid("give `body` or `body_base64`, not both")),
            (Some(body), None) => {
                // A text stands for itself, anything else is the JSON document as it is written.
                let Ok(text) = serde_json::from_str::<String>(body.get()) else {
                    return Ok((Bytes::from(body.get().to_owned()), "application/json"));
                };
                let json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
                let kind = if json { "application/json" } else { "text/plain; charset=utf-8" };
                Ok((Bytes::from(text), kind))
            }
            (None, Some(text)) => match BASE64_STANDARD.decode(text).ok() {
                Some(bytes) => Ok((Bytes::from(bytes), "application/octet-stream")),
                None => Err(invalid("`response.body_base64` is not Base64 (RFC 4648, padded)")),
            },
            (None, None) => Ok((Bytes::new(), "")),
        }
    }
}

/// The default response of an executed request, stating no more than the operator's confirmation.
pub(super) fn usual(now: Timestamp) -> Arc<StoredResponse> {
    let body = json!({
        "status": "executed",
        "message": "This request was carried out. Its own answer was lost; an operator has \
                    confirmed that it was carried out.",
        "confirmed_at": rfc3339(now),
    });
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json")), date(now)];
    Arc::new(StoredResponse { status: 200, headers, body: Bytes::from(body.to_string()) })
}

fn date(now: Timestamp) -> (HeaderName, HeaderValue) {
    // A date is visible ASCII.
    let value = HeaderValue::from_str(&now.to_http_date());
    (DATE, value.unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT")))
}

/// The single line with this name, if any.
fn only<'a>(
    lines: &'a [(HeaderName, HeaderValue)],
    wanted: &HeaderName,
) -> Result<Option<&'a HeaderValue>, ApiError> {
    let mut found = lines.iter().filter(|(name, _)| name == wanted);
    match (found.next(), found.next()) {
        (first, None) => Ok(first.map(|(_, value)| value)),
        _ => Err(invalid(format!("`response.headers` has `{wanted}` more than once; keep one"))),
    }
}

fn is_date(value: &HeaderValue) -> Result<(), ApiError> {
    let date = value.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
    date.map(|_| ()).ok_or_else(|| {
        invalid(
            "`date` in `response.headers` is not a date such as Fri, 27 Nov 2026 13:45:58 GMT; \
             leave it out for that of the decision",
        )
    })
}

fn lines(
    written: &Map<String, Value>,
    ours: Option<&HeaderName>,
) -> Result<Vec<(HeaderName, HeaderValue)>, ApiError> {
    let mut lines = Vec::new();
    for (written_name, values) in written {
        let Ok(name) = HeaderName::from_bytes(written_name.as_bytes()) else {
            return Err(invalid("`response.headers` has a name that is no header's"));
        };
        if let Some(why) = refused(&name, ours) {
            return Err(invalid(format!("`response.headers` must not have `{name}`: {why}")));
        }
        let values = match values {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let value = value.as_str().filter(|text| text.len() <= LONGEST_VALUE);
            let value = value.and_then(|text| HeaderValue::from_str(text.trim()).ok());
            let value = value.ok_or_else(|| {
                invalid(format!(
                    "the value of `{name}` in `response.headers` is not one line of text, or a \
                     list of such lines, of at most {LONGEST_VALUE} bytes"
                ))
            })?;
            lines.push((name.clone(), value));
        }
    }
    if lines.len() > MOST_LINES {
        return Err(invalid(format!("`response.headers` has more than {MOST_LINES} lines")));
    }
    Ok(lines)
}

/// The reason a replay cannot have this header.
fn refused(name: &HeaderName, ours: Option<&HeaderName>) -> Option<&'static str> {
    if ours == Some(name) {
        return Some("the gateway marks its replays with it");
    }
    match name.as_str() {
        "content-length" | "transfer-encoding" => Some("the length is computed"),
        "content-encoding" => Some("the body is replayed as it is given; give it without encoding"),
        "set-cookie" | "set-cookie2" | "www-authenticate" => {
            Some("it is meant for one client, and a replay goes to every client of the key")
        }
        "connection" | "keep-alive" | "te" | "trailer" | "upgrade" | "expect"
        | "http2-settings" => Some("it concerns one connection only"),
        name if name.starts_with("proxy-") => Some("it concerns one connection only"),
        name if name.starts_with("idempotency-") => Some("the gateway says it anew each time"),
        _ => None,
    }
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::invalid("response-invalid", detail)
}
