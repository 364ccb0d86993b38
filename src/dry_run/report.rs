//! The result of a dry run, for people and for programs. Credentials of the samples are not shown.

use std::fmt::Write as _;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, Request, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::gateway::Exchange;

/// Characters of a body in the text form.
const SHOWN: usize = 4000;

/// The result of a dry run.
#[derive(Debug, Serialize)]
pub struct DryRun {
    /// The route that took the request; `None`: no route did.
    pub route: Option<RouteReport>,
    /// Reason for which the gateway refused the request; `None`: the request was taken.
    pub refused: Option<String>,
    /// Items whose outcome could not be read from the answers.
    pub unread: Vec<String>,
    /// The records after the tries: of request mode one, of items mode one for each item.
    pub records: Vec<Value>,
    /// The tries, one for each sample answer.
    pub tries: Vec<StepReport>,
    /// The retry after them.
    pub retry: Option<StepReport>,
    /// The try whose answer is lost.
    pub lost: Option<StepReport>,
    /// The retry after a lost answer.
    pub retry_of_lost: Option<StepReport>,
    #[serde(skip)]
    request: String,
}

/// The route of a request.
#[derive(Debug, Serialize)]
pub struct RouteReport {
    /// Name of the route.
    pub name: String,
    /// Mode of the route.
    pub mode: &'static str,
    /// Name of the route's upstream.
    pub upstream: Option<String>,
}

/// A request of the client and its effect.
#[derive(Debug, Serialize)]
pub struct StepReport {
    /// Requests that reached the backend.
    sent: Vec<Value>,
    /// Status of the sample answer.
    answered: Option<u16>,
    /// The answer that the client reads.
    client: Value,
    #[serde(skip)]
    status: u16,
    #[serde(skip)]
    outcome: String,
    #[serde(skip)]
    detail: String,
}

impl StepReport {
    pub(super) fn new(exchange: &Exchange, answered: Option<&Response<Bytes>>) -> Self {
        let answer = &exchange.answer;
        let header = |name: &str| {
            let value = answer.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let error = header("idempotency-error");
        let problem: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let detail = problem["detail"].as_str().or(problem["error"]["message"].as_str());
        let own = error.is_some();
        Self {
            sent: exchange.sent.iter().map(sent).collect(),
            answered: answered.map(|answer| answer.status().as_u16()),
            client: message(
                json!({ "status": answer.status().as_u16() }),
                answer.headers(),
                answer.body(),
            ),
            status: answer.status().as_u16(),
            outcome: error.or(header("idempotency-status")).unwrap_or_default(),
            detail: detail.filter(|_| own).unwrap_or_default().to_owned(),
        }
    }

    /// Reports an answer that the gateway made itself before anything was sent.
    pub(super) fn is_refused(&self) -> bool {
        self.sent.is_empty()
            && self.client["headers"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|line| line[0] == "idempotency-error")
    }

    /// The answer on a line.
    fn line(&self) -> String {
        let outcome = if self.outcome.is_empty() { "passed" } else { &self.outcome };
        let sent = match self.sent.len() {
            0 => "nothing is sent".to_owned(),
            1 => "1 request is sent".to_owned(),
            more => format!("{more} requests are sent"),
        };
        format!("the client reads {} ({outcome}); {sent}", self.status)
    }
}

impl DryRun {
    pub(super) fn new(request: &Request<Bytes>) -> Self {
        Self {
            route: None,
            refused: None,
            unread: Vec::new(),
            records: Vec::new(),
            tries: Vec::new(),
            retry: None,
            lost: None,
            retry_of_lost: None,
            request: format!("{} {}", request.method(), request.uri()),
        }
    }

    /// Notes the items whose outcome is unknown although an answer arrived.
    pub(super) fn read_rows(&mut self) {
        let unknown = |record: &&Value| {
            record["item"].is_object() && record["item"]["unknown"].as_u64().unwrap_or(0) > 0
        };
        let text = |record: &Value| {
            let reason = record["reason"].as_str().unwrap_or("its row was not understood");
            format!("{}: {reason}", record["key"].as_str().unwrap_or_default())
        };
        self.unread = self.records.iter().filter(unknown).map(text).collect();
    }

    /// Notes a refusal.
    pub(super) fn note_refusal(&mut self) {
        let first = self.tries.first().or(self.lost.as_ref());
        self.refused = first
            .filter(|first| first.is_refused())
            .map(|first| format!("{} {}: {}", first.status, first.outcome, first.detail));
    }

    /// Reports a request that the gateway takes and answers whose rows can be read.
    pub fn passes(&self) -> bool {
        self.refused.is_none() && self.unread.is_empty()
    }

    /// The result for people. Every line ends with a line feed.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{name:<10}{value}");
        };
        line("request", &self.request);
        match &self.route {
            None => line("route", "none takes this request"),
            Some(route) => {
                let upstream = route.upstream.as_deref().unwrap_or_default();
                let text = format!("{}, mode {}, upstream {upstream}", route.name, route.mode);
                line("route", &text);
            }
        }
        if let Some(refused) = &self.refused {
            line("refused", refused);
        }
        for record in &self.records {
            for (name, value) in of_record(record) {
                line(name, &value);
            }
        }
        let sent = self.tries.iter().chain(&self.lost).flat_map(|step| &step.sent).next();
        if let Some(sent) = sent {
            line("sent", &shown(sent, "target"));
        }
        for (at, step) in self.tries.iter().enumerate() {
            let answered =
                step.answered.map_or("no answer".to_owned(), |it| format!("answer {it}"));
            line(&format!("try {}", at + 1), &format!("{answered}: {}", step.line()));
            if at > 0 {
                step.sent.iter().for_each(|sent| line("", &shown(sent, "target")));
            }
            line("", &shown(&step.client, "status"));
        }
        let rest = [("retry", &self.retry), ("lost", &self.lost), ("  retry", &self.retry_of_lost)];
        for (name, step) in rest {
            let Some(step) = step else { continue };
            line(name, &step.line());
            if name != "lost" || !step.detail.is_empty() {
                line("", &shown(&step.client, "status"));
            }
        }
        for item in &self.unread {
            line("unread", item);
        }
        out
    }
}

/// The lines about a record.
fn of_record(record: &Value) -> Vec<(&'static str, String)> {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let mut lines = Vec::new();
    if record["item"].is_object() {
        let item = &record["item"];
        lines.push((
            "item",
            format!(
                "{}: {} of {} issued, {} unknown ({})",
                text("key"),
                item["fulfilled"],
                item["requested"],
                item["unknown"],
                text("state")
            ),
        ));
        if let Some(row) = item["row"].as_str() {
            lines.push(("  row", row.to_owned()));
        }
        return lines;
    }
    lines.push(("caller", text("tenant")));
    lines.push(("key", text("key")));
    lines.push(("compared", format!("fingerprint {}", text("fingerprint"))));
    let until = record["expires"].as_str().map_or(String::new(), |at| format!(", until {at}"));
    let status = record["status"].as_u64().map_or(String::new(), |it| format!(", answer {it}"));
    let reason = record["reason"].as_str().map_or(String::new(), |why| format!(": {why}"));
    lines.push(("kept", format!("{}{status}{until}{reason}", text("state"))));
    lines
}

/// A message that reached the backend.
fn sent(request: &Request<Bytes>) -> Value {
    let head = json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
    });
    message(head, request.headers(), request.body())
}

fn message(mut shown: Value, headers: &HeaderMap, body: &Bytes) -> Value {
    let line = |(name, value): (&HeaderName, &http::HeaderValue)| {
        let is_secret = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(name)
            || name.as_str().contains("api-key")
            || name.as_str().contains("token");
        match is_secret {
            true => json!([name.as_str(), "…"]),
            false => json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]),
        }
    };
    shown["headers"] = headers.iter().map(line).collect();
    match std::str::from_utf8(body) {
        Ok(text) => shown["body"] = text.into(),
        Err(_) => shown["body_base64"] = BASE64_STANDARD.encode(body).into(),
    }
    shown
}

/// A message as people read it: the first line's `part` and the body, indented below each other.
fn shown(message: &Value, part: &str) -> String {
    let first = match (&message[part], message["method"].as_str()) {
        (Value::String(target), Some(method)) => format!("{method} {target}\n"),
        (_, _) => String::new(),
    };
    let body = match (message["body"].as_str(), message["body_base64"].as_str()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(_)) => "(a body that is no text)".to_owned(),
        (None, None) => String::new(),
    };
    let cut: String = body.chars().take(SHOWN).collect();
    let more = if cut.len() < body.len() { " …" } else { "" };
    let text = format!("{first}{cut}{more}");
    text.trim_end().replace('\n', "\n          ")
}
