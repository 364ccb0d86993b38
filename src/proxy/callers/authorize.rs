//! The authorization service: asked before any look-up, also for replays. Only permissions are
//! remembered, and a service that does not answer lets nothing through.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, request};
use http_body_util::{BodyExt as _, Limited};
use moka::future::Cache;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::refusal::{CallerRefusal, RefusedAnswer, unavailable};
use crate::body::empty;
use crate::config::AuthorizeConfig;
use crate::observe::repeated::Repeated;
use crate::proxy::client_head;
use crate::upstream::{ResponseBody, Upstream};

/// Bytes of the largest answer that is passed on.
const MAX_ANSWER: usize = 64 << 10;
/// Permissions in memory.
const MAX_PERMISSIONS: u64 = 100_000;
/// Characters of the longest name.
const MAX_NAME: usize = 256;

const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// Takes the client's `Host`, as the request carries the service's own.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

static NO_ANSWER: Repeated =
    Repeated::new("the authorization service gave no usable answer; a request was refused");

/// The service and the permissions that it gave.
pub(super) struct Authorizer {
    config: AuthorizeConfig,
    upstream: Arc<Upstream>,
    timeout: Duration,
    permissions: Cache<[u8; 32], Permission>,
}

impl std::fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorizer").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The name of the caller, if the service gave one.
type Permission = Option<Arc<str>>;

#[derive(Debug, Clone)]
enum NoPermission {
    Refused(Box<RefusedAnswer>),
    /// The reason, for the log.
    Unavailable(String),
}

impl Authorizer {
    pub(super) fn new(config: &AuthorizeConfig, upstream: (Arc<Upstream>, Duration)) -> Self {
        let (upstream, timeout) = upstream;
        let permissions =
            Cache::builder().max_capacity(MAX_PERMISSIONS).time_to_live(config.cache).build();
        Self { config: config.clone(), upstream, timeout, permissions }
    }

    /// Asks whether the request may pass; returns the caller's name. Concurrent questions that are
    /// equal are asked once.
    ///
    /// # Errors
    /// The service's refusal, or 503 without an answer that can be understood.
    pub(super) async fn ask(
        &self,
        head: &request::Parts,
    ) -> Result<Option<Arc<str>>, CallerRefusal> {
        let question = self.question(head);
        let answer = self.permissions.try_get_with(digest(&question), self.send(question)).await;
        answer.map_err(|refusal| match &*refusal {
            NoPermission::Refused(answer) => CallerRefusal::Answer(answer.clone()),
            NoPermission::Unavailable(reason) => {
                if let Some(times) = NO_ANSWER.occur() {
                    tracing::warn!(
                        reason,
                        times,
                        "the authorization service gave no usable answer; a request was refused"
                    );
                }
                unavailable()
            }
        })
    }

    /// The request to the service: method, target and the configured headers, without a body.
    fn question(&self, head: &request::Parts) -> Request<()> {
        let mut question = Request::new(());
        *question.method_mut() = Method::GET;
        *question.uri_mut() = self.config.path.clone().into();
        let headers = question.headers_mut();
        for name in self.config.headers.iter().filter(|name| *name != HOST) {
            for value in head.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        if self.config.headers.contains(&HOST) {
            // Instead of a line that the client itself may have sent under this name.
            headers.remove(FORWARDED_HOST);
            headers.extend(head.headers.get(HOST).map(|host| (FORWARDED_HOST, host.clone())));
        }
        // A method and a target have no characters that a header cannot have.
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        for (name, text) in [(FORWARDED_METHOD, head.method.as_str()), (FORWARDED_URI, target)] {
            if let Some(value) = value(text) {
                headers.insert(name, value);
            }
        }
        question
    }

    async fn send(&self, question: Request<()>) -> Result<Permission, NoPermission> {
        let answered = async {
            let response = self.upstream.send(question.map(|()| empty())).await;
            let response =
                response.map_err(|error| NoPermission::Unavailable(error.to_string()))?;
            self.understood(response).await
        };
        let late = || Err(NoPermission::Unavailable("no answer in time".to_owned()));
        timeout(self.timeout, answered).await.unwrap_or_else(|_| late())
    }

    async fn understood(
        &self,
        response: Response<ResponseBody>,
    ) -> Result<Permission, NoPermission> {
        let status = response.status();
        if status.is_success() {
            return self.name(response.headers());
        }
        if status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN {
            return Err(NoPermission::Unavailable(format!("it answered {status}")));
        }
        let (mut head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body =
            body.map_err(|error| NoPermission::Unavailable(format!("its refusal: {error}")))?;
        client_head::to_client(&mut head, &Method::GET, None);
        head.headers.remove(CONTENT_LENGTH);
        let (headers, body) = (head.headers, body.to_bytes());
        Err(NoPermission::Refused(Box::new(RefusedAnswer { status, headers, body })))
    }

    /// The caller's name in a permission.
    fn name(&self, headers: &HeaderMap) -> Result<Permission, NoPermission> {
        let Some(name) = &self.config.tenant_header else { return Ok(None) };
        let mut lines = headers.get_all(name).iter();
        let Some(line) = lines.next() else { return Ok(None) };
        let wrong = |what: &str| Err(NoPermission::Unavailable(format!("its {name} {what}")));
        if lines.next().is_some() {
            return wrong("stands there twice");
        }
        match line.to_str().map(str::trim) {
            Ok(text) if (1..=MAX_NAME).contains(&text.len()) => Ok(Some(text.into())),
            Ok(_) | Err(_) => wrong("is no name"),
        }
    }
}

/// The digest of a question: method and target of the client's request, and the headers.
fn digest(question: &Request<()>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (name, value) in question.headers() {
        for part in [name.as_str().as_bytes(), value.as_bytes()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hash.finalize().into()
}
