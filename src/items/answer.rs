//! The client's answer: the backend's last answer with the rows of all requested items, in the
//! order of the request.

use super::batch::Batch;
use super::edit::{Edit, edit, edit_document};
use super::find_rows::AnswerFrame;
use super::join::{BatchOutcome, ResponseShape};
use super::response::BackendResponse;
use super::rules::{Fulfillment, ItemRules, ListKind, Refusal, TemplateMember};
use super::shown_rows::{ListText, lists};
use crate::idempotency::ledger::{Envelope, Ledger};
use crate::json::{Document, JsonType, Value};

/// The status of an answer with unknown items, unless the template has one.
const UNKNOWN_STATUS: u16 = 409;

/// The client's answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAnswer {
    /// The status.
    pub status: u16,
    /// The body: JSON, or the backend's bytes.
    pub body: Vec<u8>,
    /// Fulfillment of the batch.
    pub fulfillment: Fulfillment,
    /// The body is JSON in the place of an answer that was none.
    pub replaces_text: bool,
}

/// Writes the answer from the ledger entries after this call, one for each item of the batch, and
/// from the backend's answer, if any.
///
/// A refusal of the whole batch is passed on unchanged when the gateway has nothing to add: no
/// unit was ever issued for any of the items, and none is unknown.
pub fn render(
    rules: &ItemRules,
    batch: &Batch,
    entries: &[&Ledger],
    backend: Option<(&BackendResponse<'_>, &BatchOutcome)>,
) -> BatchAnswer {
    let fulfillment = batch_fulfillment(entries);
    let template = rules.render.template(fulfillment);
    let usable = backend.filter(|(_, joined)| joined.shape != ResponseShape::Unreadable);
    if let Some((response, joined)) = usable
        && joined.shape == ResponseShape::Refused
        && entries.iter().all(|entry| entry.is_blank())
        && joined.outcomes.iter().all(Option::is_some)
    {
        let (status, body) = (response.status, response.body.to_vec());
        return BatchAnswer { status, body, fulfillment, replaces_text: false };
    }
    let rows = lists(rules, batch, entries, backend.map(|(_, joined)| joined));
    let text = AnswerText {
        rules,
        top: &template.top,
        rows: &rows,
        is_alone: rules.response.kind == ListKind::Single && batch.items.len() == 1,
    };
    let kept = envelope(entries);
    let usable_kept = kept.filter(|envelope| has_lists(rules, &envelope.body));
    let (body, replaces_text) = match (backend, usable, usable_kept) {
        (_, Some((response, joined)), _) => text.over_answer(response.body, joined),
        (None, None, Some(envelope)) => text.over(Some(&envelope.body)),
        (_, None, _) => text.over(None),
    };
    let default = match fulfillment {
        Fulfillment::Unknown => UNKNOWN_STATUS,
        Fulfillment::Complete | Fulfillment::Partial | Fulfillment::None => match backend {
            Some((response, _)) => response.status,
            None => kept_status(fulfillment, kept),
        },
    };
    let status = template.http.unwrap_or(default);
    BatchAnswer { status, body: body.into_bytes(), fulfillment, replaces_text }
}

/// The status of an answer from the records alone: that of the last answer if it was a success, as
/// with 202 for a job or 207, and the batch is complete.
fn kept_status(fulfillment: Fulfillment, kept: Option<&Envelope>) -> u16 {
    let status = kept.map_or(200, |envelope| envelope.status);
    let succeeded = fulfillment == Fulfillment::Complete && (200..300).contains(&status);
    if succeeded { status } else { 200 }
}

/// The latest envelope of these entries.
pub fn envelope<'l>(entries: &[&'l Ledger]) -> Option<&'l Envelope> {
    entries.iter().filter_map(|entry| entry.envelope.as_deref()).max_by_key(|it| it.at)
}

/// Reports an envelope that lists can be put into. Routes that share a ledger may have their rows
/// in different places.
fn has_lists(rules: &ItemRules, envelope: &str) -> bool {
    if !rules.response.all_issued.is_empty() {
        return true;
    }
    Document::parse(envelope.as_bytes()).is_ok_and(|document| {
        rules.response.at.iter().any(|path| document.find(path.outer()).is_some())
    })
}

/// The text of an answer: lists of rows, and the members of a template.
struct AnswerText<'r> {
    rules: &'r ItemRules,
    top: &'r [TemplateMember],
    rows: &'r [ListText],
    /// The only list is a single row, without brackets.
    is_alone: bool,
}

impl AnswerText<'_> {
    /// The text over the backend's answer, and whether it replaces an answer that is no JSON.
    fn over_answer(&self, body: &[u8], joined: &BatchOutcome) -> (String, bool) {
        if self.top.is_empty()
            && let AnswerFrame::Around(list) = &joined.frame
            && let Ok(text) = std::str::from_utf8(body)
            && let (Some(before), Some(after)) = (text.get(..list.start), text.get(list.end..))
            && let Some(rows) = self.rows.first()
        {
            // Nothing else changes, so that there is nothing to look for in the answer.
            return ([before, &self.list(rows, &[]), after].concat(), false);
        }
        match joined.frame.text(joined.kind, body, usize::MAX) {
            Some(frame) => self.over(Some(&frame)),
            None => self.over(Some(std::str::from_utf8(body).unwrap_or_default())),
        }
    }

    /// The text over an answer with empty lists, if there is one, and whether it replaces an answer
    /// that is no JSON.
    fn over(&self, answer: Option<&str>) -> (String, bool) {
        let response = &self.rules.response;
        let base = answer.unwrap_or_default();
        let document = Document::parse(base.as_bytes()).ok();
        let root = document.as_ref().map(Document::root);
        let is_object = root.is_some_and(|root| root.kind() == JsonType::Object);
        let mut edits: Vec<Edit<'_>> =
            self.top.iter().map(|(at, text)| Edit::new(at, text.as_str())).collect();
        // The rows come last, so that an answer from the records alone starts with its status.
        if let ([path], [rows]) = (response.at.as_slice(), self.rows)
            && path.outer().tokens().is_empty()
            && (root.is_none_or(|root| is_list(response.outer_kind(), root)) || !rows.is_empty)
        {
            let others = if path.is_grouped() { Vec::new() } else { elements_of(root) };
            return (edit(&self.list(rows, &others), &edits), false);
        }
        let shows_all = response.all_issued.is_empty();
        let is_kept = answer.is_some() && !is_object;
        if !shows_all && is_kept && edits.is_empty() && self.rows.iter().all(|it| it.is_empty) {
            return (base.to_owned(), false);
        }
        let object = document.as_ref().filter(|_| is_object);
        for (path, rows) in response.at.iter().zip(self.rows) {
            let place = object.and_then(|object| object.find(path.outer()));
            let is_missing = object.is_none() || response.at.len() == 1;
            if place.is_some() || !rows.is_empty || (shows_all && is_missing) {
                let others = if path.is_grouped() { Vec::new() } else { elements_of(place) };
                edits.push(Edit::new(path.outer(), self.list(rows, &others)));
            }
        }
        match object {
            Some(object) => (edit_document(base, object, &edits), false),
            None => (edit("{}", &edits), !base.is_empty() && document.is_none()),
        }
    }

    fn list(&self, rows: &ListText, others: &[&str]) -> String {
        if self.is_alone {
            rows.text().to_owned()
        } else {
            rows.list(self.rules.response.outer_kind(), others)
        }
    }
}

/// Reports a value that holds rows.
fn is_list(kind: ListKind, value: Value<'_, '_>) -> bool {
    match kind {
        ListKind::Array => value.kind() == JsonType::Array,
        ListKind::Single => matches!(value.kind(), JsonType::Array | JsonType::Object),
        ListKind::Map => value.kind() == JsonType::Object,
    }
}

/// The elements of an array: those of the backend's that are no rows.
fn elements_of<'a>(value: Option<Value<'_, 'a>>) -> Vec<&'a str> {
    value.map(|value| value.elements().map(|other| other.raw()).collect()).unwrap_or_default()
}

/// A refusal in the backend's own words: status, if configured, and body.
pub fn refusal(refusal: &Refusal) -> (Option<u16>, String) {
    let edits: Vec<Edit<'_>> =
        refusal.top.iter().map(|(at, text)| Edit::new(at, text.as_str())).collect();
    (refusal.http, edit("{}", &edits))
}

/// Fulfillment of a batch.
fn batch_fulfillment(entries: &[&Ledger]) -> Fulfillment {
    let all = |wanted: Fulfillment| entries.iter().all(|entry| entry.fulfillment() == wanted);
    if entries.iter().any(|entry| entry.fulfillment() == Fulfillment::Unknown) {
        Fulfillment::Unknown
    } else if all(Fulfillment::Complete) {
        Fulfillment::Complete
    } else if all(Fulfillment::None) {
        Fulfillment::None
    } else {
        Fulfillment::Partial
    }
}
