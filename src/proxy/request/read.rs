//! Reading of a keyed request: key, tenant, the bounded body, and the request's identity. Every
//! error of a request is found here, before its claim.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{EXPECT, TRAILER};
use http::{HeaderMap, HeaderName};
use http_body::Body as _;
use hyper::body::Incoming;

use super::refusals::{
    cut_short, key_in_a_trailer, out_of_memory, refused_key, too_large, too_slow,
};
use crate::body::{self, ReadError, ReadLimits};
use crate::caller::Caller;
use crate::config::RequestMode;
use crate::content_coding::{self, CodingError};
use crate::idempotency::fingerprint::{ComparedBody, Preimage, RequestParts, Verbatim};
use crate::idempotency::id::IdScheme;
use crate::idempotency::key::{Key, KeyError, Scope};
use crate::idempotency::settling::KeptValue;
use crate::idempotency::{RecordId, TenantId};
use crate::observe::exchange;
use crate::place::{Place, RequestValues};
use crate::problem::{Problem, Slug};
use crate::proxy::budget::Reservation;
use crate::proxy::buffered::BufferedRequest;
use crate::proxy::headers;
use crate::proxy::incoming::{Arrived, Path, RequestBody};
use crate::proxy::kept::{self, KeptPlace};
use crate::proxy::peer::ClientAddress;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;

/// A valid keyed request with a complete body.
pub(crate) struct KeyedRequest {
    pub(crate) id: RecordId,
    pub(crate) key: Key,
    pub(crate) tenant: TenantId,
    /// Name of the tenant.
    pub(crate) caller: Option<Arc<str>>,
    ids: IdScheme,
    path: Path,
    /// Names and values of the path's parameters, where a place of the route names one.
    parameters: Vec<(String, String)>,
    /// Bytes of the largest body, with or without its content coding.
    most: u64,
    pub(crate) buffered: BufferedRequest,
}

/// Identity of a request, from its head and body.
pub(crate) struct RequestIdentity {
    /// Preimage for the comparison with earlier requests of the key.
    pub(crate) compared: Preimage,
    /// Digest of the business id.
    pub(crate) subject: Option<[u8; 16]>,
}

/// Result of reading.
pub(crate) enum KeyedRead {
    Keyed(Box<KeyedRequest>),
    /// The key would stand in the body, is optional and is not there.
    Keyless(Box<BufferedRequest>),
}

/// The key of a request that stands in its head.
///
/// # Errors
/// [`KeyError::Missing`] when the head has no key; otherwise what is wrong with it.
pub(crate) fn key_in_head(mode: &RequestMode, arrived: &Arrived<'_>) -> Result<Key, KeyError> {
    let Arrived { head, path, routing, .. } = arrived;
    let parameters = match mode.key.places.in_path() {
        true => routing.parameters(&head.method, path.of(&head.uri)),
        false => Vec::new(),
    };
    let values = RequestValues::new(&head.headers, head.uri.query(), &parameters, &[]);
    mode.key.from_values(&values)
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
    let places = &mode.key.places;
    let from_head = match places.in_body() {
        true => None,
        false => match key_in_head(mode, &arrived) {
            Ok(key) => Some(key),
            Err(error) => {
                let refusal = refused_key(error, places).close();
                return Err(Box::pin(without_a_key(gateway, route, arrived, refusal)).await);
            }
        },
    };
    let Arrived { head, body, client, path, caller, routing } = *arrived;
    let named = places.headers().chain(mode.record.subject.iter().filter_map(Place::header));
    let compared = named.chain(&mode.fingerprint.headers);
    refuse_nominations(route.callers.headers(), compared, &head.headers)?;
    let (body, reservation) = read_body(gateway, route, body).await?;
    let has_parameter = |place: &Place| matches!(place, Place::Path(_));
    let kept = route.kept.iter().any(KeptPlace::is_path);
    let named = places.in_path() || mode.record.subject.iter().any(has_parameter);
    let parameters = match named || kept {
        true => routing.parameters(&head.method, path.of(&head.uri)),
        false => Vec::new(),
    };
    let address = client.address(&routing.trusted_proxies);
    let ids = gateway.store.ids().clone();
    let input = ReadInput { head, client: address, path, parameters, caller, ids };
    identified(route, mode, input, from_head.map(Ok), (body, reservation))
}

/// The refusal of a request whose head has no key that can be accepted. A key in a trailer arrives
/// behind the body, which is read for its sake where trailers may follow.
async fn without_a_key(
    gateway: &Gateway,
    route: &Route,
    arrived: Box<Arrived<'_>>,
    refusal: Problem,
) -> Problem {
    let Arrived { head, body, .. } = *arrived;
    if refusal.slug != Slug::KeyMissing {
        return refusal;
    }
    if announces(&head.headers, &route.key_headers) {
        return key_in_a_trailer().close();
    }
    match body {
        RequestBody::Streaming(body)
            if body.size_hint().exact().is_none() && !head.headers.contains_key(EXPECT) =>
        {
            match read_body(gateway, route, RequestBody::Streaming(body)).await {
                Err(problem) if problem.slug == Slug::KeyInvalid => problem,
                Ok(_) | Err(_) => refusal,
            }
        }
        RequestBody::Streaming(_) | RequestBody::Read(..) => refusal,
    }
}

/// Returns true if `Trailer` announces one of the headers.
pub(super) fn announces(headers: &HeaderMap, names: &[HeaderName]) -> bool {
    headers.get_all(TRAILER).iter().any(|line| {
        line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|announced| {
            names.iter().any(|name| announced.eq_ignore_ascii_case(name.as_str().as_bytes()))
        })
    })
}

/// A request without its body, as far as its identity is concerned.
pub(crate) struct ReadInput {
    pub(crate) head: http::request::Parts,
    pub(crate) client: ClientAddress,
    pub(crate) path: Path,
    /// Names and values of the path's parameters.
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) caller: Caller,
    /// The way in which the store makes ids.
    pub(crate) ids: IdScheme,
}

/// Identifies a request with its complete body; `from_head`: its key, unless a place of the key is
/// in the body.
///
/// # Errors
/// Every error of the key.
pub(crate) fn identified(
    route: &Route,
    mode: &RequestMode,
    input: ReadInput,
    from_head: Option<Result<Key, KeyError>>,
    (body, reservation): (Bytes, Reservation),
) -> Result<KeyedRead, Problem> {
    let ReadInput { head, client, path, parameters, caller, ids } = input;
    let Caller { id: tenant, name: caller } = caller;
    let most = route.max_buffered;
    let key = match from_head {
        Some(key) => key,
        None => key_in_body(mode, &head, &parameters, &body, most)?,
    };
    // A key in the body is known only here, and may be the client's id of the request.
    if let Ok(key) = &key {
        exchange::with_request_id(|id| id.conceal(key.as_str()));
    }
    let buffered = BufferedRequest { head, client, body, reservation };
    let key = match key {
        Ok(key) => key,
        Err(KeyError::Missing) if !mode.key.required => {
            return Ok(KeyedRead::Keyless(Box::new(buffered)));
        }
        Err(error) => return Err(refused_key(error, &mode.key.places)),
    };
    let scope = match mode.key.scope {
        Scope::Tenant => "",
        Scope::Route => route.name.as_ref(),
    };
    let id = ids.record(&tenant, scope, key.as_str());
    let request = KeyedRequest { id, key, tenant, caller, ids, path, parameters, most, buffered };
    Ok(KeyedRead::Keyed(Box::new(request)))
}

/// The key of a request of which a place is in the body.
///
/// # Errors
/// Without its content coding, the body would be too large.
fn key_in_body(
    mode: &RequestMode,
    head: &http::request::Parts,
    parameters: &[(String, String)],
    body: &[u8],
    most: u64,
) -> Result<Result<Key, KeyError>, Problem> {
    let content = decoded(&head.headers, body, most)?;
    let content = content.as_deref().unwrap_or(body);
    let values = RequestValues::new(&head.headers, head.uri.query(), parameters, content);
    Ok(match mode.key.from_values(&values) {
        // A body of another kind has no key. Where a key is optional, such a request passes without
        // one, unless the body may be readable for the backend all the same (half a surrogate pair,
        // deep nesting, a content coding), and so may be a key inside.
        Err(KeyError::Unreadable(format))
            if !mode.key.required && !format.is_claimed(&head.headers, body) =>
        {
            Err(KeyError::Missing)
        }
        other => other,
    })
}

/// The body without its content coding; `None`: it has none, or one that cannot be decoded. The
/// bytes live no longer than the synchronous work on one request, so that there are never more of
/// them than there are workers.
///
/// # Errors
/// Decoded, the body would be larger than `most` bytes.
fn decoded(headers: &HeaderMap, body: &[u8], most: u64) -> Result<Option<Vec<u8>>, Problem> {
    if !headers.contains_key(http::header::CONTENT_ENCODING) {
        return Ok(None);
    }
    match content_coding::decoded(headers, body, most) {
        Ok(Cow::Owned(decoded)) => Ok(Some(decoded)),
        Ok(Cow::Borrowed(_)) | Err(CodingError::Corrupt | CodingError::Unsupported) => Ok(None),
        Err(CodingError::TooLarge) => Err(too_large(most)),
    }
}

impl KeyedRequest {
    /// Parses the body as far as required by the route.
    ///
    /// # Errors
    /// Without its content coding, the body would be too large.
    pub(crate) fn identify(&self, mode: &RequestMode) -> Result<RequestIdentity, Problem> {
        let BufferedRequest { head, body, .. } = &self.buffered;
        let decoded = decoded(&head.headers, body, self.most)?;
        let content = decoded.as_deref().unwrap_or(body);
        let values = RequestValues::new(&head.headers, head.uri.query(), &self.parameters, content);
        let subject = subject(&values, &mode.record.subject, &self.ids);
        let is_decoded = decoded.is_some();
        let compared = mode.fingerprint.body.of(&head.headers, values.body(), is_decoded);
        let parts = RequestParts { compared, is_decoded, ..self.parts() };
        let compared = mode.fingerprint.preimage(&parts);
        Ok(RequestIdentity { compared, subject })
    }

    /// The values to keep with the claim; `None`: the route needs no data for a settlement.
    pub(crate) fn kept_values(&self, route: &Route, mode: &RequestMode) -> Option<Vec<KeptValue>> {
        if route.settle.is_none() && !mode.record.keep_request {
            return None;
        }
        let BufferedRequest { head, body, .. } = &self.buffered;
        let decoded = decoded(&head.headers, body, self.most).ok().flatten();
        let content = decoded.as_deref().unwrap_or(body);
        let values = RequestValues::new(&head.headers, head.uri.query(), &self.parameters, content);
        Some(kept::values(&route.kept, &values, mode.record.keep_request))
    }

    /// The very bytes of the request.
    pub(crate) fn verbatim(&self, mode: &RequestMode) -> Verbatim {
        mode.fingerprint.verbatim(&self.parts())
    }

    /// Returns true if the exact bytes of the request equal `first`.
    pub(crate) fn is_verbatim(&self, mode: &RequestMode, first: &Verbatim) -> bool {
        mode.fingerprint.is_verbatim(&self.parts(), first)
    }

    fn parts(&self) -> RequestParts<'_> {
        RequestParts {
            method: self.buffered.head.method.as_str(),
            path: self.path.of(&self.buffered.head.uri),
            query: self.buffered.head.uri.query(),
            headers: &self.buffered.head.headers,
            tenant: &self.tenant,
            body: &self.buffered.body,
            compared: ComparedBody::Raw(&self.buffered.body),
            is_decoded: false,
        }
    }
}

/// Digest of a business id, as an index to all keys with the same business id: the first of the
/// places that the request has.
pub(crate) fn subject(
    values: &RequestValues<'_>,
    places: &[Place],
    ids: &IdScheme,
) -> Option<[u8; 16]> {
    let text = places.iter().find_map(|place| values.text(place).ok().flatten())?;
    Some(ids.subject(&text))
}

/// Reads a body within the route's limits and the shared memory for bodies.
pub(crate) async fn read_body(
    gateway: &Gateway,
    route: &Route,
    body: RequestBody,
) -> Result<(Bytes, Reservation), Problem> {
    let most = route.max_buffered;
    match body {
        RequestBody::Streaming(body) => {
            read_whole(gateway, (most, route.body_timeout), body, &route.key_headers).await
        }
        RequestBody::Read(body, _) if body.len() as u64 > most => Err(too_large(most)),
        RequestBody::Read(body, reservation) => Ok((body, reservation)),
    }
}

/// Reads a body of at most `most` bytes within `time`; none of `key_headers` may be a trailer.
pub(crate) async fn read_whole(
    gateway: &Gateway,
    (most, time): (u64, Duration),
    body: Incoming,
    key_headers: &[HeaderName],
) -> Result<(Bytes, Reservation), Problem> {
    let mut reservation = gateway.budget.reserve();
    let limits = ReadLimits { size: most, time, forbidden_trailers: key_headers };
    let bytes = body::read(body, limits, |bytes| reservation.grow(bytes)).await;
    let bytes = bytes.map_err(|error| match error {
        ReadError::TooLarge => too_large(most),
        ReadError::OutOfMemory => out_of_memory(),
        ReadError::CutShort => cut_short(),
        ReadError::TooSlow => too_slow(),
        ReadError::ForbiddenTrailer => key_in_a_trailer(),
    })?;
    exchange::note(|span| span.receive(bytes.len() as u64));
    Ok((bytes, reservation))
}

/// Refuses a `Connection` header naming a header relevant to the gateway: dropped on the way, the
/// header would be seen by the gateway but not by the backend.
pub(crate) fn refuse_nominations<'a>(
    tenant_headers: &'a [HeaderName],
    compared: impl Iterator<Item = &'a HeaderName>,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    if !headers.contains_key(http::header::CONNECTION) {
        return Ok(());
    }
    if tenant_headers.iter().chain(compared).any(|name| headers::check::nominates(headers, name)) {
        let detail = headers::check::HeadError::Nomination.detail();
        return Err(Problem::new(Slug::RequestInvalid, detail).close());
    }
    Ok(())
}
