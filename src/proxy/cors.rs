//! Cross-origin requests of browsers (the CORS protocol of the Fetch standard).
//!
//! A script on another page reads nothing of an answer without these headers: not even that a call
//! is in progress, so that it would take a new key.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use crate::body::{Body, empty};
use crate::config::{Config, CorsConfig, Mode};

/// Headers of the gateway's answers that scripts may read.
const READABLE: [&str; 6] = [
    "Idempotency-Status",
    "Idempotency-Error",
    "Idempotency-Expires",
    "Idempotency-Earlier",
    "Retry-After",
    "X-Request-Id",
];

/// Time for which a browser may remember the answer to a preflight: two hours, the most that
/// browsers grant.
const REMEMBERED: HeaderValue = HeaderValue::from_static("7200");

/// The rules for cross-origin requests.
#[derive(Debug)]
pub(crate) struct CrossOrigin {
    origins: Vec<HeaderValue>,
    /// `Access-Control-Expose-Headers`.
    exposed: HeaderValue,
    /// The key headers of the routes.
    key_headers: Vec<HeaderName>,
}

impl CrossOrigin {
    pub(crate) fn new(cors: &CorsConfig, config: &Config, key_headers: &[HeaderName]) -> Self {
        let mut exposed: Vec<String> = READABLE.map(str::to_owned).to_vec();
        for route in &config.routes {
            let marker = match &route.mode {
                Mode::Request(mode) => &mode.duplicates.replayed_header,
                Mode::Items(mode) => &mode.duplicates.replayed_header,
                Mode::Off => continue,
            };
            let marker = crate::idempotency::key::header_as_written(marker);
            if !exposed.contains(&marker) {
                exposed.push(marker);
            }
        }
        let exposed = HeaderValue::try_from(exposed.join(", "));
        Self {
            origins: cors.origins.clone(),
            // Names of headers are valid values.
            exposed: exposed.unwrap_or_else(|_| HeaderValue::from_static("Retry-After")),
            key_headers: key_headers.to_vec(),
        }
    }

    /// The origin of a request, if its answers may be read there.
    pub(crate) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut lines = headers.get_all(ORIGIN).iter();
        let origin = lines.next().filter(|_| lines.next().is_none())?;
        self.origins.contains(origin).then(|| origin.clone())
    }

    /// Adds what a browser needs to hand an answer to a script of `origin`; `None`: the request has
    /// no allowed origin. The backend's own permission stays.
    pub(crate) fn complete(&self, headers: &mut HeaderMap, origin: Option<HeaderValue>) {
        if !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            // Also without an origin: a shared cache must not give this answer to a script.
            headers.append(VARY, HeaderValue::from_static("Origin"));
            if let Some(origin) = &origin {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            }
        }
        if origin.is_some() {
            headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, self.exposed.clone());
        }
    }

    /// The answer to a preflight; `allow`: the methods of the path.
    pub(crate) fn preflight(&self, headers: &HeaderMap, allow: HeaderValue) -> Response<Body> {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let mut names: Vec<String> = self.key_headers.iter().map(ToString::to_string).collect();
        let asked = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
        for name in asked.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
            let Ok(name) = HeaderName::from_bytes(name.trim_ascii()) else { continue };
            if !names.iter().any(|known| known == name.as_str()) {
                names.push(name.to_string());
            }
        }
        let answered = response.headers_mut();
        if let Ok(names) = HeaderValue::try_from(names.join(", ")) {
            answered.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        answered.insert(ACCESS_CONTROL_ALLOW_METHODS, allow);
        answered.insert(ACCESS_CONTROL_MAX_AGE, REMEMBERED);
        let asked = HeaderValue::from_static(
            "Access-Control-Request-Method, Access-Control-Request-Headers",
        );
        answered.append(VARY, asked);
        response
    }
}

/// The method that a preflight asks for; `None`: the request is no preflight.
pub(crate) fn preflighted(method: &Method, headers: &HeaderMap) -> Option<Method> {
    let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let is_preflight = *method == Method::OPTIONS && headers.contains_key(ORIGIN);
    if is_preflight { Method::from_bytes(asked.as_bytes()).ok() } else { None }
}
