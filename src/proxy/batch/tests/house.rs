//! A gateway in this process, whose store does what it is told, and a backend that counts.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::clock::Timestamp;
use crate::config;
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId, TenantId};
use crate::items;
use crate::net::listen::ListenSocket;
use crate::observe::metrics::Metrics;
use crate::proxy::routing::Routing;
use crate::proxy::{self, Gateway};
use crate::shutdown::{self, Trigger};
use crate::store::codec::Codec;
use crate::store::embedded::{DirectoryOptions, Embedded, OpenError};
use crate::store::key_counts::KeyCounts;
use crate::store::{Change, Identity, NamesDocument, Query, Store, StoreError, StoreFuture, Swap};

/// The longest a test waits for something that must happen.
pub(super) const WAIT_LIMIT: Duration = Duration::from_secs(30);

/// More looks than a test has.
const MANY: usize = 1 << 30;

/// What a compare-and-swap does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// What it should.
    Honest,
    /// It is not made, and says so.
    Refused,
    /// It is made, and nobody is told.
    Unconfirmed,
    /// Somebody takes the call for lost just before, and the next reading fails.
    Overtaken,
    /// The caller's task ends here.
    Panic,
}

/// A store whose next compare-and-swaps do what they are told.
#[derive(Debug)]
pub(super) struct Faulty {
    real: Arc<dyn Store>,
    acts: Mutex<VecDeque<Act>>,
    /// Number of questions for the epoch until it is another one.
    looks: AtomicUsize,
    /// How many readings fail.
    unread: AtomicUsize,
}

impl Store for Faulty {
    fn get(&self, id: RecordId) -> StoreFuture<'_, Option<Record>> {
        let spend = |left: usize| left.checked_sub(1);
        if self.unread.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend).is_ok() {
            return Box::pin(async { Err(StoreError::Unavailable("on purpose".to_owned())) });
        }
        self.real.get(id)
    }

    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap> {
        let act = self.acts.lock().unwrap().pop_front().unwrap_or(Act::Honest);
        let lost = || Err(StoreError::Unavailable("on purpose".to_owned()));
        match act {
            Act::Honest => self.real.swap(changes),
            Act::Refused => Box::pin(async move { lost() }),
            Act::Unconfirmed => Box::pin(async move {
                self.real.swap(changes).await?;
                lost()
            }),
            Act::Overtaken => Box::pin(async move {
                for change in &changes {
                    let found = self.real.get(change.id).await?.expect("it was claimed");
                    let lost = found.lost(UnknownReason::ProcessEnded, self.real.now());
                    let (id, expect) = (change.id, Some(found.version));
                    self.real.swap(vec![Change { id, expect, put: Some(lost.into()) }]).await?;
                }
                self.unread.store(1, Ordering::SeqCst);
                self.real.swap(changes).await
            }),
            Act::Panic => panic!("on purpose"),
        }
    }

    fn list(&self, query: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>> {
        self.real.list(query)
    }

    fn now(&self) -> Timestamp {
        self.real.now()
    }

    fn epoch(&self) -> Option<u64> {
        let spend = |left: usize| left.checked_sub(1);
        let lives = self.looks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend).is_ok();
        Some(if lives { 1 } else { 2 })
    }

    fn identity(&self) -> &Identity {
        self.real.identity()
    }

    fn owner(&self) -> Nonce {
        self.real.owner()
    }

    fn names(&self) -> StoreFuture<'_, Option<NamesDocument>> {
        self.real.names()
    }
    fn swap_names(&self, expect: Option<u64>, bytes: Vec<u8>) -> StoreFuture<'_, bool> {
        self.real.swap_names(expect, bytes)
    }
    fn ready(&self) -> Result<(), StoreError> {
        self.real.ready()
    }
}

/// A gateway in this process, and a backend that issues everything and counts its calls.
pub(super) struct House {
    addr: SocketAddr,
    gateway: Arc<Gateway>,
    pub(super) store: Arc<Faulty>,
    backend: SocketAddr,
    calls: Arc<AtomicUsize>,
    tasks: TaskTracker,
    trigger: Trigger,
    dir: TempDir,
}

impl House {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        TaskTracker::default().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                TaskTracker::default().spawn(issue_all(stream, counted.clone()));
            }
        });
        Self::open(TempDir::new().unwrap(), backend, calls).await
    }

    async fn open(dir: TempDir, backend: SocketAddr, calls: Arc<AtomicUsize>) -> Self {
        let path = dir.path().join("store");
        let options = DirectoryOptions {
            path: path.clone(),
            cache: 1 << 20,
            create: true,
            expect_id: None,
            codec: Codec::plain(),
        };
        let real = timeout(WAIT_LIMIT, opened(&options)).await.expect("the store before is closed");
        let store = Arc::new(Faulty {
            real,
            acts: Mutex::default(),
            looks: AtomicUsize::new(MANY),
            unread: AtomicUsize::new(0),
        });
        let text = configuration(&path, backend);
        let config = config::parse(&text, "t.toml", &|_| None).unwrap_or_else(|it| panic!("{it}"));
        let tasks = TaskTracker::default();
        let metrics = Metrics::new();
        let routing = Routing::new(&config, &metrics).unwrap();
        let shared: Arc<dyn Store> = store.clone();
        let stored = (shared, KeyCounts::new(None));
        let gateway = Gateway::new(&config, routing, stored, tasks.clone(), (metrics, None));
        let listener = ListenSocket::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.tcp_address().unwrap();
        let (trigger, shutdown) = shutdown::channel();
        proxy::serve(&gateway, vec![listener], &tasks, &shutdown);
        Self { addr, gateway, store, backend, calls, tasks, trigger, dir }
    }

    /// Ends the gateway and starts another on its store.
    pub(super) async fn restarted(self) -> Self {
        let Self { gateway, store, backend, calls, tasks, trigger, dir, .. } = self;
        trigger.fire();
        assert!(shutdown::ended(&tasks, WAIT_LIMIT).await, "a task does not end");
        let closing = Arc::downgrade(&store);
        drop((gateway, store));
        let closed = async {
            while closing.strong_count() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(WAIT_LIMIT, closed).await.expect("nobody keeps the store open");
        Self::open(dir, backend, calls).await
    }

    /// What the next compare-and-swaps do.
    pub(super) fn acts(&self, acts: &[Act]) {
        self.store.acts.lock().unwrap().extend(acts);
    }

    /// The lease ends after it was looked at so often; another one begins.
    pub(super) fn lease_ends_after(&self, looks: usize) {
        self.store.looks.store(looks, Ordering::SeqCst);
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Sends a batch of the customer; each item is one unit.
    pub(super) async fn send(&self, customer: &str, ids: &[&str]) -> Received {
        self.send_as("till", "/issue", customer, ids).await
    }

    /// Sends one as this caller, to this path.
    pub(super) async fn send_as(
        &self,
        caller: &str,
        path: &str,
        customer: &str,
        ids: &[&str],
    ) -> Received {
        let rewards: Vec<Value> =
            ids.iter().map(|id| json!({ "requestId": id, "rewardId": id })).collect();
        let body = json!({ "mobile": customer, "rewards": rewards }).to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
             X-Api-Key: {caller}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let exchange = async {
            let mut stream = TcpStream::connect(self.addr).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = timeout(WAIT_LIMIT, exchange).await.expect("an answer in time");
        let header = |name: &str| {
            let line = answer.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().to_owned()
        };
        Received {
            status: answer[9..12].parse().unwrap(),
            disposition: header("idempotency-status: "),
            error: header("idempotency-error: "),
            body: answer.split_once("\r\n\r\n").unwrap().1.to_owned(),
        }
    }

    /// The caller of [`House::send`].
    pub(super) fn tenant(&self) -> TenantId {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-api-key", http::HeaderValue::from_static("till"));
        TenantId::of(self.gateway.routing().callers.headers(), &headers)
    }

    async fn record(&self, id: &str) -> Option<Record> {
        let id = RecordId::new(&self.tenant(), &items::scope("issue"), id);
        self.store.get(id).await.unwrap()
    }

    /// Waits until none of these items is in flight; gives for each its units issued and unknown.
    pub(super) async fn settled(&self, ids: &[&str]) -> Vec<Option<(u64, u64)>> {
        let all = async {
            loop {
                let mut seen = Vec::new();
                for id in ids {
                    let record = self.record(id).await;
                    seen.push(record.and_then(|record| record.ledger().cloned()));
                }
                if seen.iter().flatten().all(|ledger| ledger.in_flight == 0) {
                    let units = |ledger: items::Ledger| (ledger.fulfilled, ledger.unknown);
                    return seen.into_iter().map(|ledger| ledger.map(units)).collect();
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(WAIT_LIMIT, all).await.expect("the items do not stay in flight")
    }
}

/// Opens the store, once the one before is closed: a change that is tried again may still hold it.
async fn opened(options: &DirectoryOptions) -> Arc<dyn Store> {
    loop {
        match Embedded::open(options) {
            Ok((store, _)) => return store,
            Err(OpenError::Locked(_)) => sleep(Duration::from_millis(1)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn configuration(store: &Path, backend: SocketAddr) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store.embedded]\npath = {store:?}\n\
         [[upstream]]\nname = \"backend\"\nurl = \"http://{backend}\"\n\
         [[route]]\nname = \"issue\"\nmethods = [\"POST\"]\npath = \"/issue\"\n\
         upstream = \"backend\"\nmode = \"items\"\nprofile = \"capillary\"\n\
         record.subject = \"/mobile\"\n\
         [[route]]\nname = \"brief\"\nmethods = [\"POST\"]\npath = \"/brief/{{shop}}\"\n\
         upstream = \"backend\"\nmode = \"items\"\n\
         record = {{ retention = \"50ms\", tombstone = \"50ms\" }}\n\
         [route.items]\nat = \"/rewards\"\nid = \"/requestId\"\n\
         [route.items.response]\nmatch = [\"id:/requestId\"]\n\
         issued = {{ count = \"/quantity\" }}\n"
    )
}

/// What a client was told.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) status: u16,
    pub(super) disposition: String,
    pub(super) error: String,
    pub(super) body: String,
}

impl Received {
    #[track_caller]
    pub(super) fn is(&self, status: u16, disposition: &str, error: &str) {
        let reported = (self.status, self.disposition.as_str(), self.error.as_str());
        assert_eq!(reported, (status, disposition, error), "{}", self.body);
    }
}

/// Answers the requests of one connection: everything is issued.
async fn issue_all(mut stream: TcpStream, calls: Arc<AtomicUsize>) {
    let mut read = Vec::new();
    loop {
        let buffered = loop {
            let text = String::from_utf8_lossy(&read);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length.is_some_and(|length| length.parse() == Ok(body.len())) {
                    break serde_json::from_str::<Value>(body).expect("JSON goes upstream");
                }
            }
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        };
        read.clear();
        calls.fetch_add(1, Ordering::SeqCst);
        // Of what is sold out nothing is issued.
        let units =
            |id: &Value| u8::from(!id.as_str().is_some_and(|id| id.starts_with("sold-out")));
        let row = |item: &Value| json!({ "requestId": item["requestId"], "quantity": units(&item["requestId"]) });
        let rows: Vec<Value> = buffered["rewards"].as_array().unwrap().iter().map(row).collect();
        let body = json!({ "status": { "success": true }, "rewards": rows }).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        if stream.write_all((head + &body).as_bytes()).await.is_err() {
            return;
        }
    }
}
