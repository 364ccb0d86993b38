//! The row of an item in the client's answer.
//!
//! The backend's last row is the base; members other than quantities, `append` arrays, correlation
//! ids and the template's members stay as the backend wrote them.

use super::batch::{Item, MemberText};
use super::edit::{Edit, edit, edit_at_once, edit_value, quoted};
use super::rules::{ItemId, ItemRules, ListKind, MatchBy, QuantityView, scalar};
use crate::idempotency::ledger::{ItemOutcome, KeptRow, Ledger, elements};
use crate::json::{Document, JsonType, Pointer, Value};

/// An item whose row is written.
#[derive(Clone, Copy)]
pub(super) struct RowItem<'i> {
    /// ListPosition in the batch.
    pub(super) at: usize,
    pub(super) item: &'i Item,
    pub(super) entry: &'i Ledger,
    /// The outcome of this call.
    pub(super) now: Option<&'i ItemOutcome>,
    /// The row that the new row is based on.
    pub(super) base: Option<&'i KeptRow>,
}

/// Appends the row of an item.
pub(super) fn write(out: &mut String, rules: &ItemRules, row: RowItem<'_>) {
    let response = &rules.response;
    let RowItem { item, entry, now, .. } = row;
    let made;
    let base = match row.base {
        Some(base) => base.text.as_str(),
        None => {
            made = bare(rules, row);
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
        if !written.is_some_and(|value| says(value, number)) {
            edits.push(number_edit(pointer, written, number));
        }
    }
    if let Some(document) = document.as_ref().filter(|_| row.base.is_some()) {
        edits.extend(renamed(rules, item, document));
        edits.extend(correlated(rules, row, document));
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

/// The edit that writes a number, in quotes where the backend wrote a string.
fn number_edit<'e>(pointer: &'e Pointer, written: Option<Value<'_, '_>>, number: u64) -> Edit<'e> {
    match written.map(|value| value.kind()) {
        Some(JsonType::String) => Edit::new(pointer, quoted(&number.to_string())),
        Some(
            JsonType::Null | JsonType::Bool | JsonType::Number | JsonType::Array | JsonType::Object,
        )
        | None => Edit::new(pointer, number.to_string()),
    }
}

/// The member by which the row was found, with the value of this request's item, where the row has
/// another value: the row is of an earlier request. A row with an id is found by the id.
fn renamed<'r>(rules: &'r ItemRules, item: &Item, row: &Document<'_>) -> Option<Edit<'r>> {
    let response = &rules.response;
    let is_named =
        |pointer: &Pointer| row.find(pointer).is_some_and(|member| member.kind() != JsonType::Null);
    let mut names = response.row_id().into_iter().chain(response.row_index());
    if response.kind == ListKind::Map || names.any(is_named) {
        return None;
    }
    response.members().zip(&item.members).find_map(|(pointer, of_item)| {
        let written = row.find(pointer)?;
        scalar(written)?;
        Some(replaced(pointer, written, of_item.as_ref()?))
    })?
}

/// The edits that put this request's index and correlation ids into a row.
fn correlated<'r>(
    rules: &'r ItemRules,
    row: RowItem<'_>,
    document: &Document<'_>,
) -> Vec<Edit<'r>> {
    let response = &rules.response;
    let index = response.row_index().and_then(|pointer| {
        let written = document.find(pointer).filter(|it| it.kind() != JsonType::Null)?;
        let at = row.at as u64;
        (!says(written, at)).then(|| number_edit(pointer, Some(written), at))
    });
    let echoes = response.echo.iter().zip(&row.item.echoes);
    let echoes = echoes.filter_map(|(pointer, of_item)| {
        let written = document.find(pointer)?;
        replaced(pointer, written, of_item.as_ref()?)
    });
    index.into_iter().chain(echoes).collect()
}

/// The edit that puts an item's value in the place of a row's, if they differ.
fn replaced<'r>(
    pointer: &'r Pointer,
    written: Value<'_, '_>,
    (value, raw): &MemberText,
) -> Option<Edit<'r>> {
    if scalar(written).is_some_and(|of_row| of_row == *value) {
        return None;
    }
    let is_text = written.kind() == JsonType::String;
    Some(Edit::new(pointer, if is_text { quoted(value) } else { raw.clone() }))
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
fn bare(rules: &ItemRules, row: RowItem<'_>) -> String {
    let response = &rules.response;
    let item = row.item;
    let mut edits = Vec::new();
    let id = |pointer| match &item.raw_id {
        Some(raw) => Edit::new(pointer, raw.as_str()),
        None => Edit::new(pointer, quoted(&item.id)),
    };
    if response.by.is_empty()
        && response.kind != ListKind::Map
        && let ItemId::Member(pointer) = &rules.id
    {
        // No row of the backend is ever read: the row has the item's own id.
        edits.push(id(pointer));
    }
    let mut members = item.members.iter();
    for by in &response.by {
        match by {
            MatchBy::Id(pointer) => edits.push(id(pointer)),
            MatchBy::Member(pointer) => {
                if let Some(Some((_, raw))) = members.next() {
                    edits.push(Edit::new(pointer, raw.as_str()));
                }
            }
            MatchBy::Index(pointer) => edits.push(Edit::new(pointer, row.at.to_string())),
            MatchBy::ListPosition => {}
        }
    }
    for (pointer, echo) in response.echo.iter().zip(&item.echoes) {
        if let Some((_, raw)) = echo {
            edits.push(Edit::new(pointer, raw.as_str()));
        }
    }
    edit("{}", &edits)
}
