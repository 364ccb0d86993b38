//! The public keys of tokens: read with the configuration, or fetched from the issuer and renewed.
//!
//! A set that cannot be renewed is used up to its bound; an answer without a readable set never
//! takes the place of one. A token of an unknown key leads to one fetch in 30 seconds at most,
//! whatever the answer, so that invented keys cost the issuer nothing.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::ACCEPT;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::refusal::{CallerRefusal, unavailable, unknown};
use crate::body::empty;
use crate::caller::jwt::{JwtError, JwtRules, KeySet};
use crate::config::{self, BackendUrl, JwtConfig, JwtKeys};
use crate::observe::repeated::Repeated;
use crate::upstream::Upstream;

/// Age at which a set is renewed.
const RENEWAL: Duration = Duration::from_secs(300);
/// Shortest time between two fetches while there is a set.
const BETWEEN_FETCHES: Duration = Duration::from_secs(30);
/// Shortest time between two fetches while there is none.
const BETWEEN_FIRST_FETCHES: Duration = Duration::from_secs(1);
/// Bytes of the largest set.
const MAX_SET: usize = 256 << 10;

static REFUSED: Repeated = Repeated::new("a token was refused");
static NOT_FETCHED: Repeated = Repeated::new("the keys of tokens could not be fetched");

/// The keys and rules of tokens.
#[derive(Debug)]
pub(super) struct KeySource {
    pub(super) rules: JwtRules,
    stale: Duration,
    keys: KeyOrigin,
}

#[derive(Debug)]
enum KeyOrigin {
    Fixed(Arc<KeySet>),
    Fetched(Arc<FetchedKeys>),
}

#[derive(Debug)]
struct FetchedKeys {
    url: BackendUrl,
    server: Upstream,
    path: PathAndQuery,
    timeout: Duration,
    current: ArcSwapOption<DatedKeys>,
    /// Time of the last fetch; held during a fetch, so that there is one at a time.
    last_fetch: Arc<Mutex<Option<Instant>>>,
}

#[derive(Debug)]
struct DatedKeys {
    set: Arc<KeySet>,
    fetched: Instant,
}

impl KeySource {
    /// The source that `jwt` describes; a fetched set of `previous` is kept.
    pub(super) fn new(jwt: &JwtConfig, previous: Option<&Self>) -> Result<Self, String> {
        let keys = match &jwt.keys {
            JwtKeys::File(set) => KeyOrigin::Fixed(set.clone()),
            JwtKeys::Url { server, path } => match previous.map(|previous| &previous.keys) {
                Some(KeyOrigin::Fetched(kept)) if kept.url == *server && kept.path == *path => {
                    KeyOrigin::Fetched(kept.clone())
                }
                Some(KeyOrigin::Fetched(_) | KeyOrigin::Fixed(_)) | None => {
                    KeyOrigin::Fetched(Arc::new(FetchedKeys::new(server, path)?))
                }
            },
        };
        Ok(Self { rules: jwt.rules.clone(), stale: jwt.stale, keys })
    }

    /// The name in a token.
    ///
    /// # Errors
    /// 401 for a token that fails; 503 without any usable set.
    pub(super) async fn verify(&self, token: &str) -> Result<String, CallerRefusal> {
        let now = || Duration::from_millis(crate::clock::now().as_millis());
        let verified = match &self.keys {
            KeyOrigin::Fixed(set) => self.rules.verify(token, set, now()),
            KeyOrigin::Fetched(fetched) => {
                let set = fetched.set(self.stale).await.ok_or_else(unavailable)?;
                match self.rules.verify(token, &set, now()) {
                    Err(JwtError::UnknownKey) => {
                        let newer = fetched.renewed(BETWEEN_FETCHES).await;
                        let set = newer.map_or(set, |keys| keys.set.clone());
                        self.rules.verify(token, &set, now())
                    }
                    other => other,
                }
            }
        };
        verified.map_err(|error| {
            match REFUSED.occur() {
                Some(times) => tracing::info!(%error, times, "a token was refused"),
                None => tracing::debug!(%error, "a token was refused"),
            }
            unknown("The token of this request is not valid here. Nothing was sent.")
        })
    }
}

impl FetchedKeys {
    fn new(url: &BackendUrl, path: &PathAndQuery) -> Result<Self, String> {
        let server = config::keys_server(url);
        Ok(Self {
            url: url.clone(),
            server: Upstream::new(&server)?,
            path: path.clone(),
            timeout: server.timeout,
            current: ArcSwapOption::empty(),
            last_fetch: Arc::default(),
        })
    }

    /// The set, not older than `stale`.
    async fn set(self: &Arc<Self>, stale: Duration) -> Option<Arc<KeySet>> {
        let current = self.current.load_full();
        let usable = current.filter(|keys| keys.fetched.elapsed() <= stale.max(RENEWAL));
        let Some(keys) = usable else {
            let keys = self.renewed(BETWEEN_FIRST_FETCHES).await?;
            return (keys.fetched.elapsed() <= stale.max(RENEWAL)).then(|| keys.set.clone());
        };
        if keys.fetched.elapsed() < RENEWAL {
            return Some(keys.set.clone());
        }
        // One request renews the set; the others go on with the old one.
        let renewed = match self.last_fetch.clone().try_lock_owned() {
            Ok(last) => self.fetch_once(last, BETWEEN_FETCHES).await,
            Err(_) => None,
        };
        Some(renewed.unwrap_or(keys).set.clone())
    }

    /// The set after a fetch, if the last one is longer ago than `between`.
    async fn renewed(self: &Arc<Self>, between: Duration) -> Option<Arc<DatedKeys>> {
        let asked = Instant::now();
        let last = self.last_fetch.clone().lock_owned().await;
        if last.is_some_and(|last| last >= asked) {
            // The fetch of another request, which this one has waited for, is as good as its own.
            return self.current.load_full();
        }
        self.fetch_once(last, between).await
    }

    async fn fetch_once(
        self: &Arc<Self>,
        last: OwnedMutexGuard<Option<Instant>>,
        between: Duration,
    ) -> Option<Arc<DatedKeys>> {
        if last.is_none_or(|last| last.elapsed() >= between) {
            let keys = self.clone();
            // A task of its own: a client that leaves must not end the fetch, which would keep a
            // new set away for as long as such clients come. Without a result the last set stays.
            // No drain has to wait for this task: only requests do.
            let _ = TaskTracker::new().spawn(async move { keys.fetch_now(last).await }).await;
        }
        self.current.load_full()
    }

    /// Fetches the set, within the time limit.
    async fn fetch_now(&self, mut last: OwnedMutexGuard<Option<Instant>>) {
        let fetched = timeout(self.timeout, self.fetch()).await;
        match fetched.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(set) => {
                let keys = DatedKeys { set: Arc::new(set), fetched: Instant::now() };
                self.current.store(Some(Arc::new(keys)));
            }
            Err(reason) => {
                if let Some(times) = NOT_FETCHED.occur() {
                    tracing::warn!(
                        reason,
                        times,
                        "the keys of tokens could not be fetched; the last set stays in use up to \
                         its bound"
                    );
                }
            }
        }
        // Also after a failure, so that a failing issuer is not asked more often.
        *last = Some(Instant::now());
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let mut request = Request::new(empty());
        *request.uri_mut() = Uri::from(self.path.clone());
        let json = HeaderValue::from_static("application/jwk-set+json, application/json");
        request.headers_mut().insert(ACCEPT, json);
        let response = self.server.send(request).await.map_err(|error| error.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("the issuer answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_SET).collect().await;
        let body =
            body.map_err(|error| format!("the answer broke off or is too large: {error}"))?;
        KeySet::parse(&body.to_bytes()).map_err(|error| error.to_string())
    }
}
