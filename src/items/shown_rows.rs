//! The rows of the client's answer, in the lists in which they stand.

use super::batch::Batch;
use super::edit::{Edit, edit, quoted};
use super::item_row::{self, RowItem};
use super::join::BatchOutcome;
use super::rules::{ArrayMeaning, Fulfillment, ItemRules, ListKind, ResponseRules};
use crate::idempotency::ledger::{ItemOutcome, KeptRow, Ledger};

/// Approximate bytes of the gateway's own members in a row.
const ROOM: usize = 64;

/// The elements or members of a list, as they stand between the brackets.
#[derive(Debug, Default)]
pub(super) struct ListText {
    text: String,
    /// The list has no element.
    pub(super) is_empty: bool,
}

impl ListText {
    fn with_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), is_empty: true }
    }

    /// Starts the next element.
    fn next(&mut self) -> &mut String {
        if !self.is_empty {
            self.text.push(',');
        }
        self.is_empty = false;
        &mut self.text
    }

    /// The elements or members.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The text of the list, followed by `others`.
    pub(super) fn list(&self, kind: ListKind, others: &[&str]) -> String {
        let (text, others) = (&self.text, others.join(","));
        let both = !self.is_empty && !others.is_empty();
        let (open, close) = match kind {
            ListKind::Array | ListKind::Single => ("[", "]"),
            ListKind::Map => ("{", "}"),
        };
        [open, text, if both { "," } else { "" }, &others, close].concat()
    }
}

/// The rows of all items, for each path of the answer; the text between the brackets.
pub(super) fn lists(
    rules: &ItemRules,
    batch: &Batch,
    entries: &[&Ledger],
    joined: Option<&BatchOutcome>,
) -> Vec<ListText> {
    let response = &rules.response;
    let known = entries.iter().map(|entry| entry.bytes() + ROOM).sum::<usize>();
    let mut lists: Vec<ListText> = Vec::with_capacity(response.at.len());
    lists.resize_with(response.at.len(), || {
        ListText::with_capacity(if response.at.len() == 1 { known } else { 0 })
    });
    let items = |positions: std::ops::Range<usize>| {
        positions.filter_map(|at| {
            let now = joined.and_then(|joined| joined.outcomes.get(at)?.as_ref());
            let (item, entry) = (batch.items.get(at)?, *entries.get(at)?);
            let (array, base) = place(response, entry)?;
            Some((array, RowItem { at, item, entry, now, base }))
        })
    };
    let grouped = response.at.first().and_then(|path| path.inner());
    let Some(inner) = grouped.filter(|_| !batch.groups.is_empty()) else {
        for (array, row) in items(0..batch.items.len()) {
            if let Some(list) = lists.get_mut(array) {
                element(list, rules, row);
            }
        }
        return lists;
    };
    for group in &batch.groups {
        let mut list = ListText::with_capacity(0);
        let mut around = None;
        for (_, row) in items(group.items.clone()) {
            element(&mut list, rules, row);
            around = around.or(group_now(row.now)).or(group_of(row.base));
        }
        if let Some(outer) = lists.first_mut().filter(|_| !list.is_empty) {
            let text = list.list(response.kind, &[]);
            outer.next().push_str(&edit(around.unwrap_or("{}"), &[Edit::new(inner, text)]));
        }
    }
    lists
}

fn element(list: &mut ListText, rules: &ItemRules, row: RowItem<'_>) {
    let out = list.next();
    if rules.response.kind == ListKind::Map {
        out.push_str(&quoted(&row.item.id));
        out.push(':');
    }
    item_row::write(out, rules, row);
}

/// The group around a row of this call.
fn group_now(now: Option<&ItemOutcome>) -> Option<&str> {
    match now? {
        ItemOutcome::Issued { row, .. } => group_of(row.as_ref()),
        ItemOutcome::Unknown { .. } => None,
    }
}

fn group_of(row: Option<&KeptRow>) -> Option<&str> {
    row?.group.as_deref()
}

/// The index of the list in which an item stands, and the row it is based on; `None`: the answer
/// does not show the item.
///
/// A row goes back into its list, unless the list's meaning is no longer the item's: an unknown
/// item is never shown as a success, and an issued one never as a failure.
fn place<'l>(response: &ResponseRules, entry: &'l Ledger) -> Option<(usize, Option<&'l KeptRow>)> {
    use ArrayMeaning::{Any, Failure, Success};
    let fulfillment = entry.fulfillment();
    let fits = |array: usize| {
        !matches!(
            (fulfillment, response.meaning(array)),
            (Fulfillment::Unknown, Success) | (Fulfillment::Complete, Failure)
        )
    };
    let row = entry.row.as_ref();
    let kept = row.and_then(|row| response.index_of(row)).filter(|array| fits(*array));
    if let Some(array) = kept {
        return Some((array, row));
    }
    let array = match fulfillment {
        // The backend writes no row for such an item either.
        Fulfillment::Complete if !response.all_issued.is_empty() => None,
        Fulfillment::Complete => response.array_of(&[Success, Any]),
        Fulfillment::Partial => response.array_of(&[Any, Failure, Success]),
        Fulfillment::None | Fulfillment::Unknown => response.array_of(&[Failure, Any]),
    };
    array.map(|array| (array, None))
}

impl ResponseRules {
    /// The index of the list in which a row stood; `None`: the rules have another list there.
    fn index_of(&self, row: &KeptRow) -> Option<usize> {
        match &row.array {
            Some(array) => self.at.iter().position(|path| path.to_string() == *array),
            None if self.at.len() == 1 => Some(0),
            None => None,
        }
    }
}
