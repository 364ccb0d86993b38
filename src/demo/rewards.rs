//! Batches of rewards that are issued in part and sent again, printed as a table.
//!
//! A built-in reward engine has limits for each customer and no memory of request ids, as such
//! engines do. The engine counts received batches, issued units and spent points.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::loopback::{self, ConnectionLost};
use crate::problem::ERROR_HEADER;
use crate::shutdown::Shutdown;

/// Path of the batch endpoint.
pub(super) const ISSUE: &str = "/v1/rewards/issue";
/// The rewards of each batch, and what one unit is worth in points.
const REWARDS: [(&str, u64); 2] = [("R1", 5), ("R2", 10)];
/// Units of each reward in a batch.
const UNITS: u64 = 2;
/// Points of a complete batch.
const WORTH: u64 = 30;

/// A call of the demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BatchCall {
    /// Description of the call.
    pub what: &'static str,
    /// The batch is sent; a client with a complete answer stops.
    pub asked: bool,
    /// Items received by the engine; empty: none.
    pub sent: String,
    /// Units issued by the engine.
    pub issued: String,
    /// Points spent for this customer so far.
    pub points: u64,
    /// Answer read by the client.
    pub reply: String,
}

/// A step of the story.
struct BatchStep {
    what: &'static str,
    customer: &'static str,
    /// Limit of each reward for a customer.
    limits: [u64; 2],
    /// The engine's answer is lost.
    lost: bool,
}

const NONE: [u64; 2] = [u64::MAX; 2];
const STEPS: [BatchStep; 6] = [
    BatchStep { what: "limits R1:1, R2:1", customer: "a", limits: [1, 1], lost: false },
    BatchStep { what: "limits R1:1, R2:2", customer: "a", limits: [1, 2], lost: false },
    BatchStep { what: "no limits", customer: "a", limits: NONE, lost: false },
    BatchStep { what: "sent once more", customer: "a", limits: NONE, lost: false },
    BatchStep { what: "the answer is lost", customer: "b", limits: NONE, lost: true },
    BatchStep { what: "sent once more", customer: "b", limits: NONE, lost: false },
];
/// The step taken behind the gateway only: without the gateway, a client with a complete answer
/// stops.
const ONCE_MORE: usize = 3;

/// A running engine.
#[derive(Debug)]
pub(super) struct RewardEngine {
    /// Address of the engine.
    pub(super) address: SocketAddr,
    books: Arc<Mutex<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    limits: [u64; 2],
    lose: bool,
    /// Units of each reward held by a customer.
    taken: BTreeMap<String, [u64; 2]>,
    /// Received items and issued units since the last reset.
    calls: Vec<(String, String)>,
}

impl RewardEngine {
    /// Starts the engine on a free loopback port.
    pub(super) async fn start(tasks: &TaskTracker, shutdown: Shutdown) -> Result<Self, String> {
        let books = Arc::new(Mutex::new(Books::default()));
        let serving = books.clone();
        let address = loopback::serve(tasks, shutdown, move |request: Request<Bytes>| {
            let answer = lock(&serving).issue(request.body());
            async move { answer }
        })
        .await?;
        Ok(Self { address, books })
    }
}

fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Books {
    fn issue(&mut self, body: &Bytes) -> Result<Response<Bytes>, ConnectionLost> {
        let batch: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let customer = batch["mobile"].as_str().unwrap_or_default().to_owned();
        let taken = self.taken.entry(customer).or_default();
        let (mut sent, mut issued, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for item in batch["rewards"].as_array().into_iter().flatten() {
            let wanted = item["quantity"].as_u64().unwrap_or(0);
            let reward = item["rewardId"].as_str().unwrap_or_default();
            let Some(at) = REWARDS.iter().position(|(name, _)| *name == reward) else { continue };
            let units = wanted.min(self.limits[at].saturating_sub(taken[at]));
            taken[at] += units;
            sent.push(format!("{reward}x{wanted}"));
            issued.push(units.to_string());
            let code = if units == wanted { 200 } else { 8010 };
            rows.push(json!({
                "requestId": item["requestId"],
                "rewardId": reward,
                "requestedQuantity": wanted,
                "quantity": units,
                "status": { "success": code == 200, "code": code },
            }));
        }
        self.calls.push((sent.join(" "), issued.join(" + ")));
        if self.lose {
            return Err(ConnectionLost);
        }
        let mut response = Response::new(Bytes::from(json!({ "rewards": rows }).to_string()));
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        Ok(response)
    }

    fn points(&self, customer: &str) -> u64 {
        let taken = self.taken.get(customer).copied().unwrap_or_default();
        REWARDS.iter().zip(taken).map(|((_, worth), units)| worth * units).sum()
    }
}

/// Sends all calls to `next`: the engine itself, or the gateway in front.
pub(super) async fn play(
    engine: &RewardEngine,
    next: SocketAddr,
    with_gateway: bool,
) -> Vec<BatchCall> {
    let mut calls = Vec::new();
    for (at, step) in STEPS.iter().enumerate() {
        let asked = with_gateway || at != ONCE_MORE;
        {
            let mut books = lock(&engine.books);
            books.limits = step.limits;
            books.lose = step.lost;
            books.calls.clear();
        }
        let reply = if asked { ask(next, step.customer).await } else { String::new() };
        let books = lock(&engine.books);
        let (sent, issued): (Vec<String>, Vec<String>) = books.calls.iter().cloned().unzip();
        let points = books.points(step.customer);
        let (sent, issued) = (sent.join(", "), issued.join(", "));
        calls.push(BatchCall { what: step.what, asked, sent, issued, points, reply });
    }
    calls
}

/// Sends the batch of a customer, equal each time, and returns the answer as read by the client.
async fn ask(next: SocketAddr, customer: &str) -> String {
    let items: Vec<Value> = REWARDS
        .iter()
        .map(|(reward, _)| {
            let id = format!("{customer}-{reward}");
            json!({ "requestId": id, "rewardId": reward, "quantity": UNITS })
        })
        .collect();
    let body = json!({ "mobile": customer, "rewards": items });
    let request = Request::post(ISSUE)
        .header(HOST, next.to_string())
        .header(CONTENT_TYPE, "application/json")
        .header("x-api-key", "demo")
        .body(Bytes::from(body.to_string()));
    let Ok(request) = request else { return String::new() };
    match loopback::send(next, request).await {
        Ok(answer) => read(&answer),
        Err(ConnectionLost) => "nothing".to_owned(),
    }
}

fn read(answer: &Response<Bytes>) -> String {
    if answer.headers().contains_key(ERROR_HEADER) || answer.status() == StatusCode::CONFLICT {
        return "not known".to_owned();
    }
    let body: Value = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
    let rows = body["rewards"].as_array().into_iter().flatten();
    let rows: Vec<String> =
        rows.map(|row| format!("{} of {}", row["quantity"], row["requestedQuantity"])).collect();
    rows.join(", ")
}

/// Checks the promises of the gateway.
///
/// # Errors
/// The broken promise.
pub(super) fn check(calls: &[BatchCall]) -> Result<(), &'static str> {
    let complete = format!("{UNITS} of {UNITS}, {UNITS} of {UNITS}");
    let [.., third, fourth, lost, again] = calls else {
        return Err("the story of the batches was not told to its end");
    };
    if calls.iter().any(|call| call.points > WORTH) {
        return Err("a batch behind the gateway spent more points than it was worth");
    }
    if third.points != WORTH || third.reply != complete || fourth.reply != complete {
        return Err("a batch behind the gateway was not completed");
    }
    if !fourth.sent.is_empty() || !again.sent.is_empty() {
        return Err("the gateway sent a batch that it must not send");
    }
    if [lost, again].iter().any(|call| call.reply != "not known") {
        return Err("the gateway claimed to know what nobody knows");
    }
    Ok(())
}

/// The calls without and with the gateway side by side, for 100 columns.
pub(super) fn table(without: &[BatchCall], with: &[BatchCall]) -> String {
    let line = |what: &str, left: [&str; 3], right: [&str; 4]| {
        let [sent, issued, points] = left;
        let left = format!("{sent:<11}{issued:<7}{points:>6}");
        let [sent, issued, points, reply] = right;
        let text = format!("{what:<22}{left}   {sent:<11}{issued:<7}{points:>6}  {reply}");
        format!("{}\n", text.trim_end())
    };
    let mut table = line("", ["without oncegate", "", ""], ["with oncegate", "", "", ""]);
    let names = ["sent", "issued", "points"];
    table.push_str(&line("", names, [names[0], names[1], names[2], "the client reads"]));
    table.push_str(&format!("{}\n", "-".repeat(93)));
    for (at, (left, right)) in without.iter().zip(with).enumerate() {
        let what = format!("{} {}", at + 1, right.what);
        let points = [left, right].map(|call| call.points.to_string());
        let nothing = |sent: &str| if sent.is_empty() { "nothing" } else { sent }.to_owned();
        let (left_sent, left_points) = if left.asked {
            (nothing(&left.sent), points[0].as_str())
        } else {
            (String::new(), "")
        };
        table.push_str(&line(
            &what,
            [&left_sent, &left.issued, left_points],
            [&nothing(&right.sent), &right.issued, &points[1], &right.reply],
        ));
    }
    table
}
