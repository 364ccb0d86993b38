//! The client's answer: the rows of all requested items, in the order of the request.
//!
//! The backend's last row is the base of each item; members other than quantities, `append`
//! arrays and the template's members stay as the backend wrote them.

use std::ops::Range;

use super::batch::{Batch, Item};
use super::edit::{Edit, edit, edit_at_once, edit_document, edit_value, quoted};
use super::join::{BackendResponse, BatchOutcome, ResponseShape};
use super::rules::{
    Fulfillment, ItemRules, MatchBy, QuantityView, Refusal, TemplateMember, scalar,
};
use crate::idempotency::ledger::{Envelope, ItemOutcome, Ledger, elements};
use crate::json::{Document, JsonType, Pointer, Value};

/// The status of an answer with unknown items, unless the template has one.
const UNKNOWN_STATUS: u16 = 409;

/// Approximate bytes of the gateway's own members in a row.
const ROOM: usize = 64;

/// The client's answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchAnswer {
    /// The status.
    pub status: u16,
    /// The body: JSON, or the backend's bytes.
    pub body: Vec<u8>,
    /// Fulfillment of the batch.
    pub fulfillment: Fulfillment,
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
        return BatchAnswer { status: response.status, body: response.body.to_vec(), fulfillment };
    }
    let rows = rows(rules, batch, entries, backend.map(|(_, joined)| joined));
    let base = match backend {
        Some(_) => usable.and_then(|(response, joined)| {
            Some((std::str::from_utf8(response.body).ok()?, joined.rows.clone()))
        }),
        None => envelope(entries)
            .filter(|envelope| has_rows(rules, &envelope.body))
            .map(|envelope| (envelope.body.as_str(), None)),
    };
    let body = whole(rules, &template.top, rows, base);
    let default = match fulfillment {
        Fulfillment::Unknown => UNKNOWN_STATUS,
        Fulfillment::Complete | Fulfillment::Partial | Fulfillment::None => {
            backend.map_or(200, |(response, _)| response.status)
        }
    };
    BatchAnswer { status: template.http.unwrap_or(default), body: body.into_bytes(), fulfillment }
}

/// The latest envelope of these entries.
pub fn envelope<'l>(entries: &[&'l Ledger]) -> Option<&'l Envelope> {
    entries.iter().filter_map(|entry| entry.envelope.as_deref()).max_by_key(|it| it.at)
}

/// Reports an envelope with the place of the rows. Routes that share a ledger may have their rows
/// in different places.
fn has_rows(rules: &ItemRules, envelope: &str) -> bool {
    let document = Document::parse(envelope.as_bytes());
    document.is_ok_and(|document| document.find(&rules.response.at).is_some())
}

/// The whole answer with these rows. `base`: the backend's body and the place of its rows.
fn whole(
    rules: &ItemRules,
    top: &[TemplateMember],
    rows: String,
    base: Option<(&str, Option<Range<usize>>)>,
) -> String {
    // The rows come last, so that an answer from the ledger alone starts with its status.
    let mut edits: Vec<Edit<'_>> =
        top.iter().map(|(at, text)| Edit::new(at, text.as_str())).collect();
    if rules.response.at.tokens().is_empty() {
        return edit(&rows, &edits);
    }
    if edits.is_empty()
        && let Some((base, Some(place))) = &base
        && let (Some(before), Some(after)) = (base.get(..place.start), base.get(place.end..))
    {
        // Nothing else changes, so that there is nothing to look for in it.
        return [before, &rows, after].concat();
    }
    edits.push(Edit::new(&rules.response.at, rows));
    let edited = base.and_then(|(base, _)| edit_object(base, &edits));
    edited.unwrap_or_else(|| edit("{}", &edits))
}

/// Applies the changes to a text that is an object.
fn edit_object(text: &str, edits: &[Edit<'_>]) -> Option<String> {
    let document = Document::parse(text.as_bytes()).ok()?;
    (document.root().kind() == JsonType::Object).then(|| edit_document(text, &document, edits))
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

/// The rows of all items: an array, or a single row for a lone item where the rules say so.
fn rows(
    rules: &ItemRules,
    batch: &Batch,
    entries: &[&Ledger],
    joined: Option<&BatchOutcome>,
) -> String {
    let alone = rules.response.single && batch.items.len() == 1;
    let known = entries.iter().map(|entry| entry.bytes() + ROOM).sum::<usize>();
    let mut out = String::with_capacity(known);
    if !alone {
        out.push('[');
    }
    for (at, (item, entry)) in batch.items.iter().zip(entries).enumerate() {
        if at > 0 {
            out.push(',');
        }
        let now = joined.and_then(|joined| joined.outcomes.get(at)?.as_ref());
        row(&mut out, rules, item, entry, now);
    }
    if !alone {
        out.push(']');
    }
    out
}

fn row(
    out: &mut String,
    rules: &ItemRules,
    item: &Item,
    entry: &Ledger,
    now: Option<&ItemOutcome>,
) {
    let response = &rules.response;
    let made;
    let base = match &entry.row {
        Some(row) => row.as_str(),
        None => {
            made = bare_row(rules, item);
            &made
        }
    };
    let document = Document::parse(base.as_bytes()).ok();
    let find = |pointer: &Pointer| document.as_ref().and_then(|document| document.find(pointer));
    let (units, lists) = match (rules.view, now) {
        (QuantityView::Cumulative, _) => (entry.fulfilled, entry.outcomes.as_slice()),
        (QuantityView::Delta, Some(ItemOutcome::Issued { units, appended, .. })) => {
            (*units, appended.as_slice())
        }
        (QuantityView::Delta, Some(ItemOutcome::Unknown { .. }) | None) => (0, &[][..]),
    };
    let mut edits = Vec::new();
    let numbers = [(&response.requested, entry.requested), (&response.issued.count, units)];
    for (pointer, number) in numbers {
        let Some(pointer) = pointer else { continue };
        let written = find(pointer);
        if written.is_some_and(|value| says(value, number)) {
            continue;
        }
        edits.push(match written.map(|value| value.kind()) {
            Some(JsonType::String) => Edit::new(pointer, quoted(&number.to_string())),
            Some(
                JsonType::Null
                | JsonType::Bool
                | JsonType::Number
                | JsonType::Array
                | JsonType::Object,
            )
            | None => Edit::new(pointer, number.to_string()),
        });
    }
    if let Some(document) = &document
        && let Some((pointer, text)) = renamed(rules, item, document)
    {
        edits.push(Edit::new(pointer, text));
    }
    let template = rules.render.template(entry.fulfillment());
    for (at, text) in &template.item {
        let written = find(at).is_some_and(|written| written.raw() == text.as_str());
        if !written || edits.iter().any(|edit: &Edit<'_>| edit.concerns(at)) {
            edits.push(Edit::new(at, text.as_str()));
        }
    }
    let mut gathered = Vec::new();
    for pointer in response.append.iter().filter(|_| !lists.is_empty()) {
        let list = elements(lists, &pointer.to_string());
        // An array that stays empty stays as the backend wrote it: `[]`, `null` or absent.
        if !list.is_empty() {
            gathered.push(Edit::new(pointer, format!("[{}]", list.join(","))));
        }
    }
    let Some(document) = &document else { return out.push_str(base) };
    if edit_at_once(out, document.root(), [&edits, &gathered]) {
        return;
    }
    // The lists come last, in one pass: however long they grow, they are never parsed again.
    // Absent lists therefore get their places with the other edits.
    let absent = gathered.iter().filter(|list| find(list.at).is_none());
    edits.extend(absent.map(|list| Edit::new(list.at, "[]")));
    let text = edit_value(document.root(), &edits);
    out.push_str(&if gathered.is_empty() { text } else { edit(&text, &gathered) });
}

/// The member by which the row was found, with the value of this request's item, where the row has
/// another value: the row is of an earlier request. A row with an id is found by the id.
fn renamed<'r>(
    rules: &'r ItemRules,
    item: &Item,
    row: &Document<'_>,
) -> Option<(&'r Pointer, String)> {
    let has_id = |by: &MatchBy| match by {
        MatchBy::Id(pointer) => row.find(pointer).is_some_and(|id| id.kind() != JsonType::Null),
        MatchBy::Member(_) | MatchBy::Position => false,
    };
    if rules.response.by.iter().any(has_id) {
        return None;
    }
    let pointers = rules.response.by.iter().filter_map(|by| match by {
        MatchBy::Member(pointer) => Some(pointer),
        MatchBy::Id(_) | MatchBy::Position => None,
    });
    let (pointer, written, of_row, (value, raw)) =
        pointers.zip(&item.members).find_map(|(pointer, of_item)| {
            let written = row.find(pointer)?;
            Some((pointer, written, scalar(written)?, of_item.as_ref()?))
        })?;
    if of_row == *value {
        return None;
    }
    let text = if written.kind() == JsonType::String { quoted(value) } else { raw.clone() };
    Some((pointer, text))
}

/// Reports whether a value is this number in plain digits, as a number or in a string.
fn says(value: Value<'_, '_>, number: u64) -> bool {
    let raw = value.raw();
    let digits = match value.kind() {
        JsonType::Number => raw,
        JsonType::String => &raw[1..raw.len() - 1],
        JsonType::Null | JsonType::Bool | JsonType::Array | JsonType::Object => return false,
    };
    let plain = digits == "0" || (!digits.starts_with('0') && !digits.starts_with('+'));
    plain && digits.parse() == Ok(number)
}

/// The row of an item without a backend row: the members by which the client identified the item.
fn bare_row(rules: &ItemRules, item: &Item) -> String {
    let mut edits = Vec::new();
    let mut members = item.members.iter();
    for by in &rules.response.by {
        match by {
            MatchBy::Id(pointer) => edits.push(match &item.raw_id {
                Some(raw) => Edit::new(pointer, raw.as_str()),
                None => Edit::new(pointer, quoted(&item.id)),
            }),
            MatchBy::Member(pointer) => {
                if let Some(Some((_, raw))) = members.next() {
                    edits.push(Edit::new(pointer, raw.as_str()));
                }
            }
            MatchBy::Position => {}
        }
    }
    edit("{}", &edits)
}
