//! The backend behind every proxy: answers each request with the same small JSON and counts it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::Failure;

/// What every request is answered with: about the size of a voucher redemption's answer.
pub(crate) const ANSWER: &str = concat!(
    r#"{"id":"rdm_01J8ZQ4T9X7K2M5N6P8R","object":"redemption","voucher":"vch_7f3c9a51","status":"redeemed","#,
    r#""amount":{"value":500,"currency":"SGD"},"merchant":{"id":"mrc_2210","branch":"Toa Payoh Central"},"#,
    r#""terminal":"till-03","redeemed_at":"2026-03-14T09:26:53.589Z","balance":{"value":4500,"currency":"SGD"}}"#,
);

/// What a batch of ten is answered with: all issued, by position.
const BATCH_ANSWER: &str = concat!(
    r#"{"status":{"success":true,"code":200},"rewards":["#,
    r#"{"rewardId":"R0","quantity":1},{"rewardId":"R1","quantity":1},{"rewardId":"R2","quantity":1},"#,
    r#"{"rewardId":"R3","quantity":1},{"rewardId":"R4","quantity":1},{"rewardId":"R5","quantity":1},"#,
    r#"{"rewardId":"R6","quantity":1},{"rewardId":"R7","quantity":1},{"rewardId":"R8","quantity":1},"#,
    r#"{"rewardId":"R9","quantity":1}]}"#,
);

static HITS: AtomicU64 = AtomicU64::new(0);

/// How many requests have reached the backend.
pub(crate) fn hits() -> u64 {
    HITS.load(Ordering::Relaxed)
}

/// A call whose path is this is answered when [`release`] says so.
pub(crate) const HELD: &str = "/held";

static RELEASE: Notify = Notify::const_new();
static RELEASED: Mutex<Option<Instant>> = Mutex::new(None);

/// Lets the call that is held, or the next one, be answered.
pub(crate) fn release() {
    RELEASE.notify_one();
}

/// When the answer to the last held call was given to the connection.
pub(crate) fn released() -> Option<Instant> {
    *RELEASED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the backend in a thread of this process, hence on this process's core.
pub(crate) fn start() -> Result<SocketAddr, Failure> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::Builder::new().name("backend".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            serve(listener, answer).await
        })
    })?;
    Ok(address)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let batch = request.uri().path() == "/batch";
    let held = request.uri().path() == HELD;
    // An incomplete request is not a request: only a whole body counts as a hit.
    if request.into_body().collect().await.is_ok() {
        HITS.fetch_add(1, Ordering::Relaxed);
    }
    if held {
        RELEASE.notified().await;
        *RELEASED.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
    let answer = if batch { BATCH_ANSWER } else { ANSWER };
    Ok(json(Bytes::from_static(answer.as_bytes())))
}

/// A 200 with a JSON body.
pub(crate) fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Serves HTTP/1.1 on the current thread for as long as the process lives.
pub(crate) async fn serve<F, R>(listener: TcpListener, handler: F) -> Result<(), std::io::Error>
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let handler = handler.clone();
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(handler))
                .await;
        });
    }
}
