//! Requests that the gateway makes itself: rendering of their templates, sending, and reading of
//! the whole answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::evidence::ProbeAnswer;
use super::values::RecordValues;
use crate::body::full;
use crate::config::{HeaderTemplates, RequestTemplate};
use crate::json::Document;
use crate::template::{RenderError, Template};
use crate::upstream::{SendError, Upstream};

/// Bytes of the largest answer to read.
const LARGEST_ANSWER: usize = 4 << 20;

/// Name under which the gateway asks.
const AGENT: HeaderValue = HeaderValue::from_static("oncegate");

/// A rendered request.
#[derive(Debug, Clone)]
pub(crate) struct OwnRequest {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The reason for the lack of an answer.
#[derive(Debug)]
pub(crate) enum AskError {
    /// No byte was sent.
    NotSent(String),
    /// The request was sent at least in part, and no whole answer arrived.
    NoAnswer(String),
}

impl AskError {
    pub(crate) fn reason(self) -> String {
        match self {
            Self::NotSent(reason) | Self::NoAnswer(reason) => reason,
        }
    }
}

/// Renders a request about a record. `forwarded`: the client's headers to take over.
///
/// # Errors
/// A field has no value, or a value that cannot stand in its place.
pub(crate) fn rendered(
    template: &RequestTemplate,
    values: &RecordValues<'_>,
    forwarded: Option<(&[HeaderName], &HeaderMap)>,
) -> Result<OwnRequest, RenderError> {
    let mut headers = headers(&template.headers, values)?;
    for (name, all) in forwarded.iter().flat_map(|(names, all)| names.iter().map(|it| (it, *all))) {
        let lines: Vec<&HeaderValue> = all.get_all(name).iter().collect();
        if lines.is_empty() {
            return Err(RenderError::Absent(format!("header:{name}")));
        }
        headers.remove(name);
        for line in lines {
            headers.append(name, line.clone());
        }
    }
    let body = match &template.body {
        Some(body) => Bytes::from(body.render(values)?),
        None => Bytes::new(),
    };
    if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let target = template.path.render(values)?;
    Ok(OwnRequest { method: template.method.clone(), target, headers, body })
}

fn headers(
    templates: &HeaderTemplates,
    values: &RecordValues<'_>,
) -> Result<HeaderMap, RenderError> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, AGENT);
    // Matchers read plain text.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for (name, template) in &templates.0 {
        let value = HeaderValue::from_str(&template.render(values)?);
        let value = value.map_err(|_| RenderError::Unfit(name.to_string()))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

impl OwnRequest {
    /// The look-up of another target with the same headers.
    pub(crate) fn control(
        &self,
        path: &Template,
        values: &RecordValues<'_>,
    ) -> Result<Self, RenderError> {
        let mut headers = self.headers.clone();
        headers.remove(CONTENT_TYPE);
        let (method, target) = (Method::GET, path.render(values)?);
        Ok(Self { method, target, headers, body: Bytes::new() })
    }

    /// Sends the request once and reads the whole answer, within `limit`.
    pub(crate) async fn send(
        &self,
        upstream: &Upstream,
        limit: Duration,
    ) -> Result<ProbeAnswer, AskError> {
        let target: Uri = self
            .target
            .parse()
            .map_err(|_| AskError::NotSent("the target is no address".to_owned()))?;
        let mut request = Request::new(full(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = target;
        *request.headers_mut() = self.headers.clone();
        match timeout(limit, exchange(upstream, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(AskError::NoAnswer("the backend did not answer in time".to_owned())),
        }
    }
}

async fn exchange(
    upstream: &Upstream,
    request: Request<crate::body::Body>,
) -> Result<ProbeAnswer, AskError> {
    let response = match upstream.send(request).await {
        Ok(response) => response,
        Err(SendError::NotSent { reason }) => return Err(AskError::NotSent(reason)),
        Err(SendError::Unknown { detail, .. }) => return Err(AskError::NoAnswer(detail)),
    };
    let (head, mut body) = response.into_parts();
    let broken = |what: &str| AskError::NoAnswer(what.to_owned());
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| broken("the answer ended early"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > LARGEST_ANSWER {
            return Err(broken("the answer is too large to read"));
        }
        bytes.extend_from_slice(&data);
    }
    // A JSON text that closes shows its end.
    if !body.framing().proves_end() && Document::parse(&bytes).is_err() {
        return Err(broken("nothing shows that the answer is whole"));
    }
    Ok(ProbeAnswer { status: head.status.as_u16(), headers: head.headers, body: bytes.to_vec() })
}
