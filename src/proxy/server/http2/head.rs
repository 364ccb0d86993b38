//! Heads of HTTP/2 in the form that the rest of the gateway reads, and answers in the form of
//! HTTP/2.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;

use crate::body::{Body, empty};

/// Headers of a single connection that an answer may not have (RFC 9113 section 8.2.2).
const OF_A_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Adapts a request: the authority becomes its `Host`, and the parts of a cookie become one line
/// (RFC 9113 sections 8.3.1 and 8.2.3).
///
/// # Errors
/// A sentence for the client about a value or a target that HTTP/2 does not allow.
pub(super) fn adapt<B>(request: &mut Request<B>) -> Result<(), &'static str> {
    let is_padded = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        ends.into_iter().flatten().any(|byte| matches!(byte, b' ' | b'\t'))
    };
    if request.headers().values().any(is_padded) {
        // RFC 9113 section 8.2.1; a backend would read another value than the gateway.
        return Err("A header's value begins or ends with white space.");
    }
    if request.uri().path_and_query().is_some_and(|target| target.as_str().starts_with('?')) {
        // RFC 9113 section 8.3.1; the library takes it.
        return Err("The path is empty.");
    }
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let headers = request.headers_mut();
    if let Some(authority) = authority
        && !headers.contains_key(HOST)
    {
        let host = HeaderValue::try_from(authority);
        headers.insert(HOST, host.map_err(|_| "The authority is not a valid host.")?);
    }
    join_cookies(headers);
    Ok(())
}

fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter();
    let (Some(first), Some(_)) = (lines.next(), lines.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for line in headers.get_all(COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    // The text was made of checked values.
    if let Ok(cookie) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, cookie);
    }
}

/// Adapts an answer to a request of `method`: no header of a connection, and no body where HTTP has
/// none. The library would send the body.
pub(super) fn answer(method: &Method, mut response: Response<Body>) -> Response<Body> {
    *response.version_mut() = Version::HTTP_2;
    let length = response.body().size_hint().exact();
    let is_head = *method == Method::HEAD;
    let status = response.status();
    let headers = response.headers_mut();
    for name in &OF_A_CONNECTION {
        headers.remove(name);
    }
    if !is_head && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return response;
    }
    if is_head
        && let Some(length) = length.filter(|length| *length > 0)
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response.map(|_| empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::full;

    #[test]
    fn authority_and_cookies_take_the_form_of_http1() {
        let mut request = Request::new(());
        *request.uri_mut() = "https://shop.example:8443/a?b".parse().unwrap();
        for part in ["a=1", "b=2", "c=3"] {
            request.headers_mut().append(COOKIE, HeaderValue::from_static(part));
        }
        adapt(&mut request).unwrap();
        assert_eq!(request.headers()[HOST], "shop.example:8443");
        let cookies: Vec<_> = request.headers().get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3"]);
        // A Host beside the authority is compared later, not replaced.
        request.headers_mut().insert(HOST, HeaderValue::from_static("other"));
        adapt(&mut request).unwrap();
        assert_eq!(request.headers()[HOST], "other");
        for value in [" a", "a ", "\ta", "a\t"] {
            request.headers_mut().insert("x", HeaderValue::from_static(value));
            assert!(adapt(&mut request).is_err(), "{value:?}");
        }
    }

    #[test]
    fn a_query_without_a_path_is_refused() {
        for (target, is_taken) in [("https://a?b", false), ("https://a/?b", true)] {
            let mut request = Request::new(());
            *request.uri_mut() = target.parse().unwrap();
            assert_eq!(adapt(&mut request).is_ok(), is_taken, "{target}");
        }
    }

    #[test]
    fn answers_lose_what_belongs_to_a_connection_and_bodies_that_may_not_be() {
        let response = |status: u16| {
            let response = Response::builder().status(status);
            let response = response.header(CONNECTION, "close").header("keep-alive", "timeout=1");
            response.body(full("hello")).unwrap()
        };
        let get = answer(&Method::GET, response(200));
        assert!(get.headers().is_empty() && !get.body().is_end_stream());
        let head = answer(&Method::HEAD, response(200));
        assert_eq!(head.headers()[CONTENT_LENGTH], "5");
        assert!(head.headers().len() == 1 && head.body().is_end_stream());
        let none = answer(&Method::GET, response(304));
        assert!(none.headers().is_empty() && none.body().is_end_stream());
    }
}
