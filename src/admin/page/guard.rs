//! Requests that the operator's page refuses, and the headers of its answers.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION,
    ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Response, StatusCode};

use crate::body::{Body, empty, full};

/// The policy of a page: it loads its own style, and sends forms to itself.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns true for a `Host` that names this listener: an address, a name of the own machine, or a
/// configured name. Another name may have been made to resolve to the listener by a foreign page.
pub(super) fn is_own_host(head: &Parts, configured: &[String]) -> bool {
    // An absolute form counts for more than the header (RFC 9112 section 3.2.2).
    let absolute = head.uri.authority().cloned();
    let Some(authority) = absolute.or_else(|| authority(&head.headers)) else { return false };
    let host = authority.host().trim_matches(['[', ']']).trim_end_matches('.');
    let host = host.to_ascii_lowercase();
    host.parse::<std::net::IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || configured.iter().any(|name| name.eq_ignore_ascii_case(&host))
}

fn authority(headers: &HeaderMap) -> Option<Authority> {
    let mut lines = headers.get_all(HOST).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => Authority::try_from(line.as_bytes()).ok(),
        _ => None,
    }
}

/// Returns true for a form that was sent by the page itself, as far as the browser says so.
pub(super) fn is_own_form(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SITE).iter();
    if !sites.all(|site| site.as_bytes() == b"same-origin") {
        return false;
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else {
        return !headers.contains_key(ORIGIN);
    };
    let origin = origin.to_str().unwrap_or_default();
    let origin = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let own = authority(headers);
    origin.is_some_and(|origin| own.is_some_and(|own| own.as_str().eq_ignore_ascii_case(origin)))
}

/// A page with the headers that every page has.
pub(super) fn page(status: StatusCode, html: String) -> Response<Body> {
    answer(status, "text/html; charset=utf-8", full(html))
}

/// An answer of this media type with the headers that every page has.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        // The browser then says the page's own origin with its forms.
        (REFERRER_POLICY, "same-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Leads the browser to another page, with GET.
pub(super) fn see_other(to: &str) -> Response<Body> {
    let mut response = answer(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", empty());
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(line).collect()
    }

    fn request(target: &str, lines: &[(&'static str, &'static str)]) -> Parts {
        let mut parts = http::Request::get(target).body(()).unwrap().into_parts().0;
        parts.headers = headers(lines);
        parts
    }

    #[test]
    fn a_host_is_an_address_a_name_of_this_machine_or_configured() {
        let configured = ["Gate.internal".to_owned()];
        for host in [
            "127.0.0.1:9090",
            "127.0.0.1",
            "[::1]:9090",
            "10.1.2.3:9090",
            "localhost:9090",
            "LocalHost.",
            "a.localhost",
            "gate.internal:80",
        ] {
            assert!(is_own_host(&request("/", &[("host", host)]), &configured), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"]
        {
            assert!(!is_own_host(&request("/", &[("host", host)]), &configured), "{host}");
        }
        assert!(!is_own_host(&request("/", &[]), &configured));
        let two = request("/", &[("host", "localhost"), ("host", "localhost")]);
        assert!(!is_own_host(&two, &configured));
        let absolute = request("http://evil.example/", &[("host", "localhost")]);
        assert!(!is_own_host(&absolute, &configured));
    }

    #[test]
    fn a_form_comes_from_the_page_itself() {
        let host = ("host", "localhost:9090");
        for own in [
            vec![],
            vec![("sec-fetch-site", "same-origin")],
            vec![("origin", "http://localhost:9090")],
            vec![("sec-fetch-site", "same-origin"), ("origin", "https://LOCALHOST:9090")],
        ] {
            let lines: Vec<_> = own.into_iter().chain([host]).collect();
            assert!(is_own_form(&headers(&lines)), "{lines:?}");
        }
        for foreign in [
            vec![("sec-fetch-site", "cross-site")],
            vec![("sec-fetch-site", "same-site")],
            vec![("sec-fetch-site", "none")],
            vec![("origin", "null")],
            vec![("origin", "http://localhost:9091")],
            vec![("origin", "http://evil.example")],
            vec![("origin", "ftp://localhost:9090")],
            vec![("sec-fetch-site", "same-origin"), ("origin", "http://evil.example")],
            vec![("origin", "http://localhost:9090"), ("origin", "http://localhost:9090")],
        ] {
            let lines: Vec<_> = foreign.into_iter().chain([host]).collect();
            assert!(!is_own_form(&headers(&lines)), "{lines:?}");
        }
    }
}
