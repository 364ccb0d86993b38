//! The assignment of an answer's rows to items.

use std::collections::{HashMap, HashSet};

use super::batch::Item;
use super::rules::{ItemRules, MatchBy, scalar};
use crate::json::{JsonType, Value};

/// The row of a sent item.
#[derive(Debug, Clone, Copy)]
pub(super) enum ItemRow<'d, 'a> {
    Row(Value<'d, 'a>),
    Missing,
    Twice,
}

/// The row of each sent item, and the number of rows without an item.
pub(super) fn assign<'d, 'a>(
    rules: &ItemRules,
    sent: &[&Item],
    rows: &[Value<'d, 'a>],
) -> (Vec<ItemRow<'d, 'a>>, usize) {
    let mut found = vec![ItemRow::Missing; sent.len()];
    let mut free: Vec<usize> = (0..rows.len()).collect();
    let mut surplus = 0;
    let by = &rules.response.by;
    if let Some(pointer) = by.iter().find_map(|by| match by {
        MatchBy::Id(pointer) => Some(pointer),
        MatchBy::Member(_) | MatchBy::Position => None,
    }) {
        let ids: HashMap<&str, usize> =
            sent.iter().enumerate().map(|(at, item)| (&*item.id, at)).collect();
        // A row that names an id is that item's or nobody's, whatever else it says.
        free.retain(|&row| {
            let id = rows[row].find(pointer).filter(|id| id.kind() != JsonType::Null);
            let Some(id) = id else { return true };
            match id.as_id().and_then(|id| ids.get(&*id).copied()) {
                Some(item) => {
                    found[item] = match found[item] {
                        ItemRow::Missing => ItemRow::Row(rows[row]),
                        ItemRow::Row(_) | ItemRow::Twice => ItemRow::Twice,
                    };
                }
                None => surplus += 1,
            }
            false
        });
    }
    // With a row of nobody about, or an item with two, what only looks alike proves nothing.
    let certain = surplus == 0 && !found.iter().any(|found| matches!(found, ItemRow::Twice));
    let mut member = 0;
    for by in by.iter().filter(|_| certain) {
        match by {
            MatchBy::Id(_) => {}
            MatchBy::Member(pointer) => {
                by_member(&mut found, &mut free, sent, rows, (pointer, member));
                member += 1;
            }
            MatchBy::Position => by_position(&mut found, &mut free, rules, sent, rows),
        }
    }
    (found, surplus + free.len())
}

fn by_member<'d, 'a>(
    found: &mut [ItemRow<'d, 'a>],
    free: &mut Vec<usize>,
    sent: &[&Item],
    rows: &[Value<'d, 'a>],
    (pointer, member): (&crate::json::Pointer, usize),
) {
    let of_row = |row: usize| rows[row].find(pointer).and_then(scalar);
    let mut times: HashMap<String, usize> = HashMap::new();
    for row in free.iter() {
        if let Some(value) = of_row(*row) {
            *times.entry(value.into_owned()).or_default() += 1;
        }
    }
    let mut items: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, item) in sent.iter().enumerate() {
        if let Some((value, _)) = item.members.get(member).and_then(Option::as_ref)
            && matches!(found[at], ItemRow::Missing)
        {
            items.entry(value).or_default().push(at);
        }
    }
    free.retain(|&row| {
        let Some(value) = of_row(row) else { return true };
        match items.get(&*value).map(Vec::as_slice) {
            Some([item]) if times.get(&*value) == Some(&1) => {
                found[*item] = ItemRow::Row(rows[row]);
                false
            }
            Some(_) | None => true,
        }
    });
}

/// Assigns rows by position when there is a row for each item and all assigned rows stand at
/// their item's position. A row that contradicts a member of the item at its position is assigned
/// to no item.
fn by_position<'d, 'a>(
    found: &mut [ItemRow<'d, 'a>],
    free: &mut Vec<usize>,
    rules: &ItemRules,
    sent: &[&Item],
    rows: &[Value<'d, 'a>],
) {
    if rows.len() != sent.len() {
        return;
    }
    // An assigned row at another position shows that the backend uses another order.
    let moved = |(found, row): (&ItemRow<'_, '_>, &Value<'_, '_>)| match found {
        ItemRow::Row(assigned) => assigned.place() != row.place(),
        ItemRow::Missing | ItemRow::Twice => false,
    };
    if found.iter().zip(rows).any(moved) {
        return;
    }
    let members = || {
        rules.response.by.iter().filter_map(|by| match by {
            MatchBy::Member(pointer) => Some(pointer),
            MatchBy::Id(_) | MatchBy::Position => None,
        })
    };
    let contradicts = |row: usize, only: Option<&HashSet<&str>>| {
        members().zip(&sent[row].members).any(|(pointer, of_item)| {
            let of_row = rows[row].find(pointer).and_then(scalar);
            matches!((of_row, of_item), (Some(row), Some((item, _)))
                if row != *item && only.is_none_or(|values| values.contains(&*row)))
        })
    };
    // One that names what another item has shows the same; what no item has, the backend has put
    // in its place.
    let values: HashSet<&str> = sent
        .iter()
        .flat_map(|item| item.members.iter().flatten())
        .map(|(value, _)| value.as_str())
        .collect();
    if free.iter().any(|&row| contradicts(row, Some(&values))) {
        return;
    }
    free.retain(|&row| {
        if contradicts(row, None) || !matches!(found[row], ItemRow::Missing) {
            return true;
        }
        found[row] = ItemRow::Row(rows[row]);
        false
    });
}
