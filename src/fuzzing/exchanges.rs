//! Whole exchanges from bytes: a client's connection, and the answers of a backend, through the
//! gateway's real service over sockets without a network.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::backend::{self, AnswerScript};
use super::memory_store::MemoryStore;
use crate::config;
use crate::net::stream::SocketStream;
use crate::observe::metrics::Metrics;
use crate::proxy::routing::Routing;
use crate::proxy::{self, Gateway};
use crate::shutdown;
use crate::store::Store;
use crate::store::key_counts::KeyCounts;
use crate::temporary::TemporaryDirectory;

/// Stands between the client's bytes and the backend's answers, and between the answers.
const BREAK: &[u8] = b"\n====\n";
/// The first bytes of a client that speaks HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// Time in which everything ends on a busy machine, many times over.
const END: Duration = Duration::from_secs(60);
/// Time without a byte after which a client that speaks HTTP/2 ends its connection.
const QUIET: Duration = Duration::from_millis(40);
/// Polls of a connection, at most: one that only spins would need more.
const MOST_POLLS: usize = 100_000;

/// An exchange to its end.
#[derive(Debug)]
pub struct Played {
    /// Calls of the backend for each key.
    pub calls: BTreeMap<Vec<u8>, usize>,
    /// Calls on the keyed route without exactly one key.
    pub without_key: usize,
    /// Requests that can be read in two ways.
    pub faults: Vec<String>,
    /// Records whose call has no end.
    pub in_flight: usize,
    /// The connection, and every call, has ended.
    pub ended: bool,
    /// Bytes that the client has read.
    pub answered: usize,
}

/// Plays the exchanges of `input`: a client's bytes, and the answers of the backend.
///
/// # Errors
/// The obstacle in this process.
pub async fn play(input: &[u8]) -> Result<Played, String> {
    let mut parts = split(input).into_iter();
    let client = parts.next().unwrap_or_default();
    let script = AnswerScript::new(parts.collect());
    let folder = TemporaryDirectory::create("exchange")?;
    let socket = folder.path().join("backend");
    let listener = UnixListener::bind(&socket).map_err(|error| error.to_string())?;
    let store = Arc::new(MemoryStore::new());
    let gateway = gateway(&socket.display().to_string(), store.clone())?;
    let answered = tokio::select! {
        answered = converse(&gateway, &client) => answered?,
        () = backend::serve(listener, script.clone()) => None,
    };
    let calls = script.calls();
    let keyed = calls.iter().filter(|call| call.method == "POST");
    let mut counts = BTreeMap::new();
    for call in keyed.clone() {
        for key in &call.keys {
            // A key with and without quotation marks is the same.
            let key =
                key.strip_prefix(b"\"").and_then(|key| key.strip_suffix(b"\"")).unwrap_or(key);
            *counts.entry(key.to_vec()).or_default() += 1;
        }
    }
    Ok(Played {
        calls: counts,
        without_key: keyed.filter(|call| call.keys.len() != 1).count(),
        faults: script.faults(),
        in_flight: store.in_flight(),
        ended: answered.is_some(),
        answered: answered.unwrap_or_default(),
    })
}

/// A client's connection to its end, and the ends of its calls; returns the number of bytes of the
/// answers. `None`: there was no end.
async fn converse(gateway: &Arc<Gateway>, client: &[u8]) -> Result<Option<usize>, String> {
    let (near, far) = UnixStream::pair().map_err(|error| error.to_string())?;
    let (_trigger, shutdown) = shutdown::channel();
    let stream = SocketStream::Unix(far);
    let served = async {
        match client.starts_with(PREFACE) {
            true => proxy::serve_http2(gateway, stream, shutdown).await,
            false => proxy::serve_socket(gateway.clone(), stream, None, shutdown).await,
        }
    };
    let mut polls = 0;
    let mut served = pin!(served);
    let served = poll_fn(|context| {
        polls += 1;
        match served.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if polls > MOST_POLLS => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    });
    let (mut reader, mut writer) = near.into_split();
    // The end of a client's bytes ends a connection with HTTP/2, answers or not.
    let quiet = if client.starts_with(PREFACE) { QUIET } else { Duration::ZERO };
    let answers = AtomicUsize::new(0);
    let talk = async {
        let write = async {
            // The gateway may end the connection before all is written.
            let _ = writer.write_all(client).await;
            let mut before = usize::MAX;
            while answers.load(Ordering::Relaxed) != before && !quiet.is_zero() {
                before = answers.load(Ordering::Relaxed);
                sleep(quiet).await;
            }
            let _ = writer.shutdown().await;
        };
        let read = async {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut piece).await {
                answers.fetch_add(count, Ordering::Relaxed);
            }
        };
        tokio::join!(write, read);
        answers.load(Ordering::Relaxed)
    };
    let Ok((true, answered)) = timeout(END, async { tokio::join!(served, talk) }).await else {
        return Ok(None);
    };
    Ok(shutdown::ended(&gateway.tasks, END).await.then_some(answered))
}

/// A gateway before the backend, with short limits of time.
fn gateway(socket: &str, store: Arc<dyn Store>) -> Result<Arc<Gateway>, String> {
    let text = format!(
        r#"
        tenant.headers = []
        store.embedded.path = "unused"
        [server.limits]
        header_timeout = "100ms"
        body_timeout = "100ms"
        idle_timeout = "100ms"
        [[upstream]]
        name = "backend"
        url = "unix:{socket}"
        timeout = "100ms"
        [[route]]
        name = "keyed"
        methods = ["POST"]
        path = "/{{*any}}"
        key.forward = true
        upstream = "backend"
        outcome.retry = []
        [[route]]
        name = "rest"
        methods = ["GET", "HEAD", "OPTIONS"]
        path = "/{{*any}}"
        mode = "off"
        upstream = "backend"
        "#
    );
    let config = config::parse(&text, "exchange.toml", &|_| None)
        .map_err(|mistakes| format!("{:?}", mistakes.list))?;
    let metrics = Metrics::new();
    let routing = Routing::new(&config, &metrics)?;
    let stored = (store, KeyCounts::new(None));
    Ok(Gateway::new(&config, routing, stored, TaskTracker::new(), (metrics, None)))
}

/// The parts between the breaks.
fn split(input: &[u8]) -> Vec<Vec<u8>> {
    let (mut parts, mut rest) = (Vec::new(), input);
    while let Some(at) = rest.windows(BREAK.len()).position(|part| part == BREAK) {
        parts.push(rest[..at].to_vec());
        rest = &rest[at + BREAK.len()..];
    }
    parts.push(rest.to_vec());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of calls for the keys of an input of the corpus.
    async fn calls(name: &str) -> Vec<usize> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/exchange/");
        let played = play(&std::fs::read(format!("{folder}{name}")).unwrap()).await.unwrap();
        assert!(played.ended && played.faults.is_empty(), "{name}: {played:?}");
        assert_eq!((played.without_key, played.in_flight), (0, 0), "{name}");
        assert!(played.answered > 0, "{name}");
        played.calls.values().copied().collect()
    }

    #[tokio::test]
    async fn the_inputs_of_the_corpus_reach_the_backend_where_they_should() {
        for name in ["first_and_retry", "half_an_answer", "another_body"] {
            assert_eq!(calls(name).await, [1], "{name}");
        }
        for name in ["no_key", "two_framings", "fragment", "h2_connect"] {
            assert_eq!(calls(name).await, [0; 0], "{name}");
        }
        for name in ["h2_first_and_retry", "h2_continuation"] {
            // A client that waits too little ends its connection before its call begins.
            let mut tries = 0;
            while calls(name).await != [1] {
                tries += 1;
                assert!(tries < 200, "{name}");
            }
        }
    }

    #[tokio::test]
    async fn a_call_without_an_end_is_noticed() {
        let store = MemoryStore::new();
        let gateway = gateway("/nowhere", Arc::new(store)).unwrap();
        gateway.tasks.spawn(std::future::pending::<()>());
        let ended = timeout(Duration::from_millis(50), converse(&gateway, b"GET")).await;
        assert!(ended.is_err(), "the call was waited for");
    }
}
