//! A record: its story, what is kept of the answer, and the decisions about it.

use std::str::FromStr;
use std::sync::Arc;

use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::form::PageForm;
use super::guard::see_other;
use super::refusal::{PageError, PageResult};
use super::text::visible;
use super::{layout, overview};
use crate::admin::records::{self, record_id};
use crate::admin::session::Session;
use crate::admin::state::AdminState;
use crate::idempotency::RecordId;

/// The decisions about a record, as they stand in an address.
pub(super) const ACTIONS: [&str; 3] = ["resolve", "reopen", "purge"];
/// Characters of a body on the page; the whole body is in the API.
const MOST_BODY: usize = 64 << 10;

pub(super) async fn show(state: &Arc<AdminState>, session: &Session, id: &str) -> PageResult {
    let id = record_id(id)?;
    let record = records::show(state, id).await?;
    Ok(rendered(state, session, (StatusCode::OK, None), &record))
}

/// Makes a decision, and leads back to the record.
pub(super) async fn change(
    state: &Arc<AdminState>,
    session: &Session,
    (id, action): (&str, &str),
    form: &PageForm,
) -> PageResult {
    let id = record_id(id)?;
    match decided(state, id, action, form).await {
        Ok(_) => Ok(see_other(&format!("/records/{id}"))),
        Err(error) => {
            // The record as it is now, with the reason why nothing was decided.
            let Ok(record) = records::show(state, id).await else { return Err(error) };
            let shown = (error.status, Some(error.what.as_str()));
            Ok(rendered(state, session, shown, &record))
        }
    }
}

async fn decided(
    state: &Arc<AdminState>,
    id: RecordId,
    action: &str,
    form: &PageForm,
) -> Result<Value, PageError> {
    let invalid = |what: &str| PageError::new(StatusCode::BAD_REQUEST, what);
    if form.get("confirm") != Some("yes") {
        return Err(invalid("Nothing was done: tick the box that confirms the decision."));
    }
    let reason = form.get("reason").filter(|reason| !reason.trim().is_empty());
    let reason = reason.ok_or_else(|| invalid("Nothing was done: a reason is needed."))?;
    let (reason, by) = (reason.replace('\n', " "), form.get("by").map(str::to_owned));
    let attempt = number::<u32>(form, "attempt")?;
    match action {
        "resolve" => {
            let mut wanted = json!({
                "as": form.get("as"), "reason": reason, "by": by, "attempt": attempt,
            });
            if let Some(units) = number::<u64>(form, "units")? {
                wanted["units"] = units.into();
            }
            if form.get("as") == Some("executed")
                && let Some(response) = response(form)?
            {
                wanted["response"] = response;
            }
            let wanted = serde_json::from_value(wanted)
                .map_err(|error| invalid(&format!("Nothing was done: {error}.")))?;
            Ok(records::resolve(state, id, wanted).await?)
        }
        "purge" => Ok(records::purge(state, id, (by, Some(reason)), attempt).await?),
        "reopen" => {
            let wanted = json!({ "reason": reason, "by": by, "attempt": attempt });
            let wanted = serde_json::from_value(wanted)
                .map_err(|error| invalid(&format!("Nothing was done: {error}.")))?;
            Ok(records::reopen(state, id, wanted).await?)
        }
        _ => Err(PageError::new(StatusCode::NOT_FOUND, "There is no such decision.")),
    }
}

/// The number in a field; `None`: the field is empty.
fn number<N: FromStr>(form: &PageForm, name: &str) -> Result<Option<N>, PageError> {
    let number = form.get(name).map(|number| number.trim().parse()).transpose();
    number.map_err(|_| {
        let what = "Nothing was done: attempts and units are whole numbers.";
        PageError::new(StatusCode::BAD_REQUEST, what)
    })
}

/// The response that the form gives; `None`: it gives none.
fn response(form: &PageForm) -> Result<Option<Value>, PageError> {
    let (status, body) = (form.get("status").map(str::trim), form.get("body"));
    if status.is_none() && body.is_none() {
        return Ok(None);
    }
    let status: u16 = status.unwrap_or("200").parse().map_err(|_| {
        let what = "Nothing was done: the status of an answer is a number, 200 to 599.";
        PageError::new(StatusCode::BAD_REQUEST, what)
    })?;
    Ok(Some(json!({ "status": status, "body": body })))
}

fn rendered(
    state: &AdminState,
    session: &Session,
    (status, alert): (StatusCode, Option<&str>),
    record: &Value,
) -> http::Response<crate::body::Body> {
    let routes = state.gateway.routes();
    let name = text(&record["state"]);
    let facts = [
        ("id", &record["id"]),
        ("caller", &record["tenant"]),
        ("route", &record["route"]),
        ("attempts", &record["attempts"]),
        ("status", &record["status"]),
        ("why unknown", &record["reason"]),
    ];
    let content = html! {
        h1 { "Key " bdi { (text(&record["key"])) } }
        @if let Some(alert) = alert { p class="alert" role="alert" { (alert) } }
        p {
            span class={ "state " (name) } { (name) }
            @if name == "unknown" {
                " Policy: " (overview::policy(&routes, record["route"].as_str())) "."
            }
        }
        dl {
            @for (label, value) in facts {
                @if !value.is_null() { dt { (label) } dd { (text(value)) } }
            }
            @if let Value::Object(item) = &record["item"] {
                @for label in ["requested", "fulfilled", "in_flight", "unknown"] {
                    dt { "units " (label) } dd { (text(&item[label])) }
                }
            }
        }
        section aria-labelledby="timeline" {
            h2 id="timeline" { "Timeline (UTC)" }
            ol class="timeline" {
                @for (at, what) in timeline(record) {
                    li { time datetime=(at) { (at) } " " (what) }
                }
            }
        }
        (kept(record))
        (decisions(session, record))
    };
    layout::page(status, session, "Record", &content)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => visible(text, false),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Every event of the record with its time, in order.
fn timeline(record: &Value) -> Vec<(String, String)> {
    let mut events: Vec<(String, String)> = Vec::new();
    let mut event = |at: &Value, what: String| {
        if let Some(at) = at.as_str() {
            events.push((at.to_owned(), what));
        }
    };
    event(&record["first_seen"], "first request with this key; attempt 1 began".to_owned());
    for entry in record["history"].as_array().into_iter().flatten() {
        let units = entry["units"].as_u64().map(|units| format!(" ({units} units)"));
        let times = entry["times"].as_u64().map(|times| format!(" ({times} times)"));
        let why = entry["reason"].as_str().filter(|why| !why.is_empty());
        let what = format!(
            "{}{}{}, about attempt {}, by {}{}",
            text(&entry["what"]),
            units.unwrap_or_default(),
            times.unwrap_or_default(),
            text(&entry["attempt"]),
            text(&entry["by"]),
            why.map(|why| format!(": {}", visible(why, false))).unwrap_or_default(),
        );
        event(&entry["at"], what);
    }
    let attempt = text(&record["attempts"]);
    let reason = text(&record["reason"]);
    if record["attempts"].as_u64().is_some_and(|attempts| attempts > 1) {
        event(&record["settlement"]["dispatched"], format!("attempt {attempt} began"));
    }
    event(&record["unknown_since"], format!("outcome of attempt {attempt} unknown: {reason}"));
    // By the backend, an operator or a probe: the history says by whom.
    let answered = format!("the key has its final answer: status {}", text(&record["status"]));
    event(&record["completed"], answered);
    event(&record["expires"], "end of the time for which this is kept".to_owned());
    events.sort();
    events
}

/// The stored answer.
fn kept(record: &Value) -> Markup {
    let response = &record["response"];
    if response.is_null() {
        return html! {};
    }
    let body = response["body"].as_str();
    let shown: String = body.unwrap_or_default().chars().take(MOST_BODY).collect();
    let is_cut = body.is_some_and(|body| body.len() > shown.len());
    html! {
        section aria-labelledby="answer" {
            h2 id="answer" { "The answer that is replayed" }
            p { "Status " (text(&response["status"])) }
            details {
                summary { "Header lines" }
                ul {
                    @for line in response["headers"].as_array().into_iter().flatten() {
                        li { code { (text(&line[0])) ": " (text(&line[1])) } }
                    }
                }
            }
            @match body {
                Some(_) => pre tabindex="0" { (visible(&shown, true)) },
                None => p { "The body is not text; the API has it as Base64." },
            }
            @if is_cut { p { "This is the beginning; the API has the whole body." } }
        }
    }
}

fn decisions(session: &Session, record: &Value) -> Markup {
    let (state, is_item) =
        (record["state"].as_str().unwrap_or_default(), record["item"].is_object());
    let can_purge = matches!(state, "final" | "complete" | "partial" | "none");
    html! {
        @if state == "unknown" { (settle(session, record, is_item)) }
        @if state == "final" {
            details {
                summary { "Reopen the record" }
                p {
                    "The answer was final and is found to be none: the key is free, and a retry "
                    "runs."
                }
                (decision(session, record, "reopen", "Reopen the record", &html! {}))
            }
        }
        @if can_purge {
            details {
                summary { "Purge the answer" }
                p { "The answer is removed; the key stays used, and retries are refused." }
                (decision(session, record, "purge", "Purge the answer", &html! {}))
            }
        }
    }
}

/// The form that settles an unknown outcome.
fn settle(session: &Session, record: &Value, is_item: bool) -> Markup {
    let fields = html! {
        fieldset {
            legend { "The backend" }
            label {
                input type="radio" name="as" value="executed" required;
                " carried the request out: it is final"
            }
            label {
                input type="radio" name="as" value="not-executed";
                " did not carry it out: the key is free, and a retry runs"
            }
        }
        @if is_item {
            label for="units" { "Units that were issued (left out: all that are unknown)" }
            input id="units" name="units" inputmode="numeric";
        } @else {
            details {
                summary { "The answer to replay" }
                p { "Left out, the client reads that an operator has confirmed the request." }
                label for="status" { "Status" }
                input id="status" name="status" inputmode="numeric" placeholder="200";
                label for="body" { "Body" }
                textarea id="body" name="body" rows="6" {}
            }
        }
    };
    html! {
        section aria-labelledby="settle" {
            h2 id="settle" { "Settle the outcome" }
            p {
                "Look at the backend's own records first: was attempt "
                (text(&record["attempts"])) " carried out?"
            }
            (decision(session, record, "resolve", "Settle", &fields))
        }
    }
}

/// A form with a reason and a confirmation.
fn decision(
    session: &Session,
    record: &Value,
    action: &str,
    button: &str,
    fields: &Markup,
) -> Markup {
    let target = format!("/records/{}/{action}", text(&record["id"]));
    html! {
        form method="post" action=(target) class="decision" {
            input type="hidden" name="csrf" value=(session.csrf);
            input type="hidden" name="attempt" value=(text(&record["attempts"]));
            (fields)
            label for={ "reason-" (action) } { "Reason: what you looked at" }
            textarea id={ "reason-" (action) } name="reason" rows="2" maxlength="1000" required {}
            label for={ "by-" (action) } { "Your name" }
            input id={ "by-" (action) } name="by" maxlength="100" autocomplete="name";
            label class="confirm" {
                input type="checkbox" name="confirm" value="yes" required;
                " I have checked this, and the decision is final."
            }
            button type="submit" { (button) }
        }
    }
}
