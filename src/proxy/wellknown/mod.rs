//! Pages of the gateway for clients: the contract as configured, required by the draft standard
//! (draft-ietf-httpapi-idempotency-key-header section 2), the status of a key, and its answer. No
//! page ever calls a backend.

mod contract;
mod key_answer;
mod key_record;
mod key_status;

use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, request};
use serde_json::Value;

use self::contract::contract;
use self::key_status::status;
use super::answer::AnswerResult;
use super::peer::Peer;
use super::routing::Routing;
use super::state::Gateway;
use crate::body::{Body, full};
use crate::problem::{Problem, Slug};

/// Path of the contract.
pub(crate) const PATH: &str = "/.well-known/idempotency";
const STATUS_PATH: &str = "/.well-known/idempotency/status";
const ANSWER_PATH: &str = "/.well-known/idempotency/answer";

/// True for the path of the gateway's own pages and what is below it.
pub(crate) fn is_own(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request below [`PATH`].
pub(crate) async fn answer(
    gateway: &Gateway,
    routing: &Routing,
    (client, head): (&Peer, &request::Parts),
    path: &str,
) -> AnswerResult {
    if path != PATH && path != STATUS_PATH && path != ANSWER_PATH {
        return Err(Problem::new(Slug::NoRoute, "Nothing is served at this address.")
            .disposition(None)
            .close());
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        let problem = Problem::new(Slug::MethodNotAllowed, "This address can only be read.");
        let allow = HeaderValue::from_static("GET, HEAD");
        return Err(problem.header(ALLOW, allow).disposition(None).close());
    }
    if path == ANSWER_PATH {
        return key_answer::answer(gateway, routing, (client, head)).await;
    }
    if path == STATUS_PATH {
        return match status(gateway, routing, (client, head)).await {
            Ok(status) => Ok(page("application/json", status.to_string())),
            Err(refusal) => refusal.into_answer(),
        };
    }
    let contract = contract(routing, STATUS_PATH, ANSWER_PATH);
    if wants_html(&head.headers) {
        return Ok(page("text/html; charset=utf-8", html(&contract)));
    }
    Ok(page("application/json", contract.to_string()))
}

fn page(media_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(http::header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// Returns true if `Accept` lists HTML before JSON and before `*/*`.
fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let position = |media: &str| accept.find(media).unwrap_or(usize::MAX);
    position("text/html") < position("application/json").min(position("*/*"))
}

/// The contract as HTML. Every configured value is escaped.
fn html(contract: &Value) -> String {
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let mut rows = String::new();
    for problem in contract["problems"].as_array().into_iter().flatten() {
        let code = escape(problem["code"].as_str().unwrap_or_default());
        let title = escape(problem["title"].as_str().unwrap_or_default());
        let retry = if problem["retryable"] == true { "yes" } else { "no" };
        rows.push_str(&format!(
            "<tr id=\"{code}\"><td><code>{code}</code></td><td>{title}</td><td>{}</td>\
             <td>{retry}</td></tr>\n",
            problem["status"]
        ));
    }
    let mut routes = String::new();
    for route in contract["routes"].as_array().into_iter().flatten() {
        let text = serde_json::to_string_pretty(route).unwrap_or_default();
        let name = escape(route["name"].as_str().unwrap_or_default());
        routes.push_str(&format!("<h3>{name}</h3>\n<pre>{}</pre>\n", escape(&text)));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>Idempotency contract</title></head><body>\n<h1>Idempotency contract</h1>\n\
         <p>Send the same key with every retry of one request. The request is carried out at most \
         once; later requests with the key get the stored answer. The state of a key is at \
         <code>{STATUS_PATH}</code>.</p>\n<h2>Routes</h2>\n{routes}<h2>Problems</h2>\n<table>\n\
         <tr><th>Code</th><th>Title</th><th>Status</th><th>Retry helps</th></tr>\n{rows}</table>\n\
         </body></html>\n"
    )
}
