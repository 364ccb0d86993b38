//! A shop's side: tills that behave as RedeemSG's published merchant app does (one key for each
//! scan, one retry with the same key), and the shop's network between them and the next hop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use super::backend::{AWARD, REDEEM, USED};
use super::faults::{AnswerHold, FaultPlan, metadata_of, sale_of};
use crate::loopback::{self, ConnectionLost};
use crate::problem::{ERROR_HEADER, STATUS_HEADER};
use crate::shutdown::Shutdown;

/// Requests of a scan: one, and a retry with the same key.
const ATTEMPTS: usize = 2;
/// Time limit for an answer, as a safety net: planned time-outs are controlled by [`AnswerHold`],
/// so that a slow machine runs alike.
const PATIENCE: Duration = Duration::from_secs(20);
/// Length of a planned wait after the backend has executed.
const IMPATIENCE: Duration = Duration::from_millis(120);

/// A scan at a till.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    /// Receipt number of the sale.
    pub(super) sale: String,
    /// The purchase.
    pub(super) what: Purchase,
    /// Idempotency key of the scan.
    pub(super) key: String,
}

/// The effect of a scan.
#[derive(Debug, Clone)]
pub(super) enum Purchase {
    /// Redeems the voucher with this QR code.
    Redeem(String),
    /// Gives points to this member.
    Award(String),
}

/// The message on the till's screen after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScreenMessage {
    /// Success.
    Confirmed,
    /// Success of a request whose answer was lost, settled since.
    Recovered,
    /// "The voucher has been used already."
    AlreadyUsed,
    /// "Nobody knows yet whether this was executed."
    Unknown,
    /// No message: the connection broke, or the till stopped waiting.
    Nothing,
    /// Any further answer; the till retries.
    Other(StatusCode),
}

/// The shop's network: forwards requests to the next hop and loses the planned answers.
#[derive(Debug)]
pub(super) struct ShopNetwork {
    address: SocketAddr,
    carried: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl ShopNetwork {
    /// Starts the network in front of `next`.
    pub(super) async fn start(
        next: SocketAddr,
        plan: Arc<FaultPlan>,
        tasks: &TaskTracker,
        shutdown: Shutdown,
    ) -> Result<Self, String> {
        let carried = Arc::new(Mutex::new(BTreeMap::new()));
        let counted = carried.clone();
        let address = loopback::serve(tasks, shutdown, move |request: Request<Bytes>| {
            let path = request.uri().path().to_owned();
            *counted.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default() += 1;
            let lose = sale_of(request.body()).is_some_and(|sale| plan.take_shop(&sale));
            async move {
                let answer = loopback::send(next, request).await?;
                if lose { Err(ConnectionLost) } else { Ok(answer) }
            }
        })
        .await?;
        Ok(Self { address, carried })
    }

    /// Number of forwarded requests for a path.
    pub(super) fn carried(&self, path: &str) -> u64 {
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        carried.get(path).copied().unwrap_or(0)
    }

    /// Sends a scan: a request, and a retry with the same key when the first gave no final
    /// answer. Returns the messages on the screen, in order.
    pub(super) async fn scan(&self, scan: &Scan) -> Vec<ScreenMessage> {
        let mut readings = Vec::new();
        while readings.len() < ATTEMPTS {
            let reading = self.ask(scan).await;
            readings.push(reading);
            if matches!(
                reading,
                ScreenMessage::Confirmed | ScreenMessage::Recovered | ScreenMessage::AlreadyUsed
            ) {
                break;
            }
        }
        readings
    }

    /// A scan whose till gives up waiting for the first answer and asks again with the same key.
    pub(super) async fn scan_impatiently(
        &self,
        scan: &Scan,
        hold: &AnswerHold,
    ) -> Vec<ScreenMessage> {
        let gives_up = async {
            hold.executed().await;
            tokio::time::sleep(IMPATIENCE).await;
        };
        let first = tokio::select! {
            reading = self.ask(scan) => reading,
            () = gives_up => ScreenMessage::Nothing,
        };
        let (second, ()) = tokio::join!(self.ask(scan), release_later(hold));
        vec![first, second]
    }

    /// A scan that is sent twice at once: a double click.
    pub(super) async fn scan_twice(&self, scan: &Scan, hold: &AnswerHold) -> Vec<ScreenMessage> {
        let second_click = async {
            hold.executed().await;
            tokio::join!(self.ask(scan), release_later(hold)).0
        };
        let (first, second) = tokio::join!(self.ask(scan), second_click);
        vec![first, second]
    }

    /// Sends a single request of a scan.
    pub(super) async fn ask(&self, scan: &Scan) -> ScreenMessage {
        let Some(request) = request(self.address, scan) else { return ScreenMessage::Nothing };
        match tokio::time::timeout(PATIENCE, loopback::send(self.address, request)).await {
            Ok(Ok(answer)) => read(&answer),
            Ok(Err(ConnectionLost)) | Err(_) => ScreenMessage::Nothing,
        }
    }
}

/// Releases the held answer after the other request has had time to arrive.
async fn release_later(hold: &AnswerHold) {
    tokio::time::sleep(IMPATIENCE).await;
    hold.release();
}

/// Path and body of a scan's request.
pub(super) fn path_and_body(scan: &Scan) -> (&'static str, Value) {
    let metadata = metadata_of(&scan.sale);
    match &scan.what {
        Purchase::Redeem(qr) => (REDEEM, json!({ "qr": qr, "metadata": metadata })),
        Purchase::Award(member) => {
            (AWARD, json!({ "member": member, "points": 50, "metadata": metadata }))
        }
    }
}

fn request(to: SocketAddr, scan: &Scan) -> Option<Request<Bytes>> {
    let (path, body) = path_and_body(scan);
    Request::post(path)
        .header(HOST, to.to_string())
        .header(CONTENT_TYPE, "application/json")
        .header("x-api-key", "demo")
        .header("idempotency-key", &scan.key)
        .body(Bytes::from(body.to_string()))
        .ok()
}

fn read(answer: &Response<Bytes>) -> ScreenMessage {
    let status = answer.status();
    let code = || {
        let body: Value = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
        body["error"]["code"].as_str().map(str::to_owned)
    };
    let unknown = || {
        answer.headers().get(ERROR_HEADER).is_some_and(|slug| slug.as_bytes() == b"outcome-unknown")
    };
    let recovered = || {
        answer.headers().get(STATUS_HEADER).is_some_and(|status| status.as_bytes() == b"recovered")
    };
    if status.is_success() && recovered() {
        ScreenMessage::Recovered
    } else if status.is_success() {
        ScreenMessage::Confirmed
    } else if status == StatusCode::PAYMENT_REQUIRED && code().as_deref() == Some(USED) {
        ScreenMessage::AlreadyUsed
    } else if unknown() {
        ScreenMessage::Unknown
    } else {
        ScreenMessage::Other(status)
    }
}
