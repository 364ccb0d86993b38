//! Reading of a keyed request: key, tenant, the bounded body, and the request's identity. Every
//! error of a request is found here, before its claim.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use hyper::body::Incoming;

use crate::body::{self, ReadError, ReadLimits};
use crate::config::RequestMode;
use crate::idempotency::fingerprint::{self, Preimage, RequestParts, Verbatim};
use crate::idempotency::id::subject_digest;
use crate::idempotency::key::{Key, KeyError, KeySource, Scope};
use crate::idempotency::{RecordId, TenantId};
use crate::json::{Document, Pointer};
use crate::problem::{Problem, Slug};
use crate::proxy::budget::Reservation;
use crate::proxy::buffered::BufferedRequest;
use crate::proxy::incoming::{Arrived, Path};
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;
use crate::proxy::{headers, reply};

/// A valid keyed request with a complete body.
pub(crate) struct KeyedRequest {
    pub(crate) id: RecordId,
    pub(crate) key: Key,
    pub(crate) tenant: TenantId,
    path: Path,
    pub(crate) buffered: BufferedRequest,
}

/// Identity of a request, from its head and body.
pub(crate) struct RequestIdentity {
    /// Preimage for the comparison with earlier requests of the key.
    pub(crate) compared: Preimage,
    /// Digest of the business id in the body.
    pub(crate) subject: Option<[u8; 16]>,
}

/// Result of reading.
pub(crate) enum KeyedRead {
    Keyed(Box<KeyedRequest>),
    /// The key would stand in the body, is optional and is not there.
    Keyless(Box<BufferedRequest>),
}

/// Reads and identifies a request.
///
/// # Errors
/// Every error of the request itself; no claim was made and no request sent.
pub(crate) async fn read(
    gateway: &Gateway,
    route: &Route,
    mode: &RequestMode,
    arrived: Box<Arrived<'_>>,
) -> Result<KeyedRead, Problem> {
    let Arrived { head, body, client, path, routing } = *arrived;
    let from_header = match &mode.key.source {
        KeySource::Header(name) => {
            let key = mode.key.from_headers(name, &head.headers);
            Some(key.map_err(|error| refused_key(error, &mode.key.source).close())?)
        }
        KeySource::Pointer(_) => None,
    };
    let key_header = match &mode.key.source {
        KeySource::Header(name) => Some(name),
        KeySource::Pointer(_) => None,
    };
    refuse_nominations(
        &routing.tenant_headers,
        &mode.fingerprint.headers,
        key_header,
        &head.headers,
    )?;
    let (body, reservation) = read_body(gateway, route, body, key_header).await?;
    let tenant = client.tenant(&routing.tenant_headers, &head.headers);
    let key = match (from_header, &mode.key.source) {
        (Some(key), _) => key,
        (None, source @ KeySource::Header(_)) => {
            return Err(refused_key(KeyError::Missing, source));
        }
        (None, KeySource::Pointer(pointer)) => match Document::parse(&body)
            .map_err(|_| unread(&head.headers, &body))
            .and_then(|json| key_in_body(mode, &json, pointer))
        {
            Ok(key) => key,
            Err(KeyError::Missing) if !mode.key.required => {
                return Ok(KeyedRead::Keyless(Box::new(BufferedRequest {
                    head,
                    client: client.address,
                    body,
                    reservation,
                })));
            }
            Err(error) => return Err(refused_key(error, &mode.key.source)),
        },
    };
    let scope = match mode.key.scope {
        Scope::Tenant => "",
        Scope::Route => route.name.as_ref(),
    };
    let id = RecordId::new(&tenant, scope, key.as_str());
    let buffered = BufferedRequest { head, client: client.address, body, reservation };
    Ok(KeyedRead::Keyed(Box::new(KeyedRequest { id, key, tenant, path, buffered })))
}

impl KeyedRequest {
    /// Parses the body as far as required by the route.
    pub(crate) fn identify(&self, mode: &RequestMode) -> RequestIdentity {
        let compares_json = mode.fingerprint.wants_json(&self.buffered.head.headers);
        let json = (compares_json || mode.record.subject.is_some())
            .then(|| Document::parse(&self.buffered.body).ok())
            .flatten();
        let pointer = mode.record.subject.as_ref();
        let subject = pointer.and_then(|at| subject(json.as_ref()?, at, &self.tenant));
        let compared_json = json.as_ref().filter(|_| compares_json);
        let compared = mode.fingerprint.preimage(&self.subject(compared_json));
        RequestIdentity { compared, subject }
    }

    /// The very bytes of the request.
    pub(crate) fn verbatim(&self, mode: &RequestMode) -> Verbatim {
        mode.fingerprint.verbatim(&self.subject(None))
    }

    /// Returns true if the exact bytes of the request equal `first`.
    pub(crate) fn is_verbatim(&self, mode: &RequestMode, first: &Verbatim) -> bool {
        mode.fingerprint.is_verbatim(&self.subject(None), first)
    }

    fn subject<'a>(&'a self, json: Option<&'a Document<'a>>) -> RequestParts<'a> {
        RequestParts {
            method: self.buffered.head.method.as_str(),
            path: self.path.of(&self.buffered.head.uri),
            query: self.buffered.head.uri.query(),
            headers: &self.buffered.head.headers,
            tenant: &self.tenant,
            body: &self.buffered.body,
            json,
        }
    }
}

/// Error for a key in an unreadable JSON body. A body declared as JSON, or starting like an object,
/// may still be readable for the backend (half a surrogate pair, deep nesting, a content coding),
/// and so may the key in the body.
fn unread(headers: &HeaderMap, body: &[u8]) -> KeyError {
    let claims = fingerprint::names_json(headers) && !body.is_empty();
    if claims || body.trim_ascii_start().starts_with(b"{") {
        KeyError::Unreadable
    } else {
        KeyError::Missing
    }
}

fn key_in_body(
    mode: &RequestMode,
    document: &Document<'_>,
    pointer: &Pointer,
) -> Result<Key, KeyError> {
    if document.has_duplicates() {
        // Two members of the same name: the backend may read the second.
        return Err(KeyError::Several);
    }
    let value = document.find(pointer).ok_or(KeyError::Missing)?;
    mode.key.from_text(&value.as_id().ok_or(KeyError::Type)?)
}

/// Digest of a business id within a tenant, as an index to all keys with the same business id.
pub(crate) fn subject(
    json: &Document<'_>,
    pointer: &Pointer,
    tenant: &TenantId,
) -> Option<[u8; 16]> {
    let value = json.find(pointer)?;
    Some(subject_digest(&value.as_id()?, tenant))
}

/// Reads a body within the route's limits and the shared memory for bodies.
pub(crate) async fn read_body(
    gateway: &Gateway,
    route: &Route,
    body: Incoming,
    key_header: Option<&HeaderName>,
) -> Result<(Bytes, Reservation), Problem> {
    let most = route.max_buffered;
    let mut reservation = gateway.budget.reserve();
    let time = route.body_timeout;
    let limits = ReadLimits { size: most, time, forbidden_trailer: key_header };
    let bytes = body::read(body, limits, |bytes| reservation.grow(bytes)).await;
    let bytes = bytes.map_err(|error| match error {
        ReadError::TooLarge => too_large(most),
        ReadError::OutOfMemory => out_of_memory(),
        ReadError::CutShort => cut_short(),
        ReadError::TooSlow => too_slow(),
        ReadError::ForbiddenTrailer => key_in_a_trailer(),
    })?;
    Ok((bytes, reservation))
}

/// Refuses a `Connection` header naming a header relevant to the gateway: dropped on the way, the
/// header would be seen by the gateway but not by the backend.
pub(crate) fn refuse_nominations(
    tenant_headers: &[HeaderName],
    compared: &[HeaderName],
    key_header: Option<&HeaderName>,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    if !headers.contains_key(http::header::CONNECTION) {
        return Ok(());
    }
    let read = key_header.into_iter().chain(tenant_headers);
    let mut read = read.chain(compared);
    if read.any(|name| headers::check::nominates(headers, name)) {
        let detail = headers::check::HeadError::Nomination.detail();
        return Err(Problem::new(Slug::RequestInvalid, detail).close());
    }
    Ok(())
}

fn refused_key(error: KeyError, place: &KeySource) -> Problem {
    let what = match error {
        KeyError::Missing => {
            let detail =
                format!("This request needs an idempotency key in {place}. Nothing was sent.");
            return Problem::new(Slug::KeyMissing, detail);
        }
        KeyError::Several => "there must be exactly one",
        KeyError::TooShort => "it is empty or too short",
        KeyError::TooLong => "it is too long",
        KeyError::Characters => "only visible ASCII characters are allowed",
        KeyError::Syntax => "it is not a well-formed quoted string",
        KeyError::Format => "it must be a UUID",
        KeyError::Type => "it must be a string or a number",
        KeyError::Unreadable => "the body cannot be read as JSON",
    };
    let detail =
        format!("The idempotency key in {place} cannot be accepted: {what}. Nothing was sent.");
    Problem::new(Slug::KeyInvalid, detail)
}

pub(crate) fn key_in_a_trailer() -> Problem {
    Problem::new(
        Slug::KeyInvalid,
        "The idempotency key stands in a trailer, where it cannot be accepted. Nothing was sent.",
    )
}

fn too_large(most: u64) -> Problem {
    Problem::new(
        Slug::BodyTooLarge,
        format!(
            "The request's body is larger than the {most} bytes that are accepted. \
             Nothing was sent."
        ),
    )
    .close()
}

pub(crate) fn out_of_memory() -> Problem {
    Problem::new(
        Slug::Overloaded,
        "Too much is being received at once. Nothing was sent; please try again shortly.",
    )
    .retry_after(reply::RETRY_LATER)
    .close()
}

fn too_slow() -> Problem {
    Problem::new(
        Slug::RequestTimeout,
        "The request's body did not arrive in time. Nothing was sent; please try again.",
    )
    .retry_after(Duration::from_secs(1))
    .close()
}

fn cut_short() -> Problem {
    Problem::new(
        Slug::RequestInvalid,
        "The request's body broke off before its end. Nothing was sent; please try again.",
    )
    .close()
}
