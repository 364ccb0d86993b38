//! The client's answer, read without the gateway's own code.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::super::*;
use super::backend::LISTS;
use super::list_at::Kind;
use super::shape::{Shape, Wanted};
use rules::Fulfillment;

/// Content that an answer must show of an item.
pub(super) struct Expected<'e> {
    pub(super) wanted: &'e Wanted,
    pub(super) entry: &'e Ledger,
    /// The outcome of this call, if the item was sent.
    pub(super) now: Option<&'e ItemOutcome>,
}

impl Expected<'_> {
    /// Units and elements of the lists that the row shows.
    fn shown(&self, shape: &Shape) -> (u64, &[OutcomeList]) {
        match (shape.delta, self.now) {
            (false, _) => (self.entry.fulfilled, &self.entry.outcomes),
            (true, Some(ItemOutcome::Issued { units, appended, .. })) => (*units, appended),
            (true, Some(ItemOutcome::Unknown { .. }) | None) => (0, &[]),
        }
    }
}

/// Reads the rows of an answer: for each item the array and the row, if there is one.
pub(super) fn rows(
    shape: &Shape,
    items: &[Expected<'_>],
    body: &Value,
) -> Vec<Option<(usize, Value)>> {
    let mut found: Vec<Option<(usize, Value)>> = vec![None; items.len()];
    let counted = shape.rows.len() == 1 && !shape.all_issued;
    // Those of which a job tells, in their order.
    let is_open = |at: &usize| items[*at].entry.fulfillment() != Fulfillment::Complete;
    let open: Vec<usize> = (0..items.len()).filter(is_open).collect();
    for (array, list) in shape.rows.iter().enumerate() {
        let is_alone = list.kind == Kind::Single && items.len() == 1;
        let rows = match list.read(body) {
            Some(rows) if list.kind != Kind::Single || is_alone => rows,
            Some(rows) => {
                rows[0].1.as_array().unwrap().iter().map(|it| (None, it.clone())).collect()
            }
            None => Vec::new(),
        };
        let is_row =
            |row: &Value| !shape.filtered || row.is_object() && row.get("warning").is_none();
        let rows = rows.into_iter().filter(|(_, row)| is_row(row));
        let mut last = None;
        for (at, (name, row)) in rows.enumerate() {
            let by_place = (counted && list.kind != Kind::Map).then_some(at);
            let by_place =
                if shape.is_job && shape.positions { open.get(at).copied() } else { by_place };
            let free = |item: usize| found[item].is_none() && last.is_none_or(|last| last < item);
            let item = place(shape, items, (name.as_deref(), &row), (by_place, &free));
            let item = item.unwrap_or_else(|| panic!("{row} is of no item in {body}"));
            let is_ordered = list.kind == Kind::Map || free(item);
            assert!(is_ordered, "{row} is the second, or in another order, in {body}");
            found[item] = Some((array, row));
            last = Some(item);
        }
    }
    found
}

/// The index of the item of a row. Of items that share the member by which rows find them, it is
/// the next one.
fn place(
    shape: &Shape,
    items: &[Expected<'_>],
    (name, row): (Option<&str>, &Value),
    (by_place, free): (Option<usize>, &dyn Fn(usize) -> bool),
) -> Option<usize> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let first = |is_it: &dyn Fn(usize) -> bool| (0..items.len()).find(|at| is_it(*at));
    let known = |at: Option<usize>| at.unwrap_or(usize::MAX);
    let id = |at: usize| shape.id(items[at].wanted.number, at);
    let named = name.map(str::to_owned).or_else(|| row.get("ref").map(text));
    let by_id = named.map(|named| known(first(&|at| id(at) == named)));
    let by_index = row.get("at").map(|at| usize::try_from(at.as_u64().unwrap()).unwrap());
    let by_n = row.get("n").map(text);
    let by_n = by_n.map(|n| known(first(&|at| items[at].wanted.n == n)));
    let sure: HashSet<usize> = [by_id, by_index, by_n, by_place].into_iter().flatten().collect();
    assert!(sure.len() <= 1, "{row} is of several items: {sure:?}");
    let sku = |at: usize| json!(shape.sku(items[at].wanted.number, items[at].wanted.mark));
    let is_named = |at: usize| row.get("sku").is_none_or(|it| *it == sku(at));
    match sure.into_iter().next() {
        Some(item) => (item < items.len() && is_named(item)).then_some(item),
        None => row.get("sku").and_then(|_| first(&|at| is_named(at) && free(at))),
    }
}

/// Checks an answer: no unknown item as a success, nothing issued that is not shown, no failure of
/// what was issued.
pub(super) fn check(shape: &Shape, items: &[Expected<'_>], body: &Value) {
    let found = rows(shape, items, body);
    for (expected, row) in items.iter().zip(found) {
        let entry = expected.entry;
        let fulfillment = entry.fulfillment();
        let Some((array, row)) = row else {
            let is_told = shape.all_issued && fulfillment == Fulfillment::Complete;
            assert!(is_told, "{:?} is missing in {body}", expected.wanted);
            continue;
        };
        let (units, lists) = expected.shown(shape);
        let code = &row["code"];
        if shape.rows.len() > 1 {
            match fulfillment {
                Fulfillment::Unknown => assert_eq!(array, 1, "{row} among the successes"),
                Fulfillment::Complete => assert_eq!(array, 0, "{row} among the failures"),
                Fulfillment::Partial | Fulfillment::None => {}
            }
        }
        let failures = ["busy", "maybe", "odd"];
        if fulfillment == Fulfillment::Complete {
            assert!(!failures.iter().any(|it| code == it), "{row} shows a failure: {entry:?}");
        }
        if shape.templates {
            let state = match fulfillment {
                Fulfillment::Complete => "complete",
                Fulfillment::Partial => "partial",
                Fulfillment::None => "none",
                Fulfillment::Unknown => "unknown",
            };
            assert_eq!(row["state"], state, "{row}");
        }
        if shape.counts() && shape.says != super::shape::Says::Arrays {
            assert_eq!(number(&row["issued"]), Some(units), "{row} for {entry:?}");
        }
        if shape.requested && !shape.is_job {
            assert_eq!(number(&row["asked"]), Some(expected.wanted.units), "{row}");
        }
        for at in LISTS.into_iter().chain(["/notes"]).filter(|_| shape.lists()) {
            let elements = crate::idempotency::ledger::elements(lists, at);
            let shown = row.pointer(at).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let elements: Vec<Value> =
                elements.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            assert_eq!(shown, elements, "{at} of {row}");
        }
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.parse().ok(),
        _ => value.as_u64(),
    }
}
