//! The id of an exchange in its headers.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::idempotency::key::any_text;
use crate::observe::request_id::RequestId;

/// Header with the id of an exchange.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of the longest id taken from a client.
const LONGEST: usize = 128;

/// The id of a request with these headers; `key_headers` are those in which keys stand. A client's
/// id that is the request's key is not used.
pub(crate) fn of(headers: &HeaderMap, key_headers: &[HeaderName]) -> RequestId {
    let client = usable(headers).filter(|id| {
        let is_key = |name: &HeaderName| {
            headers.get_all(name).iter().any(|line| is_key_text(line.as_bytes(), id))
        };
        !key_headers.iter().any(is_key)
    });
    RequestId::new(client.cloned())
}

/// The `X-Request-Id` to set in the request for the upstream; `None`: the client's line stays.
/// `hidden`: headers that the upstream does not get.
pub(crate) fn for_upstream(
    id: &RequestId,
    headers: &HeaderMap,
    is_key_header: bool,
    hidden: &[HeaderName],
) -> Option<HeaderValue> {
    let is_kept = match is_key_header {
        true => headers.contains_key(&X_REQUEST_ID) && !hidden.contains(&X_REQUEST_ID),
        false => id.client().is_some(),
    };
    (!is_kept).then(|| id.header())
}

/// The only `X-Request-Id` of a request, when it is fit for a log: 1 to 128 visible ASCII
/// characters.
fn usable(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lines = headers.get_all(X_REQUEST_ID).iter();
    let id = lines.next().filter(|_| lines.next().is_none())?;
    let bytes = id.as_bytes();
    let fits = (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    fits.then_some(id)
}

/// True if the line of a key header names the key `id`. Keys that are UUIDs have no case.
fn is_key_text(line: &[u8], id: &HeaderValue) -> bool {
    let is_same = |key: &[u8]| key.eq_ignore_ascii_case(id.as_bytes());
    is_same(line.trim_ascii()) || any_text(line).is_ok_and(|key| is_same(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HeaderName = HeaderName::from_static("idempotency-key");

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            (HeaderName::from_static(name), value)
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn an_id_is_the_clients_when_it_is_fit_for_a_log_and_no_key() {
        let long = "x".repeat(128);
        let too_long = "x".repeat(129);
        for (lines, is_used) in [
            (vec![("x-request-id", "r-1")], true),
            (vec![("x-request-id", &*long)], true),
            (vec![("x-request-id", "r-1"), ("idempotency-key", "r-12")], true),
            (vec![("x-request-id", &*too_long)], false),
            (vec![("x-request-id", "")], false),
            (vec![("x-request-id", "a b")], false),
            (vec![("x-request-id", "caf\u{e9}")], false),
            (vec![("x-request-id", "a"), ("x-request-id", "a")], false),
            (vec![("x-request-id", "r-1"), ("idempotency-key", "r-1")], false),
            (vec![("x-request-id", "r-1"), ("idempotency-key", "\"r-1\"")], false),
            (vec![("x-request-id", "r-1"), ("idempotency-key", "\"r-1\";a=1")], false),
            (vec![("x-request-id", "AB"), ("idempotency-key", " ab")], false),
            (
                vec![("x-request-id", "r-1"), ("idempotency-key", "x"), ("idempotency-key", "r-1")],
                false,
            ),
            (vec![], false),
        ] {
            let headers = headers(&lines);
            let id = of(&headers, &[KEY]);
            let given = headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok());
            assert_eq!(Some(&*id.to_string()) == given, is_used, "{lines:?}");
            assert_eq!(id.header().to_str().unwrap(), id.to_string());
            assert_eq!(for_upstream(&id, &headers, false, &[]).is_none(), is_used, "{lines:?}");
        }
    }

    #[test]
    fn a_key_in_a_body_is_concealed() {
        let id = of(&headers(&[("x-request-id", "r-1")]), &[KEY]);
        id.conceal("r-2");
        assert_eq!(id.to_string(), "r-1");
        id.conceal("r-1");
        let made = id.to_string();
        assert_ne!(made, "r-1");
        assert_eq!(id.header().to_str().unwrap(), made);
    }

    #[test]
    fn a_key_header_of_this_name_is_left_to_its_routes() {
        let headers = headers(&[("x-request-id", "r-1")]);
        let id = of(&headers, &[KEY, X_REQUEST_ID]);
        assert_ne!(id.to_string(), "r-1");
        assert_eq!(for_upstream(&id, &headers, true, &[]), None);
        assert_eq!(for_upstream(&id, &headers, true, &[X_REQUEST_ID]), Some(id.header()));
    }
}
