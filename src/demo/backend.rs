//! The built-in legacy backend: RedeemSG's shapes, a points account beside it, and no idempotency.
//!
//! `POST /v1/vouchers/redeem` redeems a voucher once and refuses every later attempt with 402;
//! `POST /v1/points/award` adds points each time it is called; `GET /v1/transactions` and
//! `GET /v1/points` list what was done, the latter two with `all=1` also what failed afterwards.
//! `POST /v1/points/revoke` takes points back. The key header is ignored, as such backends do.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use super::faults::{BackendFault, FaultPlan, sale_of};
use crate::loopback::{self, ConnectionLost};
use crate::shutdown::Shutdown;

/// Path of the redemption.
pub(super) const REDEEM: &str = "/v1/vouchers/redeem";
/// Path of the award.
pub(super) const AWARD: &str = "/v1/points/award";
/// Path of the revocation of an award.
pub(super) const REVOKE: &str = "/v1/points/revoke";
/// Path of the list of redemptions.
pub(super) const TRANSACTIONS: &str = "/v1/transactions";
/// Path of the list of awards.
pub(super) const POINTS: &str = "/v1/points";
/// Error code for a spent voucher.
pub(super) const USED: &str = "redemption_vouchers_used";

/// Value of a voucher.
const VALUE: u32 = 10;

/// A running backend.
#[derive(Debug)]
pub(super) struct Backend {
    /// Address of the backend.
    pub(super) address: SocketAddr,
    state: Arc<BackendState>,
}

#[derive(Debug)]
struct BackendState {
    plan: Arc<FaultPlan>,
    book: Mutex<BackendBooks>,
}

/// The backend's books.
#[derive(Debug, Default)]
struct BackendBooks {
    used: HashSet<String>,
    transactions: Vec<Value>,
    awards: Vec<Value>,
    /// Requests that arrived, by path.
    calls: BTreeMap<String, u64>,
}

impl Backend {
    /// Starts the backend on a free loopback port.
    pub(super) async fn start(
        plan: Arc<FaultPlan>,
        tasks: &TaskTracker,
        shutdown: Shutdown,
    ) -> Result<Self, String> {
        let state = Arc::new(BackendState { plan, book: Mutex::default() });
        let serving = state.clone();
        let address = loopback::serve(tasks, shutdown, move |request| {
            let state = serving.clone();
            async move { state.answer(&request).await }
        })
        .await?;
        Ok(Self { address, state })
    }

    /// Number of received requests for a path.
    pub(super) fn calls(&self, path: &str) -> u64 {
        let book = self.state.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.calls.get(path).copied().unwrap_or(0)
    }
}

impl BackendState {
    async fn answer(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, ConnectionLost> {
        let path = request.uri().path();
        if !request.headers().contains_key("x-api-key") {
            let message = "The x-api-key header is missing.";
            return Ok(refusal(StatusCode::UNAUTHORIZED, "unauthorized", message));
        }
        match (request.method(), path) {
            (&Method::GET, TRANSACTIONS) => {
                Ok(self.list(request.uri().query(), |book| &book.transactions))
            }
            (&Method::GET, POINTS) => Ok(self.list(request.uri().query(), |book| &book.awards)),
            (&Method::POST, REDEEM | AWARD) => self.execute(path, request.body()).await,
            (&Method::POST, REVOKE) => Ok(self.revoke(request.body())),
            _ => Ok(refusal(StatusCode::NOT_FOUND, "not_found", "There is nothing here.")),
        }
    }

    /// Takes the points of a sale back.
    fn revoke(&self, body: &Bytes) -> Response<Bytes> {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let before = book.awards.len();
        book.awards.retain(|award| award["metadata"] != body["metadata"]);
        match before - book.awards.len() {
            0 => refusal(StatusCode::NOT_FOUND, "no_award", "There is no such award."),
            revoked => respond(StatusCode::OK, &json!({ "status": "revoked", "awards": revoked })),
        }
    }

    /// Lists the entries, or with `limit=` only the newest; with `all=1` also the entries that the
    /// failing part of the backend did not publish.
    fn list(
        &self,
        query: Option<&str>,
        entries: impl FnOnce(&BackendBooks) -> &Vec<Value>,
    ) -> Response<Bytes> {
        let limit = query
            .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("limit=")))
            .and_then(|limit| limit.parse().ok())
            .unwrap_or(usize::MAX);
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let all = query.is_some_and(|query| query.split('&').any(|pair| pair == "all=1"));
        let entries = entries(&book).iter().filter(|entry| all || entry[HIDDEN].is_null());
        let entries: Vec<&Value> = entries.collect();
        let newest = &entries[entries.len().saturating_sub(limit)..];
        respond(StatusCode::OK, &json!({ "data": newest }))
    }

    /// Executes and answers, except for the planned fault.
    async fn execute(&self, path: &str, body: &Bytes) -> Result<Response<Bytes>, ConnectionLost> {
        let fault = sale_of(body).and_then(|sale| self.plan.take_backend(&sale));
        let answer = {
            let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
            *book.calls.entry(path.to_owned()).or_default() += 1;
            if matches!(fault, Some(BackendFault::Busy)) {
                let message = "Too many requests. Try again.";
                return Ok(refusal(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message));
            }
            let body = serde_json::from_slice(body).unwrap_or(Value::Null);
            if path == REDEEM { book.redeem(&body) } else { book.award(&body) }
        };
        match fault {
            None | Some(BackendFault::Busy) => Ok(answer),
            Some(BackendFault::AnswerLost) => Err(ConnectionLost),
            Some(BackendFault::AnswerHeld(hold)) => {
                hold.hold().await;
                Ok(answer)
            }
            Some(BackendFault::FailsAfterwards) => {
                self.hide_last(path);
                let message = "Something went wrong.";
                Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message))
            }
        }
    }
}

impl BackendState {
    /// Leaves the newest redemption out of the public list.
    fn hide_last(&self, path: &str) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if path == REDEEM
            && let Some(last) = book.transactions.last_mut()
        {
            last[HIDDEN] = true.into();
        }
    }
}

/// Member of an entry that is in the books and not in the public list.
const HIDDEN: &str = "unpublished";

impl BackendBooks {
    fn redeem(&mut self, body: &Value) -> Response<Bytes> {
        let Some(qr) = body["qr"].as_str().filter(|qr| qr.starts_with("rsg:")) else {
            let message = "The QR code is not a voucher.";
            return refusal(StatusCode::BAD_REQUEST, "invalid_qr", message);
        };
        if !self.used.insert(qr.to_owned()) {
            let message = "The voucher has been used already.";
            return refusal(StatusCode::PAYMENT_REQUIRED, USED, message);
        }
        let transaction = json!({
            "id": format!("txn_{}", self.transactions.len() + 1),
            "value": VALUE,
            "created_at": crate::clock::now().as_millis() / 1000,
        });
        let mut listed = transaction.clone();
        listed["metadata"] = body["metadata"].clone();
        self.transactions.push(listed);
        let answer = json!({
            "status": "succeeded",
            "vouchers": [{ "id": format!("vch_{}", self.transactions.len()), "value": VALUE }],
            "campaign": { "id": "cmp_1", "name": "Neighborhood vouchers" },
            "transaction": transaction,
        });
        respond(StatusCode::OK, &answer)
    }

    fn award(&mut self, body: &Value) -> Response<Bytes> {
        let (Some(member), Some(points)) = (body["member"].as_str(), body["points"].as_u64())
        else {
            let message = "A member and points are needed.";
            return refusal(StatusCode::BAD_REQUEST, "invalid_award", message);
        };
        self.awards.push(json!({
            "id": format!("awd_{}", self.awards.len() + 1),
            "member": member,
            "points": points,
            "metadata": body["metadata"],
        }));
        let of_member = self.awards.iter().filter(|award| award["member"] == member);
        let balance: u64 = of_member.filter_map(|award| award["points"].as_u64()).sum();
        let answer = json!({
            "status": "succeeded",
            "award": format!("awd_{}", self.awards.len()),
            "balance": balance,
        });
        respond(StatusCode::OK, &answer)
    }
}

/// An error in RedeemSG's envelope.
fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    let kind = if status.is_server_error() { "api_error" } else { "invalid_request_error" };
    respond(status, &json!({ "error": { "code": code, "message": message, "type": kind } }))
}

fn respond(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
