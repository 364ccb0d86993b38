//! The headers in which keys stand: which the gateway looks for, and which it keeps back.

use http::HeaderName;

use crate::config::{Mode, RouteConfig};
use crate::idempotency::key::KeyPlaces;

/// Headers in which clients and proxies look for a key. Some of them, such as Go's HTTP client,
/// repeat a request without a body on their own when one of these is there, whatever its value.
const KEY_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("idempotency-key"), HeaderName::from_static("x-idempotency-key")];

/// The headers that are the keys of `routes`.
pub(super) fn key_headers(routes: &[RouteConfig]) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for route in routes {
        if let Mode::Request(mode) = &route.mode
            && route.is_keyed()
            && let Some(name) = mode.key.places.header()
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    }
    names
}

/// The headers in which the key of a route, or a part of it, stands.
pub(super) fn own_key_headers(mode: &Mode) -> Vec<HeaderName> {
    let places = match mode {
        Mode::Request(mode) if !mode.observes => Some(&mode.key.places),
        Mode::Items(mode) => mode.batch_key.as_ref().map(|key| &key.places),
        Mode::Request(_) | Mode::Off => None,
    };
    places.into_iter().flat_map(KeyPlaces::headers).cloned().collect()
}

/// The headers in which a key, or a part of a key, of `routes` may stand.
pub(super) fn possible_key_headers(routes: &[RouteConfig]) -> Vec<HeaderName> {
    let mut names = KEY_HEADERS.to_vec();
    for route in routes {
        if let Mode::Request(mode) = &route.mode {
            names.extend(mode.key.places.headers().cloned());
        }
    }
    names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    names
}

/// The headers to keep back on a keyed route whose key stands in header `own`, if in any.
pub(super) fn hidden_keys(own: Option<&HeaderName>) -> Vec<HeaderName> {
    let own = own.filter(|own| !KEY_HEADERS.contains(own)).cloned();
    KEY_HEADERS.into_iter().chain(own).collect()
}
