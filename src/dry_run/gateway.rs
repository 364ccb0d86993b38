//! The gateway of a dry run: a gateway with the configuration under test, whose listeners, store
//! and backends are replaced by such of this process, on the loopback interface and in a temporary
//! directory. So a dry run is the work of the running gateway, and nothing leaves the machine.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, Response, Uri};
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::config::{
    BackendUrl, Config, HostPolicy, JwtKeys, Secret, StoreConfig, TenantConfig, UnknownCaller,
    UpstreamConfig,
};
use crate::gateway::{self, Running};
use crate::loopback::{self, ConnectionLost};
use crate::shutdown::{self, Trigger};
use crate::temporary::TemporaryDirectory;

/// Time limit for an answer of the gateway. Its backend answers at once.
const ANSWER: Duration = Duration::from_secs(30);
/// Time limit for the end of a dry run.
const DRAIN: Duration = Duration::from_secs(5);

/// The backend of a dry run: it gives the answers of the samples in their order, then none, and
/// keeps every request.
#[derive(Debug, Default)]
struct ScriptedBackend {
    answers: VecDeque<Response<Bytes>>,
    seen: Vec<Request<Bytes>>,
}

/// A running gateway for a dry run.
pub(super) struct DryRunGateway {
    address: SocketAddr,
    admin: SocketAddr,
    token: HeaderValue,
    backend: Arc<Mutex<ScriptedBackend>>,
    running: Running,
    trigger: Trigger,
    folder: TemporaryDirectory,
}

/// A request of the client, with the requests that it made the gateway send.
#[derive(Debug)]
pub(super) struct Exchange {
    /// Requests that reached the backend.
    pub(super) sent: Vec<Request<Bytes>>,
    /// The answer that the client reads.
    pub(super) answer: Response<Bytes>,
}

impl DryRunGateway {
    /// Starts a gateway and its backend.
    ///
    /// # Errors
    /// The obstacle.
    pub(super) async fn start(config: &Config) -> Result<Self, String> {
        let (trigger, shutdown) = shutdown::channel();
        let folder = TemporaryDirectory::create("try")?;
        let backend: Arc<Mutex<ScriptedBackend>> = Arc::default();
        let script = backend.clone();
        let tasks = TaskTracker::default();
        let at = loopback::serve(&tasks, shutdown.clone(), move |request| {
            let script = script.clone();
            async move {
                let mut backend = script.lock().unwrap_or_else(PoisonError::into_inner);
                backend.seen.push(request);
                backend.answers.pop_front().ok_or(ConnectionLost)
            }
        })
        .await?;
        let token = crate::nonce::uuid().to_string();
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| "no token for the dry run".to_owned())?;
        bearer.set_sensitive(true);
        let config = local(config, at, &folder, token)?;
        let running =
            gateway::start(config, None, shutdown).await.map_err(|error| error.to_string())?;
        let address =
            running.listening.first().and_then(|address| address.to_string().parse().ok());
        let address = address.ok_or("the gateway of the dry run listens nowhere")?;
        Ok(Self { address, admin: running.admin, token: bearer, backend, running, trigger, folder })
    }

    /// Adds an answer; without one the backend's connection ends, and the answer is lost.
    pub(super) fn will_answer(&self, answer: &Response<Bytes>) {
        self.backend().answers.push_back(copy(answer));
    }

    /// Sends the sample as a client does.
    ///
    /// # Errors
    /// The gateway gave no answer.
    pub(super) async fn send(&self, sample: &Request<Bytes>) -> Result<Exchange, String> {
        let before = self.backend().seen.len();
        let mut request = Request::new(sample.body().clone());
        *request.method_mut() = sample.method().clone();
        *request.uri_mut() = sample.uri().clone();
        *request.headers_mut() = sample.headers().clone();
        let answer = self.exchange(self.address, request).await?;
        let sent = self.backend().seen.split_off(before);
        Ok(Exchange { sent, answer })
    }

    /// The records, with their details, in the order of their first requests.
    ///
    /// # Errors
    /// The records API gave no answer that can be read.
    pub(super) async fn records(&self) -> Result<Vec<Value>, String> {
        let page = self.ask("/api/records?limit=1000").await?;
        let page: Value = serde_json::from_str(&page).map_err(|error| error.to_string())?;
        let mut records = Vec::new();
        for record in page["records"].as_array().into_iter().flatten() {
            let id = record["id"].as_str().unwrap_or_default();
            let detail = self.ask(&format!("/api/records/{id}")).await?;
            records.push(serde_json::from_str(&detail).map_err(|error| error.to_string())?);
        }
        Ok(records)
    }

    /// The route of the requests so far, by the gateway's metrics; `None`: no route took them.
    ///
    /// # Errors
    /// The metrics gave no answer that can be read.
    pub(super) async fn route(&self) -> Result<Option<String>, String> {
        let metrics = self.ask("/metrics").await?;
        let counted = metrics.lines().find_map(|line| {
            let (labels, count) =
                line.strip_prefix("oncegate_requests_total{")?.rsplit_once(' ')?;
            (count != "0").then_some(labels)
        });
        let route = counted.and_then(|labels| {
            let (_, rest) = labels.split_once("route=\"")?;
            Some(rest.split('"').next().unwrap_or_default().to_owned())
        });
        Ok(route.filter(|route| !route.is_empty()))
    }

    /// Ends gateway and backend, and removes the store.
    pub(super) async fn stop(self) {
        self.trigger.fire();
        // The store is removed whatever the end.
        let _ = timeout(DRAIN, self.running.finished()).await;
        drop(self.folder);
    }

    async fn ask(&self, target: &str) -> Result<String, String> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = target.parse().map_err(|_| "no target".to_owned())?;
        request.headers_mut().insert(AUTHORIZATION, self.token.clone());
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        let answer = self.exchange(self.admin, request).await?;
        if !answer.status().is_success() {
            return Err(format!("{target} of the dry run answered {}", answer.status()));
        }
        Ok(String::from_utf8_lossy(answer.body()).into_owned())
    }

    async fn exchange(
        &self,
        to: SocketAddr,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, String> {
        match timeout(ANSWER, loopback::send(to, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("the gateway of the dry run gave no answer: {error}")),
            Err(_) => Err(format!("the gateway of the dry run did not answer within {ANSWER:?}")),
        }
    }

    fn backend(&self) -> MutexGuard<'_, ScriptedBackend> {
        self.backend.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn copy(answer: &Response<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(answer.body().clone());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    response
}

/// The configuration with listeners, store and backends of this process.
fn local(
    config: &Config,
    backend: SocketAddr,
    folder: &TemporaryDirectory,
    token: String,
) -> Result<Config, String> {
    let mut config = config.clone();
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.server.listen = vec![free.into()];
    config.server.tls = None;
    config.server.proxy_protocol = Default::default();
    config.server.drain = Duration::from_secs(1);
    config.server.drain_delay = Duration::ZERO;
    config.traces.otlp = None;
    without_authorities(&mut config.tenant);
    let of_routes = config.routes.iter_mut().filter_map(|route| route.tenant.as_mut());
    of_routes.for_each(without_authorities);
    config.log.access = false;
    config.admin.listen = free;
    config.admin.token = Some(Secret::new(token));
    let retention = config.store.retention;
    config.store =
        StoreConfig { retention, ..StoreConfig::in_directory(folder.path().join("store")) };
    for upstream in &mut config.upstreams {
        replace(upstream, backend)?;
    }
    Ok(config)
}

/// Leaves out the ways to name a caller that would ask others: a sub-request, and keys that are
/// fetched. The caller is then named by the credentials of the sample, so unknown ones are allowed.
fn without_authorities(tenant: &mut TenantConfig) {
    let fetches = tenant.jwt.as_ref().is_some_and(|jwt| matches!(jwt.keys, JwtKeys::Url { .. }));
    if tenant.authorize.is_none() && !fetches {
        return;
    }
    tenant.authorize = None;
    if fetches {
        tenant.jwt = None;
    }
    tenant.unknown = UnknownCaller::Allow;
}

/// Puts the backend of a dry run in the place of an upstream, which keeps its name, its path and
/// its `Host`.
fn replace(upstream: &mut UpstreamConfig, backend: SocketAddr) -> Result<(), String> {
    let (prefix, host) = match upstream.urls.first() {
        Some(BackendUrl::Http(url)) => (url.path().to_owned(), url.authority()),
        Some(BackendUrl::Unix(_)) | None => (String::new(), None),
    };
    if let (HostPolicy::Upstream, Some(host)) = (&upstream.host, host)
        && let Ok(name) = HeaderValue::from_str(host.as_str())
    {
        upstream.host = HostPolicy::Name(name);
    }
    let url = format!("http://{backend}{prefix}");
    let url: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    upstream.urls = vec![BackendUrl::Http(url)];
    upstream.ca = None;
    upstream.client_cert = None;
    Ok(())
}
